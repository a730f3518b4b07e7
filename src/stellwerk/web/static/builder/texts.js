// The page's language: English texts are the keys, the page brings those of its own language along.

let known = {};

export function useTexts(texts) {
  known = texts;
}

export function t(text, values) {
  const found = known[text] ?? text;
  return values ? found.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole)) : found;
}

/** How many problems there are, in words. */
export function problemCount(number) {
  return number === 1 ? t("1 problem") : t("{number} problems", { number });
}
