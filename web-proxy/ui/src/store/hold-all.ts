// Hold of a whole farm: one request, sent again under the same id until it is answered. A hold may
// be repeated without harm, so a lost answer is asked for by sending it again.
import { signal } from "@preact/signals";
import type { Command } from "../gen/pasamanos/v1/resources_pb";
import type { NotHeld } from "../gen/pasamanos/v1/feeder_service_pb";
import { type Refusal, refusalOf, verdictOf } from "../api/refusal";
import { newRequestId } from "../api/request-id";
import type { Timers } from "../api/timers";
import type { Api } from "../api/transport";

export type HoldAllState =
  | { readonly phase: "idle" }
  | { readonly phase: "sending"; readonly attempt: number }
  | { readonly phase: "done"; readonly held: readonly Command[]; readonly notHeld: readonly NotHeld[] }
  | { readonly phase: "refused"; readonly refusal: Refusal };

const ATTEMPTS = 8;
const TIMEOUT_MS = 20_000;

export class HoldAll {
  readonly state = signal<HoldAllState>({ phase: "idle" });

  constructor(
    private readonly api: Api,
    private readonly farm: string,
    private readonly timers: Timers,
  ) {}

  async press(note: string): Promise<void> {
    if (this.state.peek().phase === "sending") return;
    const requestId = newRequestId();
    for (let attempt = 1; ; attempt++) {
      this.state.value = { phase: "sending", attempt };
      try {
        const answer = await this.api.feeders.holdFarm(
          { name: this.farm, requestId, note },
          { signal: AbortSignal.timeout(TIMEOUT_MS) },
        );
        this.state.value = { phase: "done", held: answer.held, notHeld: answer.notHeld };
        return;
      } catch (error) {
        const refusal = refusalOf(error);
        if (verdictOf(refusal) === "refused" || attempt >= ATTEMPTS) {
          this.state.value = { phase: "refused", refusal };
          return;
        }
        await this.timers.sleep(refusal.retryAfterMs ?? 1_000);
      }
    }
  }

  close(): void {
    if (this.state.peek().phase !== "sending") this.state.value = { phase: "idle" };
  }
}
