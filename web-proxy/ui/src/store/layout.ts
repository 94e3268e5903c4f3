// Which tanks are shown, in which order, under which heading: pure, from the farm and the filter.
import { ATTENTION, byText, feederState, needsLook, type StateName } from "./feeder-view";
import type { Farm } from "./farm";

export interface Filter {
  readonly text: string;
  /** A state, what needs a look, or everything. */
  readonly only: StateName | "look" | "all";
  readonly attentionFirst: boolean;
}

export interface TankSlot {
  readonly tank: string;
  readonly feeders: readonly string[];
}

export interface Section {
  /** The group's name; empty for tanks without one. */
  readonly group: string;
  readonly tanks: readonly TankSlot[];
}

export interface Layout {
  readonly sections: readonly Section[];
  readonly shown: number;
}

export type Counts = Readonly<Record<StateName | "look" | "all", number>>;

/** How many feeders are in which state. */
export function countStates(farm: Farm): Counts {
  const counts = { all: 0, look: 0, fault: 0, unknown: 0, held: 0, dosing: 0, off: 0, ready: 0 };
  for (const { value } of farm.feeders.values()) {
    counts.all++;
    counts[feederState(farm, value)]++;
    if (needsLook(farm, value)) counts.look++;
  }
  return counts;
}

export function layoutOf(farm: Farm, filter: Filter): Layout {
  const wanted = filter.text.trim().toLocaleLowerCase();
  const slots: { slot: TankSlot; group: string; title: string; rank: number }[] = [];
  const feeders = [...farm.feeders.values()].map((f) => f.value);
  for (const { value: tank } of farm.tanks.values()) {
    const own = feeders.filter((f) => f.tank === tank.name);
    const words = [tank.displayName, tank.name, tank.group, ...own.flatMap((f) => [f.displayName, f.name])];
    if (wanted !== "" && !words.some((w) => w.toLocaleLowerCase().includes(wanted))) continue;
    const fits = own.filter((f) => {
      if (filter.only === "all") return true;
      return filter.only === "look" ? needsLook(farm, f) : feederState(farm, f) === filter.only;
    });
    if (filter.only !== "all" && fits.length === 0) continue;
    const ranks = own.map((f) => (needsLook(farm, f) ? 0 : 10) + ATTENTION.indexOf(feederState(farm, f)));
    const names = fits.sort((a, b) => byText(a.displayName, b.displayName)).map((f) => f.name);
    slots.push({
      slot: { tank: tank.name, feeders: names },
      group: filter.attentionFirst ? "" : tank.group,
      title: tank.displayName || tank.name,
      rank: filter.attentionFirst ? Math.min(99, ...ranks) : 0,
    });
  }
  slots.sort(
    (a, b) => Number(a.group === "") - Number(b.group === "") || byText(a.group, b.group) || a.rank - b.rank || byText(a.title, b.title),
  );
  const sections: { group: string; tanks: TankSlot[] }[] = [];
  for (const { slot, group } of slots) {
    const last = sections[sections.length - 1];
    if (last?.group === group) last.tanks.push(slot);
    else sections.push({ group, tanks: [slot] });
  }
  return { sections, shown: slots.length };
}
