// Where the page is: `/`, `/farms/{farm}`, `/farms/{farm}/feeders/{feeder}`. Back closes what was opened.
import { signal } from "@preact/signals";

export interface Route {
  /** Slug of the farm; empty for the picker. */
  readonly farm: string;
  /** Slug of the open feeder; empty for none. */
  readonly feeder: string;
}

const SLUG = "[a-z][a-z0-9-]{1,61}[a-z0-9]";
const PATH = new RegExp(`^/farms/(${SLUG})(?:/feeders/(${SLUG}))?/?$`);
const REMEMBERED = "pasamanos.farm";

export const isSlug = (text: string): boolean => new RegExp(`^${SLUG}$`).test(text);

export function parseRoute(pathname: string): Route {
  const match = PATH.exec(pathname);
  return { farm: match?.[1] ?? "", feeder: match?.[2] ?? "" };
}

const pathOf = ({ farm, feeder }: Route): string =>
  farm === "" ? "/" : feeder === "" ? `/farms/${farm}` : `/farms/${farm}/feeders/${feeder}`;

export const route = signal<Route>({ farm: "", feeder: "" });

export function navigate(next: Route, replace = false): void {
  if (replace) history.replaceState(null, "", pathOf(next));
  else history.pushState({ inPage: true }, "", pathOf(next));
  route.value = next;
}

/** Closes the open feeder: back if it was opened here, so that the back button does not reopen it. */
export function closeFeeder(): void {
  if ((history.state as { inPage?: boolean } | null)?.inPage) history.back();
  else navigate({ ...route.peek(), feeder: "" }, true);
}

export function openFeeder(feeder: string): void {
  const { farm, feeder: open } = route.peek();
  if (open !== feeder) navigate({ farm, feeder }, open !== "");
}

/** Reads the address: a farm in the path, else `?farm=`, else the one opened last. */
export function startRoute(): void {
  let next = parseRoute(location.pathname);
  const query = new URLSearchParams(location.search);
  if (next.farm === "" && !query.has("choose")) {
    const wished = query.get("farm") ?? rememberedFarm();
    if (isSlug(wished)) next = { farm: wished, feeder: "" };
  }
  navigate(next, true);
  addEventListener("popstate", () => {
    route.value = parseRoute(location.pathname);
  });
}

export function rememberedFarm(): string {
  try {
    return localStorage.getItem(REMEMBERED) ?? "";
  } catch {
    return "";
  }
}

export function rememberFarm(farm: string): void {
  try {
    localStorage.setItem(REMEMBERED, farm);
  } catch {
    // Asked again the next time.
  }
}
