// Hold every feeder of the farm: asked once, answered feeder by feeder.
import { useSignal } from "@preact/signals";
import { CommandState } from "../gen/pasamanos/v1/resources_pb";
import { Banner, Button, Chip } from "../components/basics";
import { Dialog } from "../components/dialog";
import { t } from "../i18n";
import { outcomeLine, reasonText, refusalName, refusalText } from "../i18n/words";
import { useSession } from "../store/session";
import { NoteField } from "./note-field";

export function HoldAllDialog({ onClose }: { onClose: () => void }) {
  const session = useSession();
  const { holdAll } = session;
  const note = useSignal("");
  const state = holdAll.state.value;
  const h = t.value.holdAll;
  const busy = state.phase === "sending";
  const close = () => {
    holdAll.close();
    onClose();
  };
  const ask = state.phase === "idle" || busy;
  return (
    <Dialog
      title={h.title}
      onClose={close}
      testid="hold-all-dialog"
      footer={
        ask ? (
          <>
            <Button onClick={close}>{t.value.cancel}</Button>
            <Button
              kind="warn"
              icon="held"
              busy={busy}
              disabled={busy}
              data-testid="hold-all-confirm"
              onClick={() => void holdAll.press(note.value)}
            >
              {busy ? h.sending : h.confirm}
            </Button>
          </>
        ) : (
          <Button kind="primary" onClick={close} data-testid="hold-all-close">
            {t.value.close}
          </Button>
        )
      }
    >
      {ask && (
        <>
          <p>{h.text}</p>
          <Banner tone="danger" icon="hand">
            {h.notEmergency}
          </Banner>
          <NoteField label={h.note} value={note} />
        </>
      )}
      <div aria-live="polite">
        {state.phase === "refused" && (
          <Banner tone="danger" title={h.failed} testid="dialog-refusal" reason={refusalName(state.refusal)}>
            {refusalText(state.refusal, session.naming)}
          </Banner>
        )}
        {state.phase === "done" && <Result />}
      </div>
    </Dialog>
  );
}

function Result() {
  const session = useSession();
  const state = session.holdAll.state.value;
  if (state.phase !== "done") return null;
  // What the watch has seen since the answer is newer than the answer.
  const commands = state.held.map((c) => session.farm.value?.commands.get(c.name)?.value ?? c);
  const done = commands.filter((c) => c.state === CommandState.APPLIED);
  const open = commands.filter((c) => c.state !== CommandState.APPLIED);
  const h = t.value.holdAll;
  return (
    <div data-testid="hold-all-result">
      <p>
        <Chip tone="warn" icon="held">
          {open.length === 0 ? h.held(done.length) : h.done(commands.length)}
        </Chip>
      </p>
      {open.length > 0 && (
        <ul class="rows">
          {open.map((c) => (
            <li key={c.name}>
              <strong>{session.naming(c.feeder)}</strong>
              <span>{outcomeLine(c)}</span>
            </li>
          ))}
        </ul>
      )}
      {state.notHeld.length > 0 && (
        <>
          <h3 class="danger-text">{h.notHeld}</h3>
          <ul class="rows" data-testid="hold-all-not-held">
            {state.notHeld.map((n) => (
              <li key={n.feeder} data-reason={n.reason}>
                <strong>{session.naming(n.feeder)}</strong>
                <span>{reasonText(n.reason, {}, session.naming)}</span>
              </li>
            ))}
          </ul>
        </>
      )}
      <Banner tone="warn" icon="hand">
        {h.notEmergency}
      </Banner>
    </div>
  );
}
