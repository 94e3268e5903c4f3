// The farm: its head, what is wrong, its tanks, the open feeder.
import { useEffect, useMemo } from "preact/hooks";
import type { Api } from "../api/transport";
import { Spinner } from "../components/basics";
import { t } from "../i18n";
import { closeFeeder, rememberFarm, route } from "../route";
import { FarmSession, SessionProvider, useSession } from "../store/session";
import { FeederPanel } from "./feeder-panel";
import { Header, StreamBanner } from "./header";
import { NoticeList } from "./notice-list";
import { OrderTray } from "./order-tray";
import { PresenceBanner } from "./presence-banner";
import { Tanks } from "./tanks";

export function FarmPage({ api, slug }: { api: Api; slug: string }) {
  const session = useMemo(() => new FarmSession(`farms/${slug}`, api), [api, slug]);
  useEffect(() => {
    session.start();
    return () => session.stop();
  }, [session]);
  return (
    <SessionProvider value={session}>
      <Page slug={slug} />
    </SessionProvider>
  );
}

function Page({ slug }: { slug: string }) {
  const session = useSession();
  const farm = session.farm.value;
  const known = farm !== undefined;
  const title = farm?.displayName;
  useEffect(() => {
    if (known) rememberFarm(slug);
  }, [known, slug]);
  useEffect(() => {
    document.title = title ? `${title} – ${t.value.product}` : t.value.product;
  }, [title]);
  const { feeder } = route.value;
  const live = session.stream.value.kind === "live";
  const online = session.presence.value?.state === "online";
  return (
    <div class={feeder === "" ? "page" : "page page-with-panel"} data-stale={known && !live} data-offline={known && !online}>
      <Header />
      <StreamBanner />
      <PresenceBanner />
      <main class="main">
        <NoticeList feeder={undefined} />
        {known ? <Tanks /> : <Waiting />}
      </main>
      {known && feeder !== "" && <FeederPanel key={feeder} slug={feeder} onClose={closeFeeder} />}
      <OrderTray />
    </div>
  );
}

function Waiting() {
  if (useSession().stream.value.kind === "broken") return null;
  return (
    <p class="waiting" role="status">
      <Spinner /> {t.value.loading}
    </p>
  );
}
