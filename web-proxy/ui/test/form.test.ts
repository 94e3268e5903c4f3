import { clone, create } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { changedPaths, describeField, diffConfigs } from "../src/form/diff";
import { type Draft, draftOf, newWindow, overlap, readDraft, rebase } from "../src/form/draft";
import { explainViolation, mealsPerDay } from "../src/form/explain";
import { fieldRights, type QuantityPath } from "../src/form/fields";
import { MASS } from "../src/format/quantity";
import { Enforcer, type FeederConfig, FeederConfigSchema, FeederMode, FeederSchema, FieldAccess, LimitsSchema } from "../src/gen/pasamanos/v1/resources_pb";
import { problemText } from "../src/i18n/words";
import { quickAmounts } from "../src/views/feed-now-dialog";

const base = create(FeederConfigSchema, {
  mode: FeederMode.AUTOMATIC,
  portionMg: 1_500,
  interval: { seconds: 900n },
  windows: [{ startMinute: 330, endMinute: 720 }],
  dailyCapMg: 96_000,
});
const limits = create(LimitsSchema, { portionMinMg: 100, portionMaxMg: 15_000, portionStepMg: 100, intervalMin: { seconds: 60n }, dispenseRateMgPerS: 50 });

const plain = (text: string) => text.replace(/\u00a0/g, " ");
const typed = (draft: Draft, path: QuantityPath, text: string, unit = draft.quantities[path].unit): Draft => ({
  ...draft,
  quantities: { ...draft.quantities, [path]: { text, unit } },
});
const edited = (edit: (c: FeederConfig) => void) => {
  const config = clone(FeederConfigSchema, base);
  edit(config);
  return config;
};

describe("a draft", () => {
  it("stands for its base until something is typed", () => {
    const read = readDraft(draftOf(base, "."), base, limits, ".");
    expect(read.changed).toEqual([]);
    expect(read.problems.size).toBe(0);
    expect(read.config).toEqual(base);
  });

  it("changes only what was typed", () => {
    const read = readDraft(typed(draftOf(base, "."), "portion_mg", "2"), base, limits, ".");
    expect(read.changed).toEqual(["portion_mg"]);
    expect(read.config.portionMg).toBe(2_000);
    expect(read.config.interval).toEqual(base.interval);
  });

  it("is not changed by another way to write the same", () => {
    const mg = MASS[0] as (typeof MASS)[0];
    expect(readDraft(typed(draftOf(base, "."), "portion_mg", "1500", mg), base, limits, ".").changed).toEqual([]);
  });

  it.each([
    ["150", { kind: "above", bound: 15_000 }],
    ["0.01", { kind: "below", bound: 100 }],
    ["1.55", { kind: "step", step: 100, nearest: [1_500, 1_600] }],
    ["", { kind: "empty" }],
    ["much", { kind: "number" }],
  ])("says what is wrong with a portion of %s g", (text, problem) => {
    expect(readDraft(typed(draftOf(base, "."), "portion_mg", text), base, limits, ".").problems.get("portion_mg")).toEqual(problem);
  });

  it("words a portion off the step with its neighbours, and never rounds", () => {
    const read = readDraft(typed(draftOf(base, "."), "portion_mg", "1.55"), base, limits, ".");
    const problem = read.problems.get("portion_mg");
    expect(problem && plain(problemText("portion_mg", problem))).toBe("This feeder works in steps of 100 mg. Nearest: 1.5 g · 1.6 g.");
  });

  it("lets a cap be taken away, and a limit be set and taken away", () => {
    const none = readDraft(typed(draftOf(base, "."), "daily_cap_mg", ""), base, limits, ".");
    expect(none.config.dailyCapMg).toBeUndefined();
    expect(none.changed).toEqual(["daily_cap_mg"]);
    const path = "interlocks.min_dissolved_oxygen_ug_per_l";
    const set = readDraft(typed(draftOf(base, "."), path, "4.5"), base, limits, ".");
    expect(set.config.interlocks?.minDissolvedOxygenUgPerL).toBe(4_500);
    expect(set.changed).toEqual([path]);
  });

  it("leaves an invalid value of the farm alone until it is touched", () => {
    const odd = edited((c) => {
      c.portionMg = 1_555;
    });
    expect(readDraft(draftOf(odd, "."), odd, limits, ".").problems.size).toBe(0);
    expect(readDraft(typed(draftOf(odd, "."), "portion_mg", "1.556"), odd, limits, ".").problems.size).toBe(1);
  });

  it("checks feeding times", () => {
    const windows = (...rows: [string, string][]) => {
      const draft = { ...draftOf(base, "."), windows: rows.map(([a, b]) => newWindow(a, b)) };
      return readDraft(draft, base, limits, ".").problems.get("windows")?.kind;
    };
    expect(windows(["05:30", "12:00"], ["22:00", "02:00"])).toBeUndefined();
    expect(windows(["05:30", ""])).toBe("window-incomplete");
    expect(windows(["05:30", "05:30"])).toBe("window-empty");
    expect(windows(["05:30", "12:00"], ["11:59", "13:00"])).toBe("window-overlap");
    expect(windows(["22:00", "06:00"], ["05:30", "12:00"])).toBe("window-overlap");
    expect(windows()).toBeUndefined();
  });

  it("knows windows that meet from windows that overlap", () => {
    expect(overlap([[60, 120], [120, 180]])).toBe(false);
    expect(overlap([[1_380, 0], [0, 60]])).toBe(false);
    expect(overlap([[1_380, 1], [0, 60]])).toBe(true);
  });
});

