// Every order of this browser on one farm: made, stored, sent, followed, shown, forgotten.
import { create } from "@bufbuild/protobuf";
import { FieldMaskSchema } from "@bufbuild/protobuf/wkt";
import { computed, type ReadonlySignal, signal } from "@preact/signals";
import { type Command, CommandState, type Feeder, type FeederConfig } from "../gen/pasamanos/v1/resources_pb";
import type { FieldPath } from "../form/fields";
import type { OrderKind, PendingOrder, PendingOrders } from "../api/pending";
import { newRequestId } from "../api/request-id";
import { type Calls, Submission } from "../api/submission";
import type { Timers } from "../api/timers";
import type { Api } from "../api/transport";
import type { ByName } from "./farm";
import type { OwnOrders } from "./gates";

/** What went well leaves the screen by itself; it is in the history. */
const APPLIED_SHOWN_MS = 60_000;

export class Orders {
  /** Newest first. */
  readonly list: ReadonlySignal<readonly Submission[]>;
  private readonly all = signal<readonly Submission[]>([]);

  constructor(
    private readonly api: Api,
    private readonly farm: string,
    private readonly stored: PendingOrders,
    private readonly timers: Timers,
  ) {
    this.list = this.all;
  }

  /** Follows what was on its way when the page was left. */
  resume(): void {
    for (const order of this.stored.of(this.farm)) this.adopt(order);
  }

  /** Follows an order of an earlier page or another tab. */
  adopt(order: PendingOrder): void {
    if (order.farm !== this.farm || this.all.peek().some((s) => s.order.id === order.id)) return;
    const submission = this.track(order, { get: this.get });
    void submission.resume();
  }

  updateConfig(feeder: Feeder, config: FeederConfig, mask: readonly FieldPath[], etag: string, note: string): Submission {
    const updateMask = create(FieldMaskSchema, { paths: [...mask] });
    return this.begin(feeder, "update_config", (requestId, signal) =>
      this.api.feeders.updateFeederConfig({ name: feeder.name, config, updateMask, etag, requestId, note }, { signal }),
    );
  }

  feedNow(feeder: Feeder, portionMg: number, note: string): Submission {
    const send: Send = (requestId, signal) =>
      this.api.feeders.feedNow({ name: feeder.name, portionMg, requestId, note }, { signal });
    // The same dose that was lost just before goes under the lost one's id: should that one arrive
    // after all, the two are one.
    const lost = this.all
      .peek()
      .map((s) => (s.step.peek().phase === "lost" ? s.order : undefined))
      .find((o) => o?.kind === "feed_now" && o.feeder === feeder.name && o.amountMg === portionMg && o.note === note);
    return this.begin(feeder, "feed_now", send, { amountMg: portionMg, note, ...(lost && { id: lost.id }) });
  }

  hold(feeder: Feeder, note: string): Submission {
    return this.begin(feeder, "hold", (requestId, signal) =>
      this.api.feeders.holdFeeder({ name: feeder.name, requestId, note }, { signal }),
    );
  }

  resumeFeeder(feeder: Feeder, note: string): Submission {
    return this.begin(feeder, "resume", (requestId, signal) =>
      this.api.feeders.resumeFeeder({ name: feeder.name, requestId, note }, { signal }),
    );
  }

  resetFault(feeder: Feeder, faultCode: number, note: string): Submission {
    return this.begin(feeder, "reset_fault", (requestId, signal) =>
      this.api.feeders.resetFault({ name: feeder.name, faultCode, requestId, note }, { signal }),
    );
  }

  /** Sends a lost order again under its own id: if it arrives after all, it is still one. */
  repeat(lost: Submission): void {
    const make = this.resend.get(lost.order.id);
    if (!make || lost.step.peek().phase !== "lost") return;
    this.forget(lost.order.id);
    this.stored.add(lost.order);
    void this.track(lost.order, make).start();
  }

  /** Takes a known outcome off the screen. An open order stays. */
  dismiss(id: string): void {
    const found = this.all.peek().find((s) => s.order.id === id);
    if (found && !found.open) {
      this.forget(id);
      this.resend.delete(id);
    }
  }

  /** Commands as the watch shows them. */
  observe(commands: ByName<Command>): void {
    for (const submission of this.all.peek()) {
      const seen = commands.get(submission.name);
      if (seen) submission.observe(seen.value);
    }
  }

  /** The network is back: everybody asks now. */
  nudge(): void {
    for (const submission of this.all.peek()) submission.nudge();
  }

  stop(): void {
    for (const submission of this.all.peek()) submission.stop();
  }

  /** What of a feeder is on its way; a dose locks its whole robot. Reads signals. */
  own(feeder: Feeder): OwnOrders {
    const open = this.all.value.filter((s) => isOpen(s));
    return {
      doseOpen: open.some((s) => s.order.kind === "feed_now" && s.order.robot === feeder.robot),
      holdOpen: open.some((s) => (s.order.kind === "hold" || s.order.kind === "resume") && s.order.feeder === feeder.name),
      configOpen: open.some((s) => s.order.kind === "update_config" && s.order.feeder === feeder.name),
    };
  }

  /** The orders of one feeder, newest first. */
  ofFeeder(name: string): ReadonlySignal<readonly Submission[]> {
    return computed(() => this.all.value.filter((s) => s.order.feeder === name));
  }

  private readonly resend = new Map<string, Calls>();

  private readonly get: Calls["get"] = async (name, signal) =>
    (await this.api.feeders.getCommand({ name }, { signal })).command;

  private begin(feeder: Feeder, kind: OrderKind, send: Send, more: Partial<PendingOrder> = {}): Submission {
    const order: PendingOrder = {
      id: newRequestId(),
      farm: this.farm,
      feeder: feeder.name,
      robot: feeder.robot,
      kind,
      pressedAt: Date.now(),
      ...more,
    };
    // What is known already makes room for what is asked now.
    for (const old of this.all.peek()) if (old.order.feeder === feeder.name) this.dismiss(old.order.id);
    const calls: Calls = { send: (signal) => send(order.id, signal), get: this.get };
    this.resend.set(order.id, calls);
    this.stored.add(order);
    const submission = this.track(order, calls);
    void submission.start();
    return submission;
  }

  private track(order: PendingOrder, calls: Calls | Pick<Calls, "get">): Submission {
    const submission = new Submission(order, calls, this.timers, (step) => {
      this.stored.remove(order.id);
      const applied = step.phase === "settled" && step.command.state === CommandState.APPLIED;
      if (applied) void this.timers.sleep(APPLIED_SHOWN_MS).then(() => this.dismissThis(submission));
    });
    this.all.value = [submission, ...this.all.peek()];
    return submission;
  }

  /** Unless the same id has been sent anew meanwhile. */
  private dismissThis(submission: Submission): void {
    if (this.all.peek().includes(submission)) this.dismiss(submission.order.id);
  }

  private forget(id: string): void {
    this.all.value = this.all.peek().filter((s) => s.order.id !== id);
  }
}

type Send = (requestId: string, signal: AbortSignal) => Promise<{ command?: Command; feeder?: Feeder }>;

function isOpen(submission: Submission): boolean {
  const { phase } = submission.step.value;
  return phase !== "settled" && phase !== "refused" && phase !== "lost";
}
