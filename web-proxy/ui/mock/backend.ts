// The mock farm behind the real services: enough of the contract's rules to develop and test the
// page against. Faults are switched on through `MockBackend.next` and its methods.
import { clone, create, equals } from "@bufbuild/protobuf";
import { Code, ConnectError, type ConnectRouter } from "@connectrpc/connect";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "../src/gen/google/rpc/error_details_pb";
import { FeederService } from "../src/gen/pasamanos/v1/feeder_service_pb";
import {
  AmountBasis,
  type Command,
  CommandSchema,
  CommandState,
  ConfigAuthor,
  type ConfigReversion,
  ConfigReversionSchema,
  type ConfigVersion,
  type Feeder,
  type FeederConfig,
  FeederConfigSchema,
  FeederSchema,
  FeederState,
  HoldSource,
  LinkState,
  PresenceState,
  type Preview,
  PreviewSchema,
  PreviewWarning,
} from "../src/gen/pasamanos/v1/resources_pb";
import { FarmStatusSchema, StatusService, type WatchFarmResponse, WatchFarmResponseSchema } from "../src/gen/pasamanos/v1/status_service_pb";
import { changedPaths } from "../src/form/diff";
import { checkQuantity } from "../src/form/draft";
import { mealsPerDay } from "../src/form/explain";
import { at, copyFeeder, dose, FARM, makeFarm, type MockFarm, seconds, version } from "./farm";

interface Mutation {
  name: string;
  requestId: string;
  validateOnly: boolean;
  note: string;
}

/** What happens to the next mutating calls that are not validate_only. */
export interface Fault {
  reason: string;
  code: Code;
  times: number;
  metadata?: Record<string, string>;
  /** Accepts the command first, so that only the answer is lost. */
  accept?: boolean;
}

export function failure(code: Code, reason: string, metadata: Record<string, string> = {}, more: unknown[] = []): ConnectError {
  const info = { desc: ErrorInfoSchema, value: { reason, domain: "pasamanos.dev", metadata } };
  return new ConnectError(`server's English about ${reason}`, code, undefined, [info, ...(more as (typeof info)[])]);
}

/** What a change at the farm to this config undoes, as the server reckons it. */
function reversion(versions: readonly ConfigVersion[], config: FeederConfig): ConfigReversion | undefined {
  const same = (v: ConfigVersion) => v.config !== undefined && equals(FeederConfigSchema, v.config, config);
  const displaced = versions.findLast((v) => v.author === ConfigAuthor.COMMAND);
  if (!displaced || same(displaced)) return undefined;
  const restored = versions.findLast((v) => v.number < displaced.number && same(v));
  if (!restored) return undefined;
  return create(ConfigReversionSchema, {
    restoredVersion: restored.number,
    displacedVersion: displaced.number,
    displacedCommand: displaced.command,
  });
}

export class MockBackend {
  farm: MockFarm;
  fault: Fault | undefined;
  /** How long a command takes at the farm. */
  delayMs = 900;
  /** The outcome of the next dose. */
  nextDose: "applied" | "partial" | "uncertain" | "rejected" = "applied";
  silent = false;
  private sequence = 0n;
  private readonly watchers = new Set<(m: WatchFarmResponse) => void>();
  private readonly breakers = new Set<() => void>();

  constructor(readonly now: () => number = Date.now) {
    this.farm = makeFarm(now());
  }

