import { create } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { describe, expect, it } from "vitest";
import { failure } from "../mock/backend";
import { refusalOf, verdictOf } from "../src/api/refusal";
import { fieldOfViolation } from "../src/form/fields";
import { BadRequestSchema, RetryInfoSchema } from "../src/gen/google/rpc/error_details_pb";
import { Reason } from "../src/gen/pasamanos/v1/reasons_pb";
import { AmountBasis, CommandState, ConfigAuthor, FeederSchema, HoldSource, PreviewWarning, ReadingKind } from "../src/gen/pasamanos/v1/resources_pb";
import { Facts, isReason, type ReasonName, slugOf } from "../src/i18n/facts";
import { LANGUAGES, setLanguage, t } from "../src/i18n";
import { authorText, basisWord, closedText, holdTitle, outcomeLine, readingTitle, reasonText, refusalText } from "../src/i18n/words";
import { command } from "./fake";

const NAMES = Object.keys(Reason).filter((k) => Number.isNaN(Number(k)) && k !== "UNSPECIFIED") as ReasonName[];
const members = (e: object) => Object.keys(e).filter((k) => Number.isNaN(Number(k)) && k !== "UNSPECIFIED");

describe.each(Object.keys(LANGUAGES) as (keyof typeof LANGUAGES)[])("the words of %s", (language) => {
  it.each(NAMES)("have a sentence for %s, with and without metadata", async (name) => {
    await setLanguage(language, false);
    const sentence = t.value.reasons[name];
    expect(sentence, `no sentence for ${name}: add it to src/i18n/${language}.reasons.ts`).toBeDefined();
    const full = { agent: "farms/f/agents/pc", left_mg: "1500", kind: "DISSOLVED_OXYGEN_UG_PER_L", value: "4100", limit: "4500", since_ms: "31000", fault_code: "12", plc_reason: "jam", incident: "x7", robot: "farms/f/robots/r" };
    for (const metadata of [{}, full]) {
      const text = sentence?.(new Facts(metadata)) ?? "";
      expect(text.length).toBeGreaterThan(15);
      expect(text).not.toMatch(/undefined|null|NaN|\[object/);
    }
  });

  it("have words for every state, basis, hold, author, reading and warning", async () => {
    await setLanguage(language, false);
    const unknown = t.value.notKnown;
    for (const name of members(CommandState)) {
      expect(outcomeLine(command("x", name as "APPLIED"))).not.toBe(unknown);
      expect(t.value.outcome.state[name as "APPLIED"]).toBeTruthy();
    }
    for (const name of members(AmountBasis)) expect(basisWord(AmountBasis[name as "TIMED"])).not.toBe("");
    for (const name of members(ReadingKind)) expect(readingTitle(ReadingKind[name as "PH_MILLI"])).not.toBe(t.value.reading.other);
    for (const name of members(PreviewWarning)) expect(t.value.preview.warnings).toHaveProperty(name);
    for (const name of members(ConfigAuthor)) expect(authorText(ConfigAuthor[name as "FARM"])).not.toBe(t.value.history.author.unknown);
    const sources = members(HoldSource).map((name) => holdTitle({ source: HoldSource[name as "FARM"] } as never));
    expect(new Set(sources).size).toBe(sources.length);
    expect(sources).not.toContain(t.value.hold.sources.other);
  });

  it("are all there: no key of English is missing or empty", async () => {
    await setLanguage(language, false);
    const shape = (value: unknown): unknown =>
      typeof value === "object" && value !== null
        ? Object.fromEntries(Object.entries(value).map(([k, v]) => [k, shape(v)]))
        : typeof value;
    const strings = shape(t.value);
    await setLanguage("en", false);
    expect(strings).toEqual(shape(t.value));
  });
});

describe("reasons", () => {
  it("carry their amounts, readings and lengths", () => {
    const say = (reason: string, metadata: Record<string, string>) => reasonText(reason, metadata, slugOf).replace(/\u00a0/g, " ");
    expect(say("DAILY_CAP", { left_mg: "1500" })).toContain("1.5 g left");
    expect(say("AGENT_OFFLINE", { since_ms: "31000" })).toContain("31 s");
    expect(say("INTERLOCK", { kind: "DISSOLVED_OXYGEN_UG_PER_L", value: "4100", limit: "4500" })).toContain("4.1 mg/L, limit 4.5 mg/L");
    expect(say("INTERLOCK", { kind: "READING_KIND_WATER_TEMPERATURE_MILLICELSIUS", value: "-500", limit: "0" })).toContain("-0.5 °C");
    expect(say("DOSE_UNSETTLED", { robot: "farms/f/robots/r-1" })).toContain("(r-1)");
  });

  it("never show what the server wrote", () => {
    const refusal = refusalOf(failure(Code.FailedPrecondition, "A_REASON_FROM_THE_FUTURE"));
    expect(refusal.reason).toBe("");
    expect(refusalText(refusal, slugOf)).toBe(t.value.page.NO_ANSWER);
    expect(refusalText(refusalOf(new ConnectError("secret", Code.PermissionDenied)), slugOf)).toBe(t.value.page.NOT_ALLOWED);
    expect(isReason("UNSPECIFIED")).toBe(false);
    expect(isReason("toString")).toBe(false);
  });

  it("tell apart what the page knows by itself", () => {
    expect(closedText({ reason: "STREAM_BROKEN", metadata: {} }, slugOf)).toBe(t.value.page.STREAM_BROKEN);
    expect(closedText({ reason: "FEEDER_OFF", metadata: {} }, slugOf)).toContain("is off");
  });
});

describe("a refusal", () => {
  it("reads every detail that the server attaches", () => {
    const feeder = create(FeederSchema, { name: "farms/f/feeders/a", etag: "new" });
    const error = failure(Code.Aborted, "ETAG_MISMATCH", { etag: "new" }, [
      { desc: FeederSchema, value: feeder },
      { desc: RetryInfoSchema, value: { retryDelay: { seconds: 1n, nanos: 500_000_000 } } },
      { desc: BadRequestSchema, value: { fieldViolations: [{ field: "config.portion_mg", description: "must be 10 to 20" }] } },
    ]);
    expect(refusalOf(error)).toMatchObject({
      code: Code.Aborted,
      reason: "ETAG_MISMATCH",
      metadata: { etag: "new" },
      retryAfterMs: 1_500,
      feeder: { etag: "new" },
      fields: [{ field: "config.portion_mg", description: "must be 10 to 20" }],
    });
  });

  it("survives whatever is thrown", () => {
    for (const thrown of [new TypeError("fetch failed"), "text", undefined, { odd: 1 }]) {
      expect(verdictOf(refusalOf(thrown))).toBe("ask");
    }
  });

  it.each<[string, Code, "refused" | "retry" | "ask"]>([
    ["AGENT_OFFLINE", Code.FailedPrecondition, "refused"],
    ["AGENT_MOVING", Code.Unavailable, "retry"],
    ["LEASE_STORE_UNREACHABLE", Code.Unavailable, "retry"],
    ["DATABASE_UNREACHABLE", Code.Unavailable, "retry"],
    ["SERVER_STOPPING", Code.Unavailable, "retry"],
    ["OVERLOADED", Code.ResourceExhausted, "retry"],
    ["ACCEPTANCE_UNKNOWN", Code.Unavailable, "ask"],
    ["OUTCOME_PENDING", Code.DeadlineExceeded, "ask"],
    ["CHANGED_AT_FARM", Code.Aborted, "refused"],
    ["", Code.Unavailable, "ask"],
    ["", Code.Unknown, "ask"],
    ["", Code.Canceled, "ask"],
    ["", Code.Aborted, "ask"],
    ["", Code.InvalidArgument, "refused"],
    ["", Code.Unauthenticated, "refused"],
  ])("%s with code %i is %s", (reason, code, verdict) => {
    expect(verdictOf(refusalOf(failure(code, reason)))).toBe(verdict);
  });
});

describe("the field of a violation", () => {
  it.each([
    ["config.portion_mg", "portion_mg"],
    ["portion_mg", "portion_mg"],
    ["config.interval", "interval"],
    ["config.windows[1].end_minute", "windows"],
    ["config.windows", "windows"],
    ["config.interlocks.min_dissolved_oxygen_ug_per_l", "interlocks.min_dissolved_oxygen_ug_per_l"],
    ["request_id", undefined],
    ["config", undefined],
  ])("%s is %s", (violation, field) => {
    expect(fieldOfViolation(violation)).toBe(field);
  });
});
