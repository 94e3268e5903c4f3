// What a person said about a command in doubt, in one line.
import { type Resolution, ResolutionVerdict } from "../gen/pasamanos/v1/resources_pb";
import { formatAmount } from "../format/amount";
import { t } from "./index";

export function resolutionText(resolution: Resolution): string {
  const o = t.value.outcome;
  const verdict =
    resolution.verdict === ResolutionVerdict.NOT_FED
      ? o.notFed
      : resolution.fedMg === undefined
        ? o.fedBare
        : o.fed(formatAmount(resolution.fedMg));
  return o.settledBy(resolution.who, verdict);
}
