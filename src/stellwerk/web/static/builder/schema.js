// What a form asks for: fields with a name, a kind and a title, kept as JSON Schema. Schemas that say more are edited as JSON.

import { button, el } from "./dom.js";
import { t } from "./texts.js";

const KINDS = {
  text: { type: "string" },
  number: { type: "number" },
  integer: { type: "integer" },
  "yes or no": { type: "boolean" },
  date: { type: "string", format: "date" },
  time: { type: "string", format: "date-time" },
  email: { type: "string", format: "email" },
  choice: { type: "string", enum: [] },
};
const PLAIN = new Set(["type", "format", "title", "description", "enum", "default", "minLength", "maxLength", "minimum", "maximum"]);

function kindOf(property) {
  if (Array.isArray(property.enum)) return "choice";
  return Object.keys(KINDS).find((name) => KINDS[name].type === property.type && (KINDS[name].format ?? undefined) === property.format) ?? null;
}

function isPlain(schema) {
  if (schema === undefined || schema === null) return true;
  if (typeof schema !== "object" || Array.isArray(schema)) return false;
  if (Object.keys(schema).some((key) => !["type", "properties", "required", "additionalProperties", "title", "description"].includes(key))) return false;
  return Object.values(schema.properties ?? {}).every((property) => property && typeof property === "object"
    && kindOf(property) && Object.keys(property).every((key) => PLAIN.has(key)));
}

export function schemaEditor(form, path, id) {
  const schema = form.read(path);
  const asJson = form.asJson ?? (form.asJson = new Set());
  const key = path.join(".");
  const plain = isPlain(schema);
  const toggle = button(asJson.has(key) ? t("As fields") : t("As JSON"), () => {
    if (!asJson.delete(key)) asJson.add(key);
    form.again();
  }, { kind: "quiet small", disabled: !plain });
  if (!plain || asJson.has(key)) return el("div", { class: "rows" }, json(form, path, id), toggle);

  const properties = Object.entries(schema?.properties ?? {});
  const needed = new Set(schema?.required ?? []);
  const write = (made, required, typing) => {
    if (!made.length) return form.write(path, undefined, typing);
    const next = { ...(schema ?? {}), type: "object", properties: Object.fromEntries(made), required: [...required].filter((name) => made.some(([each]) => each === name)) };
    if (!next.required.length) delete next.required;
    return form.write(path, next, typing);
  };
  const change = (index, name, property) => properties.map((each, at) => (at === index ? [name, property] : each));

  const rows = properties.map(([name, property], index) => {
    const title = el("input", {
      value: property.title ?? "", "aria-label": t("Label"), placeholder: name, disabled: !form.mayChange, id: `${id}-title-${index}`,
      onchange: () => { write(change(index, name, { ...property, title: title.value || undefined }), needed); form.again(); },
    });
    const code = el("input", {
      value: name, class: "mono", "aria-label": t("Name"), disabled: !form.mayChange, spellcheck: "false", id: `${id}-name-${index}`,
      onchange: () => {
        const wanted = code.value.trim().replace(/\W+/g, "_");
        if (!wanted || properties.some(([each], at) => each === wanted && at !== index)) { code.value = name; return; }
        const required = new Set([...needed].map((each) => (each === name ? wanted : each)));
        write(change(index, wanted, property), required);
        form.again();
      },
    });
    const kind = el("select", {
      value: kindOf(property), "aria-label": t("Kind"), disabled: !form.mayChange, id: `${id}-kind-${index}`,
      onchange: () => {
        const { type, format, enum: values, ...kept } = property;
        write(change(index, name, { ...kept, ...structuredClone(KINDS[kind.value]), ...(kind.value === "choice" ? { enum: values ?? [t("first"), t("second")] } : {}) }), needed);
        form.again();
      },
    }, Object.keys(KINDS).map((each) => el("option", { value: each }, t(each))));
    const must = el("input", {
      type: "checkbox", checked: needed.has(name), disabled: !form.mayChange, id: `${id}-needed-${index}`,
      onchange: () => {
        const required = new Set(needed);
        if (must.checked) required.add(name); else required.delete(name);
        write(properties, required);
        form.again();
      },
    });
    const values = kindOf(property) === "choice" ? el("input", {
      value: property.enum.join(", "), "aria-label": t("Choices, separated by commas"), placeholder: t("Choices, separated by commas"), disabled: !form.mayChange, id: `${id}-choices-${index}`,
      onchange: () => {
        write(change(index, name, { ...property, enum: values.value.split(",").map((each) => each.trim()).filter(Boolean) }), needed);
        form.again();
      },
    }) : null;
    return el("div", { class: "item schema-row" }, title, code, kind, values,
      el("label", { class: "box" }, must, t("needed")),
      form.mayChange ? button("", () => { write(properties.filter((_, at) => at !== index), needed); form.again(); }, { kind: "quiet small", symbol: "close", label: t("Remove") }) : null);
  });
  const add = form.mayChange ? button(t("Add a field"), () => {
    let number = properties.length + 1;
    while (properties.some(([name]) => name === `field_${number}`)) number += 1;
    write([...properties, [`field_${number}`, { type: "string" }]], needed);
    form.again();
    document.getElementById(`${id}-title-${properties.length}`)?.focus();
  }, { kind: "quiet small", symbol: "plus" }) : null;
  return el("div", { class: "rows" }, rows, el("div", { class: "row" }, add, toggle));
}

function json(form, path, id) {
  const value = form.read(path);
  const area = el("textarea", {
    id, class: "mono", rows: "8", spellcheck: "false", disabled: !form.mayChange,
    oninput: () => {
      const text = area.value.trim();
      try {
        form.write(path, text ? JSON.parse(text) : undefined, true);
        area.setCustomValidity("");
      } catch (error) {
        area.setCustomValidity(error.message); // kept until it reads as JSON
      }
      area.classList.toggle("invalid", !area.checkValidity());
    },
  });
  area.value = value === undefined || value === null ? "" : JSON.stringify(value, null, 2);
  return area;
}
