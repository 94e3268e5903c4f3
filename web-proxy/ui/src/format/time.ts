// Durations, relative and absolute times in the page's language and the farm's zone.
import type { Duration, Timestamp } from "@bufbuild/protobuf/wkt";
import { localeOf, t } from "../i18n";
import { formatNumber, withUnit } from "./amount";

/** Milliseconds of a Duration; absent stays absent. */
export function durationMs(d: Duration): number;
export function durationMs(d: Duration | undefined): number | undefined;
export function durationMs(d: Duration | undefined): number | undefined {
  return d === undefined ? undefined : Number(d.seconds) * 1_000 + d.nanos / 1e6;
}

/** Milliseconds since 1970 of a Timestamp; absent stays absent. */
export function timestampMs(s: Timestamp): number;
export function timestampMs(s: Timestamp | undefined): number | undefined;
export function timestampMs(s: Timestamp | undefined): number | undefined {
  return s === undefined ? undefined : Number(s.seconds) * 1_000 + s.nanos / 1e6;
}

/** A length of time in at most two units: "45 s", "15 min", "1 h 30 min", "2 d 3 h". */
export function formatDuration(ms: number): string {
  const u = t.value.units;
  const total = Math.max(0, Math.floor(ms / 1_000));
  const days = Math.floor(total / 86_400);
  const hours = Math.floor((total % 86_400) / 3_600);
  const minutes = Math.floor((total % 3_600) / 60);
  const seconds = total % 60;
  const part = (n: number, unit: string) => (n > 0 ? [withUnit(formatNumber(n), unit)] : []);
  const parts = [...part(days, u.d), ...part(hours, u.h), ...part(minutes, u.min), ...part(seconds, u.s)];
  return parts.slice(0, 2).join(" ") || withUnit(formatNumber(0), u.s);
}

/** An exact length of whole seconds, all its units: what a config says. */
export function formatInterval(seconds: number): string {
  const u = t.value.units;
  const part = (n: number, unit: string) => (n > 0 ? [withUnit(formatNumber(n), unit)] : []);
  const parts = [
    ...part(Math.floor(seconds / 3_600), u.h),
    ...part(Math.floor((seconds % 3_600) / 60), u.min),
    ...part(seconds % 60, u.s),
  ];
  return parts.join(" ") || withUnit(formatNumber(0), u.s);
}

/** A moment seen from now; negative is past: "4 min ago", "in 11 min". One unit is enough. */
export function formatRelative(deltaMs: number): string {
  const size = Math.abs(deltaMs) / 1_000;
  if (size < 5) return t.value.justNow;
  const u = t.value.units;
  // What is to come is rounded up: a meal "in 0 min" would be over.
  const round = deltaMs > 0 ? Math.ceil : Math.floor;
  const [count, unit] =
    size < 60
      ? [Math.floor(size), u.s]
      : size < 3_600
        ? [round(size / 60), u.min]
        : size < 86_400
          ? [Math.floor(size / 3_600), u.h]
          : [Math.floor(size / 86_400), u.d];
  const length = withUnit(formatNumber(count), unit);
  return deltaMs < 0 ? t.value.ago(length) : t.value.ahead(length);
}

const clockCache = new Map<string, Intl.DateTimeFormat>();

function clock(zone: string, options: Intl.DateTimeFormatOptions): Intl.DateTimeFormat {
  const key = `${localeOf()}/${zone}/${JSON.stringify(options)}`;
  let format = clockCache.get(key);
  if (!format) {
    try {
      format = new Intl.DateTimeFormat(localeOf(), { ...options, timeZone: zone || "UTC" });
    } catch {
      format = new Intl.DateTimeFormat(localeOf(), { ...options, timeZone: "UTC" });
    }
    clockCache.set(key, format);
  }
  return format;
}

/** The time of day in the farm's zone, with the date unless it is today's there. */
export function formatMoment(ms: number, zone: string, nowMs: number): string {
  const day: Intl.DateTimeFormatOptions = { day: "numeric", month: "short" };
  const time: Intl.DateTimeFormatOptions = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  const same = clock(zone, { dateStyle: "short" });
  if (same.format(ms) === same.format(nowMs)) return clock(zone, time).format(ms);
  return clock(zone, { ...day, ...time }).format(ms);
}

/** A minute of the day, "05:30". */
export function formatMinute(minute: number): string {
  const pad = (n: number) => String(n).padStart(2, "0");
  return `${pad(Math.floor(minute / 60))}:${pad(minute % 60)}`;
}
