// From what the server says to sentences: reasons, refusals, outcomes, problems. Never its English.
import { Code } from "@connectrpc/connect";
import { AmountBasis, type Command, CommandState, ConfigAuthor, HoldSource, type Hold, ReadingKind } from "../gen/pasamanos/v1/resources_pb";
import type { Refusal } from "../api/refusal";
import type { Step } from "../api/submission";
import type { OrderKind } from "../api/pending";
import type { Problem } from "../form/draft";
import { type FieldPath, QUANTITY_UNITS, type QuantityPath, shortName } from "../form/fields";
import { formatAmount, formatDispensed, formatReading } from "../format/amount";
import { formatInterval } from "../format/time";
import type { Closed } from "../store/gates";
import { Facts, isReason, type Naming } from "./facts";
import { t } from "./index";

type Metadata = Readonly<Record<string, string>>;

/** A reason's sentence; empty for none, a plain one for a reason newer than this page. */
export function reasonText(reason: string, metadata: Metadata, naming: Naming): string {
  if (reason === "") return "";
  const sentence = isReason(reason) ? t.value.reasons[reason] : undefined;
  return sentence ? sentence(new Facts(metadata, naming)) : t.value.page.NO_ANSWER;
}

/** Why an action is not offered. */
export function closedText(closed: Closed, naming: Naming): string {
  const own = t.value.page[closed.reason as keyof typeof t.value.page];
  return own ?? reasonText(closed.reason, closed.metadata, naming);
}

/** Why a call was refused. */
export function refusalText(refusal: Refusal, naming: Naming): string {
  if (refusal.reason !== "") return reasonText(refusal.reason, refusal.metadata, naming);
  switch (refusal.code) {
    case Code.PermissionDenied:
      return t.value.page.NOT_ALLOWED;
    case Code.Unauthenticated:
      return t.value.page.NOT_SIGNED_IN;
    case Code.Unimplemented:
      return t.value.page.UNSUPPORTED;
    default:
      return t.value.page.NO_ANSWER;
  }
}

/** A refusal's stable name for tests and styles. */
export const refusalName = (refusal: Refusal): string => refusal.reason || Code[refusal.code].toUpperCase();

/** What an order is called. */
export function orderTitle(kind: OrderKind, amountMg: number | undefined): string {
  return kind === "feed_now" && amountMg !== undefined
    ? t.value.order.feedAmount(formatAmount(amountMg))
    : t.value.order[kind];
}

export function kindOf(command: Command): OrderKind | undefined {
  switch (command.action.case) {
    case "updateConfig":
      return "update_config";
    case "feedNow":
      return "feed_now";
    case "hold":
      return "hold";
    case "resume":
      return "resume";
    case "resetFault":
      return "reset_fault";
    default:
      return undefined;
  }
}

/** The planned amount of a dose command. */
export const plannedMg = (command: Command): number | undefined =>
  command.action.case === "feedNow" ? command.action.value.portionMg : undefined;

/** One line that says how a command ended or how far it is. */
export function outcomeLine(command: Command): string {
  const o = t.value.outcome;
  const kind = kindOf(command);
  switch (command.state) {
    case CommandState.ACCEPTED:
      return o.accepted;
    case CommandState.SENT:
      return o.sent;
    case CommandState.EXECUTING:
      return kind === "feed_now" ? o.executingDose : kind === "update_config" ? o.executingConfig : o.executing;
    case CommandState.APPLIED:
      return appliedLine(command, kind);
    case CommandState.PARTIAL: {
      const planned = plannedMg(command);
      return command.dispensedMg === undefined || planned === undefined
        ? o.partialBare
        : o.partial(formatDispensed(command.dispensedMg, command.basis), formatAmount(planned));
    }
    case CommandState.REJECTED:
      return o.rejected;
    case CommandState.EXPIRED:
      return o.expired;
    case CommandState.UNCERTAIN:
      return kind === "feed_now" ? o.uncertainDose : o.uncertain;
    default:
      return t.value.notKnown;
  }
}

function appliedLine(command: Command, kind: OrderKind | undefined): string {
  const o = t.value.outcome;
  switch (kind) {
    case "feed_now": {
      const mg = command.dispensedMg;
      return mg === undefined ? o.appliedDoseBare : o.appliedDose(formatDispensed(mg, command.basis));
    }
    case "hold":
      return o.appliedHold;
    case "resume":
      return o.appliedResume;
    case "reset_fault":
      return o.appliedReset;
    default:
      return o.appliedConfig;
  }
}

/** Who made a version of the settings. */
export function authorText(author: ConfigAuthor): string {
  const a = t.value.history.author;
  switch (author) {
    case ConfigAuthor.COMMAND:
      return a.command;
    case ConfigAuthor.FARM:
      return a.farm;
    case ConfigAuthor.CALIBRATION:
      return a.calibration;
    case ConfigAuthor.PLC_MEMORY_LOST:
      return a.memoryLost;
    default:
      return a.unknown;
  }
}

