// The head of the page: which farm, whether it is there, whether this page can see it, stop all.
import { useSignal } from "@preact/signals";
import { Button } from "../components/basics";
import { Icon, Mark } from "../components/icon";
import { Ago } from "../components/moment";
import { slugOf } from "../i18n/facts";
import { t } from "../i18n";
import { formatNumber } from "../format/amount";
import { formatDuration, formatMoment } from "../format/time";
import { tick } from "../store/clock";
import type { Presence } from "../store/presence";
import { useSession } from "../store/session";
import { HoldAllDialog } from "./hold-all-dialog";
import { Menu } from "./menu";

export function Header() {
  const session = useSession();
  const asking = useSignal(false);
  const farm = session.farm.value;
  const offline = session.stream.value.kind === "live" && session.presence.value?.state === "offline";
  return (
    <header class="head">
      <div class="head-row">
        <div class="brand">
          <Mark />
          <span class="brand-name">{t.value.product}</span>
        </div>
        <h1 class="head-farm" data-testid="farm-name">
          {farm?.displayName || slugOf(session.name)}
        </h1>
        <StreamPill />
        <PresenceBadge />
        <Button
          kind="warn"
          icon="held"
          disabled={!farm || offline}
          data-testid="hold-all"
          onClick={() => {
            asking.value = true;
          }}
        >
          {t.value.header.holdAll}
        </Button>
        {/* The account, once there are logins, stands beside the menu. */}
        <Menu />
      </div>
      {asking.value && (
        <HoldAllDialog
          onClose={() => {
            asking.value = false;
          }}
        />
      )}
    </header>
  );
}

/** Online, offline, unknown or never seen, and since when. Not claimed by a page that cannot hear. */
function PresenceBadge() {
  const session = useSession();
  const presence = session.presence.value;
  if (!presence) return null;
  if (session.stream.value.kind !== "live") {
    return (
      <span class="presence presence-blind" data-testid="presence" data-state="unknown" data-last={presence.state}>
        <span class="dot" />
        <span class="presence-text">
          <strong>{t.value.presence.unknown}</strong>
          <small>{t.value.presence.wasLast}</small>
        </span>
      </span>
    );
  }
  return (
    <span class={`presence presence-${presence.state}`} data-testid="presence" data-state={presence.state} role="status">
      <span class="dot" />
      <span class="presence-text">
        <strong>{presenceTitle(presence)}</strong>
        <Since presence={presence} />
      </span>
    </span>
  );
}

const presenceTitle = (presence: Presence): string =>
  presence.all > 1 && presence.online < presence.all && presence.online > 0
    ? t.value.presence.someOnline(formatNumber(presence.online), formatNumber(presence.all))
    : t.value.presence[presence.state];

function Since({ presence }: { presence: Presence }) {
  const session = useSession();
  if (presence.since === undefined || presence.state === "never_seen") return null;
  const serverTime = session.farm.value?.serverTime;
  if (!serverTime) return null;
  const zone = session.farm.value?.timeZone ?? "UTC";
  const began = formatMoment(serverTime.value + (presence.since - serverTime.at), zone, session.serverNow() ?? serverTime.value);
  const length = formatDuration(Math.max(0, Math.max(tick.value, serverTime.at) - presence.since));
  return <small>{t.value.presence.since(began, length)}</small>;
}

/** Whether what is on the screen is live. */
function StreamPill() {
  const { kind } = useSession().stream.value;
  return (
    <span class={`stream stream-${kind}`} data-testid="stream" data-state={kind} role="status">
      <Icon name={kind === "broken" ? "broken" : "signal"} />
      <span>{t.value.stream[kind]}</span>
    </span>
  );
}

/** The long word when this page is blind. */
export function StreamBanner() {
  const session = useSession();
  const stream = session.stream.value;
  if (stream.kind !== "broken") return null;
  const s = t.value.stream;
  return (
    <div class="strip strip-blind" role="alert" data-testid="stream-banner">
      <Icon name="broken" />
      <p>
        {session.farm.value ? (
          <>
            <BrokenText at={stream.sinceMs} /> {s.resumes}
          </>
        ) : stream.cause === "not-found" ? (
          s.notFound
        ) : (
          s.brokenFirst
        )}
      </p>
    </div>
  );
}

function BrokenText({ at }: { at: number }) {
  // The age stands inside a sentence of another language's order.
  const [before, after] = t.value.stream.brokenLong("\u0000").split("\u0000");
  return (
    <>
      {before}
      <strong>
        <Ago at={at} />
      </strong>
      {after}
    </>
  );
}
