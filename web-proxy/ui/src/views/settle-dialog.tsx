// A person says what became of a dose that the machine cannot account for.
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { type Command, ResolutionVerdict } from "../gen/pasamanos/v1/resources_pb";
import { type Refusal, refusalOf, verdictOf } from "../api/refusal";
import { newRequestId } from "../api/request-id";
import { Banner, Button } from "../components/basics";
import { Dialog } from "../components/dialog";
import { formatAmount } from "../format/amount";
import { bestUnit, editQuantity, MASS, parseQuantity } from "../format/quantity";
import { decimalMark, t } from "../i18n";
import { plannedMg, problemText, refusalName, refusalText } from "../i18n/words";
import { useSession } from "../store/session";
import { AmountInput } from "./amount-input";
import { NoteField } from "./note-field";

const ATTEMPTS = 4;

interface SettleDialogProps {
  /** The command in doubt. */
  name: string;
  onClose: () => void;
}

export function SettleDialog({ name, onClose }: SettleDialogProps) {
  const session = useSession();
  const s = t.value.settle;
  const command = useSignal<Command | undefined>(session.farm.peek()?.commands.get(name)?.value);
  const verdict = useSignal<ResolutionVerdict | undefined>(undefined);
  const unit = useSignal(bestUnit(undefined, MASS));
  const text = useSignal("");
  const note = useSignal("");
  const wrong = useSignal<"" | "verdict" | "note" | "amount">("");
  const refusal = useSignal<Refusal | undefined>(undefined);
  const busy = useSignal(false);
  const planned = command.value && plannedMg(command.value);

  useEffect(() => {
    if (command.peek()) return;
    void session.api.feeders.getCommand({ name }).then(
      (answer) => {
        command.value = answer.command;
      },
      (error: unknown) => {
        refusal.value = refusalOf(error);
      },
    );
  }, [name]);
  useEffect(() => {
    if (planned === undefined || text.peek() !== "") return;
    unit.value = bestUnit(planned, MASS);
    text.value = editQuantity(planned, unit.value, decimalMark());
  }, [planned]);

  const fed = verdict.value === ResolutionVerdict.FED;
  const confirm = async () => {
    const amount = parseQuantity(text.value, unit.value, MASS, decimalMark());
    if (verdict.value === undefined) wrong.value = "verdict";
    else if (fed && (!amount.ok || amount.value < 0)) wrong.value = "amount";
    else if (note.value.trim() === "") wrong.value = "note";
    else wrong.value = "";
    if (wrong.value !== "" || verdict.value === undefined) return;
    busy.value = true;
    const requestId = newRequestId();
    const fedMg = fed && amount.ok ? amount.value : undefined;
    for (let attempt = 1; ; attempt++) {
      try {
        await session.api.feeders.resolveCommand({ name, verdict: verdict.value, fedMg, requestId, note: note.value.trim() });
        onClose();
        return;
      } catch (error) {
        const failed = refusalOf(error);
        // The same settlement under the same id: repeating it is harmless.
        if (verdictOf(failed) !== "refused" && attempt < ATTEMPTS) {
          await session.timers.sleep(failed.retryAfterMs ?? 1_000);
          continue;
        }
        refusal.value = failed;
        busy.value = false;
        return;
      }
    }
  };

  return (
    <Dialog
      title={s.title}
      onClose={onClose}
      testid="settle-dialog"
      footer={
        <>
          <Button onClick={onClose}>{t.value.cancel}</Button>
          <Button kind="primary" busy={busy.value} disabled={busy.value} data-testid="settle-confirm" onClick={() => void confirm()}>
            {busy.value ? s.sending : s.confirm}
          </Button>
        </>
      }
    >
      {command.value && (
        <p>
          <strong>{session.naming(command.value.feeder)}</strong>
          {" – "}
          {s.text(planned === undefined ? t.value.notKnown : formatAmount(planned))}
        </p>
      )}
      <div class="choices" role="radiogroup" aria-label={s.title}>
        <Choice verdict={ResolutionVerdict.FED} label={s.fed} testid="settle-fed" value={verdict} />
        <Choice verdict={ResolutionVerdict.NOT_FED} label={s.notFed} testid="settle-not-fed" value={verdict} />
      </div>
      {wrong.value === "verdict" && <p class="field-error">{s.choose}</p>}
      {fed && (
        <AmountInput
          label={s.amount}
          text={text}
          unit={unit}
          testid="settle-amount"
          error={wrong.value === "amount" ? problemText("portion_mg", { kind: "number" }) : undefined}
        />
      )}
      <NoteField
        label={s.note}
        value={note}
        hint={s.noteHint}
        error={wrong.value === "note" ? s.noteRequired : undefined}
        testid="settle-note"
      />
      <p class="field-hint">{s.who}</p>
      {refusal.value && (
        <Banner tone="danger" testid="dialog-refusal" reason={refusalName(refusal.value)} role="alert">
          {refusalText(refusal.value, session.naming)}
        </Banner>
      )}
    </Dialog>
  );
}

interface ChoiceProps {
  verdict: ResolutionVerdict;
  label: string;
  testid: string;
  value: { value: ResolutionVerdict | undefined };
}

function Choice({ verdict, label, testid, value }: ChoiceProps) {
  return (
    <label class="choice">
      <input
        type="radio"
        name="settle"
        checked={value.value === verdict}
        data-testid={testid}
        onChange={() => {
          value.value = verdict;
        }}
      />
      <span>{label}</span>
    </label>
  );
}
