// What a person has typed into the config form, and what it would mean: pure, no signals.
import { clone, create } from "@bufbuild/protobuf";
import { DurationSchema } from "@bufbuild/protobuf/wkt";
import {
  type FeederConfig,
  FeederConfigSchema,
  FeederMode,
  FeedWindowSchema,
  InterlocksSchema,
  type Limits,
} from "../gen/pasamanos/v1/resources_pb";
import { bestUnit, editQuantity, type ParseProblem, parseQuantity, type Unit } from "../format/quantity";
import { formatMinute } from "../format/time";
import { changedPaths } from "./diff";
import { type FieldPath, OPTIONAL, QUANTITY_PATHS, QUANTITY_UNITS, type QuantityPath, quantityOf } from "./fields";

export interface QuantityDraft {
  readonly text: string;
  readonly unit: Unit;
}

export interface WindowDraft {
  /** Stays with the row while others come and go. */
  readonly key: number;
  /** "HH:MM", as a time input gives it. */
  readonly start: string;
  readonly end: string;
}

export interface Draft {
  readonly mode: FeederMode;
  readonly quantities: Readonly<Record<QuantityPath, QuantityDraft>>;
  readonly windows: readonly WindowDraft[];
}

/** What is wrong with a field, for a sentence; bounds in wire units. */
export type Problem =
  | { readonly kind: ParseProblem }
  | { readonly kind: "below" | "above"; readonly bound: number }
  | { readonly kind: "step"; readonly step: number; readonly nearest: readonly number[] }
  | { readonly kind: "window-incomplete" | "window-empty" | "window-overlap" }
  /** The portion takes longer to fall than the interval lasts. */
  | { readonly kind: "too-fast"; readonly seconds: number }
  /** The day's meals do not fit the cap. */
  | { readonly kind: "over-cap"; readonly need: number; readonly cap: number }
  | { readonly kind: "server"; readonly description: string };

export interface Read {
  /** The whole config that the draft stands for; fields with a problem keep the base's value. */
  readonly config: FeederConfig;
  readonly problems: ReadonlyMap<FieldPath, Problem>;
  /** The fields that differ from the base. */
  readonly changed: readonly FieldPath[];
}

let nextKey = 1;
export const newWindow = (start = "", end = ""): WindowDraft => ({ key: nextKey++, start, end });

type Mark = "." | ",";

export function draftOf(config: FeederConfig, mark: Mark): Draft {
  const quantities = Object.fromEntries(
    QUANTITY_PATHS.map((path) => [path, quantityDraft(config, path, mark)]),
  ) as Record<QuantityPath, QuantityDraft>;
  const windows = config.windows.map((w) => newWindow(formatMinute(w.startMinute), formatMinute(w.endMinute)));
  return { mode: config.mode, quantities, windows };
}

function quantityDraft(config: FeederConfig, path: QuantityPath, mark: Mark): QuantityDraft {
  const value = quantityOf(config, path);
  const unit = bestUnit(value, QUANTITY_UNITS[path]);
  return { unit, text: value === undefined ? "" : editQuantity(value, unit, mark) };
}

/** Reads a draft over its base. The limits are the feeder's; the server checks everything again. */
export function readDraft(draft: Draft, base: FeederConfig, limits: Limits | undefined, mark: Mark): Read {
  const config = clone(FeederConfigSchema, base);
  const problems = new Map<FieldPath, Problem>();
  config.mode = draft.mode;
  for (const path of QUANTITY_PATHS) {
    const typed = draft.quantities[path];
    if (typed.text.trim() === "" && (OPTIONAL.includes(path) || quantityOf(base, path) === undefined)) {
      setQuantity(config, path, undefined);
      continue;
    }
    const parsed = parseQuantity(typed.text, typed.unit, QUANTITY_UNITS[path], mark);
    if (!parsed.ok) {
      problems.set(path, { kind: parsed.problem });
      continue;
    }
    setQuantity(config, path, parsed.value);
    // What the PLC runs now is shown as it is, even if the rules would refuse it.
    const problem = parsed.value === quantityOf(base, path) ? undefined : checkQuantity(path, parsed.value, limits);
    if (problem) problems.set(path, problem);
  }
  readWindows(draft, config, problems);
  return { config, problems, changed: changedPaths(base, config) };
}

