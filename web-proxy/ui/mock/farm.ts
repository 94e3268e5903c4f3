// A small farm in memory for development, screenshots and unit tests. Not part of the built page.
import { create, clone } from "@bufbuild/protobuf";
import { type Duration, DurationSchema, type Timestamp, TimestampSchema } from "@bufbuild/protobuf/wkt";
import {
  type Agent,
  AgentSchema,
  AmountBasis,
  type Command,
  CommandState,
  ConfigAuthor,
  type ConfigVersion,
  ConfigVersionSchema,
  type Dose,
  DoseCause,
  DoseOutcome,
  DoseSchema,
  Enforcer,
  FeedNowCapability,
  type Feeder,
  FeederMode,
  FeederSchema,
  FeederState,
  FieldAccess,
  HoldSource,
  LinkState,
  PresenceState,
  Quality,
  ReadingKind,
  type Robot,
  RobotSchema,
  type Tank,
  TankSchema,
} from "../src/gen/pasamanos/v1/resources_pb";
import { FIELD_PATHS } from "../src/form/fields";

export const FARM = "farms/arava-north";

export const seconds = (s: number): Duration =>
  create(DurationSchema, { seconds: BigInt(Math.trunc(s)), nanos: Math.round((s % 1) * 1e9) });
export const at = (ms: number): Timestamp =>
  create(TimestampSchema, { seconds: BigInt(Math.floor(ms / 1000)), nanos: 0 });

export interface MockFarm {
  agents: Map<string, Agent>;
  robots: Map<string, Robot>;
  tanks: Map<string, Tank>;
  feeders: Map<string, Feeder>;
  commands: Map<string, Command>;
  versions: Map<string, ConfigVersion[]>;
  doses: Dose[];
}

const HALLS = [
  { group: "Nursery hall A", prefix: "a", count: 8, portion: 150, interval: 900, feed: "Micro 300–500 µm" },
  { group: "Grow-out hall B", prefix: "b", count: 8, portion: 1_500, interval: 1_800, feed: "Grower 1.2 mm" },
  { group: "Broodstock", prefix: "c", count: 4, portion: 12_500, interval: 7_200, feed: "Brood 3 mm" },
];

/** The same farm every time; `now` is the wall clock. */
export function makeFarm(now: number): MockFarm {
  const farm: MockFarm = {
    agents: new Map(),
    robots: new Map(),
    tanks: new Map(),
    feeders: new Map(),
    commands: new Map(),
    versions: new Map(),
    doses: [],
  };
  const agent = `${FARM}/agents/pc-1`;
  farm.agents.set(
    agent,
    create(AgentSchema, {
      name: agent,
      presence: PresenceState.ONLINE,
      since: at(now - 7_860_000),
      sinceAge: seconds(7_860),
      lastHeardAge: seconds(2),
      version: "0.1.0",
    }),
  );
  for (const hall of HALLS) {
    const robot = `${FARM}/robots/robot-${hall.prefix}`;
    farm.robots.set(
      robot,
      create(RobotSchema, {
        name: robot,
        agent,
        link: { state: LinkState.UP, since: at(now - 7_800_000), lifeProven: hall.prefix !== "c" },
        hoppers: [{ levelMg: BigInt(hall.portion * 820), feedName: hall.feed }],
      }),
    );
    for (let i = 1; i <= hall.count; i++) addTank(farm, hall, robot, i, now);
  }
  disturb(farm, now);
  return farm;
}

function addTank(farm: MockFarm, hall: (typeof HALLS)[number], robot: string, i: number, now: number): void {
  const tank = `${FARM}/tanks/${hall.prefix}-${String(i).padStart(2, "0")}`;
  const wobble = ((i * 37) % 11) / 10;
  farm.tanks.set(
    tank,
    create(TankSchema, {
      name: tank,
      displayName: `${hall.prefix === "c" ? "Brood" : "Tank"} ${hall.prefix.toUpperCase()}${i}`,
      group: hall.group,
      readings: [
        reading(ReadingKind.DISSOLVED_OXYGEN_UG_PER_L, 6_200 + wobble * 900, 8 + i),
        reading(ReadingKind.WATER_TEMPERATURE_MILLICELSIUS, 25_400 + wobble * 800, 12 + i),
      ],
    }),
  );
  const name = `${FARM}/feeders/${hall.prefix}-${String(i).padStart(2, "0")}`;
  const fed = BigInt(hall.portion * (14 + ((i * 5) % 9)));
  const lastAge = 40 + ((i * 97) % (hall.interval - 60));
  const feeder = create(FeederSchema, {
    name,
    robot,
    tank,
    displayName: `Feeder ${hall.prefix.toUpperCase()}${i}`,
    etag: `v1-${hall.prefix}${i}`,
    configVersion: 1n,
    config: {
      mode: FeederMode.AUTOMATIC,
      portionMg: hall.portion,
      interval: seconds(hall.interval),
      windows: hall.prefix === "b" ? [{ startMinute: 330, endMinute: 720 }, { startMinute: 900, endMinute: 1_260 }] : [],
      dailyCapMg: hall.portion * (hall.prefix === "b" ? 48 : 192),
      interlocks: { minDissolvedOxygenUgPerL: 4_500, maxWaterTemperatureMillicelsius: 31_000 },
    },
    limits: {
      portionMinMg: 10,
      portionMaxMg: hall.portion * 10,
      portionStepMg: hall.portion < 1_000 ? 10 : 100,
      intervalMin: seconds(60),
      intervalMax: seconds(86_400),
      dailyCapMaxMg: hall.portion * 400,
      windowsMax: 6,
      dispenseRateMgPerS: 50,
    },
    capabilities: {
      feedNow: hall.prefix === "c" ? FeedNowCapability.AT_MOST_ONCE : FeedNowCapability.EXACT,
      hold: true,
      fields: FIELD_PATHS.filter((p) => p !== "interlocks.min_oxygen_saturation_permille").map((path) => ({
        path,
        access: FieldAccess.WRITABLE,
        enforcedBy: path.startsWith("interlocks.") || path === "daily_cap_mg" ? Enforcer.AGENT : Enforcer.PLC,
      })),
    },
    status: {
      state: FeederState.READY,
      dispensedTodayMg: fed,
      nextDoseTime: at(now + (hall.interval - lastAge) * 1000),
      age: seconds(1.2),
      totalDispensedMg: fed * 90n,
    },
  });
  farm.feeders.set(name, feeder);
  for (let k = 0; k < 6; k++) farm.doses.push(dose(feeder, hall.portion, now - (lastAge + k * hall.interval) * 1000, k));
  if (feeder.status) feeder.status.lastDose = farm.doses[farm.doses.length - 6];
  farm.versions.set(name, [version(feeder, ConfigAuthor.FARM, now - 86_400_000 * 3)]);
}