  readonly routes = (router: ConnectRouter): void => {
    router.service(StatusService, {
      getFarmStatus: () => ({ status: this.snapshot() }),
      watchFarm: (request, context) => this.watch(request.name, context.signal),
      listDoses: (r) => {
        const own = this.farm.doses.filter((d) => r.feeder === "" || d.feeder === r.feeder);
        own.sort((a, b) => Number((b.startTime?.seconds ?? 0n) - (a.startTime?.seconds ?? 0n)));
        return { doses: own.slice(0, r.pageSize || 100), nextPageToken: "" };
      },
    });
    router.service(FeederService, {
      listFeeders: () => ({ feeders: [...this.farm.feeders.values()], nextPageToken: "" }),
      getFeeder: (r) => ({ feeder: this.feeder(r.name) }),
      getCommand: (r) => {
        const command = this.farm.commands.get(r.name);
        if (!command) throw failure(Code.NotFound, "NOT_FOUND", { name: r.name });
        return { command };
      },
      listCommands: (r) => {
        const own = [...this.farm.commands.values()].filter((c) => r.feeder === "" || c.feeder === r.feeder);
        return { commands: own.reverse(), nextPageToken: "" };
      },
      listConfigVersions: (r) => ({ versions: [...(this.farm.versions.get(r.parent) ?? [])].reverse(), nextPageToken: "" }),
      updateFeederConfig: (r) => this.updateConfig(r, r.config ?? create(FeederConfigSchema), r.updateMask?.paths ?? [], r.etag),
      feedNow: (r) => this.feedNow(r, r.portionMg ?? 0),
      holdFeeder: (r) => this.hold(r, true),
      resumeFeeder: (r) => this.hold(r, false),
      resetFault: (r) => this.resetFault(r, r.faultCode ?? 0),
      holdFarm: async (r) => {
        this.gate();
        const held: Command[] = [];
        for (const feeder of this.farm.feeders.values()) {
          const command = this.accept(feeder, { ...r, requestId: `${r.requestId.slice(0, 24)}${String(held.length).padStart(12, "0")}` }, { case: "hold", value: {} as never });
          this.finishHold(feeder, command, true);
          held.push(command);
        }
        return { held, notHeld: [] };
      },
      resolveCommand: (r) => {
        const command = this.farm.commands.get(r.name);
        if (!command || command.state !== CommandState.UNCERTAIN) throw failure(Code.FailedPrecondition, "NOT_IN_DOUBT", {});
        command.resolution = { $typeName: "pasamanos.v1.Resolution", verdict: r.verdict, fedMg: r.fedMg, who: "Noa", note: r.note, time: at(this.now()) };
        const robot = this.farm.robots.get(command.robot);
        if (robot) robot.unsettledCommand = "";
        this.change({ commands: [command], robots: robot ? [robot] : [] });
        return { command, feeder: this.feeder(command.feeder) };
      },
    });
  };

  /** What someone does at the farm's own screen. */
  editAtFarm(slug: string, edit: (config: FeederConfig) => void): void {
    const feeder = this.feeder(`${FARM}/feeders/${slug}`);
    this.newConfig(feeder, edit, ConfigAuthor.FARM, "");
    this.change({ feeders: [feeder] });
  }

  setPresence(state: PresenceState): void {
    for (const agent of this.farm.agents.values()) {
      agent.presence = state;
      agent.since = at(this.now());
      agent.sinceAge = seconds(0);
    }
    this.change({ agents: [...this.farm.agents.values()] });
  }

  setLink(slug: string, state: LinkState): void {
    const robot = this.farm.robots.get(`${FARM}/robots/${slug}`);
    if (robot?.link) {
      robot.link.state = state;
      robot.link.since = at(this.now());
      this.change({ robots: [robot] });
    }
  }

  /** Ends every watch, as a restarting server does. */
  breakStreams(): void {
    for (const end of this.breakers) end();
  }

  /** Skips a sequence number. */
  skip(): void {
    this.sequence++;
  }

  change(part: { feeders?: Feeder[]; commands?: Command[]; agents?: unknown[]; robots?: unknown[]; doses?: unknown[] }): void {
    this.sequence++;
    const message = create(WatchFarmResponseSchema, { sequence: this.sequence, event: { case: "change", value: part as never } });
    // Watchers get a copy of their own, as from the wire.
    for (const push of this.watchers) push(clone(WatchFarmResponseSchema, message));
  }