/** How an amount is known, in a word; empty without an amount. */
export function basisWord(basis: AmountBasis): string {
  const b = t.value.outcome.basis;
  switch (basis) {
    case AmountBasis.WEIGHED:
      return b.weighed;
    case AmountBasis.COUNTED:
      return b.counted;
    case AmountBasis.TIMED:
      return b.timed;
    case AmountBasis.ASSUMED:
      return b.assumed;
    default:
      return "";
  }
}

/** The state that a step shows: a command's, or one of the page's own. */
export function stepState(step: Step): string {
  switch (step.phase) {
    case "settled":
      return CommandState[step.command.state];
    case "accepted":
      return step.command ? CommandState[step.command.state] : "ACCEPTED";
    case "sending":
    case "retrying":
    case "unknown":
    case "refused":
    case "lost":
      return step.phase.toUpperCase();
  }
}

/** The line of a step. */
export function stepLine(step: Step, kind: OrderKind): string {
  const o = t.value.outcome;
  switch (step.phase) {
    case "sending":
      return step.attempt > 1 ? o.sendingAgain(String(step.attempt)) : o.sending;
    case "retrying":
      return o.retrying;
    case "unknown":
      return kind === "feed_now" ? o.unknownDose : o.unknown;
    case "accepted":
      return step.command ? outcomeLine(step.command) : o.accepted;
    case "settled":
      return outcomeLine(step.command);
    case "refused":
      return o.refused;
    case "lost":
      return o.lost;
  }
}

/** What a problem of a field says. */
export function problemText(path: FieldPath, problem: Problem): string {
  const p = t.value.problem;
  const say = (value: number) => describeQuantity(path as QuantityPath, value);
  switch (problem.kind) {
    case "empty":
    case "number":
    case "ambiguous":
      return p[problem.kind];
    case "finer":
      return p.finer(QUANTITY_UNITS[path as QuantityPath]?.[0]?.id ?? "");
    case "below":
      return p.below(say(problem.bound));
    case "above":
      return p.above(say(problem.bound));
    case "step":
      return p.step(say(problem.step), problem.nearest.map(say).join(" · "));
    case "window-incomplete":
      return p.windowIncomplete;
    case "window-empty":
      return p.windowEmpty;
    case "window-overlap":
      return p.windowOverlap;
    case "too-fast":
      return p.tooFast(formatInterval(problem.seconds));
    case "over-cap":
      return p.overCap(formatAmount(problem.need), formatAmount(problem.cap));
    case "server":
      return p.refused;
  }
}

/** A quantity of a field in its wire unit, in words. */
export function describeQuantity(path: QuantityPath, value: number): string {
  switch (path) {
    case "interval":
      return formatInterval(value);
    case "portion_mg":
    case "daily_cap_mg":
      return formatAmount(value);
    case "interlocks.min_dissolved_oxygen_ug_per_l":
      return formatReading(ReadingKind.DISSOLVED_OXYGEN_UG_PER_L, value, true);
    case "interlocks.min_oxygen_saturation_permille":
      return formatReading(ReadingKind.OXYGEN_SATURATION_PERMILLE, value, true);
    case "interlocks.max_water_temperature_millicelsius":
      return formatReading(ReadingKind.WATER_TEMPERATURE_MILLICELSIUS, value, true);
  }
}

/** What a field is called. */
export const fieldTitle = (path: FieldPath): string => t.value.config[shortName(path) as "portion_mg"];

export function readingTitle(kind: ReadingKind): string {
  const r = t.value.reading;
  switch (kind) {
    case ReadingKind.DISSOLVED_OXYGEN_UG_PER_L:
      return r.oxygen;
    case ReadingKind.OXYGEN_SATURATION_PERMILLE:
      return r.saturation;
    case ReadingKind.WATER_TEMPERATURE_MILLICELSIUS:
      return r.temperature;
    case ReadingKind.PH_MILLI:
      return r.ph;
    default:
      return r.other;
  }
}

export function holdTitle(hold: Hold): string {
  const s = t.value.hold.sources;
  switch (hold.source) {
    case HoldSource.OPERATOR:
      return s.operator;
    case HoldSource.FARM:
      return s.farm;
    case HoldSource.INTERLOCK:
      return s.interlock;
    case HoldSource.DAILY_CAP:
      return s.dailyCap;
    case HoldSource.ENVELOPE:
      return s.envelope;
    case HoldSource.CONFIG_MIXED:
      return s.configMixed;
    case HoldSource.PLC_MEMORY_LOST:
      return s.memoryLost;
    default:
      return s.other;
  }
}
