// What stands in the way of this feeder: the farm away, a dose in doubt, faults, holds, bad settings.
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { Banner, Button } from "../components/basics";
import { Moment, When } from "../components/moment";
import { type Command, CommandState, type Fault, type Hold, HoldSource } from "../gen/pasamanos/v1/resources_pb";
import { formatNumber } from "../format/amount";
import { timestampMs } from "../format/time";
import { t } from "../i18n";
import { closedText, holdTitle } from "../i18n/words";
import { faultsOf } from "../store/feeder-view";
import { usePanel } from "../store/panel";
import { useSession } from "../store/session";
import { SettleDialog } from "./settle-dialog";
import { linkText } from "./tank-card";

/** Reasons that close everything; said once at the top instead of under every button. */
const WHOLE = ["AGENT_OFFLINE", "NEVER_CONNECTED", "LEASE_STORE_UNREACHABLE", "STREAM_BROKEN"];

export const closesAll = (reason: string): boolean => WHOLE.includes(reason);

export function PanelAttention() {
  const session = useSession();
  const { feeder, robot, closed } = usePanel();
  const away = closed("feed_now");
  // One refusal at a time: that of an order that was pressed says the same, and more.
  const refused = session.orders.list.value.some((s) => s.order.feeder === feeder.name && s.step.value.phase === "refused");
  // A PLC behind a farm PC that is away is not known to be away.
  const link = away && closesAll(away.reason) ? undefined : linkText(robot);
  const since = timestampMs(robot?.link?.since);
  return (
    <div class="attention">
      {away && closesAll(away.reason) && (
        <Banner tone="unknown" icon="broken" testid={refused ? undefined : "refusal"} reason={away.reason} title={awayTitle(away.reason)}>
          {closedText(away, session.naming)}
        </Banner>
      )}
      {link && (
        <Banner tone="unknown" icon="broken" title={link}>
          {since !== undefined && <Since ms={since} />} {robot?.link?.detail}
        </Banner>
      )}
      <Doubt />
      {feeder.configInvalid && (
        <Banner tone="danger" title={t.value.tile.invalid}>
          {t.value.panel.farmInvalid}
        </Banner>
      )}
      {feeder.configReversion && (
        <Banner tone="warn" icon="farm" title={t.value.panel.reverted} testid="reverted">
          {t.value.panel.revertedText(
            formatNumber(Number(feeder.configReversion.restoredVersion)),
            formatNumber(Number(feeder.configReversion.displacedVersion)),
          )}
        </Banner>
      )}
      {faultsOf(feeder, robot).map((fault) => (
        <FaultBanner key={fault.code} fault={fault} />
      ))}
      {feeder.status?.holds.map((hold) => (
        <HoldBanner key={hold.source} hold={hold} />
      ))}
    </div>
  );
}

function awayTitle(reason: string): string {
  const p = t.value.presence;
  switch (reason) {
    case "AGENT_OFFLINE":
      return p.offline;
    case "NEVER_CONNECTED":
      return p.never_seen;
    case "STREAM_BROKEN":
      return t.value.stream.broken;
    default:
      return p.unknown;
  }
}

function Since({ ms }: { ms: number }) {
  return (
    <span class="since">
      <When ms={ms} /> · <Moment ms={ms} />
    </span>
  );
}

function FaultBanner({ fault }: { fault: Fault }) {
  const session = useSession();
  const { feeder, closed } = usePanel();
  const shut = closed("reset_fault");
  const since = timestampMs(fault.since);
  return (
    <Banner
      tone="danger"
      icon="fault"
      title={fault.text || t.value.panel.faultCode(String(fault.code))}
      testid="fault"
      actions={
        <Button
          disabled={shut !== undefined}
          data-testid={`reset-fault-${fault.code}`}
          onClick={() => session.orders.resetFault(feeder, fault.code, "")}
        >
          {t.value.panel.resetFault}
        </Button>
      }
    >
      {t.value.panel.faultCode(String(fault.code))} {since !== undefined && <Since ms={since} />}
      {shut && !closesAll(shut.reason) && <p>{closedText(shut, session.naming)}</p>}
    </Banner>
  );
}

function HoldBanner({ hold }: { hold: Hold }) {
  const h = t.value.hold;
  const since = timestampMs(hold.since);
  const byPerson = hold.source === HoldSource.OPERATOR && hold.author !== "";
  const where = hold.source === HoldSource.FARM ? h.releasedAtFarm : RELEASED_BY_ITSELF.includes(hold.source) ? h.releasedByItself : "";
  return (
    <Banner tone="warn" icon="held" testid="hold-info" title={byPerson ? h.heldBy(hold.author) : `${t.value.state.held}: ${holdTitle(hold)}`}>
      {hold.author !== "" && !byPerson && <span>{h.by(hold.author)} · </span>}
      {since !== undefined && <Since ms={since} />}
      {hold.note !== "" && <p class="quote">“{hold.note}”</p>}
      {where !== "" && <p>{where}</p>}
    </Banner>
  );
}

const RELEASED_BY_ITSELF = [HoldSource.INTERLOCK, HoldSource.DAILY_CAP, HoldSource.ENVELOPE];

/** A dose whose fate nobody knows locks its robot until a person says what they saw. */
function Doubt() {
  const session = useSession();
  const { feeder, robot } = usePanel();
  const settling = useSignal(false);
  const asked = useSignal<Command | undefined>(undefined);
  const name = robot?.unsettledCommand ?? "";
  const shown = session.farm.value?.commands.get(name)?.value;
  const unseen = name !== "" && shown === undefined;
  // One that the watch does not show is asked for: it may run, or be in doubt since long ago.
  useEffect(() => {
    if (!unseen) return;
    void session.api.feeders.getCommand({ name }).then(
      (answer) => {
        asked.value = answer.command;
      },
      () => {},
    );
  }, [name, unseen]);
  const command = shown ?? (asked.value?.name === name ? asked.value : undefined);
  if (!command || command.state !== CommandState.UNCERTAIN) return null;
  const elsewhere = command.feeder !== feeder.name;
  return (
    <>
      <Banner
        tone="danger"
        icon="unknown"
        title={t.value.tile.inDoubt}
        testid="doubt"
        actions={
          <Button
            kind="danger"
            data-testid="settle"
            onClick={() => {
              settling.value = true;
            }}
          >
            {t.value.settle.open}
          </Button>
        }
      >
        {elsewhere ? `${session.naming(command.feeder)}: ${t.value.settle.otherRobot}` : t.value.settle.counts}
      </Banner>
      {settling.value && (
        <SettleDialog
          name={name}
          onClose={() => {
            settling.value = false;
          }}
        />
      )}
    </>
  );
}
