// Every tank at a glance: the count by state, the filter, the cards.
import { useComputed, useSignal } from "@preact/signals";
import { Button } from "../components/basics";
import { Icon, type IconName } from "../components/icon";
import { formatNumber, formatTotal } from "../format/amount";
import { timestampMs } from "../format/time";
import { t } from "../i18n";
import { When } from "../components/moment";
import { feederState, type StateName } from "../store/feeder-view";
import { countStates, type Filter, type Layout, layoutOf } from "../store/layout";
import { useSession } from "../store/session";
import { useFarm } from "../store/use";
import { TankCard } from "./tank-card";

/** From this many tanks on a box to find one is worth its place. */
const SEARCH_FROM = 13;
const SHOWN: readonly StateName[] = ["fault", "unknown", "held", "dosing", "off", "ready"];

export function Tanks() {
  const session = useSession();
  const filter = useSignal<Filter>({ text: "", only: "all", attentionFirst: false });
  // As text, so that nothing is drawn anew while the order of things stays.
  const key = useComputed(() => {
    const farm = session.farm.value;
    return farm ? JSON.stringify(layoutOf(farm, filter.value)) : "";
  }).value;
  const layout = key === "" ? undefined : (JSON.parse(key) as Layout);
  const all = useFarm((f) => f.tanks.size) ?? 0;
  if (!layout) return null;
  const narrow = (change: Partial<Filter>) => {
    filter.value = { ...filter.peek(), ...change };
  };
  return (
    <>
      <Summary only={filter.value.only} onOnly={(only) => narrow({ only })} />
      {all > 0 && (
        <div class="tools">
          <Totals />
          <Button
            icon="sort"
            aria-pressed={filter.value.attentionFirst}
            data-testid="attention-first"
            onClick={() => narrow({ attentionFirst: !filter.peek().attentionFirst })}
          >
            {t.value.farm.attentionFirst}
          </Button>
          {all >= SEARCH_FROM && (
            <label class="search">
              <Icon name="search" />
              <span class="visually-hidden">{t.value.farm.search}</span>
              <input
                class="input"
                type="search"
                placeholder={t.value.farm.search}
                value={filter.value.text}
                data-testid="search"
                onInput={(e) => narrow({ text: e.currentTarget.value })}
              />
            </label>
          )}
        </div>
      )}
      {all === 0 && <p class="empty">{t.value.farm.empty}</p>}
      {all > 0 && layout.shown === 0 && (
        <p class="empty">
          {t.value.farm.noMatch}{" "}
          <Button onClick={() => narrow({ text: "", only: "all" })}>{t.value.farm.clearFilter}</Button>
        </p>
      )}
      {layout.sections.map((section) => (
        <section key={section.group} class="group">
          {!filter.value.attentionFirst && (section.group !== "" || layout.sections.length > 1) && (
            <h2 class="group-title">
              {section.group || t.value.farm.noGroup} <span>{formatNumber(section.tanks.length)}</span>
            </h2>
          )}
          <div class="cards">
            {section.tanks.map((slot) => (
              <TankCard key={slot.tank} tank={slot.tank} feeders={slot.feeders} />
            ))}
          </div>
        </section>
      ))}
    </>
  );
}

interface SummaryProps {
  only: Filter["only"];
  onOnly: (only: Filter["only"]) => void;
}

/** The farm in one line; each count is also a filter. */
function Summary({ only, onOnly }: SummaryProps) {
  const counts = useFarm(countStates);
  if (!counts || counts.all === 0) return null;
  const choose = (name: Filter["only"]) => onOnly(only === name ? "all" : name);
  const states = SHOWN.filter((s) => counts[s] > 0);
  return (
    <div class="summary">
      <div class="summary-chips" role="group" aria-label={t.value.farm.summary}>
        <FilterChip name="all" count={counts.all} label={t.value.farm.all} on={only === "all"} onPress={() => onOnly("all")} />
        {counts.look > 0 && (
          <FilterChip
            name="look"
            icon="warning"
            count={counts.look}
            label={t.value.farm.needsLook}
            on={only === "look"}
            onPress={() => choose("look")}
          />
        )}
        {states.map((s) => (
          <FilterChip
            key={s}
            name={s}
            icon={s}
            count={counts[s]}
            label={t.value.state[s]}
            on={only === s}
            onPress={() => choose(s)}
          />
        ))}
      </div>
    </div>
  );
}

interface FilterChipProps {
  name: string;
  icon?: IconName;
  count: number;
  label: string;
  on: boolean;
  onPress: () => void;
}

function FilterChip({ name, icon, count, label, on, onPress }: FilterChipProps) {
  return (
    <button
      type="button"
      class={`filter filter-${name}`}
      aria-pressed={on}
      data-testid={`filter-${name}`}
      onClick={onPress}
    >
      {icon && <Icon name={icon} />}
      <b>{formatNumber(count)}</b>
      <span>{label}</span>
    </button>
  );
}

/** What the whole farm has fed today, and when it feeds next. */
function Totals() {
  const fed = useFarm((farm) => {
    let sum = 0n;
    let known = 0;
    for (const { value } of farm.feeders.values()) {
      const mg = value.status?.dispensedTodayMg;
      if (mg !== undefined) {
        sum += mg;
        known++;
      }
    }
    return known > 0 ? formatTotal(sum) : undefined;
  });
  const next = useFarm((farm) => {
    // Only of feeders that are known to feed.
    const feeding = [...farm.feeders.values()].filter((f) => ["ready", "dosing"].includes(feederState(farm, f.value)));
    const known = feeding.map((f) => timestampMs(f.value.status?.nextDoseTime)).filter((ms) => ms !== undefined);
    return known.length > 0 ? Math.min(...known) : undefined;
  });
  return (
    <dl class="totals">
      {fed !== undefined && (
        <div>
          <dt>{t.value.farm.fedToday}</dt>
          <dd>{fed}</dd>
        </div>
      )}
      {next !== undefined && (
        <div>
          <dt>{t.value.farm.nextMeal}</dt>
          <dd>
            <When ms={next} overdue={t.value.tile.due} />
          </dd>
        </div>
      )}
    </dl>
  );
}
