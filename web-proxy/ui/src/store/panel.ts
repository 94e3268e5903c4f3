// What the open feeder's panel works on: the feeder, its robot, its tank, its form.
import { createContext } from "preact";
import { useContext } from "preact/hooks";
import type { Feeder, Robot, Tank } from "../gen/pasamanos/v1/resources_pb";
import type { Seen } from "./farm";
import type { StateName } from "./feeder-view";
import type { Action, Closed } from "./gates";

export interface PanelData {
  readonly feeder: Feeder;
  readonly seen: Seen<Feeder>;
  readonly robot: Robot | undefined;
  readonly tank: Seen<Tank> | undefined;
  readonly state: StateName;
  /** Why an action is not offered; undefined if it is. */
  readonly closed: (action: Action) => Closed | undefined;
}

const Context = createContext<PanelData | undefined>(undefined);
export const PanelProvider = Context.Provider;

export function usePanel(): PanelData {
  const data = useContext(Context);
  if (!data) throw new Error("no feeder is open");
  return data;
}
