// A free sentence that goes with an order, up to 200 characters.
import type { Signal } from "@preact/signals";
import { useId } from "preact/hooks";

interface NoteFieldProps {
  label: string;
  value: Signal<string>;
  hint?: string;
  error?: string | undefined;
  testid?: string;
}

export function NoteField({ label, value, hint, error, testid = "note" }: NoteFieldProps) {
  const id = useId();
  return (
    <div class="field">
      <label class="label" for={id}>
        {label}
      </label>
      <input
        id={id}
        class="input"
        maxLength={200}
        value={value.value}
        aria-invalid={error !== undefined}
        aria-describedby={`${id}-hint`}
        data-testid={testid}
        onInput={(e) => {
          value.value = e.currentTarget.value;
        }}
      />
      <p id={`${id}-hint`} class={error ? "field-error" : "field-hint"}>
        {error ?? hint}
      </p>
    </div>
  );
}
