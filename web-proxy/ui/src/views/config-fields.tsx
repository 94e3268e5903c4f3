// The fields of the config form. Each says what it may be, and what is wrong with it, beside it.
import type { ComponentChildren } from "preact";
import { Icon } from "../components/icon";
import { type Feeder, FeederMode } from "../gen/pasamanos/v1/resources_pb";
import type { ConfigForm } from "../form/config-form";
import { describeField, describeWindows, modeName } from "../form/diff";
import { boundsOf } from "../form/draft";
import { type FieldPath, fieldId, fieldRights, QUANTITY_UNITS, type QuantityPath, quantityOf, shortName } from "../form/fields";
import { editQuantity, parseQuantity, type Unit } from "../format/quantity";
import { decimalMark, t } from "../i18n";
import { describeQuantity, fieldTitle, problemText } from "../i18n/words";
import { WindowsEditor } from "./windows-editor";

interface FieldsProps {
  form: ConfigForm;
  disabled: boolean;
}

export function ConfigFields({ form, disabled }: FieldsProps) {
  const feeder = form.feeder.value;
  const there = (path: FieldPath) => !fieldRights(feeder, path).absent;
  const limits = (
    [
      "interlocks.min_dissolved_oxygen_ug_per_l",
      "interlocks.min_oxygen_saturation_permille",
      "interlocks.max_water_temperature_millicelsius",
    ] as const
  ).filter(there);
  const { config } = form.read.value;
  const wrong = (paths: readonly FieldPath[]) => paths.some((p) => form.problems.value.has(p));
  return (
    <div class="fields">
      {there("mode") && <ModeField form={form} disabled={disabled} />}
      <div class="fields-pair">
        {there("portion_mg") && <QuantityField form={form} path="portion_mg" disabled={disabled} large />}
        {there("interval") && <QuantityField form={form} path="interval" disabled={disabled} large />}
      </div>
      {there("windows") && (
        <Fold title={t.value.config.windows} value={describeWindows(config.windows)} open={wrong(["windows"])}>
          <WindowsEditor form={form} disabled={disabled} />
        </Fold>
      )}
      {there("daily_cap_mg") && (
        <Fold title={t.value.config.daily_cap_mg} value={describeField(config, "daily_cap_mg")} open={wrong(["daily_cap_mg"])}>
          <QuantityField form={form} path="daily_cap_mg" disabled={disabled} help={t.value.config.capHelp} />
        </Fold>
      )}
      {limits.length > 0 && (
        <Fold title={t.value.config.waterLimits} value={limitsText(form, limits)} open={wrong(limits)}>
          <p class="field-hint">{t.value.config.waterHelp}</p>
          {limits.map((path) => (
            <QuantityField key={path} form={form} path={path} disabled={disabled} />
          ))}
        </Fold>
      )}
    </div>
  );
}

function limitsText(form: ConfigForm, limits: readonly QuantityPath[]): string {
  const { config } = form.read.value;
  const set = limits.filter((p) => quantityOf(config, p) !== undefined);
  return set.length === 0 ? t.value.config.noLimit : set.map((p) => describeField(config, p)).join(" · ");
}

interface FoldProps {
  title: string;
  value: string;
  open: boolean;
  children: ComponentChildren;
}

/** A field that is looked at more than changed: its value in the line, its editor inside. */
function Fold({ title, value, open, children }: FoldProps) {
  return (
    <details class="fold" open={open || undefined}>
      <summary>
        <span class="fold-title">{title}</span>
        <span class="fold-value">{value}</span>
        <Icon name="chevron" class="fold-mark" />
      </summary>
      <div class="fold-body">{children}</div>
    </details>
  );
}

/** What a field's hint and error are, and what its control needs to be tied to them. */
export function FieldNotes({ form, path, help }: { form: ConfigForm; path: FieldPath; help?: string | undefined }) {
  const rights = fieldRights(form.feeder.value, path);
  const problem = form.problems.value.get(path);
  const id = fieldId(path);
  const c = t.value.config;
  const right = { none: "", absent: "", "read-only": c.readOnly, nobody: c.nobody, agent: c.agent }[rights.hint];
  return (
    <div class="field-notes" id={`${id}-notes`}>
      {problem ? (
        <p class="field-error" role="alert" data-testid={`error-${shortName(path)}`} data-kind={problem.kind}>
          <Icon name="warning" />
          <span>
            {problemText(path, problem)}
            {problem.kind === "server" && <span lang="en"> {problem.description}</span>}
          </span>
        </p>
      ) : (
        help && <p class="field-hint">{help}</p>
      )}
      {right !== "" && <p class="field-hint">{right}</p>}
    </div>
  );
}

