// One amount of feed: a number and its unit, with what it means in full beside it.
import type { Signal } from "@preact/signals";
import { useId } from "preact/hooks";
import { formatAmount } from "../format/amount";
import { MASS, parseQuantity, type Unit } from "../format/quantity";
import { decimalMark, t } from "../i18n";

interface AmountInputProps {
  label: string;
  text: Signal<string>;
  unit: Signal<Unit>;
  testid: string;
  error?: string | undefined;
  hint?: string | undefined;
  autoFocus?: boolean;
}

export function AmountInput({ label, text, unit, testid, error, hint, autoFocus }: AmountInputProps) {
  const id = useId();
  const parsed = parseQuantity(text.value, unit.value, MASS, decimalMark());
  return (
    <div class="field">
      <label class="label" for={id}>
        {label}
      </label>
      <div class="quantity quantity-large" data-invalid={error !== undefined}>
        <input
          id={id}
          class="input"
          inputMode="decimal"
          autocomplete="off"
          value={text.value}
          data-testid={testid}
          data-unit={unit.value.id}
          aria-invalid={error !== undefined}
          aria-describedby={`${id}-hint`}
          autoFocus={autoFocus}
          onInput={(e) => {
            text.value = e.currentTarget.value;
          }}
        />
        <select
          class="input unit"
          aria-label={t.value.config.unit(label)}
          value={unit.value.id}
          onChange={(e) => {
            unit.value = MASS.find((u) => u.id === e.currentTarget.value) ?? unit.value;
          }}
        >
          {MASS.map((u) => (
            <option key={u.id} value={u.id}>
              {u.id}
            </option>
          ))}
        </select>
      </div>
      <p id={`${id}-hint`} class={error ? "field-error" : "field-hint"} data-testid={error ? `error-${testid}` : undefined}>
        {error ?? (parsed.ok ? t.value.config.equals(formatAmount(parsed.value)) : hint)}
      </p>
    </div>
  );
}
