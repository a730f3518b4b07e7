// What can be written in an expression at this node, offered while one types: names from a real past run, from the
// catalog and from the input schema, and the functions.

import { el } from "./dom.js";
import { t } from "./texts.js";

const MOST = 60;

/** All that is visible at a node, as a tree: `{ key: { value, note, children } }`. */
export function scopeOf(model, id, sample) {
  const tree = {};
  const context = sample ?? {};
  const payload = leaf(context.trigger?.payload, t("what the run started with"));
  for (const [name, schema] of Object.entries(model.document.input_schema?.properties ?? {})) {
    payload.children[name] ??= leaf(undefined, schema?.title ?? schema?.type);
  }
  const triggers = model.nodes.filter((node) => model.isTrigger(node));
  const rows = triggers.some((node) => node.type === "trigger.row");
  tree.trigger = group(t("the trigger"), {
    payload, ...(rows ? { row: leaf(context.trigger?.row ?? context.trigger?.payload, t("the changed row")), old: leaf(context.trigger?.old, t("the row before")) } : {}),
    source: leaf(context.trigger?.source, t("what started the run")),
  });
  const steps = {};
  for (const name of model.before(id).filter((each) => each !== id)) {
    const node = model.node(name);
    if (!node || model.isTrigger(node)) continue;
    const output = leaf(context.steps?.[name]?.output, t("its output"));
    for (const key of model.kind(node)?.output ?? []) output.children[key] ??= leaf(undefined, "");
    if (node.type === "logic.transform" && node.config?.output && typeof node.config.output === "object") {
      for (const key of Object.keys(node.config.output)) output.children[key] ??= leaf(undefined, "");
    }
    steps[name] = group(model.titleOf(node), { output, error: leaf(context.steps?.[name]?.error, t("its error, if it failed")) });
  }
  if (Object.keys(steps).length) tree.steps = group(t("earlier steps"), steps);
  const vars = {};
  for (const node of model.nodes) {
    if (node.type !== "logic.set" || !node.config?.values) continue;
    for (const name of Object.keys(node.config.values)) vars[name] = leaf(context.vars?.[name], model.titleOf(node));
  }
  if (Object.keys(vars).length) tree.vars = group(t("variables"), vars);
  const loop = model.loopAround(id);
  if (loop) {
    tree.item = leaf(context.items?.[loop]?.item, t("this turn's item"));
    tree.index = leaf(context.items?.[loop]?.index, t("this turn's number, from 0"));
  }
  tree.run = group(t("the run"), { id: leaf(context.run?.id, ""), workflow: leaf(context.run?.workflow, "") });
  tree.now = leaf(undefined, t("the present time"));
  return tree;
}

function leaf(value, note, depth = 0) {
  const children = {};
  if (value && typeof value === "object" && depth < 6) {
    const entries = Array.isArray(value) ? (value.length ? [[0, value[0]]] : []) : Object.entries(value).slice(0, 100);
    for (const [key, each] of entries) children[key] = leaf(each, "", depth + 1);
  }
  return { value, note, children };
}

function group(note, children) {
  return { note, children };
}

