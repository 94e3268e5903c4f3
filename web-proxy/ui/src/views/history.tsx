// What happened to this feeder: orders, settings, feedings. Read when shown, read anew when it moves.
import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { Button, Spinner } from "../components/basics";
import { t } from "../i18n";
import { usePanel } from "../store/panel";
import { useSession } from "../store/session";
import { CommandRow, DoseRow, VersionRow } from "./history-rows";

const TABS = ["commands", "versions", "doses"] as const;
type Tab = (typeof TABS)[number];
const PAGE_SIZE = 20;

export function History() {
  const tab = useSignal<Tab>("commands");
  const step = (by: number) => {
    const next = TABS[(TABS.indexOf(tab.peek()) + by + TABS.length) % TABS.length] as Tab;
    tab.value = next;
    document.getElementById(`tab-${next}`)?.focus();
  };
  return (
    <section class="panel-section">
      <h3>{t.value.panel.history}</h3>
      <div class="tabs" role="tablist" aria-label={t.value.panel.history}>
        {TABS.map((name) => (
          <button
            key={name}
            type="button"
            role="tab"
            id={`tab-${name}`}
            aria-selected={tab.value === name}
            aria-controls="history-list"
            tabIndex={tab.value === name ? 0 : -1}
            data-testid={`history-${name}`}
            onClick={() => {
              tab.value = name;
            }}
            onKeyDown={(e) => {
              if (e.key === "ArrowRight") step(document.dir === "rtl" ? -1 : 1);
              if (e.key === "ArrowLeft") step(document.dir === "rtl" ? 1 : -1);
            }}
          >
            {t.value.history[name]}
          </button>
        ))}
      </div>
      <div id="history-list" role="tabpanel" aria-labelledby={`tab-${tab.value}`}>
        {tab.value === "commands" && <Commands />}
        {tab.value === "versions" && <Versions />}
        {tab.value === "doses" && <Doses />}
      </div>
    </section>
  );
}

function Commands() {
  const { api, name: farm, farm: state } = useSession();
  const { feeder } = usePanel();
  const own = [...(state.value?.commands.values() ?? [])].filter((c) => c.value.feeder === feeder.name);
  const moved = own.map((c) => `${c.value.name}${c.value.state}`).join();
  return (
    <Paged
      moved={moved}
      empty={t.value.history.emptyCommands}
      load={async (pageToken, pageSize) => {
        const page = await api.feeders.listCommands({ parent: farm, feeder: feeder.name, pageSize, pageToken });
        return { rows: page.commands, next: page.nextPageToken };
      }}
      keyOf={(c) => c.name}
      row={(c) => <CommandRow command={state.value?.commands.get(c.name)?.value ?? c} />}
    />
  );
}

function Versions() {
  const { api } = useSession();
  const { feeder } = usePanel();
  return (
    <Paged
      moved={String(feeder.configVersion)}
      empty={t.value.history.emptyVersions}
      load={async (pageToken, pageSize) => {
        const page = await api.feeders.listConfigVersions({ parent: feeder.name, pageSize, pageToken });
        return { rows: page.versions, next: page.nextPageToken };
      }}
      keyOf={(v) => String(v.number)}
      row={(v, rows) => <VersionRow version={v} previous={rows.find((o) => o.number === v.number - 1n)} />}
    />
  );
}

function Doses() {
  const { api, name: farm, farm: state } = useSession();
  const { feeder } = usePanel();
  return (
    <Paged
      moved={String(state.value?.dosesSeen.get(feeder.name) ?? 0)}
      empty={t.value.history.emptyDoses}
      load={async (pageToken, pageSize) => {
        const page = await api.status.listDoses({ parent: farm, feeder: feeder.name, pageSize, pageToken });
        return { rows: page.doses, next: page.nextPageToken };
      }}
      keyOf={(d) => d.name}
      row={(d) => <DoseRow dose={d} />}
    />
  );
}

interface PagedProps<T> {
  /** When this changes the list is read anew. */
  moved: string;
  empty: string;
  load: (pageToken: string, pageSize: number) => Promise<{ rows: T[]; next: string }>;
  keyOf: (row: T) => string;
  row: (row: T, rows: readonly T[]) => ComponentChildren;
}

function Paged<T>({ moved, empty, load, keyOf, row }: PagedProps<T>) {
  const rows = useSignal<readonly T[] | undefined>(undefined);
  const next = useSignal("");
  const failed = useSignal(false);
  const busy = useSignal(false);
  const turn = useRef(0);
  const read = async (more: boolean) => {
    const mine = ++turn.current;
    busy.value = true;
    try {
      // What was shown stays shown: a list read anew is as long as it was.
      const size = more ? PAGE_SIZE : Math.min(500, Math.max(PAGE_SIZE, rows.peek()?.length ?? 0));
      const page = await load(more ? next.peek() : "", size);
      if (turn.current !== mine) return;
      rows.value = more ? [...(rows.peek() ?? []), ...page.rows] : page.rows;
      next.value = page.next;
      failed.value = false;
    } catch {
      if (turn.current === mine) failed.value = true;
    } finally {
      if (turn.current === mine) busy.value = false;
    }
  };
  useEffect(() => {
    void read(false);
    return () => {
      turn.current++;
    };
  }, [moved]);
  if (failed.value) {
    return (
      <p class="empty">
        {t.value.history.failed} <Button onClick={() => void read(false)}>{t.value.history.retry}</Button>
      </p>
    );
  }
  if (!rows.value) {
    return (
      <p class="empty">
        <Spinner /> {t.value.loading}
      </p>
    );
  }
  if (rows.value.length === 0) return <p class="empty">{empty}</p>;
  const all = rows.value;
  return (
    <>
      <ul class="history">
        {all.map((r) => (
          <li key={keyOf(r)}>{row(r, all)}</li>
        ))}
      </ul>
      {next.value !== "" && (
        <Button busy={busy.value} wide onClick={() => void read(true)}>
          {t.value.more}
        </Button>
      )}
    </>
  );
}
