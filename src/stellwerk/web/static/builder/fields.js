// Forms from JSON Schema: one editor for each shape that the settings of node types have.
//
// Every editor writes at its path and shows what is wrong below itself. Texts take {{ expressions }} unless the
// schema says `literal`; whatever cannot be drawn is edited as JSON.

import { button, el, icon } from "./dom.js";
import { durationField } from "./durations.js";
import { schemaEditor } from "./schema.js";
import { t } from "./texts.js";

const SUGGESTED = { table: "table", function: "function", workflow: "workflow", calendar: "calendar", source: "source", assignee: "user", role: "role" };

/**
 * What editors share.
 * @typedef {object} Form
 * @property {object} root the schema with its $defs
 * @property {(path: (string|number)[]) => unknown} read
 * @property {(path: (string|number)[], value: unknown, typing?: boolean) => void} write undefined takes the value out
 * @property {() => void} again draws the form anew, after rows have come or gone
 * @property {Record<string, string[]>} names
 * @property {boolean} mayChange
 */

export function pathText(path) {
  return path.map((part, index) => (typeof part === "number" ? `[${part}]` : `${index ? "." : ""}${part}`)).join("");
}

/** The schema behind $ref and beside null: `{ schema, optional, choices }`. */
export function resolve(schema, root) {
  if (schema.$ref) {
    const found = root.$defs?.[schema.$ref.split("/").at(-1)] ?? {};
    return resolve({ ...found, ...schema, $ref: undefined }, root);
  }
  if (!Array.isArray(schema.anyOf)) return { schema, optional: "default" in schema };
  const parts = schema.anyOf.filter((part) => part.type !== "null").map((part) => resolve(part, root).schema);
  const { anyOf, ...rest } = schema;
  const optional = parts.length < anyOf.length || "default" in schema;
  if (parts.length === 1) return { schema: { ...parts[0], ...rest }, optional };
  return { schema: rest, optional, choices: parts };
}

/** A label, the editor, help, the live value and what is wrong. */
export function field(form, path, given, required) {
  const { schema, choices, optional } = resolve(given, form.root);
  const name = path.at(-1);
  const id = `field-${path.join("-")}`;
  const text = pathText(path);
  const editor = editorFor(form, path, schema, choices, { id, required, optional });
  const isGroup = editor.group;
  const head = isGroup
    ? el("legend", {}, schema.title ?? String(name), required ? el("span", { class: "needed", title: t("needed") }, " *") : null)
    : el("label", { for: id }, schema.title ?? String(name), required ? el("span", { class: "needed", title: t("needed") }, " *") : null);
  const described = schema.description ? `${id}-help ${id}-error` : `${id}-error`;
  const control = editor.element.matches("input, select, textarea") ? editor.element : editor.element.querySelector("input, select, textarea");
  control?.setAttribute("aria-describedby", described);
  const bare = editor.element.matches("input[type=checkbox]");
  return el(isGroup ? "fieldset" : "div", { class: `field${bare ? " check" : ""}`, data: { path: text } },
    bare ? editor.element : null, head, bare ? null : editor.element,
    editor.expression ? el("div", { class: "live", data: { live: text }, hidden: true }) : null,
    schema.description ? el("p", { class: "help", id: `${id}-help` }, schema.description) : null,
    el("div", { class: "error", id: `${id}-error`, data: { error: text }, role: "status" }));
}

