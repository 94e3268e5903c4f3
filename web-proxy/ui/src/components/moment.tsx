// Ages and times that keep moving: counted by the monotonic clock, renewed every second.
import { tick } from "../store/clock";
import { useSession } from "../store/session";
import { formatDuration, formatMoment, formatRelative } from "../format/time";
import { t } from "../i18n";

/** How long ago a monotonic instant was: "4 min ago". */
export function Ago({ at }: { at: number }) {
  return <>{formatRelative(Math.min(0, at - Math.max(tick.value, at)))}</>;
}

/** How long something has lasted since a monotonic instant: "2 h 10 min". */
export function Lasting({ since }: { since: number }) {
  return <>{formatDuration(Math.max(0, tick.value - since))}</>;
}

interface WhenProps {
  /** Wall time, ms since 1970. */
  ms: number;
  /** Said instead of a moment to come that has passed. */
  overdue?: string;
}

/** A wall time seen from the server's now; its full time on hover. */
export function When({ ms, overdue }: WhenProps) {
  const session = useSession();
  const now = session.serverNow();
  const zone = session.farm.value?.timeZone ?? "UTC";
  if (now === undefined) return <>{t.value.notKnown}</>;
  const late = overdue !== undefined && ms <= now;
  return (
    <time dateTime={new Date(ms).toISOString()} title={formatMoment(ms, zone, now)}>
      {late ? overdue : formatRelative(ms - now)}
    </time>
  );
}

/** A wall time as the farm's clock shows it. */
export function Moment({ ms }: { ms: number }) {
  const session = useSession();
  const now = session.serverNow() ?? ms;
  return <time dateTime={new Date(ms).toISOString()}>{formatMoment(ms, session.farm.value?.timeZone ?? "UTC", now)}</time>;
}