describe("old against new", () => {
  it("names every field that differs, in words", () => {
    const after = edited((c) => {
      c.portionMg = 2_000;
      c.mode = FeederMode.OFF;
      c.windows = [];
      c.dailyCapMg = undefined;
      c.interval = create(FeederConfigSchema, { interval: { seconds: 5_400n } }).interval;
    });
    expect(diffConfigs(base, after).map((d) => `${d.path}: ${plain(d.before)} → ${plain(d.after)}`)).toEqual([
      "mode: Automatic → Off",
      "portion_mg: 1.5 g → 2 g",
      "interval: 15 min → 1 h 30 min",
      "windows: 05:30–12:00 → All day",
      "daily_cap_mg: 96 g → No cap",
    ]);
  });

  it("does not mind the order of windows, nor an empty group", () => {
    const a = edited((c) => {
      c.windows = [{ startMinute: 0, endMinute: 60 }, { startMinute: 90, endMinute: 100 }] as never;
    });
    const b = edited((c) => {
      c.windows = [{ startMinute: 90, endMinute: 100 }, { startMinute: 0, endMinute: 60 }] as never;
      c.interlocks = create(FeederConfigSchema, { interlocks: {} }).interlocks;
    });
    expect(changedPaths(a, b)).toEqual([]);
  });

  it("tells zero from absent", () => {
    const zero = edited((c) => {
      c.interlocks = create(FeederConfigSchema, { interlocks: { minDissolvedOxygenUgPerL: 0 } }).interlocks;
    });
    expect(changedPaths(base, zero)).toEqual(["interlocks.min_dissolved_oxygen_ug_per_l"]);
    expect(plain(describeField(zero, "interlocks.min_dissolved_oxygen_ug_per_l"))).toBe("0 mg/L");
  });
});

describe("a new base under a draft", () => {
  const now = edited((c) => {
    c.portionMg = 1_800;
    c.dailyCapMg = 120_000;
  });

  it("keeps what was typed and follows in the rest", () => {
    const draft = rebase(typed(draftOf(base, "."), "portion_mg", "2"), base, now, ".");
    const read = readDraft(draft, now, limits, ".");
    expect(read.changed).toEqual(["portion_mg"]);
    expect(read.config).toMatchObject({ portionMg: 2_000, dailyCapMg: 120_000 });
  });

  it("keeps even what is wrong, to be corrected", () => {
    const draft = rebase(typed(draftOf(base, "."), "portion_mg", "oops"), base, now, ".");
    expect(draft.quantities.portion_mg.text).toBe("oops");
  });
});

describe("a violation of the server", () => {
  const violation = { field: "config.interval", description: "English" };

  it("is worded where its rule is known", () => {
    const slow = edited((c) => {
      c.portionMg = 15_000;
      c.interval = create(FeederConfigSchema, { interval: { seconds: 60n } }).interval;
    });
    expect(explainViolation("interval", violation, slow, limits)).toEqual({ kind: "too-fast", seconds: 300 });
    const hungry = edited((c) => {
      c.windows = [];
    });
    expect(explainViolation("daily_cap_mg", violation, hungry, limits)).toEqual({ kind: "over-cap", need: 144_000, cap: 96_000 });
  });

  it("shows the server's words only where it is not", () => {
    expect(explainViolation("mode", violation, base, limits)).toEqual({ kind: "server", description: "English" });
  });

  it("counts meals as the server does", () => {
    expect(mealsPerDay(base, 900)).toBe(26);
    expect(mealsPerDay(edited((c) => (c.windows = [])), 86_400)).toBe(1);
  });
});

describe("the rights of a field", () => {
  const feeder = create(FeederSchema, {
    capabilities: {
      fields: [
        { path: "portion_mg", access: FieldAccess.WRITABLE, enforcedBy: Enforcer.PLC },
        { path: "interval", access: FieldAccess.READ_ONLY, enforcedBy: Enforcer.PLC },
        { path: "daily_cap_mg", access: FieldAccess.WRITABLE, enforcedBy: Enforcer.AGENT },
        { path: "windows", access: FieldAccess.WRITABLE, enforcedBy: Enforcer.NOBODY },
        { path: "interlocks", access: FieldAccess.WRITABLE, enforcedBy: Enforcer.AGENT },
      ],
    },
  });
  it.each([
    ["portion_mg", true, "none"],
    ["interval", false, "read-only"],
    ["daily_cap_mg", true, "agent"],
    ["windows", false, "nobody"],
    ["interlocks.max_water_temperature_millicelsius", true, "agent"],
    ["mode", false, "absent"],
  ] as const)("%s", (path, editable, hint) => {
    expect(fieldRights(feeder, path)).toMatchObject({ editable, hint });
  });
});

describe("quick amounts", () => {
  it("are on the feeder's step and within its limits", () => {
    expect(quickAmounts(1_500, 100, 15_000, 100)).toEqual([800, 1_500, 3_000]);
    expect(quickAmounts(150, 10, 200, 10)).toEqual([80, 150]);
    expect(quickAmounts(undefined)).toEqual([]);
  });
});
