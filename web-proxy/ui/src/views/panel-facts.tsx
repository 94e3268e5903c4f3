// This feeder's day, its tank's water, its machine.
import { Ago } from "../components/moment";
import { FeedNowCapability, LinkState } from "../gen/pasamanos/v1/resources_pb";
import { formatDispensed } from "../format/amount";
import { t } from "../i18n";
import { readAt } from "../store/feeder-view";
import { usePanel } from "../store/panel";
import { useSession } from "../store/session";
import { FedToday, hopperText, LastMeal, linkText, NextMeal, Readings } from "./tank-card";

export function PanelFacts() {
  const { feeder, seen, robot, tank, state } = usePanel();
  const last = feeder.status?.lastDose;
  const read = readAt(seen);
  const p = t.value.panel;
  // What the farm PC said of the PLC holds only while the farm PC is heard.
  const heard = useSession().presence.value?.state === "online";
  const up = heard && robot?.link?.state === LinkState.UP;
  return (
    <section class="panel-section">
      <h3>{p.now}</h3>
      <FedToday feeder={feeder} />
      <dl class="facts facts-boxed">
        <div>
          <dt>{p.lastMeal}</dt>
          <dd>
            <LastMeal feeder={feeder} />
            {last?.dispensedMg !== undefined && <small>{formatDispensed(last.dispensedMg, last.basis)}</small>}
          </dd>
        </div>
        <div>
          <dt>{p.nextMeal}</dt>
          <dd>
            <NextMeal feeder={feeder} state={state} />
          </dd>
        </div>
        <div>
          <dt>{p.hopper}</dt>
          <dd>
            {hopperText(robot)}
            {robot?.hoppers[0]?.feedName && <small>{robot.hoppers.map((h) => h.feedName).join(", ")}</small>}
          </dd>
        </div>
        <div>
          <dt>{p.plc}</dt>
          <dd>
            {(heard && linkText(robot)) || (up ? p.plcUp : t.value.notKnown)}
            {read !== undefined && state === "unknown" && (
              <small>
                {t.value.tile.lastRead("")} <Ago at={read} />
              </small>
            )}
          </dd>
        </div>
      </dl>
      {tank && tank.value.readings.length > 0 && <Readings tank={tank} long />}
      {up && robot?.link && !robot.link.lifeProven && <p class="fine">{p.lifeNotProven}</p>}
      {feeder.capabilities?.feedNow === FeedNowCapability.AT_MOST_ONCE && <p class="fine">{p.atMostOnce}</p>}
    </section>
  );
}
