// Reading the farm from a view: a view is drawn anew only when what it selected has changed.
import { useComputed } from "@preact/signals";
import type { Farm } from "./farm";
import { useSession } from "./session";

/** `select` may depend on the farm and on what stays the same for the life of the view, on nothing else. */
export function useFarm<T>(select: (farm: Farm) => T): T | undefined {
  const session = useSession();
  return useComputed(() => session.farm.value && select(session.farm.value)).value;
}
