// Exact quantities: what a person types to the integer that goes on the wire, and back. No floats.

/** A unit that a person types in, and how many wire units it is worth. */
export interface Unit {
  readonly id: string;
  /** Wire units in one of it; a power of ten or a plain multiple. */
  readonly factor: number;
}

/** A family of units over one wire unit, the smallest first. */
export type UnitId = "mg" | "g" | "kg" | "s" | "min" | "h" | "mg/L" | "%" | "°C";

export const MASS: readonly Unit[] = [
  { id: "mg", factor: 1 },
  { id: "g", factor: 1_000 },
  { id: "kg", factor: 1_000_000 },
];
export const TIME: readonly Unit[] = [
  { id: "s", factor: 1 },
  { id: "min", factor: 60 },
  { id: "h", factor: 3_600 },
];
export const OXYGEN: readonly Unit[] = [{ id: "mg/L", factor: 1_000 }];
export const SATURATION: readonly Unit[] = [{ id: "%", factor: 10 }];
export const TEMPERATURE: readonly Unit[] = [{ id: "°C", factor: 1_000 }];

/** Why a text is no quantity. */
export type ParseProblem = "empty" | "number" | "ambiguous" | "finer";

export type Parsed = { ok: true; value: number } | { ok: false; problem: ParseProblem };

const SUFFIX = /^(.*?)\s*(mg\/l|mg|kg|g|gr|min|h|s|%|°c)?$/i;
const NUMBER = /^([+-]?)(\d*)(?:([.,])(\d*))?$/;

/**
 * Reads a typed quantity into wire units. A unit typed behind the number wins over the chosen one.
 * A separator that could be a thousands mark (`1,500` where the decimal mark is a point) is
 * ambiguous: a portion a thousand times too large is worse than a question.
 */
export function parseQuantity(
  text: string,
  unit: Unit,
  family: readonly Unit[],
  decimalMark: "." | "," = ".",
): Parsed {
  const cleaned = text.replace(/[\s\u00a0\u202f\u2066-\u2069\u200e\u200f]+/g, "").replace("\u2212", "-");
  if (cleaned === "") return { ok: false, problem: "empty" };
  const split = SUFFIX.exec(cleaned);
  let chosen = unit;
  let digits = cleaned;
  if (split?.[2]) {
    const typed = split[2].toLowerCase().replace(/^gr$/, "g");
    const found = family.find((u) => u.id.toLowerCase() === typed);
    if (!found) return { ok: false, problem: "number" };
    chosen = found;
    digits = split[1] ?? "";
  }
  const match = NUMBER.exec(digits);
  if (!match) return { ok: false, problem: "number" };
  const [, sign, whole = "", mark, fraction = ""] = match;
  if (whole === "" && fraction === "") return { ok: false, problem: "number" };
  const couldBeThousands = mark !== undefined && fraction.length === 3 && /^[1-9]\d{0,2}$/.test(whole);
  if (couldBeThousands && mark !== decimalMark) return { ok: false, problem: "ambiguous" };
  const scaled = BigInt((whole || "0") + fraction) * BigInt(chosen.factor);
  const divisor = 10n ** BigInt(fraction.length);
  if (scaled % divisor !== 0n) return { ok: false, problem: "finer" };
  const value = scaled / divisor;
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) return { ok: false, problem: "number" };
  return { ok: true, value: sign === "-" ? -Number(value) : Number(value) };
}

/** Writes wire units exactly in a unit, as a person would type it: no grouping, no padding. */
export function editQuantity(value: number, unit: Unit, decimalMark: "." | "," = "."): string {
  const negative = value < 0;
  const magnitude = BigInt(Math.abs(value));
  const factor = BigInt(unit.factor);
  let text = (magnitude / factor).toString();
  let rest = magnitude % factor;
  if (rest !== 0n) {
    let fraction = "";
    // Ends for every power of ten; time units are only chosen where they divide.
    for (let i = 0; rest !== 0n && i < 9; i++) {
      rest *= 10n;
      fraction += (rest / factor).toString();
      rest %= factor;
    }
    text += decimalMark + fraction;
  }
  return negative ? `-${text}` : text;
}

/** The unit in which a quantity reads best and stays exact. */
export function bestUnit(value: number | undefined, family: readonly Unit[]): Unit {
  const fallback = family[Math.min(1, family.length - 1)] as Unit;
  if (value === undefined || value === 0) return fallback;
  const exact = (unit: Unit) =>
    Math.abs(value) >= unit.factor && (isDecimal(unit.factor) || value % unit.factor === 0);
  return [...family].reverse().find(exact) ?? (family[0] as Unit);
}

function isDecimal(factor: number): boolean {
  return /^10*$/.test(String(factor));
}
