// The page's language: one signal, one dictionary in force, typed by the English one.
import { computed, signal } from "@preact/signals";
import { en } from "./en";
import { plurals } from "./plural";

type Widen<T> = T extends string
  ? string
  : T extends (...args: infer A) => string
    ? (...args: A) => string
    : { readonly [K in keyof T]: Widen<T[K]> };

/** Every string of the page; another language has the same keys, checked by the compiler. */
export type Strings = Widen<typeof en>;

export type Language = "en" | "es";

interface LanguageInfo {
  /** Its own name for itself. */
  readonly name: string;
  readonly locale: string;
  readonly dir: "ltr" | "rtl";
  readonly load: () => Promise<Strings>;
}

export const LANGUAGES: Readonly<Record<Language, LanguageInfo>> = {
  en: { name: "English", locale: "en-GB", dir: "ltr", load: async () => en },
  es: { name: "Español", locale: "es", dir: "ltr", load: async () => (await import("./es")).spanish(plurals("es")) },
};

const STORED = "pasamanos.language";
const dictionary = signal<{ language: Language; strings: Strings }>({ language: "en", strings: en });

/** The language in force. */
export const language = computed(() => dictionary.value.language);
/** Its strings. */
export const t = computed(() => dictionary.value.strings);

export const isRtl = (): boolean => LANGUAGES[dictionary.value.language].dir === "rtl";
export const localeOf = (): string => LANGUAGES[dictionary.value.language].locale;

/** The mark between whole and fraction that people of this language type. */
export const decimalMark = (): "." | "," =>
  new Intl.NumberFormat(localeOf()).formatToParts(1.5).some((p) => p.type === "decimal" && p.value === ",") ? "," : ".";

/** Loads a language and puts it in force; keeps the old one if it cannot be loaded. */
export async function setLanguage(next: Language, remember = true): Promise<void> {
  try {
    dictionary.value = { language: next, strings: await LANGUAGES[next].load() };
    document.documentElement.lang = next;
    document.documentElement.dir = LANGUAGES[next].dir;
    if (remember) localStorage.setItem(STORED, next);
  } catch {
    // A dictionary that does not load leaves the page readable in the old one.
  }
}

/** The language to start in: the chosen one, else the browser's first that we have, else English. */
export function startLanguage(): Language {
  let stored: string | null = null;
  try {
    stored = localStorage.getItem(STORED);
  } catch {
    // No storage: the browser's wish decides.
  }
  const wishes = [stored, ...navigator.languages].map((w) => (w ?? "").slice(0, 2).toLowerCase());
  return (wishes.find((w) => w in LANGUAGES) as Language | undefined) ?? "en";
}
