// The long word when the farm cannot be reached, and what that means for the fish.
import { Icon } from "../components/icon";
import { t } from "../i18n";
import { reasonText } from "../i18n/words";
import { useSession } from "../store/session";

export function PresenceBanner() {
  const session = useSession();
  const presence = session.presence.value;
  if (!presence || session.stream.value.kind !== "live" || presence.state === "online") return null;
  const p = t.value.presence;
  const text = { offline: p.offlineLong, unknown: p.unknownLong, never_seen: p.neverLong }[presence.state];
  return (
    <div class={`strip strip-${presence.state}`} role="alert" data-testid="presence-banner">
      <Icon name={presence.state === "offline" ? "broken" : "unknown"} />
      <p>
        {text}
        {presence.problem !== "" && <strong> {reasonText(presence.problem, { agent: presence.agent }, session.naming)}</strong>}
      </p>
    </div>
  );
}
