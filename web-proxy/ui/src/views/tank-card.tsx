// One tank: its water, and each of its feeders with what they do, did and will do.
import { Icon, type IconName } from "../components/icon";
import { Chip, Meter, type Tone } from "../components/basics";
import { Ago, When } from "../components/moment";
import { type Feeder, FeederMode, LinkState, type Reading, ReadingKind, type Robot, type Tank } from "../gen/pasamanos/v1/resources_pb";
import { byImportance, formatAmount, formatTotal, readingParts } from "../format/amount";
import { formatInterval, timestampMs } from "../format/time";
import { slugOf } from "../i18n/facts";
import { t } from "../i18n";
import { readingTitle } from "../i18n/words";
import { openFeeder, route } from "../route";
import { tick } from "../store/clock";
import type { Seen } from "../store/farm";
import { faultsOf, observedAt, openDose, readAt, stateOf, type StateName, trustOf } from "../store/feeder-view";
import { useSession } from "../store/session";
import { useFarm } from "../store/use";

export const STATE_TONE: Readonly<Record<StateName, Tone>> = {
  ready: "ok",
  dosing: "info",
  held: "warn",
  off: "off",
  fault: "danger",
  unknown: "unknown",
};

interface TankCardProps {
  tank: string;
  feeders: readonly string[];
}

export function TankCard({ tank: name, feeders }: TankCardProps) {
  const tank = useFarm((f) => f.tanks.get(name));
  if (!tank) return null;
  return (
    <article class={feeders.length === 1 ? "tank tank-single" : "tank"} data-testid={`tank-${slugOf(name)}`}>
      <header class="tank-head">
        <h3>{tank.value.displayName || slugOf(name)}</h3>
        <Readings tank={tank} />
      </header>
      {feeders.length === 0 && <p class="tile-none">{t.value.farm.noFeeder}</p>}
      {feeders.map((feeder) => (
        <FeederTile key={feeder} name={feeder} tank={tank.value} alone={feeders.length === 1} />
      ))}
    </article>
  );
}

/** The water of a tank. An old or bad value is never shown as a good one. */
export function Readings({ tank, long }: { tank: Seen<Tank>; long?: boolean }) {
  const now = Math.max(tick.value, tank.at);
  const all = [...tank.value.readings].sort(byImportance);
  const readings = long ? all : glance(all, (r) => trustOf(r, tank.at, now) !== "good");
  return (
    <ul class={long ? "readings readings-long" : "readings"}>
      {readings.map((reading) => {
        const trust = trustOf(reading, tank.at, now);
        const { number, unit } = readingParts(reading.kind, reading.value);
        const at = observedAt(reading, tank.at);
        const icon: IconName = unit === "°C" ? "thermometer" : "drop";
        return (
          <li key={reading.kind} class={`reading reading-${trust}`} data-quality={trust}>
            <Icon name={icon} />
            <span class={long ? "reading-name" : "visually-hidden"}>{readingTitle(reading.kind)}</span>
            <span class="reading-value">
              <b>{trust === "bad" ? "–" : number}</b> <small>{unit}</small>
            </span>
            {(long || trust !== "good") && (
              <small class="reading-age">
                {trust !== "good" && `${t.value.reading[trust]} `}
                {at !== undefined && <Ago at={at} />}
              </small>
            )}
          </li>
        );
      })}
    </ul>
  );
}

/** What a card has room for: oxygen, warmth, and whatever cannot be trusted. */
function glance(readings: readonly Reading[], doubtful: (r: Reading) => boolean): Reading[] {
  const milligrams = readings.some((r) => r.kind === ReadingKind.DISSOLVED_OXYGEN_UG_PER_L);
  return readings.filter((r) => {
    if (doubtful(r)) return true;
    if (r.kind === ReadingKind.OXYGEN_SATURATION_PERMILLE) return !milligrams;
    return r.kind === ReadingKind.DISSOLVED_OXYGEN_UG_PER_L || r.kind === ReadingKind.WATER_TEMPERATURE_MILLICELSIUS;
  });
}

interface FeederTileProps {
  name: string;
  tank: Tank;
  alone: boolean;
}

function FeederTile({ name, tank, alone }: FeederTileProps) {
  const session = useSession();
  const seen = useFarm((f) => f.feeders.get(name));
  const robot = useFarm((f) => f.robots.get(f.feeders.get(name)?.value.robot ?? "")?.value);
  const state = useFarm((f) => stateOf(f, name)) ?? "unknown";
  const doubt = useFarm((f) => openDose(f, f.robots.get(f.feeders.get(name)?.value.robot ?? "")?.value) === "doubt") ?? false;
  if (!seen) return null;
  const feeder = seen.value;
  const slug = slugOf(name);
  const own = session.orders.own(feeder);
  const title = feeder.displayName || slug;
  return (
    <div class={`tile tile-${state}`} data-state={state} data-open={route.value.feeder === slug}>
      <div class="tile-head">
        <button
          type="button"
          class="tile-open"
          data-testid={`feeder-${slug}`}
          aria-label={t.value.tile.open(title, tank.displayName || slugOf(tank.name))}
          onClick={() => openFeeder(slug)}
        />
        <span class="tile-name">{alone && title === tank.displayName ? "" : title}</span>
        <Chip tone={STATE_TONE[state]} icon={state}>
          {t.value.state[state]}
        </Chip>
      </div>
      <Program feeder={feeder} />
      <FedToday feeder={feeder} />
      <dl class="facts">
        <div>
          <dt>{t.value.tile.last}</dt>
          <dd>
            <LastMeal feeder={feeder} />
          </dd>
        </div>
        <div>
          <dt>{t.value.tile.next}</dt>
          <dd>
            <NextMeal feeder={feeder} state={state} />
          </dd>
        </div>
        <div>
          <dt>{t.value.tile.hopper}</dt>
          <dd>{hopperText(robot)}</dd>
        </div>
      </dl>
      <Marks feeder={feeder} robot={robot} pending={own.configOpen || feeder.pendingCommand !== ""} doubt={doubt} state={state} seen={seen} />
    </div>
  );
}

