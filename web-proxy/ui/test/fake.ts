// Small things that tests share: a clock of their own, a promise that is settled by hand.
import { fromJson } from "@bufbuild/protobuf";
import { type Command, CommandSchema, CommandState } from "../src/gen/pasamanos/v1/resources_pb";
import type { PendingOrder } from "../src/api/pending";

export const FARM = "farms/north";

export function command(id: string, state: keyof typeof CommandState, more: object = {}): Command {
  return fromJson(CommandSchema, {
    name: `${FARM}/commands/${id}`,
    feeder: `${FARM}/feeders/a-01`,
    state: `COMMAND_STATE_${state}`,
    feedNow: { portionMg: 1500 },
    ...more,
  });
}

export const order = (id: string, more: Partial<PendingOrder> = {}): PendingOrder => ({
  id,
  farm: FARM,
  feeder: `${FARM}/feeders/a-01`,
  robot: `${FARM}/robots/a`,
  kind: "feed_now",
  amountMg: 1500,
  pressedAt: 1,
  ...more,
});

export class MemoryStorage {
  readonly entries = new Map<string, string>();
  get length(): number {
    return this.entries.size;
  }
  key(i: number): string | null {
    return [...this.entries.keys()][i] ?? null;
  }
  getItem(key: string): string | null {
    return this.entries.get(key) ?? null;
  }
  setItem(key: string, value: string): void {
    this.entries.set(key, value);
  }
  removeItem(key: string): void {
    this.entries.delete(key);
  }
}
