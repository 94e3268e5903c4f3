import { describe, expect, it } from "vitest";
import { formatAmount, formatDispensed, formatTotal } from "../src/format/amount";
import { bestUnit, editQuantity, MASS, parseQuantity, TEMPERATURE, TIME } from "../src/format/quantity";
import { formatDuration, formatInterval, formatMoment, formatRelative } from "../src/format/time";
import { AmountBasis } from "../src/gen/pasamanos/v1/resources_pb";
import { setLanguage } from "../src/i18n";

const [mg, g, kg] = MASS as [(typeof MASS)[0], (typeof MASS)[0], (typeof MASS)[0]];
const min = TIME[1] as (typeof TIME)[0];

describe("typed amounts", () => {
  it.each([
    ["1.5", g, 1_500],
    ["1,5", g, 1_500],
    ["0.015", g, 15],
    ["0,150", g, 150],
    [" 150 ", mg, 150],
    ["1500 mg", g, 1_500],
    ["1.5g", mg, 1_500],
    ["2kg", g, 2_000_000],
    ["0.1", kg, 100_000],
    [".5", g, 500],
    ["1.125", g, 1_125],
  ])("reads %s", (text, unit, value) => {
    expect(parseQuantity(text, unit, MASS)).toEqual({ ok: true, value });
  });

  it("never guesses whether a comma means thousands", () => {
    expect(parseQuantity("1,500", mg, MASS)).toEqual({ ok: false, problem: "ambiguous" });
    expect(parseQuantity("1.500", g, MASS, ",")).toEqual({ ok: false, problem: "ambiguous" });
    expect(parseQuantity("1,500", g, MASS, ",")).toEqual({ ok: true, value: 1_500 });
  });

  it.each(["", "abc", "1.5.2", "1e3", "--1", "5 min", "0x10", "1 500,0,0", "∞"])("refuses %s", (text) => {
    expect(parseQuantity(text, g, MASS).ok).toBe(false);
  });

  it("refuses what is finer than the wire", () => {
    expect(parseQuantity("0.0005", g, MASS)).toEqual({ ok: false, problem: "finer" });
  });

  it("reads times and temperatures below zero", () => {
    expect(parseQuantity("1.5", min, TIME)).toEqual({ ok: true, value: 90 });
    expect(parseQuantity("45 s", min, TIME)).toEqual({ ok: true, value: 45 });
    expect(parseQuantity("-1.5", TEMPERATURE[0] as (typeof TEMPERATURE)[0], TEMPERATURE)).toEqual({ ok: true, value: -1_500 });
  });

  it("writes what it reads", () => {
    for (const value of [1, 10, 15, 150, 999, 1_000, 1_001, 1_500, 123_456, 5_000_000]) {
      for (const unit of MASS) expect(parseQuantity(editQuantity(value, unit), unit, MASS)).toEqual({ ok: true, value });
      const comma = editQuantity(value, g, ",");
      expect(parseQuantity(comma, g, MASS, ",")).toEqual({ ok: true, value });
    }
  });

  it("chooses the unit that people say", () => {
    expect(bestUnit(150, MASS).id).toBe("mg");
    expect(bestUnit(1_500, MASS).id).toBe("g");
    expect(bestUnit(2_000_000, MASS).id).toBe("kg");
    expect(bestUnit(900, TIME).id).toBe("min");
    expect(bestUnit(90, TIME).id).toBe("s");
    expect(bestUnit(7_200, TIME).id).toBe("h");
  });
});

describe("shown amounts and times", () => {
  const plain = (text: string) => text.replace(/\u00a0/g, " ");

  it("shows amounts exactly and totals roughly", () => {
    expect(plain(formatAmount(150))).toBe("150 mg");
    expect(plain(formatAmount(1_505))).toBe("1.505 g");
    expect(plain(formatAmount(1_234_567))).toBe("1.234567 kg");
    expect(plain(formatTotal(123_456n))).toBe("123 g");
  });

  it("says about where nobody weighed or counted", () => {
    expect(plain(formatDispensed(1_500, AmountBasis.TIMED))).toBe("about 1.5 g");
    expect(plain(formatDispensed(1_500, AmountBasis.ASSUMED))).toBe("about 1.5 g");
    expect(plain(formatDispensed(1_500, AmountBasis.COUNTED))).toBe("1.5 g");
  });

  it("follows the language", async () => {
    await setLanguage("es", false);
    expect(plain(formatAmount(1_500))).toBe("1,5 g");
    expect(plain(formatDispensed(1_500, AmountBasis.TIMED))).toBe("unos 1,5 g");
  });

  it("shows lengths and ages", () => {
    expect(plain(formatDuration(7_860_000))).toBe("2 h 11 min");
    expect(plain(formatInterval(5_405))).toBe("1 h 30 min 5 s");
    expect(formatRelative(-2_000)).toBe("just now");
    expect(plain(formatRelative(-240_000))).toBe("4 min ago");
    expect(plain(formatRelative(61_000))).toBe("in 2 min");
    expect(plain(formatRelative(-90_000_000))).toBe("1 d ago");
  });

  it("shows the farm's clock, and the date when it is another day there", () => {
    const noon = Date.UTC(2026, 10, 24, 10, 0);
    expect(formatMoment(noon, "Asia/Jerusalem", noon + 60_000)).toBe("12:00");
    expect(formatMoment(noon, "Asia/Jerusalem", noon + 86_400_000)).toMatch(/24.*Nov.*12:00/);
    expect(formatMoment(noon, "No/Such", noon)).toBe("10:00");
  });
});
