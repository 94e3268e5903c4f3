// The two things that are pressed: feed now, and hold or resume.
import { useSignal } from "@preact/signals";
import { Button } from "../components/basics";
import { FeederMode, HoldSource } from "../gen/pasamanos/v1/resources_pb";
import { formatInterval } from "../format/time";
import { t } from "../i18n";
import { closedText } from "../i18n/words";
import { usePanel } from "../store/panel";
import { useSession } from "../store/session";
import { FeedNowDialog } from "./feed-now-dialog";
import { closesAll } from "./panel-attention";

export function PanelActions() {
  const session = useSession();
  const { feeder, robot, closed } = usePanel();
  const feeding = useSignal(false);
  const shutFeed = closed("feed_now");
  const shutHold = closed("hold");
  const shutResume = closed("resume");
  const busy = session.orders.own(feeder).holdOpen;
  const held = feeder.status?.holds.some((h) => h.source === HoldSource.OPERATOR) ?? false;
  const farmHeld = feeder.status?.holds.some((h) => h.source === HoldSource.FARM) ?? false;
  // A PLC that starts its interval anew when the last hold ends: said before it is pressed.
  const last = held && feeder.status?.holds.every((h) => h.source === HoldSource.OPERATOR);
  const feeds = feeder.config?.mode === FeederMode.AUTOMATIC && feeder.config.interval !== undefined;
  const moves = last && feeds && feeder.capabilities?.holdRestartsInterval ? Number(feeder.config?.interval?.seconds) : undefined;
  // What closes everything, and a dose in doubt, is said above with what can be done about it.
  const doubt = robot?.unsettledCommand === shutFeed?.metadata.command && shutFeed?.reason === "DOSE_UNSETTLED";
  const said = shutFeed && (closesAll(shutFeed.reason) || doubt);
  const why = said ? undefined : shutFeed;
  return (
    <section class="actions">
      <div class="actions-row">
        <Button
          kind="primary"
          icon="dosing"
          wide
          disabled={shutFeed !== undefined}
          aria-describedby={why ? "feed-now-why" : undefined}
          data-testid="feed-now"
          onClick={() => {
            feeding.value = true;
          }}
        >
          {t.value.feedNow.button}
        </Button>
        {held ? (
          <Button
            icon="play"
            wide
            busy={busy}
            disabled={shutResume !== undefined || busy}
            data-testid="resume"
            onClick={() => session.orders.resumeFeeder(feeder, "")}
          >
            {t.value.hold.resume}
          </Button>
        ) : (
          <Button
            kind="warn"
            icon="held"
            wide
            busy={busy}
            disabled={shutHold !== undefined || busy}
            data-testid="hold"
            onClick={() => session.orders.hold(feeder, "")}
          >
            {t.value.hold.hold}
          </Button>
        )}
      </div>
      {why && (
        <p id="feed-now-why" class="why" data-testid="block" data-reason={why.reason}>
          <strong>{t.value.panel.why}:</strong> {closedText(why, session.naming)}
        </p>
      )}
      <p class="fine">
        {shutHold?.reason === "NOT_OFFERED" ? t.value.panel.noHold : t.value.panel.notEmergency}
        {farmHeld && ` ${t.value.hold.releasedAtFarm}`}
        {moves !== undefined && <span data-testid="resume-moves"> {t.value.hold.resumeMoves(formatInterval(moves))}</span>}
      </p>
      {feeding.value && (
        <FeedNowDialog
          onClose={() => {
            feeding.value = false;
          }}
        />
      )}
    </section>
  );
}
