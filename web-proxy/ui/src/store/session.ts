// One farm on one page: its watch, its state, its orders, its notices, bound together.
import { computed, effect, type ReadonlySignal, signal } from "@preact/signals";
import { createContext } from "preact";
import { useContext } from "preact/hooks";
import { orderOfEvent, PendingOrders } from "../api/pending";
import { realTimers, type Timers } from "../api/timers";
import type { Api } from "../api/transport";
import { FarmWatch, type StreamState } from "../api/watch";
import { slugOf } from "../i18n/facts";
import { startClock, tick } from "./clock";
import { type Farm, reduce, serverNow } from "./farm";
import { HoldAll } from "./hold-all";
import { Notices } from "./notices";
import { Orders } from "./orders";
import { farmPresence, type Presence } from "./presence";

export class FarmSession {
  readonly farm: ReadonlySignal<Farm | undefined>;
  readonly stream: ReadonlySignal<StreamState>;
  readonly presence: ReadonlySignal<Presence | undefined>;
  readonly orders: Orders;
  readonly notices: Notices;
  readonly holdAll: HoldAll;
  private readonly current = signal<Farm | undefined>(undefined);
  private readonly watch: FarmWatch;
  private readonly undo: (() => void)[] = [];

  /** `name` is `farms/{farm}`. */
  constructor(
    readonly name: string,
    readonly api: Api,
    readonly timers: Timers = realTimers,
    stored: PendingOrders = new PendingOrders(),
  ) {
    this.farm = this.current;
    this.orders = new Orders(api, name, stored, timers);
    this.notices = new Notices(api);
    this.holdAll = new HoldAll(api, name, timers);
    this.watch = new FarmWatch(
      (signal) => api.status.watchFarm({ name }, { signal }),
      (message, at) => {
        const reduced = reduce(this.current.peek(), message, at);
        if ("gap" in reduced) return false;
        this.current.value = reduced.farm;
        return true;
      },
      timers,
    );
    this.stream = this.watch.state;
    this.presence = computed(() => this.current.value && farmPresence(this.current.value));
  }

  start(): void {
    this.orders.resume();
    void this.watch.run();
    this.undo.push(
      effect(() => {
        const farm = this.current.value;
        if (!farm) return;
        this.orders.observe(farm.commands);
        this.notices.observe(farm.feeders);
      }),
      startClock(() => this.watch.kick(true)),
      listen(window, "online", () => this.back()),
      listen(document, "visibilitychange", () => {
        if (document.visibilityState === "visible") this.back();
      }),
      listen(window, "storage", (event) => {
        const order = orderOfEvent(event as StorageEvent);
        if (order) this.orders.adopt(order);
      }),
    );
  }

  stop(): void {
    this.watch.stop();
    this.orders.stop();
    for (const undo of this.undo.splice(0)) undo();
  }

  /** What a resource of this farm is called. Reads signals. */
  readonly naming = (name: string): string => {
    const farm = this.current.value;
    const full = name.startsWith("farms/") ? name : undefined;
    const feeder = farm?.feeders.get(full ?? `${this.name}/feeders/${name}`)?.value;
    const tank = farm?.tanks.get(full ?? `${this.name}/tanks/${name}`)?.value;
    return feeder?.displayName || tank?.displayName || slugOf(name);
  };

  /** The server's wall clock now. Reads the tick: whoever shows it is renewed every second. */
  serverNow(): number | undefined {
    const now = Math.max(tick.value, this.current.value?.serverTime?.at ?? 0);
    return this.current.value && serverNow(this.current.value, now);
  }

  private back(): void {
    this.watch.kick(false);
    this.orders.nudge();
  }
}

function listen(target: EventTarget, type: string, handler: (event: Event) => void): () => void {
  target.addEventListener(type, handler);
  return () => target.removeEventListener(type, handler);
}

const Context = createContext<FarmSession | undefined>(undefined);
export const SessionProvider = Context.Provider;

/** The session of the farm that is open. */
export function useSession(): FarmSession {
  const session = useContext(Context);
  if (!session) throw new Error("no farm is open");
  return session;
}