function reading(kind: ReadingKind, value: number, age: number) {
  return { kind, value: BigInt(Math.round(value)), age: seconds(age), quality: Quality.GOOD };
}

export function dose(feeder: Feeder, mg: number, startMs: number, k: number, command = ""): Dose {
  return create(DoseSchema, {
    name: `${FARM}/doses/${feeder.name.split("/")[3]}-${startMs}-${k}`,
    feeder: feeder.name,
    tank: feeder.tank,
    robot: feeder.robot,
    command,
    cause: command ? DoseCause.COMMAND : DoseCause.SCHEDULE,
    outcome: DoseOutcome.GIVEN,
    plannedMg: mg,
    dispensedMg: BigInt(mg),
    basis: feeder.robot.endsWith("c") ? AmountBasis.TIMED : AmountBasis.COUNTED,
    startTime: at(startMs),
    endTime: at(startMs + 3_000),
    localDate: new Date(startMs).toISOString().slice(0, 10),
  });
}

export function version(feeder: Feeder, author: ConfigAuthor, ms: number, command = ""): ConfigVersion {
  return create(ConfigVersionSchema, {
    number: feeder.configVersion,
    etag: feeder.etag,
    author,
    createTime: at(ms),
    command,
    config: feeder.config,
  });
}

/** The states that a real farm always has somewhere. */
function disturb(farm: MockFarm, now: number): void {
  const change = (slug: string, edit: (f: Feeder) => void) => {
    const feeder = farm.feeders.get(`${FARM}/feeders/${slug}`);
    if (feeder) edit(feeder);
  };
  change("a-03", (f) => {
    if (f.status) f.status.state = FeederState.DOSING;
  });
  change("a-05", (f) => {
    if (!f.status) return;
    f.status.state = FeederState.HELD;
    f.status.holds = [
      { $typeName: "pasamanos.v1.Hold", source: HoldSource.OPERATOR, since: at(now - 2_520_000), author: "Noa", note: "Sick fish, vet comes at 9" },
    ];
    f.status.blocks = [
      { $typeName: "pasamanos.v1.Block", reason: "FEEDER_HELD", metadata: { feeder: f.name, source: "OPERATOR" } },
    ];
  });
  change("b-02", (f) => {
    if (!f.status) return;
    f.status.state = FeederState.FAULT;
    f.status.faults = [{ $typeName: "pasamanos.v1.Fault", code: 12, text: "Auger jammed", since: at(now - 1_020_000) }];
    f.status.blocks = [
      { $typeName: "pasamanos.v1.Block", reason: "FEEDER_FAULT", metadata: { feeder: f.name, fault_code: "12" } },
    ];
  });
  change("b-06", (f) => {
    if (!f.status || !f.config) return;
    f.status.state = FeederState.OFF;
    f.config.mode = FeederMode.OFF;
    f.status.nextDoseTime = undefined;
    f.status.blocks = [{ $typeName: "pasamanos.v1.Block", reason: "FEEDER_OFF", metadata: { feeder: f.name } }];
  });
  change("c-04", (f) => {
    if (f.capabilities) f.capabilities.fields = f.capabilities.fields.map((c) => ({ ...c, access: FieldAccess.READ_ONLY }));
    if (f.config) f.config.mode = FeederMode.MANUAL;
    if (f.status) f.status.nextDoseTime = undefined;
  });
  const tank = farm.tanks.get(`${FARM}/tanks/a-07`);
  const oxygen = tank?.readings[0];
  if (oxygen) {
    oxygen.quality = Quality.STALE;
    oxygen.age = seconds(1_380);
  }
}

export const copyFeeder = (feeder: Feeder): Feeder => clone(FeederSchema, feeder);
export { CommandState };
