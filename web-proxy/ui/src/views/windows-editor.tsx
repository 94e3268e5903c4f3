// Daily feeding times, in the farm's own time zone; none means all day.
import { Button } from "../components/basics";
import type { ConfigForm } from "../form/config-form";
import { newWindow, type WindowDraft } from "../form/draft";
import { fieldId, fieldRights } from "../form/fields";
import { formatNumber } from "../format/amount";
import { t } from "../i18n";
import { useSession } from "../store/session";
import { FieldNotes } from "./config-fields";

const MOST = 6;

export function WindowsEditor({ form, disabled }: { form: ConfigForm; disabled: boolean }) {
  const session = useSession();
  const feeder = form.feeder.value;
  const shut = disabled || !fieldRights(feeder, "windows").editable;
  const { windows } = form.draft.value;
  const most = Math.min(MOST, feeder.limits?.windowsMax ?? MOST);
  const c = t.value.config;
  const change = (key: number, part: Partial<WindowDraft>) =>
    form.setWindows(windows.map((w) => (w.key === key ? { ...w, ...part } : w)));
  return (
    <div class="windows" data-testid="field-windows">
      {windows.length === 0 && <p class="windows-none">{c.allDay}</p>}
      {windows.map((w, i) => (
        <div key={w.key} class="window">
          <label>
            <span>{c.from}</span>
            <input
              id={i === 0 ? fieldId("windows") : undefined}
              class="input"
              type="time"
              value={w.start}
              disabled={shut}
              data-testid={`window-${i}-start`}
              onInput={(e) => change(w.key, { start: e.currentTarget.value })}
            />
          </label>
          <label>
            <span>
              {c.to} {w.start !== "" && w.end !== "" && w.end < w.start && <em>{c.nextDay}</em>}
            </span>
            <input
              class="input"
              type="time"
              value={w.end}
              disabled={shut}
              data-testid={`window-${i}-end`}
              onInput={(e) => change(w.key, { end: e.currentTarget.value })}
            />
          </label>
          {!shut && (
            <Button
              kind="quiet"
              icon="trash"
              aria-label={c.removeWindow(formatNumber(i + 1))}
              data-testid={`window-${i}-remove`}
              onClick={() => form.setWindows(windows.filter((o) => o.key !== w.key))}
            />
          )}
        </div>
      ))}
      {!shut && windows.length < most && (
        <Button icon="plus" data-testid="window-add" onClick={() => form.setWindows([...windows, newWindow()])}>
          {c.addWindow}
        </Button>
      )}
      <FieldNotes form={form} path="windows" help={c.zone(session.farm.value?.timeZone ?? "")} />
    </div>
  );
}
