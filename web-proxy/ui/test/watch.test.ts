import { create } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { realTimers } from "../src/api/timers";
import { FarmWatch, GRACE_MS, type Open, SILENCE_MS } from "../src/api/watch";
import { type WatchFarmResponse, WatchFarmResponseSchema } from "../src/gen/pasamanos/v1/status_service_pb";

/** Streams that are fed and ended by hand; each opening gets its own. */
class Streams {
  opened = 0;
  private push: (m: WatchFarmResponse | Error | "end") => void = () => {};
  readonly open: Open = (signal) => {
    this.opened++;
    const queue: (WatchFarmResponse | Error | "end")[] = [];
    let wake = () => {};
    this.push = (m) => {
      queue.push(m);
      wake();
    };
    signal.addEventListener("abort", () => this.push(new ConnectError("aborted", Code.Canceled)));
    return (async function* () {
      for (;;) {
        while (queue.length > 0) {
          const next = queue.shift();
          if (next === "end" || next === undefined) return;
          if (next instanceof Error) throw next;
          yield next;
        }
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    })();
  };
  send(sequence = 1) {
    this.push(create(WatchFarmResponseSchema, { sequence: BigInt(sequence) }));
  }
  fail(code: Code) {
    this.push(new ConnectError("x", code));
  }
  end() {
    this.push("end");
  }
}

describe("the watch of a farm", () => {
  let streams: Streams;
  let watch: FarmWatch;
  let accept: boolean;
  const seconds = (s: number) => vi.advanceTimersByTimeAsync(s * 1_000);

  beforeEach(async () => {
    vi.useFakeTimers();
    streams = new Streams();
    accept = true;
    watch = new FarmWatch(streams.open, () => accept, { ...realTimers, random: () => 0.5 });
    void watch.run();
    await seconds(0);
  });
  afterEach(() => {
    watch.stop();
    vi.useRealTimers();
  });

  it("is live from the first message on", async () => {
    expect(watch.state.value.kind).toBe("connecting");
    streams.send();
    await seconds(0);
    expect(watch.state.value).toEqual({ kind: "live" });
  });

  it("stays live on keepalives", async () => {
    for (let i = 0; i < 20; i++) {
      streams.send();
      await seconds(5);
    }
    expect(watch.state.value.kind).toBe("live");
    expect(streams.opened).toBe(1);
  });

  it("says within 10 s that nothing comes, since when, and opens anew", async () => {
    streams.send();
    await seconds(0);
    const last = performance.now();
    await vi.advanceTimersByTimeAsync(SILENCE_MS - 1);
    expect(watch.state.value.kind).toBe("live");
    await vi.advanceTimersByTimeAsync(1);
    expect(watch.state.value).toEqual({ kind: "broken", sinceMs: last, cause: "silence" });
    expect(SILENCE_MS).toBeLessThan(10_000);
    await seconds(1);
    expect(streams.opened).toBe(2);
    streams.send();
    await seconds(0);
    expect(watch.state.value.kind).toBe("live");
  });

  it("does not cry over an end that is mended at once", async () => {
    streams.send();
    await seconds(0);
    streams.fail(Code.Unavailable);
    await vi.advanceTimersByTimeAsync(GRACE_MS - 500);
    expect(streams.opened).toBe(2);
    streams.send();
    await seconds(5);
    expect(watch.state.value.kind).toBe("live");
  });

  it("says so when it is not mended at once", async () => {
    streams.send();
    await seconds(0);
    streams.end();
    await vi.advanceTimersByTimeAsync(GRACE_MS);
    expect(watch.state.value).toMatchObject({ kind: "broken", cause: "ended" });
  });

  it("backs off, and tries at once when the network is back", async () => {
    for (let i = 0; i < 8; i++) {
      streams.fail(Code.Unavailable);
      await seconds(6);
    }
    const tries = streams.opened;
    expect(tries).toBeLessThanOrEqual(9);
    streams.fail(Code.Unavailable);
    await seconds(0);
    watch.kick(false);
    await seconds(0);
    expect(streams.opened).toBe(tries + 1);
  });

  it("starts over at a gap", async () => {
    streams.send();
    await seconds(0);
    accept = false;
    streams.send(5);
    await seconds(0.3);
    accept = true;
    expect(streams.opened).toBe(2);
    streams.send();
    await seconds(3);
    expect(watch.state.value.kind).toBe("live");
  });

  it("trusts nothing after a sleep of the device", async () => {
    streams.send();
    await seconds(0);
    watch.kick(true);
    expect(watch.state.value).toMatchObject({ kind: "broken", cause: "asleep" });
    await seconds(1);
    expect(streams.opened).toBe(2);
  });

  it("tells a farm that does not exist from a server that does not answer", async () => {
    streams.fail(Code.NotFound);
    await seconds(0);
    expect(watch.state.value).toMatchObject({ kind: "broken", cause: "not-found" });
  });

  it("ends when stopped", async () => {
    streams.send();
    await seconds(0);
    watch.stop();
    await seconds(60);
    expect(streams.opened).toBe(1);
  });
});
