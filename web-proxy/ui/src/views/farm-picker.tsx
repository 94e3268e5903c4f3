// Which farm? Asked once; the answer is remembered on this device.
import { useState } from "preact/hooks";
import { Button } from "../components/basics";
import { Mark } from "../components/icon";
import { t } from "../i18n";
import { isSlug, navigate, rememberedFarm } from "../route";
import { LanguageSelect } from "./menu";

export function FarmPicker() {
  const p = t.value.picker;
  const [farm, setFarm] = useState(rememberedFarm());
  const [wrong, setWrong] = useState(false);
  const open = (event: Event) => {
    event.preventDefault();
    const slug = farm.trim().toLowerCase().replace(/^farms\//, "");
    if (isSlug(slug)) navigate({ farm: slug, feeder: "" });
    else setWrong(true);
  };
  return (
    <main class="picker">
      <form class="picker-card" onSubmit={open} noValidate>
        <div class="brand brand-large">
          <Mark />
          <span>{t.value.product}</span>
        </div>
        <p class="picker-promise">{p.promise}</p>
        <h1>{p.title}</h1>
        <label class="label" for="farm">
          {p.label}
        </label>
        <input
          id="farm"
          class="input input-large"
          value={farm}
          autocapitalize="none"
          autocomplete="organization"
          spellcheck={false}
          aria-invalid={wrong}
          aria-describedby="farm-hint"
          data-testid="farm-input"
          onInput={(e) => {
            setFarm(e.currentTarget.value);
            setWrong(false);
          }}
        />
        <p id="farm-hint" class={wrong ? "field-error" : "field-hint"}>
          {wrong ? p.invalid : p.hint}
        </p>
        <Button kind="primary" type="submit" wide data-testid="farm-open">
          {p.open}
        </Button>
        <LanguageSelect />
      </form>
    </main>
  );
}
