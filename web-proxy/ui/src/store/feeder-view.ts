// What a feeder is to a person: its state as far as it may be believed, and the order of attention.
import { FeederState, type Feeder, LinkState, Quality, type Reading } from "../gen/pasamanos/v1/resources_pb";
import { durationMs } from "../format/time";
import type { Farm, Seen } from "./farm";
import { feederPresence } from "./presence";

export type StateName = "unknown" | "fault" | "dosing" | "held" | "off" | "ready";

const STATES: Record<FeederState, StateName> = {
  [FeederState.UNSPECIFIED]: "unknown",
  [FeederState.UNKNOWN]: "unknown",
  [FeederState.FAULT]: "fault",
  [FeederState.DOSING]: "dosing",
  [FeederState.HELD]: "held",
  [FeederState.OFF]: "off",
  [FeederState.READY]: "ready",
};

/** A feeder whose farm PC or PLC does not answer is UNKNOWN whatever was read last. */
export function feederState(farm: Farm, feeder: Feeder): StateName {
  if (feederPresence(farm, feeder).state !== "online") return "unknown";
  const link = farm.robots.get(feeder.robot)?.value.link?.state;
  if (link !== undefined && link !== LinkState.UP && link !== LinkState.UNSPECIFIED) return "unknown";
  return STATES[feeder.status?.state ?? FeederState.UNKNOWN];
}

/** The same by name; UNKNOWN for a feeder that is not there. */
export function stateOf(farm: Farm, name: string): StateName {
  const feeder = farm.feeders.get(name)?.value;
  return feeder ? feederState(farm, feeder) : "unknown";
}

/** Most in need of a look first. */
export const ATTENTION: readonly StateName[] = ["fault", "unknown", "held", "dosing", "off", "ready"];

/** Whether someone should look at it, whatever its state says. */
export function needsLook(farm: Farm, feeder: Feeder): boolean {
  const robot = farm.robots.get(feeder.robot)?.value;
  const state = feederState(farm, feeder);
  return state === "fault" || state === "unknown" || state === "held" || feeder.configInvalid || !!robot?.unsettledCommand;
}

/** The monotonic instant at which a feeder was read last; absent if never. */
export function readAt(seen: Seen<Feeder>): number | undefined {
  const age = durationMs(seen.value.status?.age);
  return age === undefined ? undefined : seen.at - age;
}

/** The monotonic instant of a reading. */
export function observedAt(reading: Reading, at: number): number | undefined {
  const age = durationMs(reading.age);
  return age === undefined ? undefined : at - age;
}

/** Readings are sent at least every 60 s; older than this is not shown as live. */
const FRESH_FOR_MS = 180_000;

export type Trust = "good" | "uncertain" | "bad" | "stale";

/** How far a reading can be trusted now. */
export function trustOf(reading: Reading, at: number, now: number): Trust {
  switch (reading.quality) {
    case Quality.GOOD:
      return now - (observedAt(reading, at) ?? at) > FRESH_FOR_MS ? "stale" : "good";
    case Quality.UNCERTAIN:
      return "uncertain";
    case Quality.STALE:
      return "stale";
    default:
      return "bad";
  }
}

/** Text order as people of any script expect it, with numbers by value. */
const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
export const byText = (a: string, b: string): number => collator.compare(a, b);
