// The config fields that a person can edit: their paths in the contract, their units, their rights.
import { Enforcer, FieldAccess, type Feeder, type FeederConfig } from "../gen/pasamanos/v1/resources_pb";
import { MASS, OXYGEN, SATURATION, TEMPERATURE, TIME, type Unit } from "../format/quantity";

/** Paths relative to `config`, as update_mask names them. */
export const FIELD_PATHS = [
  "mode",
  "portion_mg",
  "interval",
  "windows",
  "daily_cap_mg",
  "interlocks.min_dissolved_oxygen_ug_per_l",
  "interlocks.min_oxygen_saturation_permille",
  "interlocks.max_water_temperature_millicelsius",
] as const;

export type FieldPath = (typeof FIELD_PATHS)[number];

/** Those that are one integer with a unit. */
export type QuantityPath = Exclude<FieldPath, "mode" | "windows">;

export const QUANTITY_UNITS: Readonly<Record<QuantityPath, readonly Unit[]>> = {
  portion_mg: MASS,
  interval: TIME,
  daily_cap_mg: MASS,
  "interlocks.min_dissolved_oxygen_ug_per_l": OXYGEN,
  "interlocks.min_oxygen_saturation_permille": SATURATION,
  "interlocks.max_water_temperature_millicelsius": TEMPERATURE,
};

export const QUANTITY_PATHS = Object.keys(QUANTITY_UNITS) as QuantityPath[];

/** Quantities that may be left empty: no cap, no limit. */
export const OPTIONAL: readonly FieldPath[] = [
  "daily_cap_mg",
  "interlocks.min_dissolved_oxygen_ug_per_l",
  "interlocks.min_oxygen_saturation_permille",
  "interlocks.max_water_temperature_millicelsius",
];

/** A field's name in test ids and element ids: the last part of its path. */
export const shortName = (path: FieldPath): string => path.slice(path.lastIndexOf(".") + 1);

/** The id of a field's first control on the page. */
export const fieldId = (path: FieldPath): string => `f-${shortName(path)}`;

/** The field that a server's violation is about: `config.windows[1].end_minute` is about `windows`. */
export function fieldOfViolation(violation: string): FieldPath | undefined {
  const path = violation.replace(/^config\./, "").replace(/\[\d+\]/g, "");
  return FIELD_PATHS.find((f) => path === f || path.startsWith(`${f}.`) || `interlocks.${path}` === f);
}

export interface FieldRights {
  readonly editable: boolean;
  /** Not there at all. */
  readonly absent: boolean;
  /** What to tell a person. */
  readonly hint: "none" | "read-only" | "absent" | "nobody" | "agent";
}

/** What may be done with one field of one feeder. A field that the farm does not name is absent. */
export function fieldRights(feeder: Feeder, path: FieldPath): FieldRights {
  const fields = feeder.capabilities?.fields ?? [];
  const parent = path.split(".")[0];
  const field = fields.find((f) => f.path === path) ?? fields.find((f) => f.path === parent);
  if (!field || field.access === FieldAccess.ABSENT || field.access === FieldAccess.UNSPECIFIED) {
    return { editable: false, absent: true, hint: "absent" };
  }
  if (field.enforcedBy === Enforcer.NOBODY) return { editable: false, absent: false, hint: "nobody" };
  if (field.access === FieldAccess.READ_ONLY) return { editable: false, absent: false, hint: "read-only" };
  return { editable: true, absent: false, hint: field.enforcedBy === Enforcer.AGENT ? "agent" : "none" };
}

/** A quantity of a config in its wire unit; absent stays absent. */
export function quantityOf(config: FeederConfig, path: QuantityPath): number | undefined {
  switch (path) {
    case "portion_mg":
      return config.portionMg;
    case "interval":
      return config.interval === undefined ? undefined : Number(config.interval.seconds);
    case "daily_cap_mg":
      return config.dailyCapMg;
    case "interlocks.min_dissolved_oxygen_ug_per_l":
      return config.interlocks?.minDissolvedOxygenUgPerL;
    case "interlocks.min_oxygen_saturation_permille":
      return config.interlocks?.minOxygenSaturationPermille;
    case "interlocks.max_water_temperature_millicelsius":
      return config.interlocks?.maxWaterTemperatureMillicelsius;
  }
}
