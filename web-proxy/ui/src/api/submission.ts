// One order from the press of a button to its outcome: send, retry with the same id, and when the
// answer is lost, ask GetCommand until it is known. Never sends an order whose fate is unknown.
import { Code } from "@connectrpc/connect";
import { type ReadonlySignal, signal } from "@preact/signals";
import { type Command, CommandState, type Feeder } from "../gen/pasamanos/v1/resources_pb";
import type { OrderKind, PendingOrder } from "./pending";
import { type Refusal, refusalOf, verdictOf } from "./refusal";
import { commandName } from "./request-id";
import type { Timers } from "./timers";

/** Where an order is, as far as this page knows. */
export type Step =
  /** On the wire; `attempt` counts from 1. */
  | { readonly phase: "sending"; readonly attempt: number }
  /** Refused for a passing reason; will be sent again by itself, with the same id. */
  | { readonly phase: "retrying"; readonly attempt: number; readonly refusal: Refusal }
  /** Nobody told this page whether it was accepted; it keeps asking. */
  | { readonly phase: "unknown"; readonly refusal: Refusal | undefined }
  /** Accepted, not settled; the command is absent if only its acceptance is known. */
  | { readonly phase: "accepted"; readonly command: Command | undefined }
  /** Terminal. UNCERTAIN may still change, once. */
  | { readonly phase: "settled"; readonly command: Command }
  /** Refused; nothing was left behind. */
  | { readonly phase: "refused"; readonly refusal: Refusal }
  /** It never reached the server. */
  | { readonly phase: "lost" };

/** How to send an order and how to ask for it. */
export interface Calls {
  send(signal: AbortSignal): Promise<{ command?: Command; feeder?: Feeder }>;
  get(name: string, signal: AbortSignal): Promise<Command | undefined>;
}

const SEND_TIMEOUT_MS = 20_000;
const GET_TIMEOUT_MS = 6_000;
const MOST_ATTEMPTS = 6;
/** A dose that could not be ordered for this long is not wanted any more without asking. */
const RETRY_FOR_MS: Record<OrderKind, number> = {
  feed_now: 10_000,
  update_config: 20_000,
  hold: 30_000,
  resume: 20_000,
  reset_fault: 20_000,
};
/** NOT_FOUND counts only this long after the last sending: the request may still be under way. */
export const LOST_AFTER_MS = 10_000;

const TERMINAL: readonly CommandState[] = [
  CommandState.APPLIED,
  CommandState.PARTIAL,
  CommandState.REJECTED,
  CommandState.EXPIRED,
  CommandState.UNCERTAIN,
];
export const isTerminal = (state: CommandState): boolean => TERMINAL.includes(state);

export class Submission {
  readonly name: string;
  readonly step: ReadonlySignal<Step>;
  private readonly current = signal<Step>({ phase: "sending", attempt: 1 });
  private readonly life = new AbortController();
  private lastSent = 0;
  private knock: AbortController | undefined;

  constructor(
    readonly order: PendingOrder,
    private readonly calls: Calls | Pick<Calls, "get">,
    private readonly timers: Timers,
    /** Told when nothing is left to ask; again when an outcome in doubt is settled. */
    private readonly onKnown: (step: Step) => void = () => {},
  ) {
    this.name = commandName(order.farm, order.id);
    this.step = this.current;
  }

  /** Whether the outcome is still open. */
  get open(): boolean {
    const { phase } = this.current.peek();
    return phase !== "settled" && phase !== "refused" && phase !== "lost";
  }

  /** Whether it can be sent again under its own id. */
  get repeatable(): boolean {
    return "send" in this.calls;
  }