function setQuantity(config: FeederConfig, path: QuantityPath, value: number | undefined): void {
  switch (path) {
    case "portion_mg":
      config.portionMg = value;
      return;
    case "interval":
      config.interval = value === undefined ? undefined : create(DurationSchema, { seconds: BigInt(value) });
      return;
    case "daily_cap_mg":
      config.dailyCapMg = value;
      return;
    default:
      if (value === undefined && !config.interlocks) return;
      config.interlocks ??= create(InterlocksSchema);
      if (path.endsWith("ug_per_l")) config.interlocks.minDissolvedOxygenUgPerL = value;
      else if (path.endsWith("permille")) config.interlocks.minOxygenSaturationPermille = value;
      else config.interlocks.maxWaterTemperatureMillicelsius = value;
  }
}

interface Bounds {
  readonly min: number;
  readonly max: number;
  readonly step: number;
}

/** The bounds of a quantity: the feeder's where it has them, else the contract's. */
export function boundsOf(path: QuantityPath, limits: Limits | undefined): Bounds {
  const seconds = (d: { seconds: bigint } | undefined) => (d === undefined ? undefined : Number(d.seconds));
  switch (path) {
    case "portion_mg":
      return {
        min: limits?.portionMinMg ?? 10,
        max: limits?.portionMaxMg ?? 5_000_000,
        step: limits?.portionStepMg || 1,
      };
    case "interval":
      return { min: seconds(limits?.intervalMin) ?? 10, max: seconds(limits?.intervalMax) ?? 86_400, step: 1 };
    case "daily_cap_mg":
      return { min: 10, max: limits?.dailyCapMaxMg ?? 500_000_000, step: 1 };
    case "interlocks.min_dissolved_oxygen_ug_per_l":
      return { min: 0, max: 50_000, step: 1 };
    case "interlocks.min_oxygen_saturation_permille":
      return { min: 0, max: 3_000, step: 1 };
    case "interlocks.max_water_temperature_millicelsius":
      return { min: -5_000, max: 60_000, step: 1 };
  }
}

export function checkQuantity(path: QuantityPath, value: number, limits: Limits | undefined): Problem | undefined {
  const { min, max, step } = boundsOf(path, limits);
  if (value < min) return { kind: "below", bound: min };
  if (value > max) return { kind: "above", bound: max };
  if (value % step === 0) return undefined;
  const low = value - (value % step);
  return { kind: "step", step, nearest: [low, low + step].filter((v) => v >= min && v <= max) };
}

function readWindows(draft: Draft, config: FeederConfig, problems: Map<FieldPath, Problem>): void {
  const read = draft.windows.map((w) => [minuteOf(w.start), minuteOf(w.end)] as const);
  if (read.some(([start, end]) => start === undefined || end === undefined)) {
    problems.set("windows", { kind: "window-incomplete" });
    return;
  }
  const spans = read as unknown as readonly (readonly [number, number])[];
  config.windows = spans.map(([startMinute, endMinute]) => create(FeedWindowSchema, { startMinute, endMinute }));
  if (spans.some(([start, end]) => start === end)) problems.set("windows", { kind: "window-empty" });
  else if (overlap(spans)) problems.set("windows", { kind: "window-overlap" });
}

function minuteOf(text: string): number | undefined {
  const match = /^(\d{2}):(\d{2})/.exec(text);
  return match ? Number(match[1]) * 60 + Number(match[2]) : undefined;
}

const DAY = 1_440;

/** Whether two windows share a minute; one that ends at or before its start runs into the next day. */
export function overlap(spans: readonly (readonly [number, number])[]): boolean {
  const pieces = spans
    .flatMap(([start, end]) => (end > start ? [[start, end]] : [[start, DAY], [0, end]]) as [number, number][])
    .filter(([start, end]) => end > start)
    .sort(([a], [b]) => a - b);
  return pieces.some(([start], i) => i > 0 && start < (pieces[i - 1]?.[1] ?? 0));
}

/**
 * Moves a draft to a new base: what the person changed stays as typed, everything else follows the
 * new config.
 */
export function rebase(draft: Draft, oldBase: FeederConfig, newBase: FeederConfig, mark: Mark): Draft {
  const fresh = draftOf(newBase, mark);
  const old = draftOf(oldBase, mark);
  const { config, problems } = readDraft(draft, oldBase, undefined, mark);
  const mine = new Set<FieldPath>([...changedPaths(oldBase, config), ...problems.keys()]);
  const quantities = Object.fromEntries(
    QUANTITY_PATHS.map((path) => [path, (mine.has(path) ? draft : fresh).quantities[path]]),
  ) as Record<QuantityPath, QuantityDraft>;
  return {
    mode: draft.mode === old.mode ? fresh.mode : draft.mode,
    quantities,
    windows: mine.has("windows") ? draft.windows : fresh.windows,
  };
}
