// The document as text, in both directions: what is written there is checked as one types, and drawn once it is taken over.

import { openDialog } from "./dialogs.js";
import { button, debounce, el, icon } from "./dom.js";
import { placeOf, placesOf } from "./json_places.js";
import { ask } from "./server.js";
import { t } from "./texts.js";

export function jsonDialog(model, slug, mayChange) {
  const area = el("textarea", { class: "mono json", spellcheck: "false", rows: "26", "aria-label": t("The document in JSON"), disabled: !mayChange });
  area.value = JSON.stringify(model.document, null, 2);
  const told = el("ul", { class: "all-problems", role: "status" });
  const file = el("input", { type: "file", accept: "application/json,.json", class: "sr-only", id: "import-file", onchange: async () => {
    if (file.files[0]) area.value = await file.files[0].text();
    check();
  } });

  const show = (from, to) => {
    area.focus();
    area.setSelectionRange(from, to);
    const line = area.value.slice(0, from).split("\n").length;
    area.scrollTop = Math.max(0, (line - 6) * (area.scrollHeight / area.value.split("\n").length));
  };
  const tell = (kind, message, hint, from, to) => el("li", {}, el("button", { type: "button", class: `as-link problem ${kind}`, onclick: () => show(from, to) },
    t("Line {number}: ", { number: area.value.slice(0, from).split("\n").length }), message), hint ? el("div", { class: "small muted" }, hint) : null);

  const read = () => {
    try {
      const value = JSON.parse(area.value);
      if (!value || typeof value !== "object" || Array.isArray(value)) throw new Error(t("The document must be an object."));
      return value;
    } catch (error) {
      const found = /position (\d+)/.exec(error.message);
      const from = found ? Number(found[1]) : 0;
      told.replaceChildren(tell("error", error.message, null, from, from + 1));
      return null;
    }
  };
  let asked = 0;
  const judge = debounce(350, async () => {
    const number = ++asked;
    const value = read();
    if (!value) return;
    try {
      const { problems } = await ask("POST", `/workflow-builder/${slug}/check`, { document: { ...value, slug } });
      if (number !== asked) return;
      const places = placesOf(area.value);
      told.replaceChildren(...problems.map((problem) => {
        const [from, to] = placeOf(places, problem.path);
        return tell(problem.severity, `${problem.path ? `${problem.path}: ` : ""}${problem.message}`, problem.hint, from, to);
      }));
    } catch (error) {
      told.replaceChildren(el("li", { class: "error" }, error.message));
    }
  });
  function check() {
    if (read()) judge();
  }

  area.addEventListener("input", check);
  openDialog(t("Document"), [area, told, file], {
    wide: true,
    actions: [
      mayChange ? el("label", { class: "button", for: "import-file" }, icon("folder"), t("Import a file")) : null,
      button(t("Copy"), () => navigator.clipboard?.writeText(area.value), { symbol: "copy" }),
      button(t("Export"), () => download(`${slug}.json`, area.value), { symbol: "down" }),
      el("span", { class: "grow" }),
      mayChange ? (close) => button(t("Take over"), () => {
        const value = read();
        if (!value) return;
        model.replace({ ...value, slug });
        close();
      }, { kind: "primary" }) : null,
    ].filter(Boolean),
  });
  check();
  area.focus();
  area.setSelectionRange(0, 0);
  area.scrollTop = 0;
}

export function download(name, text) {
  const link = el("a", { href: URL.createObjectURL(new Blob([text], { type: "application/json" })), download: name });
  link.click();
  URL.revokeObjectURL(link.href);
}
