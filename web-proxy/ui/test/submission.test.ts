import { Code, ConnectError } from "@connectrpc/connect";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { failure } from "../mock/backend";
import { type Calls, LOST_AFTER_MS, type Step, Submission } from "../src/api/submission";
import { realTimers } from "../src/api/timers";
import { RetryInfoSchema } from "../src/gen/google/rpc/error_details_pb";
import { type Command, CommandState } from "../src/gen/pasamanos/v1/resources_pb";
import { command, order } from "./fake";

const seconds = (s: number) => vi.advanceTimersByTimeAsync(s * 1_000);
const notFound = () => failure(Code.NotFound, "NOT_FOUND");
const network = () => new ConnectError("fetch failed", Code.Unavailable);

describe("an order", () => {
  let send: ReturnType<typeof vi.fn<Calls["send"]>>;
  let get: ReturnType<typeof vi.fn<Calls["get"]>>;
  let known: ReturnType<typeof vi.fn<(step: Step) => void>>;
  let made: Submission[];

  const begin = (more = {}) => {
    const s = new Submission(order("id-1", more), { send, get }, { ...realTimers, random: () => 0 }, known);
    made.push(s);
    void s.start();
    return s;
  };
  const phase = (s: Submission) => s.step.value.phase;
  const settledState = (s: Submission) => (s.step.value.phase === "settled" ? CommandState[s.step.value.command.state] : "");

  beforeEach(() => {
    vi.useFakeTimers();
    send = vi.fn();
    get = vi.fn();
    known = vi.fn();
    made = [];
  });
  afterEach(() => {
    for (const s of made) s.stop();
    vi.useRealTimers();
  });

  it("ends with the answer", async () => {
    send.mockResolvedValue({ command: command("id-1", "APPLIED") });
    const s = begin();
    await seconds(0);
    expect(settledState(s)).toBe("APPLIED");
    expect(known).toHaveBeenCalledTimes(1);
    expect(get).not.toHaveBeenCalled();
  });

  it("follows a dose that was answered while it runs", async () => {
    send.mockResolvedValue({ command: command("id-1", "EXECUTING") });
    get.mockResolvedValueOnce(command("id-1", "EXECUTING")).mockResolvedValue(command("id-1", "PARTIAL"));
    const s = begin();
    await seconds(0);
    expect(phase(s)).toBe("accepted");
    await seconds(10);
    expect(settledState(s)).toBe("PARTIAL");
    expect(send).toHaveBeenCalledTimes(1);
  });

  it("takes the outcome from the watch before any answer", async () => {
    send.mockReturnValue(new Promise(() => {}));
    const s = begin();
    s.observe(command("id-1", "EXECUTING"));
    expect(phase(s)).toBe("accepted");
    s.observe(command("other", "REJECTED"));
    s.observe(command("id-1", "APPLIED"));
    expect(settledState(s)).toBe("APPLIED");
    s.observe(command("id-1", "EXECUTING"));
    expect(settledState(s)).toBe("APPLIED");
  });

  it("lets UNCERTAIN be settled by evidence, once", async () => {
    send.mockResolvedValue({ command: command("id-1", "UNCERTAIN") });
    const s = begin();
    await seconds(0);
    s.observe(command("id-1", "APPLIED"));
    s.observe(command("id-1", "REJECTED"));
    expect(settledState(s)).toBe("APPLIED");
  });

  it("follows after the deadline and never sends again", async () => {
    send.mockRejectedValue(failure(Code.DeadlineExceeded, "OUTCOME_PENDING", { command: "farms/north/commands/id-1" }));
    get.mockResolvedValueOnce(command("id-1", "SENT")).mockResolvedValue(command("id-1", "REJECTED", { reason: "BUSY_DOSING" }));
    const s = begin();
    await seconds(0);
    expect(phase(s)).toBe("accepted");
    await seconds(5);
    expect(settledState(s)).toBe("REJECTED");
    expect(send).toHaveBeenCalledTimes(1);
  });

  it.each([
    ["acceptance unknown", () => failure(Code.Unavailable, "ACCEPTANCE_UNKNOWN", { command: "c" })],
    ["a fault of the server", () => failure(Code.Internal, "INTERNAL", { incident: "7" })],
    ["a network that is gone", network],
    ["a server that stops after it accepted", () => failure(Code.Unavailable, "SERVER_STOPPING", { command: "c" })],
    ["a bare proxy error", () => new ConnectError("502", Code.Unknown)],
  ])("asks and does not send again after %s", async (_, error) => {
    send.mockRejectedValue(error());
    get.mockRejectedValueOnce(network()).mockRejectedValueOnce(notFound()).mockResolvedValue(command("id-1", "APPLIED"));
    const s = begin();
    await seconds(0);
    expect(phase(s)).toBe("unknown");
    expect(s.open).toBe(true);
    await seconds(9);
    expect(settledState(s)).toBe("APPLIED");
    expect(send).toHaveBeenCalledTimes(1);
    expect(get.mock.calls.every(([name]) => name === "farms/north/commands/id-1")).toBe(true);
  });

  it("stays unknown while nobody answers", async () => {
    send.mockRejectedValue(network());
    get.mockRejectedValue(network());
    const s = begin();
    await seconds(600);
    expect(phase(s)).toBe("unknown");
    expect(known).not.toHaveBeenCalled();
  });

  it("is lost only when NOT_FOUND holds after the request can no longer be under way", async () => {
    send.mockRejectedValue(network());
    get.mockRejectedValue(notFound());
    const s = begin();
    await vi.advanceTimersByTimeAsync(LOST_AFTER_MS - 1_000);
    expect(phase(s)).toBe("unknown");
    await seconds(7);
    expect(phase(s)).toBe("lost");
    expect(known).toHaveBeenCalledTimes(1);
  });

  it("is never lost once it was accepted, whatever a replica says", async () => {
    send.mockRejectedValue(failure(Code.DeadlineExceeded, "OUTCOME_PENDING", { command: "c" }));
    get.mockRejectedValue(notFound());
    const s = begin();
    await seconds(120);
    expect(phase(s)).toBe("accepted");
  });

  it("asks at once when the network is back", async () => {
    send.mockRejectedValue(network());
    get.mockRejectedValue(network());
    const s = begin();
    await seconds(30);
    get.mockResolvedValue(command("id-1", "APPLIED"));
    s.nudge();
    await seconds(0);
    expect(settledState(s)).toBe("APPLIED");
  });

  it("retries the same order while the agent moves", async () => {
    const moving = () =>
      failure(Code.Unavailable, "AGENT_MOVING", {}, [{ desc: RetryInfoSchema, value: { retryDelay: { seconds: 1n } } }]);
    send.mockRejectedValueOnce(moving()).mockRejectedValueOnce(moving()).mockResolvedValue({ command: command("id-1", "APPLIED") });
    const s = begin();
    await seconds(0);
    expect(phase(s)).toBe("retrying");
    await seconds(0.9);
    expect(send).toHaveBeenCalledTimes(1);
    await seconds(3);
    expect(send).toHaveBeenCalledTimes(3);
    expect(settledState(s)).toBe("APPLIED");
  });

  it("gives a dose up after a few tries, refused with the reason", async () => {
    send.mockImplementation(async () => {
      throw failure(Code.Unavailable, "DATABASE_UNREACHABLE");
    });
    const s = begin();
    await seconds(60);
    expect(s.step.value).toMatchObject({ phase: "refused", refusal: { reason: "DATABASE_UNREACHABLE" } });
    expect(send.mock.calls.length).toBeLessThanOrEqual(6);
  });

  it("is refused at once with the reason and its metadata", async () => {
    send.mockRejectedValue(failure(Code.FailedPrecondition, "AGENT_OFFLINE", { since_ms: "31000" }));
    const s = begin();
    await seconds(0);
    expect(s.step.value).toMatchObject({ phase: "refused", refusal: { reason: "AGENT_OFFLINE", metadata: { since_ms: "31000" } } });
    expect(known).toHaveBeenCalledTimes(1);
    await seconds(60);
    expect(send).toHaveBeenCalledTimes(1);
    expect(get).not.toHaveBeenCalled();
  });

  it("asks when the server never answers the sending", async () => {
    send.mockImplementation(
      (signal) => new Promise((_, reject) => signal.addEventListener("abort", () => reject(new ConnectError("x", Code.Canceled)))),
    );
    get.mockResolvedValue(command("id-1", "APPLIED"));
    const s = begin();
    await seconds(19);
    expect(phase(s)).toBe("sending");
    await seconds(2);
    expect(settledState(s)).toBe("APPLIED");
  });

  it("is followed by its id alone after a reload", async () => {
    let answer: Promise<Command | undefined> = Promise.reject(network());
    answer.catch(() => {});
    const s = new Submission(order("id-1"), { get: () => answer }, { ...realTimers, random: () => 0 }, known);
    made.push(s);
    void s.resume();
    await seconds(3);
    expect(phase(s)).toBe("unknown");
    expect(s.repeatable).toBe(false);
    answer = Promise.resolve(command("id-1", "UNCERTAIN"));
    await seconds(6);
    expect(settledState(s)).toBe("UNCERTAIN");
  });
});
