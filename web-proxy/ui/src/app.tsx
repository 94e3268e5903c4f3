// The page: a farm, or the question which one.
import type { Api } from "./api/transport";
import { route } from "./route";
import { FarmPage } from "./views/farm-page";
import { FarmPicker } from "./views/farm-picker";

export function App({ api }: { api: Api }) {
  const { farm } = route.value;
  return farm === "" ? <FarmPicker /> : <FarmPage key={farm} api={api} slug={farm} />;
}
