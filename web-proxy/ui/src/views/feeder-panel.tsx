// One feeder: a drawer beside the tanks on a desk, a sheet over them on a phone.
import { useEffect, useRef } from "preact/hooks";
import { Button, Chip } from "../components/basics";
import { useMedia } from "../components/media";
import { slugOf } from "../i18n/facts";
import { t } from "../i18n";
import { feederState } from "../store/feeder-view";
import { gate } from "../store/gates";
import { type PanelData, PanelProvider } from "../store/panel";
import { useSession } from "../store/session";
import { ConfigSection } from "./config-section";
import { History } from "./history";
import { NoticeList } from "./notice-list";
import { OrderList } from "./order-card";
import { PanelActions } from "./panel-actions";
import { PanelAttention } from "./panel-attention";
import { PanelFacts } from "./panel-facts";
import { STATE_TONE } from "./tank-card";

interface FeederPanelProps {
  slug: string;
  onClose: () => void;
}

export function FeederPanel({ slug, onClose }: FeederPanelProps) {
  const ref = useRef<HTMLDialogElement>(null);
  const heading = useRef<HTMLHeadingElement>(null);
  const beside = useMedia("(min-width: 62rem)");
  useEffect(() => {
    const dialog = ref.current;
    const before = document.activeElement;
    if (dialog && !dialog.open) {
      if (beside) dialog.show();
      else dialog.showModal();
    }
    heading.current?.focus({ preventScroll: true });
    return () => {
      dialog?.close();
      if (before instanceof HTMLElement && before.isConnected) before.focus({ preventScroll: true });
    };
  }, [beside]);
  const data = usePanelData(slug);
  const title = data ? data.feeder.displayName || slug : slug;
  const tank = data?.tank?.value.displayName ?? "";
  return (
    <dialog
      ref={ref}
      class="panel"
      aria-labelledby="panel-title"
      data-testid="panel"
      data-feeder={slug}
      onCancel={(e) => {
        e.preventDefault();
        if (e.target === ref.current) onClose();
      }}
      onKeyDown={(e) => {
        if (e.key === "Escape" && beside && !e.defaultPrevented && !innerDialog(e.target)) onClose();
      }}
    >
      <header class="panel-head">
        <div class="panel-title">
          <p>{tank === title ? "" : tank}</p>
          <h2 id="panel-title" ref={heading} tabIndex={-1}>
            {title}
          </h2>
        </div>
        {data && (
          <Chip tone={STATE_TONE[data.state]} icon={data.state}>
            {t.value.state[data.state]}
          </Chip>
        )}
        <Button kind="quiet" icon="close" aria-label={t.value.close} data-testid="panel-close" onClick={onClose} />
      </header>
      {data ? (
        <PanelProvider value={data}>
          {/* Does not scroll away: the outcome of what was pressed is always in sight. */}
          <OrderList feeder={data.feeder.name} />
          <div class="panel-body">
            <NoticeList feeder={data.feeder.name} />
            <PanelAttention />
            <PanelActions />
            <PanelFacts />
            <ConfigSection key={data.feeder.name} />
            <History key={`${data.feeder.name}/history`} />
          </div>
        </PanelProvider>
      ) : (
        <p class="empty">{t.value.panel.gone}</p>
      )}
    </dialog>
  );
}

function innerDialog(target: EventTarget | null): boolean {
  return target instanceof Element && target.closest("dialog")?.classList.contains("panel") === false;
}

/** Reads signals: the panel is drawn anew with every change of the farm, which it shows whole. */
function usePanelData(slug: string): PanelData | undefined {
  const session = useSession();
  const farm = session.farm.value;
  const seen = farm?.feeders.get(`${session.name}/feeders/${slug}`);
  if (!farm || !seen) return undefined;
  const feeder = seen.value;
  const own = session.orders.own(feeder);
  const stream = session.stream.value;
  return {
    feeder,
    seen,
    robot: farm.robots.get(feeder.robot)?.value,
    tank: farm.tanks.get(feeder.tank) ?? farm.tanks.get(`${session.name}/tanks/${slugOf(feeder.tank)}`),
    state: feederState(farm, feeder),
    closed: (action) => gate(action, farm, feeder, stream, own),
  };
}