  /** Sends, and follows to the outcome. Resolves when it is known. */
  async start(): Promise<void> {
    if (!("send" in this.calls)) return this.resume();
    const { calls, timers } = this;
    const began = timers.now();
    for (let attempt = 1; ; attempt++) {
      this.set({ phase: "sending", attempt });
      this.lastSent = timers.now();
      const refusal = await this.attempt((signal) => calls.send(signal), SEND_TIMEOUT_MS);
      if (!this.open || this.life.signal.aborted) return;
      if (!("refusal" in refusal)) {
        const { command } = refusal.value;
        if (command) this.observe(command);
        else this.set({ phase: "accepted", command: undefined });
        return this.follow();
      }
      const failed = refusal.refusal;
      const verdict = verdictOf(failed);
      if (verdict === "ask") {
        if (this.current.peek().phase !== "accepted") {
          const known = failed.reason === "OUTCOME_PENDING";
          this.set(known ? { phase: "accepted", command: undefined } : { phase: "unknown", refusal: failed });
        }
        return this.follow();
      }
      const tooLate = timers.now() - began >= RETRY_FOR_MS[this.order.kind] || attempt >= MOST_ATTEMPTS;
      if (verdict === "refused" || tooLate) return this.end({ phase: "refused", refusal: failed });
      this.set({ phase: "retrying", attempt, refusal: failed });
      await this.pause((failed.retryAfterMs ?? 1_000) + timers.random() * 500);
      if (!this.open || this.life.signal.aborted) return;
    }
  }

  /** Follows an order that was sent before this page was loaded. */
  async resume(): Promise<void> {
    this.lastSent = this.timers.now();
    this.set({ phase: "unknown", refusal: undefined });
    return this.follow();
  }

  /** A command seen elsewhere, on the watch: progress or outcome. */
  observe(command: Command): void {
    if (command.name !== this.name) return;
    const before = this.current.peek();
    if (before.phase === "settled" && before.command.state !== CommandState.UNCERTAIN) return;
    if (isTerminal(command.state)) return this.end({ phase: "settled", command });
    if (before.phase !== "settled") this.set({ phase: "accepted", command });
  }

  /** The network is back: ask now. */
  nudge(): void {
    this.knock?.abort();
  }

  /** The page closes; the order goes on without it. */
  stop(): void {
    this.life.abort();
    this.knock?.abort();
  }

  private async follow(): Promise<void> {
    for (let ask = 0; this.open && !this.life.signal.aborted; ask++) {
      if (ask > 0 || this.current.peek().phase === "accepted") {
        await this.pause(Math.min(5_000, 500 * 2 ** Math.min(ask, 4)));
      }
      if (!this.open || this.life.signal.aborted) return;
      const answer = await this.attempt((signal) => this.calls.get(this.name, signal), GET_TIMEOUT_MS);
      if (!this.open || this.life.signal.aborted) return;
      if ("refusal" in answer) {
        const gone = answer.refusal.code === Code.NotFound;
        const accepted = this.current.peek().phase === "accepted";
        const settled = this.timers.now() - this.lastSent >= LOST_AFTER_MS;
        if (gone && !accepted && settled) return this.end({ phase: "lost" });
      } else if (answer.value) {
        this.observe(answer.value);
      }
    }
  }

  private async attempt<T>(
    call: (signal: AbortSignal) => Promise<T>,
    timeoutMs: number,
  ): Promise<{ value: T } | { refusal: Refusal }> {
    const limit = new AbortController();
    const stop = () => limit.abort();
    this.life.signal.addEventListener("abort", stop);
    const finished = new AbortController();
    void this.timers.sleep(timeoutMs, finished.signal).then(stop);
    try {
      return { value: await call(limit.signal) };
    } catch (error) {
      return { refusal: refusalOf(error) };
    } finally {
      finished.abort();
      this.life.signal.removeEventListener("abort", stop);
    }
  }

  private async pause(ms: number): Promise<void> {
    this.knock = new AbortController();
    await this.timers.sleep(ms, this.knock.signal);
    this.knock = undefined;
  }

  private set(step: Step): void {
    this.current.value = step;
  }

  private end(step: Step): void {
    this.set(step);
    this.onKnown(step);
    // Whoever still waits for an answer need not.
    this.knock?.abort();
  }
}