/** Where the cursor stands: within an expression, and behind which name. */
export function placeOf(text, at, condition) {
  let from = 0;
  if (!condition) {
    const opened = text.lastIndexOf("{{", at - 1);
    if (opened < 0 || text.indexOf("}}", opened) >= 0 && text.indexOf("}}", opened) < at) return null;
    from = opened + 2;
    if (from > at) return null;
  }
  const before = text.slice(from, at);
  if (((before.match(/'/g) ?? []).length) % 2) return null; // within a text in quotes
  const word = /(?:[A-Za-z_][\w]*|\[[^\]]*\]|\.)*$/.exec(before)[0];
  const cut = word.lastIndexOf(".");
  return { start: at - word.length, path: cut < 0 ? [] : parts(word.slice(0, cut)), typed: word.slice(cut + 1), cut: at - (word.length - cut - 1) };
}

function parts(text) {
  return [...text.matchAll(/([A-Za-z_]\w*)|\[(?:'([^']*)'|(\d+))\]/g)].map((found) => found[1] ?? found[2] ?? Number(found[3]));
}

export class Completion {
  /** @param {HTMLElement} root where fields are; `scope(element)` and `functions` say what there is */
  constructor(root, { scope, functions }) {
    Object.assign(this, { root, scope, functions });
    this.box = el("ul", { class: "completion", role: "listbox", id: "completion", hidden: true, "aria-label": t("What can be written here") });
    document.body.append(this.box);
    root.addEventListener("input", (event) => this.offer(event.target));
    root.addEventListener("click", (event) => { if (event.target.dataset?.expression !== undefined) this.offer(event.target); });
    root.addEventListener("keydown", (event) => this.key(event), true);
    root.addEventListener("focusout", () => this.close());
    root.addEventListener("scroll", () => this.close(), true);
  }

  offer(field) {
    if (field?.dataset?.expression === undefined || document.activeElement !== field) return this.close();
    const place = placeOf(field.value, field.selectionStart, field.dataset.condition !== undefined);
    if (!place) return this.close();
    const entries = this.entriesFor(place, field);
    if (!entries.length || (entries.length === 1 && entries[0].name === place.typed && !entries[0].more)) return this.close();
    this.field = field;
    this.place = place;
    this.entries = entries;
    this.at = 0;
    this.draw();
    return undefined;
  }

  entriesFor({ path, typed }, field) {
    let children = this.scope(field);
    let value;
    for (const part of path) {
      const found = children?.[part];
      if (!found) return [];
      children = found.children;
      value = found.value;
    }
    const wanted = typed.toLowerCase();
    const fits = (name) => name.toLowerCase().includes(wanted);
    const named = Object.entries(children ?? {}).filter(([name]) => fits(String(name))).map(([name, each]) => ({
      name: String(name), note: each.note, value: each.value, more: Object.keys(each.children ?? {}).length > 0, isIndex: Array.isArray(value),
    }));
    const begins = (entry) => (entry.name.toLowerCase().startsWith(wanted) ? 0 : 1);
    named.sort((a, b) => begins(a) - begins(b));
    if (path.length || !typed) return named.slice(0, MOST);
    const called = this.functions.filter((each) => each.name.startsWith(wanted)).map((each) => ({ name: each.name, note: each.title, signature: each.signature, call: true }));
    return [...named, ...called].slice(0, MOST);
  }

  draw() {
    this.box.replaceChildren(...this.entries.map((entry, index) => el("li", {
      id: `completion-${index}`, role: "option", "aria-selected": String(index === this.at),
      onpointerdown: (event) => { event.preventDefault(); this.at = index; this.take(); },
    }, el("code", {}, entry.signature ?? entry.name), el("span", { class: "note" }, entry.note ?? ""),
    entry.value !== undefined && !entry.call ? el("span", { class: "value" }, brief(entry.value)) : null)));
    const box = this.field.getBoundingClientRect();
    this.box.hidden = false;
    const width = Math.min(420, innerWidth - 16);
    this.box.style.width = `${width}px`;
    this.box.style.left = `${Math.max(8, Math.min(box.left, innerWidth - width - 8))}px`;
    const below = box.bottom + 4 + Math.min(240, this.box.scrollHeight) < innerHeight;
    this.box.style.top = below ? `${box.bottom + 4}px` : "auto";
    this.box.style.bottom = below ? "auto" : `${innerHeight - box.top + 4}px`;
    this.field.setAttribute("aria-controls", "completion");
    this.field.setAttribute("aria-activedescendant", `completion-${this.at}`);
    this.box.children[this.at]?.scrollIntoView({ block: "nearest" });
  }

  key(event) {
    if (this.box.hidden || event.target !== this.field) {
      if (event.key === " " && event.ctrlKey && event.target.dataset?.expression !== undefined) {
        event.preventDefault();
        this.offer(event.target);
      }
      return;
    }
    const move = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (move) this.at = (this.at + move + this.entries.length) % this.entries.length;
    else if (event.key === "Enter" || event.key === "Tab") this.take();
    else if (event.key === "Escape") this.close();
    else return;
    event.preventDefault();
    event.stopPropagation();
    if (move) this.draw();
  }

  take() {
    const entry = this.entries[this.at];
    const { field, place } = this;
    const at = field.selectionStart;
    let begin = place.cut;
    let text = entry.name;
    if (entry.isIndex) {
      text = `[${entry.name}]`;
      if (field.value[begin - 1] === ".") begin -= 1;
    } else if (!/^[A-Za-z_]\w*$/.test(entry.name)) {
      text = `['${entry.name.replaceAll("'", "''")}']`;
      if (field.value[begin - 1] === ".") begin -= 1;
    }
    if (entry.call) text += "(";
    else if (entry.more) text += ".";
    let rest = field.value.slice(at);
    let lead = "";
    if (field.dataset.condition === undefined) {
      if (!/^[^{]*}}/.test(rest)) rest = ` }}${rest}`;
      if (field.value.slice(0, begin).endsWith("{{")) lead = " ";
    }
    field.value = field.value.slice(0, begin) + lead + text + rest;
    const cursor = begin + lead.length + text.length;
    field.setSelectionRange(cursor, cursor);
    this.close();
    field.dispatchEvent(new Event("input", { bubbles: true }));
  }

  close() {
    if (this.box.hidden) return;
    this.box.hidden = true;
    this.field?.removeAttribute("aria-activedescendant");
    this.field?.removeAttribute("aria-controls");
  }
}

export function brief(value, length = 60) {
  const text = typeof value === "string" ? `'${value}'` : JSON.stringify(value) ?? "null";
  return text.length > length ? `${text.slice(0, length - 1)}…` : text;
}
