// The settings of a feeder: shown, edited, reviewed, sent, followed.
import { useSignal, useSignalEffect } from "@preact/signals";
import { useEffect, useMemo, useRef } from "preact/hooks";
import type { Submission } from "../api/submission";
import { Banner, Button, Spinner } from "../components/basics";
import { ConfigForm } from "../form/config-form";
import { FIELD_PATHS, fieldId, fieldRights } from "../form/fields";
import { formatNumber } from "../format/amount";
import { t } from "../i18n";
import { closedText, fieldTitle, refusalName, refusalText } from "../i18n/words";
import { usePanel } from "../store/panel";
import { useSession } from "../store/session";
import { ConfigFields } from "./config-fields";
import { ConflictBanner } from "./conflict-banner";
import { closesAll } from "./panel-attention";
import { PreviewFacts } from "./preview";
import { ReviewDialog } from "./review-dialog";

export function ConfigSection() {
  const session = useSession();
  const { feeder, closed } = usePanel();
  const form = useMemo(() => new ConfigForm(session.api, feeder, session.timers), []);
  const reviewing = useSignal(false);
  const nudge = useSignal<"" | "nothing" | "fix">("");
  const sent = useSignal<Submission | undefined>(undefined);
  const section = useRef<HTMLElement>(null);
  useEffect(() => form.follow(feeder), [feeder]);
  useEffect(() => () => form.stop(), []);

  const focusFirstProblem = () => {
    const path = FIELD_PATHS.find((p) => form.problems.peek().has(p));
    if (!path) return;
    for (const details of section.current?.querySelectorAll("details") ?? []) {
      if (details.querySelector(`[id="${fieldId(path)}"]`)) details.open = true;
    }
    const control = section.current?.querySelector<HTMLElement>(`[id="${fieldId(path)}"]`);
    control?.focus({ preventScroll: true });
    control?.closest(".field, .windows")?.scrollIntoView({ block: "center" });
  };

  // A change that the server refused marks its fields, and the person is taken to the first.
  useSignalEffect(() => {
    const step = sent.value?.step.value;
    if (step?.phase !== "refused") return;
    form.take(step.refusal);
    if (form.problems.peek().size > 0) queueMicrotask(focusFirstProblem);
  });

  const review = () => {
    if (form.problems.peek().size > 0) {
      nudge.value = "fix";
      focusFirstProblem();
    } else if (form.read.peek().changed.length === 0) {
      nudge.value = "nothing";
    } else {
      nudge.value = "";
      reviewing.value = true;
    }
  };

  const apply = (note: string) => {
    const { config, changed } = form.read.peek();
    reviewing.value = false;
    sent.value = session.orders.updateConfig(feeder, config, changed, form.feeder.peek().etag, note);
  };

  const shut = closed("config");
  const dirty = form.dirty.value;
  const check = form.check.value;
  const changes = form.read.value.changed.length;
  const absent = FIELD_PATHS.filter((p) => fieldRights(feeder, p).absent);
  return (
    <section class="panel-section settings" ref={section} data-dirty={dirty}>
      <div class="section-head">
        <h3>{t.value.panel.settings}</h3>
        {feeder.configVersion > 0n && (
          <small class="muted" data-testid="config-version" data-version={String(feeder.configVersion)}>
            {t.value.config.version(formatNumber(Number(feeder.configVersion)))}
          </small>
        )}
      </div>
      {shut && !closesAll(shut.reason) && (
        <Banner tone={shut.reason === "CONFIG_IN_FLIGHT" ? "info" : "off"}>{closedText(shut, session.naming)}</Banner>
      )}
      {form.conflict.value && <ConflictBanner form={form} />}
      <ConfigFields form={form} disabled={shut !== undefined && shut.reason !== "CONFIG_IN_FLIGHT"} />
      {absent.length > 0 && <p class="fine">{t.value.config.absent(absent.map(fieldTitle).join(", "))}</p>}
      <div class="settings-meaning">
        {check.kind === "fine" && check.preview && dirty && <PreviewFacts preview={check.preview} testid="preview" />}
        {check.kind === "refused" && check.refusal.fields.length === 0 && !form.conflict.value && !shut && (
          <Banner tone="warn" testid="check-refusal" reason={refusalName(check.refusal)}>
            {refusalText(check.refusal, session.naming)}
          </Banner>
        )}
      </div>
      {!form.conflict.value && (
        <div class="settings-bar">
            <p class="muted" aria-live="polite" data-testid="form-state">
              {check.kind === "asking" && dirty ? (
                <>
                  <Spinner /> {t.value.config.checking}
                </>
              ) : nudge.value === "fix" && form.problems.value.size > 0 ? (
                <span class="danger-text">{t.value.config.fixFirst}</span>
              ) : dirty ? (
                t.value.config.changes(Math.max(1, changes))
              ) : nudge.value === "nothing" ? (
                t.value.config.noChanges
              ) : (
                ""
              )}
            </p>
            {dirty && (
              <Button
                data-testid="discard"
                onClick={() => {
                  nudge.value = "";
                  form.discard();
                }}
              >
                {t.value.config.discard}
              </Button>
            )}
            <Button
              kind={dirty ? "primary" : "plain"}
              disabled={shut !== undefined}
              data-testid="review"
              onClick={review}
            >
              {t.value.config.review}
            </Button>
        </div>
      )}
      {reviewing.value && (
        <ReviewDialog
          form={form}
          onApply={apply}
          onClose={() => {
            reviewing.value = false;
          }}
        />
      )}
    </section>
  );
}
