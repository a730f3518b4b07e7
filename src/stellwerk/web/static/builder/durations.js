// Lengths of time: a number and a unit; anything else in ISO 8601 as it is written.

import { el } from "./dom.js";
import { t } from "./texts.js";

const UNITS = { S: "seconds", M: "minutes", H: "hours", D: "days", W: "weeks" };

function read(text) {
  const found = /^P(?:T(\d+)([SMH])|(\d+)([DW]))$/.exec(text ?? "");
  if (!found) return null;
  return { count: found[1] ?? found[3], unit: found[2] ?? found[4] };
}

function write(count, unit) {
  return "SMH".includes(unit) ? `PT${count}${unit}` : `P${count}${unit}`;
}

export function durationField(form, path, schema, { id, required }) {
  const value = form.read(path);
  const usual = read(typeof schema.default === "string" ? schema.default : null);
  const simple = value === undefined || value === null || value === "" ? { count: "", unit: usual?.unit ?? "H" } : read(value);
  const raw = !simple;
  const input = el("input", {
    id, required, value: raw ? String(value) : simple.count, inputmode: raw ? null : "numeric", disabled: !form.mayChange,
    placeholder: usual?.count ?? null, class: "mono",
  });
  const unit = el("select", { "aria-label": t("Unit"), value: raw ? "" : simple.unit, disabled: !form.mayChange },
    Object.entries(UNITS).map(([key, name]) => el("option", { value: key }, t(name))), el("option", { value: "" }, "ISO 8601 / {{ }}"));
  const tell = (typing) => {
    const text = input.value.trim();
    if (!text) form.write(path, undefined, typing);
    else if (unit.value && /^\d+$/.test(text)) form.write(path, write(text, unit.value), typing);
    else {
      unit.value = "";
      form.write(path, text, typing);
    }
  };
  input.addEventListener("input", () => tell(true));
  unit.addEventListener("change", () => tell(false));
  input.dataset.expression = path.map(String).join(".");
  return el("div", { class: "duration" }, input, unit);
}
