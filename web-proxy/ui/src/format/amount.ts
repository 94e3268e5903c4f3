// Amounts of feed and readings as people read them. Display only: what is typed goes through quantity.ts.
import { AmountBasis, type Reading, ReadingKind } from "../gen/pasamanos/v1/resources_pb";
import { isRtl, localeOf, t } from "../i18n";

const NBSP = "\u00a0";
const cache = new Map<string, Intl.NumberFormat>();

/** A number in the page's language. */
export function formatNumber(value: number, maximumFractionDigits = 3, minimumFractionDigits = 0): string {
  const key = `${localeOf()}/${maximumFractionDigits}/${minimumFractionDigits}`;
  let format = cache.get(key);
  if (!format) {
    format = new Intl.NumberFormat(localeOf(), { maximumFractionDigits, minimumFractionDigits });
    cache.set(key, format);
  }
  return format.format(value);
}

/** A number with its unit; kept in one piece, in its own direction, where the page runs right to left. */
export function withUnit(number: string, unit: string): string {
  const text = `${number}${NBSP}${unit}`;
  return isRtl() ? `\u2068${text}\u2069` : text;
}

type Mg = number | bigint;

/** An amount, exact: what a config or a command says. */
export function formatAmount(mg: Mg): string {
  const value = Number(mg);
  const size = Math.abs(value);
  if (size < 1_000) return withUnit(formatNumber(value), "mg");
  if (size < 1_000_000) return withUnit(formatNumber(value / 1_000), "g");
  return withUnit(formatNumber(value / 1_000_000, 6), "kg");
}

/** An amount to three or four digits: totals and hoppers, where more would be noise. */
export function formatTotal(mg: Mg): string {
  const value = Number(mg);
  const size = Math.abs(value);
  if (size < 1_000) return withUnit(formatNumber(value), "mg");
  if (size < 1_000_000) return withUnit(formatNumber(value / 1_000, size < 10_000 ? 2 : size < 100_000 ? 1 : 0), "g");
  return withUnit(formatNumber(value / 1_000_000, size < 100_000_000 ? 2 : 0), "kg");
}

/** An amount with how it is known: "about 1.5 g" where nobody weighed or counted. */
export function formatDispensed(mg: Mg, basis: AmountBasis): string {
  const about = basis === AmountBasis.TIMED || basis === AmountBasis.ASSUMED;
  return about ? t.value.about(formatAmount(mg)) : formatAmount(mg);
}

interface Scale {
  readonly per: number;
  readonly unit: string;
  readonly digits: number;
}

const SCALES: Record<number, Scale> = {
  [ReadingKind.DISSOLVED_OXYGEN_UG_PER_L]: { per: 1_000, unit: "mg/L", digits: 1 },
  [ReadingKind.OXYGEN_SATURATION_PERMILLE]: { per: 10, unit: "%", digits: 0 },
  [ReadingKind.WATER_TEMPERATURE_MILLICELSIUS]: { per: 1_000, unit: "°C", digits: 1 },
  [ReadingKind.PH_MILLI]: { per: 1_000, unit: "", digits: 2 },
};

/** A reading's value in the unit that people know; the unit apart so that it can be set smaller. */
export function readingParts(kind: ReadingKind, value: number | bigint): { number: string; unit: string } {
  const scale = SCALES[kind];
  if (!scale) return { number: String(value), unit: "" };
  const number = formatNumber(Number(value) / scale.per, scale.digits, scale.digits);
  return { number, unit: scale.unit };
}

/** A reading in one string. A limit is shown with all its digits. */
export function formatReading(kind: ReadingKind, value: number | bigint, exact = false): string {
  const scale = SCALES[kind];
  if (!scale) return String(value);
  const digits = exact ? 3 : scale.digits;
  const number = formatNumber(Number(value) / scale.per, digits, exact ? 0 : digits);
  return scale.unit ? withUnit(number, scale.unit) : number;
}

/** The order in which readings are shown. */
export function byImportance(a: Reading, b: Reading): number {
  return a.kind - b.kind;
}
