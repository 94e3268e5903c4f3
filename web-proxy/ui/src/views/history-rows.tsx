// One line of history each: an order, a version of the settings, a feeding.
import { create } from "@bufbuild/protobuf";
import { Chip, type Tone } from "../components/basics";
import type { IconName } from "../components/icon";
import { Moment } from "../components/moment";
import {
  type Command,
  CommandState,
  ConfigAuthor,
  type ConfigReversion,
  type ConfigVersion,
  type Dose,
  DoseCause,
  DoseOutcome,
  FeederConfigSchema,
} from "../gen/pasamanos/v1/resources_pb";
import { diffConfigs } from "../form/diff";
import { formatAmount, formatDispensed, formatNumber } from "../format/amount";
import { timestampMs } from "../format/time";
import { t } from "../i18n";
import { resolutionText } from "../i18n/resolution";
import { authorText, basisWord, fieldTitle, kindOf, orderTitle, outcomeLine, plannedMg, reasonText } from "../i18n/words";
import { useSession } from "../store/session";
import { COMMAND_LOOK } from "./order-card";

export function CommandRow({ command }: { command: Command }) {
  const session = useSession();
  const look = COMMAND_LOOK[command.state] ?? { tone: "unknown" as Tone, icon: "unknown" as const };
  const kind = kindOf(command);
  const ms = timestampMs(command.createTime);
  const change = command.action.case === "updateConfig" ? command.action.value : undefined;
  const empty = create(FeederConfigSchema);
  const differences = change ? diffConfigs(change.base ?? empty, change.new ?? empty) : [];
  return (
    <div class="row" data-testid="history-command" data-state={CommandState[command.state]}>
      <div class="row-head">
        <strong>{kind ? orderTitle(kind, plannedMg(command)) : t.value.order.unknown}</strong>
        <Chip tone={look.tone} icon={look.icon}>
          {t.value.outcome.state[CommandState[command.state] as "APPLIED"]}
        </Chip>
      </div>
      {differences.map((d) => (
        <p key={d.path}>{t.value.notice.change(fieldTitle(d.path), d.before, d.after)}</p>
      ))}
      <p>
        {outcomeLine(command)}
        {command.dispensedMg !== undefined && ` (${basisWord(command.basis)})`}
      </p>
      {command.reason !== "" && <p class="muted">{reasonText(command.reason, command.reasonMetadata, session.naming)}</p>}
      {command.resolution && <p class="muted">{resolutionText(command.resolution)}</p>}
      {command.note !== "" && <p class="quote">“{command.note}”</p>}
      <p class="row-foot">
        {ms !== undefined && <Moment ms={ms} />} {command.author !== "" && t.value.history.by(command.author)}
      </p>
    </div>
  );
}

const AUTHOR_LOOK: Record<ConfigAuthor, { tone: Tone; icon: IconName }> = {
  [ConfigAuthor.UNSPECIFIED]: { tone: "unknown", icon: "unknown" },
  [ConfigAuthor.COMMAND]: { tone: "off", icon: "user" },
  [ConfigAuthor.FARM]: { tone: "info", icon: "farm" },
  [ConfigAuthor.CALIBRATION]: { tone: "off", icon: "user" },
  [ConfigAuthor.PLC_MEMORY_LOST]: { tone: "warn", icon: "warning" },
};

export function VersionRow({ version, previous }: { version: ConfigVersion; previous: ConfigVersion | undefined }) {
  const empty = create(FeederConfigSchema);
  const ms = timestampMs(version.createTime);
  const differences = previous ? diffConfigs(previous.config ?? empty, version.config ?? empty) : [];
  return (
    <div class="row" data-testid="history-version" data-version={String(version.number)}>
      <div class="row-head">
        <strong>{t.value.config.version(formatNumber(Number(version.number)))}</strong>
        <Chip tone={AUTHOR_LOOK[version.author].tone} icon={AUTHOR_LOOK[version.author].icon}>
          {authorText(version.author)}
        </Chip>
      </div>
      {differences.map((d) => (
        <p key={d.path}>{t.value.notice.change(fieldTitle(d.path), d.before, d.after)}</p>
      ))}
      {previous && differences.length === 0 && <p class="muted">{t.value.history.unchanged}</p>}
      {!previous && version.number === 1n && <p class="muted">{t.value.history.first}</p>}
      {version.invalid && <p class="danger-text">{t.value.history.invalid}</p>}
      {version.reversion && <p data-testid="history-reverted">{revertedText(version.reversion)}</p>}
      <p class="row-foot">{ms !== undefined && <Moment ms={ms} />}</p>
    </div>
  );
}

/** Which version came back at the farm, and which one of ours it displaced. */
export const revertedText = (r: ConfigReversion): string =>
  t.value.history.reverted(formatNumber(Number(r.restoredVersion)), formatNumber(Number(r.displacedVersion)));

const OUTCOME_TONE: Record<DoseOutcome, Tone> = {
  [DoseOutcome.UNSPECIFIED]: "unknown",
  [DoseOutcome.GIVEN]: "ok",
  [DoseOutcome.PARTIAL]: "warn",
  [DoseOutcome.SKIPPED]: "off",
  [DoseOutcome.UNCERTAIN]: "danger",
};

export function DoseRow({ dose }: { dose: Dose }) {
  const session = useSession();
  const h = t.value.history;
  const cause =
    {
      [DoseCause.SCHEDULE]: h.cause.schedule,
      [DoseCause.COMMAND]: h.cause.command,
      [DoseCause.FARM]: h.cause.farm,
      [DoseCause.CALIBRATION]: h.cause.calibration,
      [DoseCause.UNOBSERVED]: h.cause.unobserved,
    }[dose.cause as number] ?? h.cause.unknown;
  const outcome =
    {
      [DoseOutcome.GIVEN]: h.dose.given,
      [DoseOutcome.PARTIAL]: h.dose.partial,
      [DoseOutcome.SKIPPED]: h.dose.skipped,
      [DoseOutcome.UNCERTAIN]: h.dose.uncertain,
    }[dose.outcome as number] ?? h.dose.unknown;
  const ms = timestampMs(dose.startTime);
  return (
    <div class="row row-dose" data-testid="history-dose">
      <div class="row-head">
        <strong>
          {dose.dispensedMg === undefined ? "–" : formatDispensed(dose.dispensedMg, dose.basis)}
          {dose.plannedMg !== undefined && BigInt(dose.plannedMg) !== dose.dispensedMg && (
            <small> {h.planned(formatAmount(dose.plannedMg))}</small>
          )}
        </strong>
        <Chip tone={OUTCOME_TONE[dose.outcome]}>{outcome}</Chip>
      </div>
      {dose.reason !== "" && <p class="muted">{reasonText(dose.reason, {}, session.naming)}</p>}
      <p class="row-foot">
        {ms !== undefined && <Moment ms={ms} />} · {cause}
        {basisWord(dose.basis) !== "" && ` · ${basisWord(dose.basis)}`}
      </p>
    </div>
  );
}
