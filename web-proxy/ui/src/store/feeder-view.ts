// What a feeder is to a person: its state as far as it may be believed, and the order of attention.
import { CommandState, type Fault, FeederState, type Feeder, LinkState, Quality, type Reading, type Robot } from "../gen/pasamanos/v1/resources_pb";
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
  const state = feederState(farm, feeder);
  if (state === "fault" || state === "unknown" || state === "held" || feeder.configInvalid || feeder.configReversion) return true;
  return openDose(farm, farm.robots.get(feeder.robot)?.value) === "doubt";
}

/**
 * The dose that locks a robot: it runs, its fate is in doubt, or the watch has not shown it yet;
 * undefined if there is none.
 */
export function openDose(farm: Farm, robot: Robot | undefined): "running" | "doubt" | "not-shown" | undefined {
  if (!robot?.unsettledCommand) return undefined;
  const command = farm.commands.get(robot.unsettledCommand)?.value;
  if (!command) return "not-shown";
  return command.state === CommandState.UNCERTAIN ? "doubt" : "running";
}

/** The faults of a feeder and of its robot, each once. */
export function faultsOf(feeder: Feeder, robot: Robot | undefined): Fault[] {
  const own = feeder.status?.faults ?? [];
  const more = (robot?.faults ?? []).filter((f) => !own.some((o) => o.code === f.code));
  return [...own, ...more];
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
