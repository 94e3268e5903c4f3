// Orders of feeders that are not open: nothing that was pressed goes out of sight before it is known.
import { t } from "../i18n";
import { slugOf } from "../i18n/facts";
import { route } from "../route";
import { useSession } from "../store/session";
import { OrderCard } from "./order-card";

const MOST = 4;

export function OrderTray() {
  const session = useSession();
  const open = route.value.feeder;
  const orders = session.orders.list.value.filter((s) => slugOf(s.order.feeder) !== open);
  if (orders.length === 0) return null;
  return (
    <aside class="tray" aria-live="polite" aria-label={t.value.history.commands}>
      {orders.slice(0, MOST).map((s) => (
        <OrderCard key={s.order.id} submission={s} feeder={session.naming(s.order.feeder)} />
      ))}
    </aside>
  );
}
