// The one stream of a page: WatchFarm with a watchdog. It says when the stream breaks, comes back by
// itself with full jitter, and starts over at any gap in the sequence.
import { Code } from "@connectrpc/connect";
import { type ReadonlySignal, signal } from "@preact/signals";
import type { WatchFarmResponse } from "../gen/pasamanos/v1/status_service_pb";
import { refusalOf } from "./refusal";
import { fullJitter, type Timers } from "./timers";

/** What a person may believe about the stream. */
export type StreamState =
  /** The first snapshot of this page has not come yet. */
  | { readonly kind: "connecting" }
  | { readonly kind: "live" }
  /** Nothing came since `sinceMs` (monotonic): what is on the screen is old. */
  | { readonly kind: "broken"; readonly sinceMs: number; readonly cause: BreakCause };

export type BreakCause = "silence" | "ended" | "refused" | "not-found" | "asleep";

export type Open = (signal: AbortSignal) => AsyncIterable<WatchFarmResponse>;

/** Takes a message; false means that it does not follow the one before. */
export type Take = (message: WatchFarmResponse, receivedAt: number) => boolean;

/** Keepalives come every 5 s; with nothing for this long the stream is broken. Under 10 s by promise. */
export const SILENCE_MS = 9_000;
/** A stream that ends and is back within this is not worth a word. */
export const GRACE_MS = 1_500;
const BACKOFF_BASE_MS = 500;
const BACKOFF_CAP_MS = 10_000;
const NOT_FOUND_RETRY_MS = 15_000;

export class FarmWatch {
  readonly state: ReadonlySignal<StreamState>;
  private readonly current = signal<StreamState>({ kind: "connecting" });
  private readonly life = new AbortController();
  private session: AbortController | undefined;
  private waiting: AbortController | undefined;
  private lastMessage: number;

  constructor(
    private readonly open: Open,
    private readonly take: Take,
    private readonly timers: Timers,
  ) {
    this.state = this.current;
    this.lastMessage = timers.now();
  }

  /** Watches until stopped. */
  async run(): Promise<void> {
    this.lastMessage = this.timers.now();
    for (let failures = 0; !this.life.signal.aborted; ) {
      const { cause, messages } = await this.once();
      if (this.life.signal.aborted) return;
      failures = messages > 0 ? 0 : failures + 1;
      // Nobody waits for a first retry after a stream that worked: a server restarts, a phone wakes.
      const pause =
        cause === "not-found"
          ? NOT_FOUND_RETRY_MS
          : messages > 0
            ? fullJitter(0, this.timers, BACKOFF_BASE_MS, BACKOFF_CAP_MS)
            : fullJitter(failures, this.timers, BACKOFF_BASE_MS, BACKOFF_CAP_MS);
      void this.declareBroken(cause, messages > 0);
      this.waiting = new AbortController();
      await this.timers.sleep(pause, this.waiting.signal);
      this.waiting = undefined;
    }
  }

  /** The network or the screen is back: try now. `suspect` also gives up the present stream. */
  kick(suspect: boolean): void {
    if (suspect && this.session) {
      this.setBroken("asleep");
      this.session.abort();
    }
    this.waiting?.abort();
  }

  stop(): void {
    this.life.abort();
    this.session?.abort();
    this.waiting?.abort();
  }

  private async once(): Promise<{ cause: BreakCause; messages: number }> {
    const session = new AbortController();
    this.session = session;
    let messages = 0;
    let cause: BreakCause = "ended";
    let last = this.timers.now();
    const watchdog = async () => {
      while (!session.signal.aborted) {
        const left = last + SILENCE_MS - this.timers.now();
        if (left <= 0) {
          cause = "silence";
          this.setBroken("silence");
          session.abort();
          return;
        }
        await this.timers.sleep(left, session.signal);
      }
    };
    void watchdog();
    try {
      for await (const message of this.open(session.signal)) {
        if (session.signal.aborted) break;
        last = this.timers.now();
        if (!this.take(message, last)) break;
        this.lastMessage = last;
        messages++;
        if (this.current.peek().kind !== "live") this.current.value = { kind: "live" };
      }
    } catch (error) {
      if (!session.signal.aborted) cause = refusalOf(error).code === Code.NotFound ? "not-found" : "refused";
    } finally {
      session.abort();
      this.session = undefined;
    }
    return { cause, messages };
  }

  private async declareBroken(cause: BreakCause, grace: boolean): Promise<void> {
    const ended = this.lastMessage;
    if (grace) await this.timers.sleep(GRACE_MS, this.life.signal);
    // A message since then: it is back.
    if (this.lastMessage === ended) this.setBroken(cause);
  }

  private setBroken(cause: BreakCause): void {
    const before = this.current.peek();
    if (this.life.signal.aborted || (before.kind === "broken" && before.cause === cause)) return;
    this.current.value = { kind: "broken", sinceMs: this.lastMessage, cause };
  }
}