function editorFor(form, path, schema, choices, wishes) {
  const value = form.read(path);
  const literal = Boolean(schema.literal);
  if (choices) return oneOf(form, path, schema, choices, wishes);
  if (schema.condition) return { element: textarea(form, path, wishes, { condition: true }), expression: true };
  if (schema.schema) return { element: schemaEditor(form, path, wishes.id), group: true };
  const isExpression = !literal && typeof value === "string" && value.includes("{{");
  if (schema.duration && !isExpression) return { element: durationField(form, path, schema, wishes) };
  if (schema.enum && !isExpression) return { element: choice(form, path, schema, wishes) };
  if (schema.type === "boolean" && !isExpression) return { element: checkbox(form, path, schema, wishes) };
  if (schema.type === "array" && !isExpression) return { element: list(form, path, schema), group: true };
  if (schema.type === "object" && schema.properties && !isExpression) return { element: nested(form, path, schema), group: true };
  if (schema.type === "object" && !isExpression) return { element: pairs(form, path, literal), group: true, expression: false };
  if (schema.type === "integer" || schema.type === "number") return { element: number(form, path, schema, wishes, literal), expression: !literal };
  if (schema.type === undefined) return { element: anything(form, path, wishes, literal), expression: !literal };
  if (schema.widget === "textarea") return { element: textarea(form, path, wishes, { literal }), expression: !literal };
  return { element: line(form, path, schema, wishes, literal), expression: !literal };
}

const empty = (text) => (text === "" ? undefined : text);

function mark(element, path, literal, condition = false) {
  if (literal) return element;
  element.dataset.expression = pathText(path);
  if (condition) element.dataset.condition = "";
  element.autocomplete = "off";
  element.spellcheck = false;
  return element;
}

function line(form, path, schema, { id, required }, literal) {
  const kind = SUGGESTED[path.at(-1)];
  const names = literal || kind === "user" || kind === "role" || kind === "calendar" ? form.names[kind] : null;
  const value = form.read(path);
  const input = el("input", {
    id, value: typeof value === "string" ? value : value === undefined || value === null ? "" : JSON.stringify(value), required,
    placeholder: typeof schema.default === "string" ? schema.default : null, maxlength: schema.maxLength ?? null,
    disabled: !form.mayChange, list: names?.length ? `${id}-names` : null,
    oninput: () => form.write(path, empty(input.value), true),
  });
  mark(input, path, literal);
  if (!names?.length) return input;
  return el("div", {}, input, el("datalist", { id: `${id}-names` }, names.map((name) => el("option", { value: name }))));
}

function textarea(form, path, { id, required }, { condition = false, literal = false } = {}) {
  const value = form.read(path);
  const shown = typeof value === "string" ? value : value === undefined || value === null ? "" : JSON.stringify(value, null, 2);
  const area = el("textarea", {
    id, required, rows: String(Math.min(12, Math.max(condition ? 2 : 3, shown.split("\n").length))), class: condition ? "mono" : null, disabled: !form.mayChange,
    oninput: () => form.write(path, empty(area.value), true),
  });
  area.value = shown;
  return mark(area, path, literal, condition);
}

function number(form, path, schema, { id, required }, literal) {
  const value = form.read(path);
  const input = el("input", {
    id, value: value === undefined || value === null ? "" : String(value), inputmode: "decimal", required, disabled: !form.mayChange,
    placeholder: schema.default === undefined || schema.default === null ? null : String(schema.default),
    oninput: () => form.write(path, /^-?\d+(\.\d+)?$/.test(input.value.trim()) ? Number(input.value) : empty(input.value), true),
  });
  return mark(input, path, literal);
}

function checkbox(form, path, schema, { id }) {
  const value = form.read(path);
  const input = el("input", {
    id, type: "checkbox", checked: value ?? schema.default ?? false, disabled: !form.mayChange,
    onchange: () => form.write(path, input.checked === (schema.default ?? false) ? undefined : input.checked),
  });
  return input;
}

function choice(form, path, schema, { id, required }) {
  const value = form.read(path);
  const options = schema.enum.map((each) => el("option", { value: each }, t(String(each))));
  const unset = schema.default === undefined || schema.default === null;
  if (unset) options.unshift(el("option", { value: "" }, required ? t("Please choose") : "–"));
  if (typeof value === "string" && !schema.enum.includes(value)) options.push(el("option", { value }, value));
  const select = el("select", {
    id, required, value: value ?? schema.default ?? "", disabled: !form.mayChange,
    onchange: () => form.write(path, select.value === "" || select.value === schema.default ? undefined : select.value),
  }, options);
  return select;
}

