// Orders whose outcome this browser does not know, kept in localStorage from before they are sent,
// so that a reload, a crash or a dead phone loses none of them. One key an order: tabs do not
// overwrite each other.

export type OrderKind = "update_config" | "feed_now" | "hold" | "resume" | "reset_fault";

/** One order, enough to name it and to ask for it. */
export interface PendingOrder {
  readonly id: string;
  readonly farm: string;
  readonly feeder: string;
  readonly robot: string;
  readonly kind: OrderKind;
  /** The dose asked for, mg. */
  readonly amountMg?: number;
  readonly note?: string;
  /** The wall clock when it was pressed, to show to people only. */
  readonly pressedAt: number;
}

const PREFIX = "pasamanos.order.";
const KEPT_AT_MOST = 50;

type Store = Pick<Storage, "getItem" | "setItem" | "removeItem" | "key" | "length">;

/** The orders of this browser. Without a working storage they live in memory only. */
export class PendingOrders {
  private readonly memory = new Map<string, PendingOrder>();

  constructor(private readonly storage: Store | undefined = browserStorage()) {}

  /** Called before anything is sent. */
  add(order: PendingOrder): void {
    this.memory.set(order.id, order);
    try {
      this.storage?.setItem(PREFIX + order.id, JSON.stringify(order));
    } catch {
      // Full or forbidden: memory has it for the life of this page.
    }
  }

  /** Called when the outcome is known. */
  remove(id: string): void {
    this.memory.delete(id);
    try {
      this.storage?.removeItem(PREFIX + id);
    } catch {
      // Asked again at the next start, which is harmless.
    }
  }

  /** Everything of one farm, oldest first. */
  of(farm: string): PendingOrder[] {
    const found = new Map<string, PendingOrder>();
    try {
      const storage = this.storage;
      for (let i = 0; storage && i < storage.length; i++) {
        const key = storage.key(i);
        if (!key?.startsWith(PREFIX)) continue;
        const order = parse(storage.getItem(key));
        if (order) found.set(order.id, order);
      }
    } catch {
      // What memory holds is all there is.
    }
    for (const order of this.memory.values()) found.set(order.id, order);
    return [...found.values()]
      .filter((o) => o.farm === farm)
      .sort((a, b) => a.pressedAt - b.pressedAt)
      .slice(-KEPT_AT_MOST);
  }
}

/** The order in a storage event of another tab, if it is one. */
export function orderOfEvent(event: StorageEvent): PendingOrder | undefined {
  return event.key?.startsWith(PREFIX) ? parse(event.newValue) : undefined;
}

function parse(text: string | null): PendingOrder | undefined {
  if (text === null) return undefined;
  try {
    const order = JSON.parse(text) as Partial<PendingOrder>;
    const whole = [order.id, order.farm, order.feeder, order.kind].every((v) => typeof v === "string");
    return whole ? ({ robot: "", pressedAt: 0, ...order } as PendingOrder) : undefined;
  } catch {
    return undefined;
  }
}

function browserStorage(): Store | undefined {
  try {
    return window.localStorage;
  } catch {
    return undefined;
  }
}
