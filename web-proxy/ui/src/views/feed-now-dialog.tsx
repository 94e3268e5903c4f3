// Feed now: asks once how much, shows what the day will then be, and orders it.
import { create } from "@bufbuild/protobuf";
import { useSignal, useSignalEffect } from "@preact/signals";
import { useMemo } from "preact/hooks";
import { type Refusal, refusalOf } from "../api/refusal";
import { newRequestId } from "../api/request-id";
import { Banner, Button } from "../components/basics";
import { Dialog } from "../components/dialog";
import { type FeederConfig, FeederConfigSchema, type Preview } from "../gen/pasamanos/v1/resources_pb";
import { checkQuantity } from "../form/draft";
import { explainViolation } from "../form/explain";
import { formatAmount, formatTotal } from "../format/amount";
import { bestUnit, editQuantity, MASS, type Parsed, parseQuantity } from "../format/quantity";
import { decimalMark, t } from "../i18n";
import { closedText, problemText, refusalName, refusalText } from "../i18n/words";
import { usePanel } from "../store/panel";
import { useSession } from "../store/session";
import { AmountInput } from "./amount-input";
import { NoteField } from "./note-field";
import { PreviewFacts } from "./preview";

const DEBOUNCE_MS = 300;

export function FeedNowDialog({ onClose }: { onClose: () => void }) {
  const session = useSession();
  const { feeder, closed } = usePanel();
  const usual = feeder.config?.portionMg;
  const first = useMemo(() => bestUnit(usual, MASS), []);
  const unit = useSignal(first);
  const text = useSignal(usual === undefined ? "" : editQuantity(usual, first, decimalMark()));
  const note = useSignal("");
  const preview = useSignal<Preview | undefined>(undefined);
  const refusal = useSignal<Refusal | undefined>(undefined);
  const touched = useSignal(false);

  const parsed = parseQuantity(text.value, unit.value, MASS, decimalMark());
  const problem = parsed.ok ? checkQuantity("portion_mg", parsed.value, feeder.limits) : { kind: parsed.problem };
  const violation = refusal.value?.fields.find((v) => v.field.endsWith("portion_mg"));
  const own = problem && problemText("portion_mg", problem);
  const error =
    own ?? (violation && problemText("portion_mg", explainViolation("portion_mg", violation, asPortion(parsed), feeder.limits)));

  // Asks the server what this amount would mean; it stores nothing.
  useSignalEffect(() => {
    const amount = parseQuantity(text.value, unit.value, MASS, decimalMark());
    preview.value = undefined;
    refusal.value = undefined;
    if (!amount.ok || checkQuantity("portion_mg", amount.value, feeder.limits)) return;
    const stop = new AbortController();
    void session.timers.sleep(DEBOUNCE_MS, stop.signal).then(async () => {
      if (stop.signal.aborted) return;
      const request = { name: feeder.name, portionMg: amount.value, requestId: newRequestId(), validateOnly: true };
      try {
        const answer = await session.api.feeders.feedNow(request, { signal: stop.signal });
        if (!stop.signal.aborted) preview.value = answer.preview;
      } catch (failed) {
        if (!stop.signal.aborted) refusal.value = refusalOf(failed);
      }
    });
    return () => stop.abort();
  });

  const shut = closed("feed_now");
  const confirm = () => {
    touched.value = true;
    if (!parsed.ok || problem || shut) return;
    session.orders.feedNow(feeder, parsed.value, note.value.trim());
    onClose();
  };
  const fed = feeder.status?.dispensedTodayMg;
  const cap = feeder.config?.dailyCapMg;
  const total = fed !== undefined && parsed.ok ? formatTotal(fed + BigInt(Math.max(0, parsed.value))) : undefined;
  return (
    <Dialog
      title={t.value.feedNow.title}
      onClose={onClose}
      testid="feed-now-dialog"
      footer={
        <>
          <Button onClick={onClose}>{t.value.cancel}</Button>
          <Button kind="primary" icon="dosing" disabled={shut !== undefined} data-testid="feed-now-confirm" onClick={confirm}>
            {parsed.ok && !problem ? t.value.feedNow.confirm(formatAmount(parsed.value)) : t.value.feedNow.confirmNone}
          </Button>
        </>
      }
    >
      <p class="muted">{t.value.feedNow.once}</p>
      <AmountInput
        label={t.value.feedNow.amount}
        text={text}
        unit={unit}
        testid="feed-now-amount"
        error={text.value.trim() === "" && !touched.value ? undefined : error}
        autoFocus
      />
      <div class="quick">
        {quickAmounts(usual, feeder.limits?.portionMinMg, feeder.limits?.portionMaxMg, feeder.limits?.portionStepMg).map((mg) => (
          <Button
            key={mg}
            aria-pressed={parsed.ok && parsed.value === mg}
            onClick={() => {
              unit.value = bestUnit(mg, MASS);
              text.value = editQuantity(mg, unit.value, decimalMark());
            }}
          >
            {formatAmount(mg)}
          </Button>
        ))}
      </div>
      {total !== undefined && !problem && (
        <p class="after">
          {cap === undefined ? t.value.feedNow.afterNoCap(total) : t.value.feedNow.after(total, formatTotal(cap))}
        </p>
      )}
      {preview.value && <PreviewFacts preview={preview.value} testid="feed-now-preview" />}
      {shut && (
        <Banner tone="warn" testid="dialog-refusal" reason={shut.reason}>
          {closedText(shut, session.naming)}
        </Banner>
      )}
      {refusal.value && !error && !shut && (
        <Banner tone="warn" testid="dialog-refusal" reason={refusalName(refusal.value)}>
          {refusalText(refusal.value, session.naming)}
        </Banner>
      )}
      <NoteField label={t.value.feedNow.note} value={note} />
    </Dialog>
  );
}

/** The amount as a config's portion, for the rules that both share. */
const asPortion = (parsed: Parsed): FeederConfig =>
  create(FeederConfigSchema, parsed.ok ? { portionMg: parsed.value } : {});

/** Half, one and two usual portions, as far as the feeder can do them. */
export function quickAmounts(usual: number | undefined, min = 10, max = 5_000_000, step = 1): number[] {
  if (usual === undefined) return [];
  const onStep = (mg: number) => Math.round(mg / step) * step;
  const wanted = [onStep(usual / 2), usual, onStep(usual * 2)];
  return [...new Set(wanted)].filter((mg) => mg >= min && mg <= max);
}
