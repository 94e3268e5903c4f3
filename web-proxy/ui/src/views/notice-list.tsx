// What someone changed at the farm, told once: old against new.
import { Banner, Button } from "../components/basics";
import { Moment } from "../components/moment";
import { FeederConfigSchema } from "../gen/pasamanos/v1/resources_pb";
import { create } from "@bufbuild/protobuf";
import { diffConfigs } from "../form/diff";
import { timestampMs } from "../format/time";
import { slugOf } from "../i18n/facts";
import { t } from "../i18n";
import { fieldTitle } from "../i18n/words";
import { openFeeder, route } from "../route";
import { useSession } from "../store/session";
import { revertedText } from "./history-rows";

interface NoticeListProps {
  /** Those of this feeder; undefined for all that are not shown in the open panel. */
  feeder: string | undefined;
}

export function NoticeList({ feeder }: NoticeListProps) {
  const session = useSession();
  const open = route.value.feeder;
  const notices = session.notices.list.value.filter((n) =>
    feeder === undefined ? slugOf(n.feeder) !== open : n.feeder === feeder,
  );
  if (notices.length === 0) return null;
  const empty = create(FeederConfigSchema);
  return (
    <div class="notices" role="status">
      {notices.map((n) => {
        const differences = diffConfigs(n.previous.config ?? empty, n.version.config ?? empty);
        const ms = timestampMs(n.version.createTime);
        return (
          <Banner
            key={n.id}
            tone="info"
            icon="farm"
            testid="notice"
            title={t.value.notice.title(session.naming(n.feeder))}
            actions={
              <>
                {feeder === undefined && <Button onClick={() => openFeeder(slugOf(n.feeder))}>{t.value.picker.open}</Button>}
                <Button data-testid="notice-dismiss" onClick={() => session.notices.dismiss(n.id)}>
                  {t.value.dismiss}
                </Button>
              </>
            }
          >
            {n.version.reversion && <p>{revertedText(n.version.reversion)}</p>}
            {differences.length === 0 && t.value.notice.version}
            {differences.map((d) => (
              <p key={d.path}>{t.value.notice.change(fieldTitle(d.path), d.before, d.after)}</p>
            ))}
            {ms !== undefined && (
              <small>
                <Moment ms={ms} />
              </small>
            )}
          </Banner>
        );
      })}
    </div>
  );
}
