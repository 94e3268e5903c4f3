// The farm as the watch tells it: a pure reducer over WatchFarm messages. A snapshot replaces, a
// change replaces by name, a gap in the sequence is reported and never papered over.
import type { Agent, Command, Dose, Feeder, Robot, Tank } from "../gen/pasamanos/v1/resources_pb";
import type { FarmChange, FarmStatus, WatchFarmResponse } from "../gen/pasamanos/v1/status_service_pb";
import { timestampMs } from "../format/time";
import { isTerminal } from "../api/submission";

/** A resource and the monotonic instant at which it was received: its ages count on from there. */
export interface Seen<T> {
  readonly value: T;
  readonly at: number;
}

export type ByName<T> = ReadonlyMap<string, Seen<T>>;

export interface Farm {
  readonly name: string;
  readonly displayName: string;
  readonly timeZone: string;
  readonly sequence: bigint;
  readonly agents: ByName<Agent>;
  readonly robots: ByName<Robot>;
  readonly tanks: ByName<Tank>;
  readonly feeders: ByName<Feeder>;
  /** Not settled ones, and the last settled ones as they passed. */
  readonly commands: ByName<Command>;
  /** Grows with each dose that is new in the history, by feeder: whoever shows a list reads it anew. */
  readonly dosesSeen: ReadonlyMap<string, number>;
  /** The server's wall clock and when it was received. */
  readonly serverTime: Seen<number> | undefined;
}

export type Reduced = { readonly farm: Farm } | { readonly gap: true };

const SETTLED_KEPT = 50;

export function reduce(farm: Farm | undefined, message: WatchFarmResponse, at: number): Reduced {
  const { event, sequence } = message;
  switch (event.case) {
    case "snapshot":
      return { farm: fromSnapshot(farm, event.value, sequence, at) };
    case "change":
      if (!farm || sequence !== farm.sequence + 1n) return { gap: true };
      return { farm: withChange(farm, event.value, sequence, at) };
    case "keepalive": {
      if (!farm || sequence !== farm.sequence) return { gap: true };
      const time = timestampMs(event.value.serverTime);
      return { farm: time === undefined ? farm : { ...farm, serverTime: { value: time, at } } };
    }
    default:
      // A newer server's event: it still counts in the sequence.
      if (!farm || sequence > farm.sequence + 1n || sequence < farm.sequence) return { gap: true };
      return { farm: { ...farm, sequence } };
  }
}

function fromSnapshot(before: Farm | undefined, s: FarmStatus, sequence: bigint, at: number): Farm {
  const time = timestampMs(s.serverTime);
  return {
    name: s.name,
    displayName: s.displayName,
    timeZone: s.timeZone,
    sequence,
    agents: upserted(new Map(), s.agents, at),
    robots: upserted(new Map(), s.robots, at),
    tanks: upserted(new Map(), s.tanks, at),
    feeders: upserted(new Map(), s.feeders, at),
    commands: upserted(new Map(), s.commands, at),
    // Anything may have happened meanwhile: every list is read anew.
    dosesSeen: new Map(s.feeders.map((f) => [f.name, (before?.dosesSeen.get(f.name) ?? 0) + 1])),
    serverTime: time === undefined ? before?.serverTime : { value: time, at },
  };
}

function withChange(farm: Farm, c: FarmChange, sequence: bigint, at: number): Farm {
  return {
    ...farm,
    sequence,
    agents: upserted(farm.agents, c.agents, at),
    robots: upserted(farm.robots, c.robots, at),
    tanks: upserted(farm.tanks, c.tanks, at),
    feeders: upserted(farm.feeders, c.feeders, at),
    commands: trimmed(upserted(farm.commands, c.commands, at)),
    dosesSeen: counted(farm.dosesSeen, c.doses),
  };
}

function upserted<T extends { name: string }>(before: ByName<T>, changed: readonly T[], at: number): ByName<T> {
  if (changed.length === 0) return before;
  const after = new Map(before);
  for (const value of changed) after.set(value.name, { value, at });
  return after;
}

function trimmed(commands: ByName<Command>): ByName<Command> {
  const settled = [...commands].filter(([, c]) => isTerminal(c.value.state)).sort(([, a], [, b]) => a.at - b.at);
  if (settled.length <= SETTLED_KEPT) return commands;
  const after = new Map(commands);
  for (const [name] of settled.slice(0, settled.length - SETTLED_KEPT)) after.delete(name);
  return after;
}

function counted(before: ReadonlyMap<string, number>, doses: readonly Dose[]): ReadonlyMap<string, number> {
  if (doses.length === 0) return before;
  const after = new Map(before);
  for (const dose of doses) after.set(dose.feeder, (after.get(dose.feeder) ?? 0) + 1);
  return after;
}

/** The server's wall clock now, carried on by this page's monotonic clock; absent before the first message. */
export function serverNow(farm: Farm, now: number): number | undefined {
  return farm.serverTime && farm.serverTime.value + (now - farm.serverTime.at);
}
