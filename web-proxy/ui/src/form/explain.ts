// A field violation of the server in the page's own words where the rule is known here; the
// server's English only where it is not.
import type { FeederConfig, Limits } from "../gen/pasamanos/v1/resources_pb";
import type { FieldViolation } from "../api/refusal";
import { checkQuantity, type Problem } from "./draft";
import { type FieldPath, QUANTITY_PATHS, type QuantityPath, quantityOf } from "./fields";

export function explainViolation(
  path: FieldPath,
  violation: FieldViolation,
  config: FeederConfig,
  limits: Limits | undefined,
): Problem {
  const quantity = QUANTITY_PATHS.includes(path as QuantityPath) ? (path as QuantityPath) : undefined;
  const value = quantity && quantityOf(config, quantity);
  const own = quantity && value !== undefined ? checkQuantity(quantity, value, limits) : undefined;
  return own ?? crossRule(path, config, limits) ?? { kind: "server", description: violation.description };
}

/** The two rules that bind fields to each other. */
function crossRule(path: FieldPath, config: FeederConfig, limits: Limits | undefined): Problem | undefined {
  const portion = config.portionMg ?? 0;
  const interval = Number(config.interval?.seconds ?? 0n);
  const rate = limits?.dispenseRateMgPerS ?? 0;
  if ((path === "interval" || path === "portion_mg") && rate > 0 && interval > 0) {
    const dispensing = Math.ceil(portion / rate);
    if (dispensing > interval) return { kind: "too-fast", seconds: dispensing };
  }
  if (config.dailyCapMg !== undefined && interval > 0 && path !== "mode" && !path.startsWith("interlocks.")) {
    const need = mealsPerDay(config, interval) * portion;
    if (need > config.dailyCapMg) return { kind: "over-cap", need, cap: config.dailyCapMg };
  }
  return undefined;
}

/** Meals that the windows hold in a day: per window its length by the interval, rounded up. */
export function mealsPerDay(config: FeederConfig, intervalSeconds: number): number {
  const meals = (minutes: number) => Math.ceil((minutes * 60) / intervalSeconds);
  if (config.windows.length === 0) return meals(1_440);
  return config.windows.reduce((sum, w) => sum + meals((w.endMinute + 1_440 - w.startMinute) % 1_440), 0);
}