/** Portion and interval: the two numbers that matter. */
function Program({ feeder }: { feeder: Feeder }) {
  const { config } = feeder;
  if (!config) return <p class="program program-none">{t.value.notKnown}</p>;
  const interval = config.interval === undefined ? undefined : Number(config.interval.seconds);
  return (
    <p class="program">
      <b>{config.portionMg === undefined ? "–" : formatAmount(config.portionMg)}</b>{" "}
      <span>
        {config.mode === FeederMode.MANUAL
          ? t.value.tile.onCommand
          : config.mode === FeederMode.OFF
            ? t.value.tile.doesNotFeed
            : interval === undefined
              ? ""
              : t.value.tile.every(formatInterval(interval))}
      </span>
    </p>
  );
}

export function FedToday({ feeder }: { feeder: Feeder }) {
  const fed = feeder.status?.dispensedTodayMg;
  if (fed === undefined) return null;
  const cap = feeder.config?.dailyCapMg;
  const text = cap === undefined ? formatTotal(fed) : t.value.tile.ofCap(formatTotal(fed), formatTotal(cap));
  return (
    <div class="fed">
      {cap !== undefined && <Meter value={Number(fed)} max={cap} label={t.value.farm.fedToday} text={text} />}
      <p>
        <span>{t.value.tile.today}</span> <b>{text}</b>
        {cap === undefined && <small> · {t.value.tile.noCap}</small>}
      </p>
    </div>
  );
}

export function LastMeal({ feeder }: { feeder: Feeder }) {
  const last = feeder.status?.lastDose;
  const ms = timestampMs(last?.endTime ?? last?.startTime);
  if (!last || ms === undefined) return <span class="muted">{t.value.tile.neverFed}</span>;
  return <When ms={ms} />;
}

export function NextMeal({ feeder, state }: { feeder: Feeder; state: StateName }) {
  const ms = timestampMs(feeder.status?.nextDoseTime);
  if (ms === undefined || state === "held" || state === "off" || state === "fault") return <span class="muted">–</span>;
  return <When ms={ms} overdue={state === "unknown" ? "–" : t.value.tile.due} />;
}

export function hopperText(robot: Robot | undefined): string {
  const levels = (robot?.hoppers ?? []).map((h) => h.levelMg).filter((l) => l !== undefined);
  return levels.length === 0 ? "–" : levels.map((l) => formatTotal(l)).join(" + ");
}

interface MarksProps {
  feeder: Feeder;
  robot: Robot | undefined;
  pending: boolean;
  doubt: boolean;
  state: StateName;
  seen: Seen<Feeder>;
}

/** What a glance must not miss. */
function Marks({ feeder, robot, pending, doubt, state, seen }: MarksProps) {
  const read = readAt(seen);
  const marks: { icon: IconName; tone: Tone; text: string }[] = [];
  const link = linkText(robot);
  if (link) marks.push({ icon: "broken", tone: "unknown", text: link });
  for (const fault of faultsOf(feeder, robot)) {
    marks.push({ icon: "fault", tone: "danger", text: fault.text || t.value.panel.faultCode(String(fault.code)) });
  }
  if (doubt) marks.push({ icon: "unknown", tone: "danger", text: t.value.tile.inDoubt });
  if (feeder.configInvalid) marks.push({ icon: "warning", tone: "danger", text: t.value.tile.invalid });
  if (feeder.configReversion) marks.push({ icon: "farm", tone: "warn", text: t.value.tile.reverted });
  if (pending) marks.push({ icon: "spark", tone: "info", text: t.value.tile.changing });
  if (marks.length === 0 && !(state === "unknown" && read !== undefined)) return null;
  return (
    <ul class="marks">
      {marks.map((m) => (
        <li key={m.text} class={`mark-line tone-${m.tone}`}>
          <Icon name={m.icon} />
          <span>{m.text}</span>
        </li>
      ))}
      {state === "unknown" && read !== undefined && (
        <li class="mark-line">
          <Icon name="clock" />
          <span>
            {t.value.tile.lastRead("")} <Ago at={read} />
          </span>
        </li>
      )}
    </ul>
  );
}

export function linkText(robot: Robot | undefined): string | undefined {
  switch (robot?.link?.state) {
    case LinkState.DOWN:
      return t.value.tile.plcDown;
    case LinkState.FROZEN:
      return t.value.tile.plcFrozen;
    case LinkState.CONFIG_ERROR:
      return t.value.tile.plcConfig;
    default:
      return undefined;
  }
}