const MODES = [FeederMode.AUTOMATIC, FeederMode.MANUAL, FeederMode.OFF];

function ModeField({ form, disabled }: FieldsProps) {
  const { editable } = fieldRights(form.feeder.value, "mode");
  const mode = form.draft.value.mode;
  const shut = disabled || !editable;
  return (
    <fieldset class="field" disabled={shut} data-changed={form.read.value.changed.includes("mode")}>
      <legend class="label">{t.value.config.mode}</legend>
      <div class="segments">
        {MODES.map((m) => (
          <label key={m} class="segment">
            <input
              type="radio"
              name="mode"
              id={m === mode || (m === FeederMode.AUTOMATIC && !MODES.includes(mode)) ? fieldId("mode") : undefined}
              checked={m === mode}
              data-testid={`field-mode-${modeName(m)}`}
              onChange={() => form.setMode(m)}
            />
            <span>{t.value.mode[modeName(m)]}</span>
          </label>
        ))}
      </div>
      <FieldNotes form={form} path="mode" help={t.value.modeHint[modeName(mode)]} />
    </fieldset>
  );
}

interface QuantityFieldProps extends FieldsProps {
  path: QuantityPath;
  help?: string;
  large?: boolean;
}

function QuantityField({ form, path, disabled, help, large }: QuantityFieldProps) {
  const feeder = form.feeder.value;
  const { editable } = fieldRights(feeder, path);
  const family = QUANTITY_UNITS[path];
  const typed = form.draft.value.quantities[path];
  const id = fieldId(path);
  const title = fieldTitle(path);
  const shut = disabled || !editable;
  const problem = form.problems.value.get(path);
  const changed = form.read.value.changed.includes(path);
  return (
    <div class="field" data-changed={changed}>
      <label class="label" for={id}>
        {title}
      </label>
      <div class={large ? "quantity quantity-large" : "quantity"} data-invalid={problem !== undefined}>
        <input
          id={id}
          class="input"
          inputMode="decimal"
          autocomplete="off"
          value={typed.text}
          disabled={shut}
          aria-invalid={problem !== undefined}
          aria-describedby={`${id}-notes`}
          data-testid={`field-${shortName(path)}`}
          data-unit={typed.unit.id}
          onInput={(e) => form.setQuantity(path, { ...typed, text: e.currentTarget.value })}
        />
        {family.length > 1 ? (
          <select
            class="input unit"
            disabled={shut}
            aria-label={t.value.config.unit(title)}
            value={typed.unit.id}
            data-testid={`unit-${shortName(path)}`}
            onChange={(e) => {
              const unit = family.find((u) => u.id === e.currentTarget.value);
              if (unit) form.setQuantity(path, inUnit(form, path, unit));
            }}
          >
            {family.map((u) => (
              <option key={u.id} value={u.id}>
                {u.id}
              </option>
            ))}
          </select>
        ) : (
          <span class="unit">{family[0]?.id}</span>
        )}
      </div>
      <FieldNotes form={form} path={path} help={help ?? rangeHelp(feeder, path)} />
      {changed && !problem && <Was form={form} path={path} />}
    </div>
  );
}

/**
 * Another unit: an untouched value is the same amount in it; typed digits stay as they are, because
 * the person who changes the unit is correcting it.
 */
function inUnit(form: ConfigForm, path: QuantityPath, unit: Unit): { text: string; unit: Unit } {
  const typed = form.draft.peek().quantities[path];
  const base = form.feeder.peek().config;
  const value = parseQuantity(typed.text, typed.unit, QUANTITY_UNITS[path], decimalMark());
  const untouched = value.ok && base && value.value === quantityOf(base, path);
  const fits = untouched && (value.value % unit.factor === 0 || unit.factor % 10 === 0);
  return { unit, text: fits ? editQuantity(value.value, unit, decimalMark()) : typed.text };
}

function rangeHelp(feeder: Feeder, path: QuantityPath): string | undefined {
  const { min, max, step } = boundsOf(path, feeder.limits);
  const say = (value: number) => describeQuantity(path, value);
  if (path === "portion_mg") return t.value.config.portionHelp(say(min), say(max), say(step));
  return path === "interval" ? t.value.config.rangeHelp(say(min), say(max)) : undefined;
}

/** Old against new, at the field. */
function Was({ form, path }: { form: ConfigForm; path: QuantityPath }) {
  const base = form.feeder.value.config;
  if (!base) return null;
  return (
    <p class="was">
      <s>{describeField(base, path)}</s> <Icon name="arrow" /> <b>{describeField(form.read.value.config, path)}</b>
    </p>
  );
}
