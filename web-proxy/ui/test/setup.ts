// What happy-dom lacks, and a clean page for every test.
import { cleanup } from "@testing-library/preact";
import { afterEach, beforeEach } from "vitest";
import { setLanguage } from "../src/i18n";

beforeEach(async () => {
  localStorage.clear();
  history.replaceState(null, "", "/");
  await setLanguage("en", false);
});
afterEach(() => cleanup());

Element.prototype.scrollIntoView ??= () => {};
