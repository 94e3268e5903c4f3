// The config form of one feeder: what it is based on, what is typed, what the server thinks of it.
import { computed, type ReadonlySignal, signal } from "@preact/signals";
import { create } from "@bufbuild/protobuf";
import { FieldMaskSchema } from "@bufbuild/protobuf/wkt";
import { type Feeder, type FeederConfig, FeederConfigSchema, type Preview } from "../gen/pasamanos/v1/resources_pb";
import { type FieldViolation, type Refusal, refusalOf } from "../api/refusal";
import { newRequestId } from "../api/request-id";
import type { Timers } from "../api/timers";
import type { Api } from "../api/transport";
import { decimalMark } from "../i18n";
import { type Draft, draftOf, type Problem, readDraft, rebase, type QuantityDraft, type WindowDraft } from "./draft";
import { type FieldPath, fieldOfViolation, type QuantityPath } from "./fields";
import { changedPaths } from "./diff";
import { explainViolation } from "./explain";

/** What the server said about the draft as it stands. */
export type Check =
  | { readonly kind: "none" }
  | { readonly kind: "asking" }
  | { readonly kind: "fine"; readonly preview: Preview | undefined }
  | { readonly kind: "refused"; readonly refusal: Refusal };

const DEBOUNCE_MS = 400;

export class ConfigForm {
  readonly feeder: ReadonlySignal<Feeder>;
  readonly draft = signal<Draft>({ mode: 0, quantities: {} as never, windows: [] });
  /** The feeder as it is now, while the draft is based on an older one. */
  readonly conflict = signal<Feeder | undefined>(undefined);
  readonly check = signal<Check>({ kind: "none" });
  private readonly base: ReturnType<typeof signal<Feeder>>;
  private readonly refused = signal<ReadonlyMap<FieldPath, Problem>>(new Map());
  private asking: AbortController | undefined;

  constructor(
    private readonly api: Api,
    feeder: Feeder,
    private readonly timers: Timers,
  ) {
    this.base = signal(feeder);
    this.feeder = computed(() => this.base.value as Feeder);
    this.draft.value = draftOf(configOf(feeder), decimalMark());
  }

  readonly read = computed(() => {
    const feeder = this.feeder.value;
    return readDraft(this.draft.value, configOf(feeder), feeder.limits, decimalMark());
  });

  readonly dirty = computed(() => this.read.value.changed.length > 0 || this.read.value.problems.size > 0);

  /** What is wrong with each field: what the page sees itself first, then what the server refused. */
  readonly problems = computed<ReadonlyMap<FieldPath, Problem>>(
    () => new Map([...this.refused.value, ...this.read.value.problems]),
  );

  setMode(mode: Draft["mode"]): void {
    this.edit({ ...this.draft.peek(), mode });
  }

  setQuantity(path: QuantityPath, quantity: QuantityDraft): void {
    const draft = this.draft.peek();
    this.edit({ ...draft, quantities: { ...draft.quantities, [path]: quantity } });
  }

  setWindows(windows: readonly WindowDraft[]): void {
    this.edit({ ...this.draft.peek(), windows });
  }

  /** The feeder was read anew. An untouched form follows; a touched one says so. */
  follow(feeder: Feeder): void {
    const base = this.feeder.peek();
    if (feeder.etag === base.etag) {
      // Limits, rights and status may have moved without the config.
      this.base.value = feeder;
      return;
    }
    const mine = this.read.peek().config;
    const nothingLeft = this.problems.peek().size === 0 && changedPaths(configOf(feeder), mine).length === 0;
    if (!this.dirty.peek() || nothingLeft) this.adopt(feeder);
    else {
      this.asking?.abort();
      this.check.value = { kind: "none" };
      this.conflict.value = feeder;
    }
  }

  /** Puts what the person changed on top of the settings as they are now. */
  rebase(): void {
    const feeder = this.conflict.peek();
    if (!feeder) return;
    const draft = rebase(this.draft.peek(), configOf(this.feeder.peek()), configOf(feeder), decimalMark());
    this.base.value = feeder;
    this.conflict.value = undefined;
    this.edit(draft);
  }

  /** Forgets what was typed. */
  discard(): void {
    this.adopt(this.conflict.peek() ?? this.feeder.peek());
  }

  /** A refused change: its fields are marked, its attached feeder becomes the conflict. */
  take(refusal: Refusal): void {
    this.refused.value = this.problemsOf(refusal.fields);
    const now = refusal.feeder;
    if (now && now.etag !== this.feeder.peek().etag) this.follow(now);
  }

  /** Asks the server what the draft would mean; the answer comes in `check`. */
  async ask(): Promise<void> {
    this.asking?.abort();
    const { changed, config, problems } = this.read.peek();
    if (changed.length === 0 || problems.size > 0) {
      this.check.value = { kind: "none" };
      return;
    }
    const mine = new AbortController();
    this.asking = mine;
    this.check.value = { kind: "asking" };
    await this.timers.sleep(DEBOUNCE_MS, mine.signal);
    if (mine.signal.aborted) return;
    const { name, etag } = this.feeder.peek();
    const updateMask = create(FieldMaskSchema, { paths: [...changed] });
    try {
      const { preview } = await this.api.feeders.updateFeederConfig(
        { name, config, updateMask, etag, requestId: newRequestId(), validateOnly: true },
        { signal: mine.signal },
      );
      if (mine.signal.aborted) return;
      this.refused.value = new Map();
      this.check.value = { kind: "fine", preview };
    } catch (error) {
      if (mine.signal.aborted) return;
      const refusal = refusalOf(error);
      this.check.value = { kind: "refused", refusal };
      this.take(refusal);
    }
  }

  stop(): void {
    this.asking?.abort();
  }

  private problemsOf(violations: readonly FieldViolation[]): Map<FieldPath, Problem> {
    const { limits } = this.feeder.peek();
    const found = new Map<FieldPath, Problem>();
    for (const violation of violations) {
      const path = fieldOfViolation(violation.field);
      if (path && !found.has(path)) found.set(path, explainViolation(path, violation, this.read.peek().config, limits));
    }
    return found;
  }

  private adopt(feeder: Feeder): void {
    this.asking?.abort();
    this.base.value = feeder;
    this.conflict.value = undefined;
    this.refused.value = new Map();
    this.check.value = { kind: "none" };
    this.draft.value = draftOf(configOf(feeder), decimalMark());
  }

  private edit(draft: Draft): void {
    this.draft.value = draft;
    this.refused.value = new Map();
    void this.ask();
  }
}

const configOf = (feeder: Feeder): FeederConfig => feeder.config ?? create(FeederConfigSchema);
