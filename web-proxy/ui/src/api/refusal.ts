// What the server refused, and why, read from a failed call's details.
import { Code, ConnectError } from "@connectrpc/connect";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "../gen/google/rpc/error_details_pb";
import { type Feeder, FeederSchema } from "../gen/pasamanos/v1/resources_pb";
import { durationMs } from "../format/time";
import { isReason, type ReasonName } from "../i18n/facts";

/** One field and why it is not accepted. */
export interface FieldViolation {
  /** As the server names it, such as `config.portion_mg`. */
  readonly field: string;
  /** The server's English; shown only where the page has no sentence of its own. */
  readonly description: string;
}

/** A failed call. */
export interface Refusal {
  readonly code: Code;
  /** Empty if the failure bears no reason that this page knows. */
  readonly reason: ReasonName | "";
  readonly metadata: Readonly<Record<string, string>>;
  readonly fields: readonly FieldViolation[];
  readonly retryAfterMs: number | undefined;
  /** The feeder as it is now, if the server attached it. */
  readonly feeder: Feeder | undefined;
}

const DOMAIN = "pasamanos.dev";

export function refusalOf(error: unknown): Refusal {
  const failure = ConnectError.from(error);
  const info = failure.findDetails(ErrorInfoSchema).find((d) => d.domain === DOMAIN || d.domain === "");
  const fields = failure
    .findDetails(BadRequestSchema)
    .flatMap((d) => d.fieldViolations.map(({ field, description }) => ({ field, description })));
  return {
    code: failure.code,
    reason: info && isReason(info.reason) ? info.reason : "",
    metadata: info ? { ...info.metadata } : {},
    fields,
    retryAfterMs: durationMs(failure.findDetails(RetryInfoSchema)[0]?.retryDelay),
    feeder: failure.findDetails(FeederSchema)[0],
  };
}

/** What follows from a failed change. */
export type Verdict =
  /** Nothing was left behind; the person is told. */
  | "refused"
  /** Nothing was left behind and it will pass soon: the same order again. */
  | "retry"
  /** The order was or may have been accepted: only GetCommand tells. */
  | "ask";

const PASSING: readonly ReasonName[] = [
  "AGENT_MOVING",
  "LEASE_STORE_UNREACHABLE",
  "DATABASE_UNREACHABLE",
  "SERVER_STOPPING",
  "OVERLOADED",
];

// Codes that a server or proxy gives only to a request it did not carry out.
const DEFINITE: readonly Code[] = [
  Code.InvalidArgument,
  Code.NotFound,
  Code.AlreadyExists,
  Code.PermissionDenied,
  Code.Unauthenticated,
  Code.FailedPrecondition,
  Code.Unimplemented,
  Code.ResourceExhausted,
  Code.OutOfRange,
];

/** Sorts a failed change. In doubt it is "ask": an order sent twice is worse than one asked about. */
export function verdictOf(r: Refusal): Verdict {
  switch (r.reason) {
    case "":
      return DEFINITE.includes(r.code) ? "refused" : "ask";
    case "ACCEPTANCE_UNKNOWN":
    case "OUTCOME_PENDING":
    case "INTERNAL":
      return "ask";
    case "CHANGED_AT_FARM":
      return "refused";
    default:
      break;
  }
  if (!PASSING.includes(r.reason)) return "refused";
  return r.metadata.command ? "ask" : "retry";
}
