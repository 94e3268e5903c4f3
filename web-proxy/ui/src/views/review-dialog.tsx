// The last look before a change goes to the machine: old against new, and what it means today.
import { useSignal } from "@preact/signals";
import { create } from "@bufbuild/protobuf";
import { Banner, Button, Spinner } from "../components/basics";
import { Dialog } from "../components/dialog";
import { FeederConfigSchema } from "../gen/pasamanos/v1/resources_pb";
import type { ConfigForm } from "../form/config-form";
import { diffConfigs } from "../form/diff";
import { t } from "../i18n";
import { closedText, fieldTitle, refusalName, refusalText } from "../i18n/words";
import { usePanel } from "../store/panel";
import { useSession } from "../store/session";
import { NoteField } from "./note-field";
import { PreviewFacts } from "./preview";

interface ReviewDialogProps {
  form: ConfigForm;
  onApply: (note: string) => void;
  onClose: () => void;
}

export function ReviewDialog({ form, onApply, onClose }: ReviewDialogProps) {
  const session = useSession();
  const { closed } = usePanel();
  const note = useSignal("");
  const base = form.feeder.value.config ?? create(FeederConfigSchema);
  const differences = diffConfigs(base, form.read.value.config);
  const check = form.check.value;
  const shut = closed("config");
  const c = t.value.config;
  const blocked = shut !== undefined || form.conflict.value !== undefined || form.problems.value.size > 0 || differences.length === 0;
  return (
    <Dialog
      title={c.reviewTitle}
      onClose={onClose}
      testid="review-dialog"
      footer={
        <>
          <Button onClick={onClose}>{t.value.back}</Button>
          <Button kind="primary" icon="ready" disabled={blocked} data-testid="apply" onClick={() => onApply(note.value.trim())}>
            {c.apply}
          </Button>
        </>
      }
    >
      <table class="diff" data-testid="diff">
        <thead>
          <tr>
            <th scope="col">{c.setting}</th>
            <th scope="col">{c.before}</th>
            <th scope="col">{c.after}</th>
          </tr>
        </thead>
        <tbody>
          {differences.map((d) => (
            <tr key={d.path}>
              <th scope="row">{fieldTitle(d.path)}</th>
              <td class="old">{d.before}</td>
              <td class="new">{d.after}</td>
            </tr>
          ))}
        </tbody>
      </table>
      {check.kind === "asking" && (
        <p class="muted">
          <Spinner /> {c.checking}
        </p>
      )}
      {check.kind === "fine" && check.preview && (
        <>
          <h3 class="dialog-sub">{t.value.preview.title}</h3>
          <PreviewFacts preview={check.preview} testid="review-preview" />
        </>
      )}
      {check.kind === "refused" && !shut && (
        <Banner tone="danger" testid="dialog-refusal" reason={refusalName(check.refusal)}>
          {refusalText(check.refusal, session.naming)}
        </Banner>
      )}
      {shut && (
        <Banner tone="warn" testid="dialog-refusal" reason={shut.reason}>
          {closedText(shut, session.naming)}
        </Banner>
      )}
      {form.conflict.value && <Banner tone="warn">{t.value.conflict.title}</Banner>}
      <NoteField label={c.note} value={note} />
    </Dialog>
  );
}
