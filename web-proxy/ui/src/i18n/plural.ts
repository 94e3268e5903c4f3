// Plural forms by the rules of a language.

type Forms = Partial<Record<Intl.LDMLPluralRule, string>> & { readonly other: string };

/** Makes a chooser for one language; `#` stands for the number. */
export function plurals(locale: string): (n: number, forms: Forms) => string {
  const rules = new Intl.PluralRules(locale);
  const numbers = new Intl.NumberFormat(locale);
  return (n, forms) => (forms[rules.select(n)] ?? forms.other).replace("#", numbers.format(n));
}
