// What differs between two configs, field by field, in words that people read.
import { type FeederConfig, FeederMode, type FeedWindow, ReadingKind } from "../gen/pasamanos/v1/resources_pb";
import { formatAmount, formatReading } from "../format/amount";
import { formatInterval, formatMinute } from "../format/time";
import { t } from "../i18n";
import { FIELD_PATHS, type FieldPath, quantityOf } from "./fields";

export interface Difference {
  readonly path: FieldPath;
  readonly before: string;
  readonly after: string;
}

/** The fields in which two configs differ. */
export function changedPaths(before: FeederConfig, after: FeederConfig): FieldPath[] {
  return FIELD_PATHS.filter((path) => keyOf(before, path) !== keyOf(after, path));
}

/** The differences, old against new, in the order of the form. */
export function diffConfigs(before: FeederConfig, after: FeederConfig): Difference[] {
  return changedPaths(before, after).map((path) => ({
    path,
    before: describeField(before, path),
    after: describeField(after, path),
  }));
}

/** One field's value in words. */
export function describeField(config: FeederConfig, path: FieldPath): string {
  if (path === "mode") return t.value.mode[modeName(config.mode)];
  if (path === "windows") return describeWindows(config.windows);
  const value = quantityOf(config, path);
  if (value === undefined) return path === "daily_cap_mg" ? t.value.config.noCap : t.value.config.noLimit;
  switch (path) {
    case "interval":
      return formatInterval(value);
    case "portion_mg":
    case "daily_cap_mg":
      return formatAmount(value);
    default:
      return formatReading(KINDS[path], value, true);
  }
}

export function describeWindows(windows: readonly FeedWindow[]): string {
  if (windows.length === 0) return t.value.config.allDay;
  return windows.map((w) => `${formatMinute(w.startMinute)}–${formatMinute(w.endMinute)}`).join(", ");
}

export type ModeName = "automatic" | "manual" | "off" | "unknown";

export function modeName(mode: FeederMode): ModeName {
  switch (mode) {
    case FeederMode.AUTOMATIC:
      return "automatic";
    case FeederMode.MANUAL:
      return "manual";
    case FeederMode.OFF:
      return "off";
    default:
      return "unknown";
  }
}

const KINDS = {
  "interlocks.min_dissolved_oxygen_ug_per_l": ReadingKind.DISSOLVED_OXYGEN_UG_PER_L,
  "interlocks.min_oxygen_saturation_permille": ReadingKind.OXYGEN_SATURATION_PERMILLE,
  "interlocks.max_water_temperature_millicelsius": ReadingKind.WATER_TEMPERATURE_MILLICELSIUS,
} as const;

/** Equal for equal values; windows as a set, because their order means nothing. */
function keyOf(config: FeederConfig, path: FieldPath): string {
  if (path === "mode") return String(config.mode);
  if (path === "windows") {
    const spans = config.windows.map((w) => `${String(w.startMinute).padStart(4, "0")}-${w.endMinute}`);
    return spans.sort().join(",");
  }
  return String(quantityOf(config, path));
}