/** Text as it is; whatever reads as JSON is JSON. Texts that would read as JSON are shown in quotes. */
export function showAny(value) {
  if (value === undefined || value === null) return "";
  if (typeof value !== "string") return JSON.stringify(value, null, 2);
  return readsAsJson(value) ? JSON.stringify(value) : value;
}

export function readAny(text) {
  const trimmed = text.trim();
  if (trimmed === "") return undefined;
  return readsAsJson(trimmed) ? JSON.parse(trimmed) : text;
}

function readsAsJson(text) {
  if (!/^\s*([[{"\d-]|true|false|null)/.test(text) || text.trim().startsWith("{{")) return false;
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

function anything(form, path, { id, required }, literal) {
  const shown = showAny(form.read(path));
  const area = el("textarea", {
    id, required, rows: String(Math.min(14, Math.max(1, shown.split("\n").length))), disabled: !form.mayChange, class: shown.startsWith("{") || shown.startsWith("[") ? "mono" : null,
    placeholder: literal ? null : t("Text, {{ expression }} or JSON"), oninput: () => form.write(path, readAny(area.value), true),
  });
  area.value = shown;
  return mark(area, path, literal);
}

function removeButton(form, act) {
  return form.mayChange ? button("", act, { kind: "quiet small", symbol: "close", label: t("Remove") }) : null;
}

function list(form, path, schema) {
  const items = schema.items ?? {};
  // Read anew by every button: what has been typed since the form was drawn is kept.
  const read = () => {
    const value = form.read(path);
    return Array.isArray(value) ? value : value === undefined || value === null ? [] : [value];
  };
  const entries = read();
  const inner = resolve(items, form.root);
  if (inner.schema.enum) return boxes(form, path, inner.schema, entries);
  const isObject = inner.schema.type === "object";
  const rows = entries.map((_, index) => {
    const at = [...path, index];
    const away = removeButton(form, () => {
      const left = read().filter((_, other) => other !== index);
      form.write(path, left.length ? left : undefined);
      form.again();
    });
    if (isObject) {
      const up = index && form.mayChange ? button("", () => {
        const moved = [...read()];
        [moved[index - 1], moved[index]] = [moved[index], moved[index - 1]];
        form.write(path, moved);
        form.again();
      }, { kind: "quiet small", symbol: "up", label: t("Further up") }) : null;
      return el("div", { class: "item" }, el("div", { class: "item-head" }, el("span", { class: "tag" }, String(index + 1)), el("span", { class: "grow" }), up, away), nested(form, at, inner.schema));
    }
    const { element } = editorFor(form, at, { ...inner.schema, literal: schema.literal ?? inner.schema.literal }, inner.choices, { id: `field-${at.join("-")}` });
    element.setAttribute("aria-label", `${schema.title ?? path.at(-1)} ${index + 1}`);
    return el("div", { class: "pair one" }, element, away);
  });
  const add = form.mayChange ? button(t("Add"), () => {
    form.write(path, [...read(), isObject ? {} : ""]);
    form.again();
    document.getElementById(`field-${[...path, entries.length].join("-")}${isObject ? `-${Object.keys(inner.schema.properties)[0]}` : ""}`)?.focus();
  }, { kind: "quiet small", symbol: "plus" }) : null;
  return el("div", { class: "rows" }, rows, add);
}

function boxes(form, path, schema, entries) {
  const given = form.read(path) === undefined ? null : entries;
  return el("div", { class: "boxes" }, schema.enum.map((each) => {
    const box = el("input", {
      type: "checkbox", checked: (given ?? [schema.enum[0]]).includes(each), disabled: !form.mayChange,
      onchange: () => form.write(path, schema.enum.filter((other, index) => box.parentElement.parentElement.querySelectorAll("input")[index].checked)),
    });
    return el("label", { class: "box" }, box, t(each));
  }));
}

function nested(form, path, schema) {
  const required = schema.required ?? [];
  return el("div", { class: "nested" }, Object.entries(schema.properties ?? {}).map(([name, part]) =>
    field(form, [...path, name], part, required.includes(name))));
}

/** Names and values: columns of a row, headers, variables. */
function pairs(form, path, literal) {
  // Read anew by every button and name, as in lists.
  const read = () => {
    const value = form.read(path);
    return Object.entries(value && typeof value === "object" && !Array.isArray(value) ? value : {});
  };
  const entries = read();
  const write = (made, typing) => form.write(path, made.length ? Object.fromEntries(made) : undefined, typing);
  const rows = entries.map(([name, each], index) => {
    const key = el("input", {
      value: name, class: "mono", "aria-label": t("Name"), disabled: !form.mayChange, spellcheck: "false", id: `field-${path.join("-")}-name-${index}`,
      onchange: () => {
        const wanted = key.value.trim();
        if (!wanted || (wanted !== name && read().some(([other]) => other === wanted))) {
          key.value = name;
          return;
        }
        write(read().map(([other, kept], at) => (at === index ? [wanted, kept] : [other, kept])));
        form.again();
      },
    });
    const content = anything(form, [...path, name], { id: `field-${path.join("-")}-value-${index}` }, literal);
    content.setAttribute("aria-label", t("Value of {name}", { name }));
    return el("div", { class: "pair", data: { path: pathText([...path, name]) } }, key, content, removeButton(form, () => {
      write(read().filter((_, at) => at !== index));
      form.again();
    }),
    literal ? null : el("div", { class: "live", data: { live: pathText([...path, name]) }, hidden: true }),
    el("div", { class: "error", data: { error: pathText([...path, name]) } }));
  });
  const add = form.mayChange ? button(t("Add"), () => {
    let number = entries.length + 1;
    while (entries.some(([name]) => name === `name_${number}`)) number += 1;
    write([...read(), [`name_${number}`, ""]]);
    form.again();
    const fresh = document.getElementById(`field-${path.join("-")}-name-${entries.length}`);
    fresh?.focus();
    fresh?.select();
  }, { kind: "quiet small", symbol: "plus" }) : null;
  return el("div", { class: "rows" }, rows, add);
}

/** Several shapes: a text, or an object of its own. */
function oneOf(form, path, schema, choices, wishes) {
  const value = form.read(path);
  const objects = choices.filter((each) => each.type === "object");
  const lists = choices.filter((each) => each.type === "array");
  const asObject = objects.length && value && typeof value === "object" && !Array.isArray(value);
  const asList = lists.length && Array.isArray(value);
  const text = choices.find((each) => each.type === "string") ?? {};
  const literal = Boolean(schema.literal);
  let inner;
  if (asObject) inner = nested(form, path, objects[0]);
  else if (asList) inner = list(form, path, { ...lists[0], title: schema.title, literal });
  else inner = line(form, path, text, wishes, literal);
  const kind = el("select", {
    class: "kind-of", id: `${wishes.id}-given`, "aria-label": t("How it is given"), value: asObject ? "object" : asList ? "array" : "string", disabled: !form.mayChange,
    onchange: () => {
      form.write(path, kind.value === "object" ? Object.fromEntries((objects[0].required ?? []).map((name) => [name, ""])) : kind.value === "array" ? [] : undefined);
      form.again();
    },
  },
  el("option", { value: "string" }, t("a value")),
  objects.length ? el("option", { value: "object" }, t("from a row")) : null,
  lists.length ? el("option", { value: "array" }, t("a list")) : null);
  return { element: el("div", { class: "one-of" }, kind, inner), expression: !asObject && !asList && !literal, group: Boolean(asObject || asList) };
}
