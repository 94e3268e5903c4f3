import { beforeEach, describe, expect, it } from "vitest";
import { FARM, makeFarm, type MockFarm } from "../mock/farm";
import type { StreamState } from "../src/api/watch";
import { type Feeder, FieldAccess, HoldSource, LinkState, PresenceState, Quality } from "../src/gen/pasamanos/v1/resources_pb";
import type { Farm, Seen } from "../src/store/farm";
import { feederState, trustOf } from "../src/store/feeder-view";
import { type Action, gate } from "../src/store/gates";
import { countStates, layoutOf } from "../src/store/layout";
import { farmPresence } from "../src/store/presence";

const seen = <T>(map: Map<string, T>): Map<string, Seen<T>> => new Map([...map].map(([k, value]) => [k, { value, at: 1_000 }]));
const LIVE: StreamState = { kind: "live" };
const BROKEN: StreamState = { kind: "broken", sinceMs: 0, cause: "silence" };
const NOTHING = { doseOpen: false, configOpen: false, holdOpen: false };

describe("what may be pressed", () => {
  let mock: MockFarm;
  let farm: Farm;
  const feeder = (slug = "a-01") => mock.feeders.get(`${FARM}/feeders/${slug}`) as Feeder;
  const reason = (action: Action, f = feeder(), stream: StreamState = LIVE, own = NOTHING) => gate(action, farm, f, stream, own)?.reason;
  const presence = (state: PresenceState) => {
    for (const agent of mock.agents.values()) agent.presence = state;
  };

  beforeEach(() => {
    mock = makeFarm(1_800_000_000_000);
    farm = {
      name: FARM,
      displayName: "North",
      timeZone: "UTC",
      sequence: 1n,
      agents: seen(mock.agents),
      robots: seen(mock.robots),
      tanks: seen(mock.tanks),
      feeders: seen(mock.feeders),
      commands: new Map(),
      dosesSeen: new Map(),
      serverTime: undefined,
    };
  });

  it("everything at a healthy feeder", () => {
    for (const action of ["config", "feed_now", "hold"] as const) expect(reason(action)).toBeUndefined();
    expect(reason("resume")).toBe("NOT_HELD_BY_OPERATOR");
  });

  it("nothing while the farm is offline, not even a hold", () => {
    presence(PresenceState.OFFLINE);
    for (const action of ["config", "feed_now", "hold", "resume", "reset_fault"] as const) expect(reason(action)).toBe("AGENT_OFFLINE");
  });

  it("only a hold while nobody knows, or this page is blind", () => {
    presence(PresenceState.UNKNOWN);
    expect(reason("hold")).toBeUndefined();
    expect(reason("feed_now")).toBe("LEASE_STORE_UNREACHABLE");
    presence(PresenceState.ONLINE);
    expect(reason("hold", feeder(), BROKEN)).toBeUndefined();
    expect(reason("config", feeder(), BROKEN)).toBe("STREAM_BROKEN");
    expect(reason("feed_now", feeder(), BROKEN)).toBe("STREAM_BROKEN");
  });

  it("no dose while one of this browser is open, or one of the robot is in doubt", () => {
    expect(reason("feed_now", feeder(), LIVE, { ...NOTHING, doseOpen: true })).toBe("OWN_ORDER_OPEN");
    const robot = mock.robots.get(feeder().robot);
    if (robot) robot.unsettledCommand = `${FARM}/commands/x`;
    expect(reason("feed_now")).toBe("DOSE_UNSETTLED");
    expect(reason("config")).toBeUndefined();
    expect(reason("hold")).toBeUndefined();
  });

  it("no dose where the feeder says why", () => {
    expect(reason("feed_now", feeder("a-05"))).toBe("FEEDER_HELD");
    expect(reason("feed_now", feeder("b-02"))).toBe("FEEDER_FAULT");
    expect(reason("feed_now", feeder("b-06"))).toBe("FEEDER_OFF");
  });

  it("no change while one is under way, nor where nothing can be written", () => {
    feeder().pendingCommand = `${FARM}/commands/x`;
    expect(reason("config")).toBe("CONFIG_IN_FLIGHT");
    for (const f of feeder("a-02").capabilities?.fields ?? []) f.access = FieldAccess.READ_ONLY;
    expect(reason("config", feeder("a-02"))).toBe("READ_ONLY");
    feeder("a-03").config = undefined;
    expect(reason("config", feeder("a-03"))).toBe("CONFIG_UNKNOWN");
  });

  it("resume lifts a person's hold and no other", () => {
    expect(reason("resume", feeder("a-05"))).toBeUndefined();
    const hold = feeder("a-05").status?.holds[0];
    if (hold) hold.source = HoldSource.FARM;
    expect(reason("resume", feeder("a-05"))).toBe("LOCAL_HOLD");
    expect(reason("reset_fault", feeder("a-05"))).toBe("LOCAL_HOLD");
  });

  it("an absent PLC closes all but the hold", () => {
    const link = mock.robots.get(feeder().robot)?.link;
    if (link) link.state = LinkState.DOWN;
    expect(reason("feed_now")).toBe("PLC_UNREACHABLE");
    expect(reason("hold")).toBeUndefined();
    expect(feederState(farm, feeder())).toBe("unknown");
  });

  it("a feeder of an absent farm is unknown, whatever was read last", () => {
    presence(PresenceState.OFFLINE);
    expect(countStates(farm)).toMatchObject({ all: 20, unknown: 20, ready: 0 });
    expect(farmPresence(farm)).toMatchObject({ state: "offline", online: 0, all: 1, since: 1_000 - 7_860_000 });
  });

  it("the worst farm PC stands for the farm", () => {
    const agent = [...mock.agents.values()][0];
    if (!agent) throw new Error("no agent");
    const two = new Map(farm.agents);
    two.set("b", { value: { ...agent, name: "b", presence: PresenceState.OFFLINE }, at: 0 });
    expect(farmPresence({ ...farm, agents: two })).toMatchObject({ state: "offline", all: 2, online: 1 });
  });

  it("lays tanks out by group, and problems first on wish", () => {
    const all = { text: "", only: "all", attentionFirst: false } as const;
    expect(layoutOf(farm, all).sections.map((s) => s.group)).toEqual(["Broodstock", "Grow-out hall B", "Nursery hall A"]);
    const first = layoutOf(farm, { ...all, attentionFirst: true }).sections[0]?.tanks.map((s) => s.tank.split("/").pop());
    expect(first?.slice(0, 2)).toEqual(["b-02", "a-05"]);
    expect(layoutOf(farm, { ...all, only: "held" }).shown).toBe(1);
    expect(layoutOf(farm, { ...all, text: "tank a7" }).shown).toBe(1);
    expect(layoutOf(farm, { ...all, text: "nothing" }).shown).toBe(0);
  });

  it("trusts a reading only while it is good and young", () => {
    const reading = mock.tanks.get(`${FARM}/tanks/a-01`)?.readings[0];
    if (!reading) throw new Error("no reading");
    expect(trustOf(reading, 0, 1_000)).toBe("good");
    expect(trustOf(reading, 0, 200_000)).toBe("stale");
    expect(trustOf({ ...reading, quality: Quality.UNCERTAIN }, 0, 0)).toBe("uncertain");
    expect(trustOf({ ...reading, quality: Quality.BAD }, 0, 0)).toBe("bad");
    expect(trustOf({ ...reading, quality: Quality.UNSPECIFIED }, 0, 0)).toBe("bad");
  });
});