  private async *watch(name: string, signal: AbortSignal): AsyncIterable<WatchFarmResponse> {
    if (name !== FARM) throw failure(Code.NotFound, "NOT_FOUND", { name });
    const queue: WatchFarmResponse[] = [];
    let wake = () => {};
    let broken = false;
    const push = (m: WatchFarmResponse) => {
      queue.push(m);
      wake();
    };
    const end = () => {
      broken = true;
      wake();
    };
    this.watchers.add(push);
    this.breakers.add(end);
    const keepalive = setInterval(() => {
      push(create(WatchFarmResponseSchema, { sequence: this.sequence, event: { case: "keepalive", value: { serverTime: at(this.now()) } } }));
    }, 5_000);
    signal.addEventListener("abort", end);
    try {
      push(create(WatchFarmResponseSchema, { sequence: ++this.sequence, event: { case: "snapshot", value: clone(FarmStatusSchema, this.snapshot()) } }));
      while (!broken) {
        while (!this.silent && queue.length > 0) yield queue.shift() as WatchFarmResponse;
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
      if (!signal.aborted) throw failure(Code.Unavailable, "SERVER_STOPPING");
    } finally {
      clearInterval(keepalive);
      this.watchers.delete(push);
      this.breakers.delete(end);
    }
  }

  private snapshot() {
    const { agents, robots, tanks, feeders, commands } = this.farm;
    const unsettled = [CommandState.ACCEPTED, CommandState.SENT, CommandState.EXECUTING, CommandState.UNCERTAIN];
    return create(FarmStatusSchema, {
      name: FARM,
      displayName: "Arava North",
      timeZone: "Asia/Jerusalem",
      agents: [...agents.values()],
      robots: [...robots.values()],
      tanks: [...tanks.values()],
      feeders: [...feeders.values()],
      commands: [...commands.values()].filter((c) => unsettled.includes(c.state)),
      serverTime: at(this.now()),
    });
  }

  private feeder(name: string): Feeder {
    const feeder = this.farm.feeders.get(name);
    if (!feeder) throw failure(Code.NotFound, "NOT_FOUND", { name });
    return feeder;
  }

  private gate(): void {
    const agent = [...this.farm.agents.values()][0];
    if (agent?.presence === PresenceState.OFFLINE) {
      throw failure(Code.FailedPrecondition, "AGENT_OFFLINE", { agent: agent.name, since_ms: "31000" });
    }
    if (agent?.presence === PresenceState.UNKNOWN) throw failure(Code.Unavailable, "LEASE_STORE_UNREACHABLE");
  }

  private throwFault(name: string): void {
    const { fault } = this;
    if (!fault || fault.times <= 0) return;
    fault.times--;
    const retry = { desc: RetryInfoSchema, value: { retryDelay: seconds(0.2) } };
    const metadata = { ...(fault.accept || fault.reason === "ACCEPTANCE_UNKNOWN" ? { command: name } : {}), ...fault.metadata };
    if (fault.reason === "") throw new ConnectError("upstream is gone", fault.code);
    throw failure(fault.code, fault.reason, metadata, fault.reason === "AGENT_MOVING" ? [retry] : []);
  }

  private accept(feeder: Feeder, r: Mutation, action: Command["action"]): Command {
    const name = `${FARM}/commands/${r.requestId.toLowerCase()}`;
    const command = create(CommandSchema, {
      name,
      feeder: feeder.name,
      robot: feeder.robot,
      state: CommandState.ACCEPTED,
      author: "Noa",
      note: r.note,
      number: BigInt(this.farm.commands.size + 1),
      createTime: at(this.now()),
      action,
    });
    this.farm.commands.set(name, command);
    this.change({ commands: [command] });
    return command;
  }

  private async begin(feeder: Feeder, r: Mutation, action: Command["action"]): Promise<{ command: Command; known: boolean }> {
    const name = `${FARM}/commands/${r.requestId.toLowerCase()}`;
    const known = this.farm.commands.get(name);
    if (known) return { command: known, known: true };
    if (!this.fault?.accept) this.throwFault(name);
    this.gate();
    const command = this.accept(feeder, r, action);
    return { command, known: false };
  }

  private settle(command: Command, state: CommandState, more: Partial<Command> = {}): void {
    Object.assign(command, more, { state, settleTime: at(this.now()) });
  }

  private readonly wait = (ms: number) => new Promise<void>((r) => setTimeout(r, ms));

  private async updateConfig(r: Mutation, config: FeederConfig, paths: string[], etag: string) {
    const feeder = this.feeder(r.name);
    const known = this.farm.commands.get(`${FARM}/commands/${r.requestId.toLowerCase()}`);
    if (known) return { command: known, feeder };
    this.validate(feeder, config);
    if (etag !== feeder.etag) {
      const attached = { desc: FeederSchema, value: copyFeeder(feeder) };
      throw failure(Code.Aborted, "ETAG_MISMATCH", { feeder: feeder.name, etag: feeder.etag }, [attached]);
    }
    const preview = this.preview(feeder, config);
    if (r.validateOnly) return { feeder, preview };
    const base = clone(FeederConfigSchema, feeder.config as FeederConfig);
    const action = { case: "updateConfig" as const, value: { base, new: config, updateMask: { paths } } as never };
    const { command } = await this.begin(feeder, r, action);
    feeder.pendingCommand = command.name;
    this.change({ feeders: [feeder] });
    const done = this.wait(this.delayMs / 3)
      .then(() => {
        command.state = CommandState.EXECUTING;
        this.change({ commands: [command] });
        return this.wait((this.delayMs * 2) / 3);
      })
      .then(() => {
        this.newConfig(feeder, (c) => Object.assign(c, clone(FeederConfigSchema, config)), ConfigAuthor.COMMAND, command.name);
        feeder.pendingCommand = "";
        this.settle(command, CommandState.APPLIED);
        this.change({ feeders: [feeder], commands: [command] });
      });
    if (this.fault?.accept) this.throwFault(command.name);
    await done;
    return { command, feeder, preview };
  }

  private newConfig(feeder: Feeder, edit: (c: FeederConfig) => void, author: ConfigAuthor, command: string): void {
    const config = clone(FeederConfigSchema, feeder.config as FeederConfig);
    edit(config);
    feeder.config = config;
    feeder.configVersion++;
    feeder.etag = `v${feeder.configVersion}-${this.now()}`;
    const versions = this.farm.versions.get(feeder.name) ?? [];
    const next = version(feeder, author, this.now(), command);
    next.reversion = author === ConfigAuthor.FARM ? reversion(versions, config) : undefined;
    feeder.configReversion = next.reversion;
    versions.push(next);
  }

  private validate(feeder: Feeder, config: FeederConfig): void {
    const fieldViolations: { field: string; description: string }[] = [];
    const portion = checkQuantity("portion_mg", config.portionMg ?? 0, feeder.limits);
    if (portion) fieldViolations.push({ field: "config.portion_mg", description: "out of range" });
    const interval = checkQuantity("interval", Number(config.interval?.seconds ?? 0n), feeder.limits);
    if (interval) fieldViolations.push({ field: "config.interval", description: "out of range" });
    const need = mealsPerDay(config, Number(config.interval?.seconds ?? 1n)) * (config.portionMg ?? 0);
    if (config.dailyCapMg !== undefined && need > config.dailyCapMg) {
      fieldViolations.push({ field: "config.daily_cap_mg", description: `must hold the day's meals, ${need} mg` });
    }
    if (fieldViolations.length > 0) {
      throw failure(Code.InvalidArgument, "INVALID_FIELD", {}, [{ desc: BadRequestSchema, value: { fieldViolations } }]);
    }
  }

  private preview(feeder: Feeder, config: FeederConfig): Preview {
    const meals = Math.round(mealsPerDay(config, Number(config.interval?.seconds ?? 1n)) * 0.55);
    const before = feeder.config as FeederConfig;
    const daily = (c: FeederConfig) => mealsPerDay(c, Number(c.interval?.seconds ?? 1n)) * (c.portionMg ?? 0);
    const warnings: PreviewWarning[] = [];
    if (daily(config) > daily(before) * 2) warnings.push(PreviewWarning.DAILY_FEED_MORE_THAN_DOUBLES);
    if (changedPaths(before, config).some((p) => p === "interval")) warnings.push(PreviewWarning.INTERVAL_RESTARTS);
    if (feeder.status?.holds.length) warnings.push(PreviewWarning.FEEDER_HELD);
    return create(PreviewSchema, {
      mealsLeftToday: meals,
      plannedLeftMg: BigInt(meals * (config.portionMg ?? 0)),
      capLeftMg: config.dailyCapMg === undefined ? undefined : BigInt(config.dailyCapMg) - (feeder.status?.dispensedTodayMg ?? 0n),
      mealsThatWillBeSkipped: 0,
      nextDoseTime: feeder.status?.nextDoseTime,
      warnings,
    });
  }

  private async feedNow(r: Mutation, mg: number) {
    const feeder = this.feeder(r.name);
    const known = this.farm.commands.get(`${FARM}/commands/${r.requestId.toLowerCase()}`);
    if (known) return { command: known, feeder };
    const block = feeder.status?.blocks[0];
    if (block) throw failure(Code.FailedPrecondition, block.reason, block.metadata);
    const left = (feeder.config?.dailyCapMg ?? Number.MAX_SAFE_INTEGER) - Number(feeder.status?.dispensedTodayMg ?? 0n);
    if (mg > left) throw failure(Code.FailedPrecondition, "DAILY_CAP", { feeder: feeder.name, left_mg: String(left) });
    if (r.validateOnly) return { feeder, preview: this.preview(feeder, feeder.config as FeederConfig) };
    const { command } = await this.begin(feeder, r, { case: "feedNow", value: { portionMg: mg } as never });
    const robot = this.farm.robots.get(feeder.robot);
    const done = this.dose(feeder, command, mg);
    if (robot) robot.unsettledCommand = command.name;
    this.change({ robots: robot ? [robot] : [] });
    if (this.fault?.accept) this.throwFault(command.name);
    await done;
    return { command, feeder };
  }

  private async dose(feeder: Feeder, command: Command, mg: number): Promise<void> {
    const robot = this.farm.robots.get(feeder.robot);
    await this.wait(this.delayMs / 4);
    command.state = CommandState.EXECUTING;
    if (feeder.status) feeder.status.state = FeederState.DOSING;
    this.change({ commands: [command], feeders: [feeder] });
    await this.wait((this.delayMs * 3) / 4);
    const { status } = feeder;
    const basis = feeder.robot.endsWith("c") ? AmountBasis.TIMED : AmountBasis.COUNTED;
    const fell = this.nextDose === "partial" ? Math.round(mg * 0.6) : mg;
    const outcome = this.nextDose;
    this.nextDose = "applied";
    if (status) status.state = FeederState.READY;
    if (outcome === "uncertain") {
      this.settle(command, CommandState.UNCERTAIN, { reason: "AGENT_LOST" });
      this.change({ commands: [command], feeders: [feeder] });
      return;
    }
    if (robot) robot.unsettledCommand = "";
    if (outcome === "rejected") {
      this.settle(command, CommandState.REJECTED, { reason: "INTERLOCK", reasonMetadata: { feeder: feeder.name, kind: "DISSOLVED_OXYGEN_UG_PER_L", value: "4100", limit: "4500" } });
      this.change({ commands: [command], feeders: [feeder], robots: robot ? [robot] : [] });
      return;
    }
    const given = dose(feeder, fell, this.now() - 2_000, 0, command.name);
    if (status) {
      status.dispensedTodayMg = (status.dispensedTodayMg ?? 0n) + BigInt(fell);
      status.lastDose = given;
    }
    this.farm.doses.push(given);
    this.settle(command, outcome === "partial" ? CommandState.PARTIAL : CommandState.APPLIED, {
      dispensedMg: fell,
      basis,
      reason: outcome === "partial" ? "PLC_REFUSED" : "",
      reasonMetadata: outcome === "partial" ? { plc_reason: "hopper empty" } : {},
    });
    this.change({ commands: [command], feeders: [feeder], doses: [given], robots: robot ? [robot] : [] });
  }

  private async hold(r: Mutation, on: boolean) {
    const feeder = this.feeder(r.name);
    if (r.validateOnly) return { feeder };
    const { command, known } = await this.begin(feeder, r, on ? { case: "hold", value: {} as never } : { case: "resume", value: {} as never });
    if (known) return { command, feeder };
    if (this.fault?.accept) this.throwFault(command.name);
    await this.wait(this.delayMs / 2);
    this.finishHold(feeder, command, on);
    return { command, feeder };
  }

  private finishHold(feeder: Feeder, command: Command, on: boolean): void {
    const { status } = feeder;
    if (status) {
      status.holds = status.holds.filter((h) => h.source !== HoldSource.OPERATOR);
      if (on) status.holds.push({ $typeName: "pasamanos.v1.Hold", source: HoldSource.OPERATOR, since: at(this.now()), author: "Noa", note: command.note });
      status.state = status.holds.length > 0 ? FeederState.HELD : FeederState.READY;
      status.blocks = on ? [{ $typeName: "pasamanos.v1.Block", reason: "FEEDER_HELD", metadata: { feeder: feeder.name } }] : [];
    }
    this.settle(command, CommandState.APPLIED);
    this.change({ feeders: [feeder], commands: [command] });
  }

  private async resetFault(r: Mutation, code: number) {
    const feeder = this.feeder(r.name);
    const { command } = await this.begin(feeder, r, { case: "resetFault", value: { faultCode: code } as never });
    await this.wait(this.delayMs / 2);
    if (feeder.status) {
      feeder.status.faults = feeder.status.faults.filter((f) => f.code !== code);
      feeder.status.blocks = [];
      feeder.status.state = FeederState.READY;
    }
    this.settle(command, CommandState.APPLIED);
    this.change({ feeders: [feeder], commands: [command] });
    return { command, feeder };
  }
}
