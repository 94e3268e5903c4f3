// The menu: language, another farm. The account will stand here.
import { useEffect, useRef } from "preact/hooks";
import { useSignal } from "@preact/signals";
import { Button } from "../components/basics";
import { Icon } from "../components/icon";
import { type Language, LANGUAGES, language, setLanguage, t } from "../i18n";
import { navigate } from "../route";

export function LanguageSelect() {
  return (
    <label class="language">
      <span>{t.value.header.language}</span>
      <select
        class="input"
        value={language.value}
        data-testid="language"
        onChange={(e) => void setLanguage(e.currentTarget.value as Language)}
      >
        {Object.entries(LANGUAGES).map(([id, info]) => (
          <option key={id} value={id} lang={id}>
            {info.name}
          </option>
        ))}
      </select>
    </label>
  );
}

export function Menu() {
  const open = useSignal(false);
  const ref = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const away = (event: Event) => {
      if (!ref.current?.contains(event.target as Node)) open.value = false;
    };
    document.addEventListener("pointerdown", away);
    return () => document.removeEventListener("pointerdown", away);
  }, []);
  return (
    <div
      class="menu"
      ref={ref}
      onKeyDown={(e) => {
        if (e.key === "Escape") open.value = false;
      }}
    >
      <Button
        kind="quiet"
        icon="menu"
        aria-label={t.value.header.menu}
        aria-expanded={open.value}
        aria-controls="menu"
        data-testid="menu"
        onClick={() => {
          open.value = !open.value;
        }}
      />
      {open.value && (
        <div class="menu-box" id="menu">
          <LanguageSelect />
          <button type="button" class="menu-item" data-testid="other-farm" onClick={() => navigate({ farm: "", feeder: "" })}>
            <Icon name="farm" />
            {t.value.header.otherFarm}
          </button>
        </div>
      )}
    </div>
  );
}
