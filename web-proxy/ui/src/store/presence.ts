// Whether the farm PCs are provably alive, for the whole farm and for one feeder.
import { type Agent, type Feeder, PresenceState } from "../gen/pasamanos/v1/resources_pb";
import { durationMs } from "../format/time";
import type { Farm, Seen } from "./farm";

export type PresenceName = "online" | "offline" | "unknown" | "never_seen";

export interface Presence {
  readonly state: PresenceName;
  /** The monotonic instant at which it began; absent if not known. */
  readonly since: number | undefined;
  /** The agent it is about; the worst one for a whole farm. */
  readonly agent: string;
  /** How many farm PCs there are, and how many are online. */
  readonly all: number;
  readonly online: number;
  /** Why it cannot connect, a reason's name. */
  readonly problem: string;
  readonly version: string;
}

const NAMES: Record<PresenceState, PresenceName> = {
  [PresenceState.UNSPECIFIED]: "unknown",
  [PresenceState.NEVER_SEEN]: "never_seen",
  [PresenceState.ONLINE]: "online",
  [PresenceState.OFFLINE]: "offline",
  [PresenceState.UNKNOWN]: "unknown",
};

const WORST_FIRST: readonly PresenceName[] = ["offline", "unknown", "never_seen", "online"];

const NONE: Presence = {
  state: "never_seen",
  since: undefined,
  agent: "",
  all: 0,
  online: 0,
  problem: "",
  version: "",
};

/** The farm's presence: its worst farm PC's. */
export function farmPresence(farm: Farm): Presence {
  const agents = [...farm.agents.values()];
  const rank = (seen: Seen<Agent>) => WORST_FIRST.indexOf(NAMES[seen.value.presence]);
  const worst = agents.sort((a, b) => rank(a) - rank(b))[0];
  return worst ? presenceOf(worst, agents) : NONE;
}

/** The presence of the farm PC that reaches a feeder. */
export function feederPresence(farm: Farm, feeder: Feeder): Presence {
  const agent = farm.robots.get(feeder.robot)?.value.agent;
  const seen = agent === undefined ? undefined : farm.agents.get(agent);
  return seen ? presenceOf(seen, [seen]) : farmPresence(farm);
}

function presenceOf(seen: Seen<Agent>, agents: readonly Seen<Agent>[]): Presence {
  const age = durationMs(seen.value.sinceAge);
  return {
    state: NAMES[seen.value.presence],
    since: age === undefined ? undefined : seen.at - age,
    agent: seen.value.name,
    all: agents.length,
    online: agents.filter((a) => a.value.presence === PresenceState.ONLINE).length,
    problem: seen.value.problem,
    version: seen.value.version,
  };
}
