// Plural forms by the rules of a language.

type Forms = Partial<Record<Intl.LDMLPluralRule, string>> & { readonly other: string };

/** Chooses a form by a number; `#` stands for the number. */
export type Plural = (n: number, forms: Forms) => string;

export function plurals(locale: string): Plural {
  const rules = new Intl.PluralRules(locale);
  const numbers = new Intl.NumberFormat(locale);
  return (n, forms) => (forms[rules.select(n)] ?? forms.other).replace("#", numbers.format(n));
}
