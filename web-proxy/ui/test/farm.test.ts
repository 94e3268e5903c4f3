import { create } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { type Farm, reduce, serverNow } from "../src/store/farm";
import { type WatchFarmResponse, WatchFarmResponseSchema } from "../src/gen/pasamanos/v1/status_service_pb";
import { CommandState } from "../src/gen/pasamanos/v1/resources_pb";
import { command, FARM } from "./fake";

type Event = Parameters<typeof create<typeof WatchFarmResponseSchema>>[1];
const message = (sequence: number, event: NonNullable<Event>["event"]): WatchFarmResponse =>
  create(WatchFarmResponseSchema, { sequence: BigInt(sequence), event });
const feeder = (slug: string, more: object = {}) => ({ name: `${FARM}/feeders/${slug}`, etag: "e1", ...more });

function farmOf(before: Farm | undefined, m: WatchFarmResponse, at = 0): Farm {
  const reduced = reduce(before, m, at);
  if ("gap" in reduced) throw new Error("gap");
  return reduced.farm;
}

const snapshot = (sequence = 7, slugs = ["a-01", "a-02"]) =>
  message(sequence, {
    case: "snapshot",
    value: { name: FARM, displayName: "North", timeZone: "UTC", feeders: slugs.map((s) => feeder(s)), serverTime: { seconds: 1_000n } },
  });

describe("the farm as the watch tells it", () => {
  it("starts with a snapshot at any number, and nothing else", () => {
    expect(farmOf(undefined, snapshot(42)).sequence).toBe(42n);
    expect(reduce(undefined, message(1, { case: "change", value: {} }), 0)).toEqual({ gap: true });
    expect(reduce(undefined, message(1, { case: "keepalive", value: {} }), 0)).toEqual({ gap: true });
  });

  it("replaces by name with a change and keeps the rest untouched", () => {
    const before = farmOf(undefined, snapshot());
    const changed = message(8, { case: "change", value: { feeders: [feeder("a-02", { etag: "e2" })] } });
    const after = farmOf(before, changed, 50);
    expect(after.feeders.get(`${FARM}/feeders/a-02`)).toMatchObject({ at: 50, value: { etag: "e2" } });
    expect(after.feeders.get(`${FARM}/feeders/a-01`)).toBe(before.feeders.get(`${FARM}/feeders/a-01`));
    expect(after.tanks).toBe(before.tanks);
  });

  it("forgets with a snapshot what is not in it", () => {
    const after = farmOf(farmOf(undefined, snapshot()), snapshot(3, ["a-01"]));
    expect([...after.feeders.keys()]).toEqual([`${FARM}/feeders/a-01`]);
  });

  it.each([
    ["a change too far", message(9, { case: "change", value: {} })],
    ["a change again", message(7, { case: "change", value: {} })],
    ["a keepalive ahead", message(8, { case: "keepalive", value: {} })],
    ["a keepalive behind", message(6, { case: "keepalive", value: {} })],
  ])("reports a gap: %s", (_, m) => {
    expect(reduce(farmOf(undefined, snapshot()), m, 0)).toEqual({ gap: true });
  });

  it("counts an event that it does not know", () => {
    const after = farmOf(farmOf(undefined, snapshot()), message(8, { case: undefined }));
    expect(after.sequence).toBe(8n);
  });

  it("carries the server's clock on by its own", () => {
    const first = farmOf(undefined, snapshot(), 500);
    expect(serverNow(first, 2_500)).toBe(1_002_000);
    const later = farmOf(first, message(7, { case: "keepalive", value: { serverTime: { seconds: 1_100n } } }), 3_000);
    expect(serverNow(later, 3_000)).toBe(1_100_000);
  });

  it("tells lists to be read anew for new doses, and all of them after a snapshot", () => {
    const first = farmOf(undefined, snapshot());
    const name = `${FARM}/feeders/a-01`;
    const dosed = farmOf(first, message(8, { case: "change", value: { doses: [{ feeder: name }] } }));
    expect(dosed.dosesSeen.get(name)).toBe((first.dosesSeen.get(name) ?? 0) + 1);
    expect(farmOf(dosed, snapshot(1)).dosesSeen.get(name)).toBe((dosed.dosesSeen.get(name) ?? 0) + 1);
  });

  it("keeps only the last settled commands, and every open one", () => {
    let farm = farmOf(undefined, snapshot(0));
    const open = command("open", "ACCEPTED");
    farm = farmOf(farm, message(1, { case: "change", value: { commands: [open] } }));
    for (let i = 2; i < 120; i++) {
      farm = farmOf(farm, message(i, { case: "change", value: { commands: [command(`c${i}`, "APPLIED")] } }), i);
    }
    const states = [...farm.commands.values()].map((c) => c.value.state);
    expect(states.filter((s) => s === CommandState.APPLIED)).toHaveLength(50);
    expect(farm.commands.has(open.name)).toBe(true);
    expect(farm.commands.has(`${FARM}/commands/c119`)).toBe(true);
  });
});
