import { createRouterTransport } from "@connectrpc/connect";
import { Code } from "@connectrpc/connect";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { failure, MockBackend } from "../mock/backend";
import { FARM } from "../mock/farm";
import { PendingOrders } from "../src/api/pending";
import { newRequestId } from "../src/api/request-id";
import { realTimers } from "../src/api/timers";
import { createApi } from "../src/api/transport";
import { FeederService } from "../src/gen/pasamanos/v1/feeder_service_pb";
import { type Feeder, FeederState } from "../src/gen/pasamanos/v1/resources_pb";
import { Orders } from "../src/store/orders";
import { MemoryStorage } from "./fake";

const seconds = (s: number) => vi.advanceTimersByTimeAsync(s * 1_000);
const timers = { ...realTimers, random: () => 0 };

describe("the orders of a browser", () => {
  let backend: MockBackend;
  let storage: MemoryStorage;
  let made: Orders[];
  const feeder = () => backend.farm.feeders.get(`${FARM}/feeders/a-01`) as Feeder;
  const open = () => {
    const orders = new Orders(createApi(createRouterTransport(backend.routes)), FARM, new PendingOrders(storage), timers);
    made.push(orders);
    return orders;
  };

  beforeEach(() => {
    vi.useFakeTimers();
    backend = new MockBackend();
    storage = new MemoryStorage();
    made = [];
  });
  afterEach(() => {
    for (const orders of made) orders.stop();
    vi.useRealTimers();
  });

  it("are stored before they are sent, and forgotten when known", async () => {
    const orders = open();
    const dose = orders.feedNow(feeder(), 150, "why");
    expect([...storage.entries.keys()]).toEqual([`pasamanos.order.${dose.order.id}`]);
    expect(orders.own(feeder()).doseOpen).toBe(true);
    await seconds(2);
    expect(dose.step.value.phase).toBe("settled");
    expect(storage.length).toBe(0);
    expect(orders.own(feeder()).doseOpen).toBe(false);
  });

  it("are followed to their outcome after a reload in the middle, and sent once", async () => {
    const first = open();
    const { id } = first.feedNow(feeder(), 150, "").order;
    await seconds(0.1);
    first.stop();
    const second = open();
    second.resume();
    expect(second.list.value.map((s) => s.order.id)).toEqual([id]);
    expect(second.own(feeder()).doseOpen).toBe(true);
    await seconds(8);
    expect(second.list.value[0]?.step.value).toMatchObject({ phase: "settled" });
    expect([...backend.farm.commands.values()]).toHaveLength(1);
    expect(storage.length).toBe(0);
  });

  it("offer no dose of any tank of the robot while the fate of one is unknown", async () => {
    backend.fault = { reason: "ACCEPTANCE_UNKNOWN", code: Code.Unavailable, times: 1, accept: true };
    backend.delayMs = 60_000;
    const orders = open();
    orders.feedNow(feeder(), 150, "");
    await seconds(0);
    const neighbour = backend.farm.feeders.get(`${FARM}/feeders/a-02`) as Feeder;
    const elsewhere = backend.farm.feeders.get(`${FARM}/feeders/b-01`) as Feeder;
    expect(orders.own(neighbour).doseOpen).toBe(true);
    expect(orders.own(elsewhere).doseOpen).toBe(false);
  });

  it("send a lost dose again under its own id", async () => {
    const sent: string[] = [];
    let down = true;
    const transport = createRouterTransport(({ service }) =>
      service(FeederService, {
        feedNow: (r) => {
          sent.push(r.requestId);
          throw down ? failure(Code.Unavailable, "") : failure(Code.FailedPrecondition, "FEEDER_OFF");
        },
        getCommand: () => {
          throw failure(Code.NotFound, "NOT_FOUND");
        },
      }),
    );
    const orders = new Orders(createApi(transport), FARM, new PendingOrders(storage), timers);
    made.push(orders);
    const lost = orders.feedNow(feeder(), 150, "");
    await seconds(20);
    expect(lost.step.value.phase).toBe("lost");
    down = false;
    orders.repeat(lost);
    await seconds(1);
    orders.feedNow(feeder(), 150, "");
    await seconds(1);
    expect(sent[1]).toBe(sent[0]);
    // The one before was refused, not lost: this is a new intention.
    expect(sent[2]).not.toBe(sent[0]);
  });

  it("take the id of the lost dose when the same is pressed anew", async () => {
    const sent: string[] = [];
    const transport = createRouterTransport(({ service }) =>
      service(FeederService, {
        feedNow: (r) => {
          sent.push(r.requestId);
          throw failure(Code.Unavailable, "");
        },
        getCommand: () => {
          throw failure(Code.NotFound, "NOT_FOUND");
        },
      }),
    );
    const orders = new Orders(createApi(transport), FARM, new PendingOrders(storage), timers);
    made.push(orders);
    orders.feedNow(feeder(), 150, "");
    await seconds(20);
    orders.feedNow(feeder(), 150, "");
    await seconds(20);
    orders.feedNow(feeder(), 160, "");
    await seconds(0);
    expect(sent[1]).toBe(sent[0]);
    expect(sent[2]).not.toBe(sent[0]);
  });

  it("keep a hold apart from a dose", async () => {
    const orders = open();
    orders.hold(feeder(), "sick fish");
    expect(orders.own(feeder())).toEqual({ doseOpen: false, configOpen: false, holdOpen: true });
    await seconds(1);
    expect(feeder().status?.state).toBe(FeederState.HELD);
  });

  it("live in memory where storage is forbidden", () => {
    const broken = { ...storage, setItem: () => { throw new Error("quota"); }, key: () => { throw new Error("no"); }, length: 1 };
    const pending = new PendingOrders(broken as never);
    pending.add({ id: "x", farm: FARM, feeder: "f", robot: "r", kind: "hold", pressedAt: 1 });
    expect(pending.of(FARM)).toHaveLength(1);
    pending.remove("x");
    expect(pending.of(FARM)).toHaveLength(0);
  });

  it("skip what is not an order of this farm", () => {
    storage.setItem("pasamanos.order.1", "{not json");
    storage.setItem("pasamanos.order.2", '{"id":"2"}');
    storage.setItem("pasamanos.order.3", JSON.stringify({ id: "3", farm: "farms/other", feeder: "f", kind: "hold" }));
    storage.setItem("other", "x");
    expect(new PendingOrders(storage).of(FARM)).toEqual([]);
  });
});

describe("a request id", () => {
  it("is a version 4 UUID, also where the page is not secure", () => {
    const pattern = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
    expect(newRequestId()).toMatch(pattern);
    vi.stubGlobal("crypto", { getRandomValues: (b: Uint8Array) => b.fill(0xff) });
    expect(newRequestId()).toMatch(pattern);
    vi.unstubAllGlobals();
  });
});
