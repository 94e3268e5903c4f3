// What may be pressed now, and if not, why. The server decides in the end; the page does not offer
// what it knows will be refused, and says the reason before the press.
import { FeedNowCapability, FieldAccess, type Feeder, HoldSource, LinkState } from "../gen/pasamanos/v1/resources_pb";
import { isReason, type ReasonName } from "../i18n/facts";
import type { StreamState } from "../api/watch";
import type { Farm } from "./farm";
import { openDose } from "./feeder-view";
import { feederPresence } from "./presence";

/** Reasons that only the page has. */
export type PageReason = "STREAM_BROKEN" | "OWN_ORDER_OPEN" | "DOSE_RUNNING" | "NEVER_CONNECTED" | "NOT_HELD_BY_OPERATOR";

export interface Closed {
  readonly reason: ReasonName | PageReason;
  readonly metadata: Readonly<Record<string, string>>;
}

export type Action = "config" | "feed_now" | "hold" | "resume" | "reset_fault";

/** What the page itself has on the way. */
export interface OwnOrders {
  readonly doseOpen: boolean;
  readonly configOpen: boolean;
  readonly holdOpen: boolean;
}

const closed = (reason: Closed["reason"], metadata: Closed["metadata"] = {}): Closed => ({ reason, metadata });

/** Why an action is not offered; undefined if it is. */
export function gate(
  action: Action,
  farm: Farm,
  feeder: Feeder,
  stream: StreamState,
  own: OwnOrders,
): Closed | undefined {
  const presence = feederPresence(farm, feeder);
  // A hold is offered whenever it could pass: the server knows more than a page that cannot hear it.
  const stopping = action === "hold";
  if (stream.kind !== "live" && !stopping) return closed("STREAM_BROKEN");
  if (stream.kind === "live") {
    if (presence.state === "offline") return closed("AGENT_OFFLINE", { agent: presence.agent });
    if (presence.state === "never_seen") return closed("NEVER_CONNECTED", { agent: presence.agent });
    if (presence.state === "unknown" && !stopping) return closed("LEASE_STORE_UNREACHABLE");
  }
  const link = farm.robots.get(feeder.robot)?.value.link?.state;
  if (!stopping && (link === LinkState.DOWN || link === LinkState.CONFIG_ERROR)) {
    return closed("PLC_UNREACHABLE", { robot: feeder.robot });
  }
  switch (action) {
    case "hold":
      return feeder.capabilities?.hold ? undefined : closed("NOT_OFFERED", { capability: "hold" });
    case "resume":
      return resumeGate(feeder);
    case "reset_fault":
      return feeder.status?.holds.some((h) => h.source === HoldSource.FARM) ? closed("LOCAL_HOLD") : undefined;
    case "config":
      return configGate(feeder, own);
    case "feed_now":
      return feedNowGate(farm, feeder, own);
  }
}

function resumeGate(feeder: Feeder): Closed | undefined {
  const holds = feeder.status?.holds ?? [];
  if (holds.some((h) => h.source === HoldSource.OPERATOR)) return undefined;
  if (holds.some((h) => h.source === HoldSource.FARM)) return closed("LOCAL_HOLD");
  return closed("NOT_HELD_BY_OPERATOR");
}

function configGate(feeder: Feeder, own: OwnOrders): Closed | undefined {
  if (!feeder.config || feeder.etag === "") return closed("CONFIG_UNKNOWN");
  const writable = feeder.capabilities?.fields.some((f) => f.access === FieldAccess.WRITABLE);
  if (!writable) return closed("READ_ONLY");
  if (feeder.pendingCommand !== "" || own.configOpen) return closed("CONFIG_IN_FLIGHT", { command: feeder.pendingCommand });
  return undefined;
}

function feedNowGate(farm: Farm, feeder: Feeder, own: OwnOrders): Closed | undefined {
  const capability = feeder.capabilities?.feedNow ?? FeedNowCapability.NONE;
  if (capability === FeedNowCapability.NONE || capability === FeedNowCapability.UNSPECIFIED) {
    return closed("NOT_OFFERED", { capability: "feed_now" });
  }
  if (own.doseOpen) return closed("OWN_ORDER_OPEN");
  const robot = farm.robots.get(feeder.robot)?.value;
  const dose = openDose(farm, robot);
  if (dose === "running") return closed("DOSE_RUNNING");
  if (dose) return closed("DOSE_UNSETTLED", { command: robot?.unsettledCommand ?? "", robot: feeder.robot });
  const block = feeder.status?.blocks.find((b) => isReason(b.reason));
  return block ? closed(block.reason as ReasonName, block.metadata) : undefined;
}
