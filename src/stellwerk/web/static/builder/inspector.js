// The form of whatever is chosen: a node, several, an edge, or the workflow itself.

import { button, el, nodeIcon } from "./dom.js";
import { durationField } from "./durations.js";
import { field, resolve } from "./fields.js";
import { schemaEditor } from "./schema.js";
import { t } from "./texts.js";

const ON_ERROR = { fail: "end the run as failed", continue: "go on by next", route: "leave by the port error" };

export class Inspector {
  constructor(root, model, { names, settingsSchema, mayChange, actions }) {
    Object.assign(this, { root, model, names, settingsSchema, mayChange, actions });
    this.own = false; // whether a change comes from this form, which then need not be drawn anew
    this.open = new Set();
    this.asJson = new Set();
    model.addEventListener("selection", () => this.draw());
    model.addEventListener("change", ({ detail }) => { if (!this.own || detail.whole) this.draw(); });
    model.addEventListener("judged", () => this.tellProblems());
  }

  draw() {
    const focused = document.activeElement?.id;
    const within = this.root.contains(document.activeElement);
    const scroll = this.root.scrollTop;
    const node = this.model.chosen;
    const same = this.drawn === (node?.id ?? null);
    this.drawn = node?.id ?? null;
    let content;
    if (node) content = this.nodeForm(node);
    else if (this.model.selection.size > 1) content = this.many();
    else if (this.model.edge) content = this.edgeForm(this.model.edge);
    else content = this.workflowForm();
    this.root.replaceChildren(...content.flat(Infinity).filter(Boolean));
    if (same) this.root.scrollTop = scroll;
    if (within && focused) document.getElementById(focused)?.focus();
    this.tellProblems();
    this.root.dispatchEvent(new Event("drawn"));
  }

  /** Changes made by a field while one types leave the form as it is. */
  write(id, path, value, typing) {
    this.own = true;
    const key = typing ? `${id}:${path.join(".")}` : null;
    if (id === null) this.model.setDocument(path, value, key);
    else this.model.set(id, path, value, key);
    this.own = false;
  }

  formOver(id, base, root) {
    const target = () => (id === null ? this.model.document : this.model.node(id));
    return {
      root, names: this.names, mayChange: this.mayChange, asJson: this.asJson,
      read: (path) => path.reduce((value, part) => (value === null || value === undefined ? undefined : value[part]), target()),
      write: (path, value, typing) => this.write(id, path, value, typing),
      again: () => this.draw(),
      base,
    };
  }

  // -- a node -----------------------------------------------------------------------------------------------------

  nodeForm(node) {
    const kind = this.model.kind(node);
    const form = this.formOver(node.id, ["config"], kind?.schema ?? {});
    const required = kind?.schema.required ?? [];
    const settings = kind
      ? Object.entries(kind.schema.properties ?? {}).map(([name, part]) => field(form, ["config", name], part, required.includes(name)))
      : [this.unknown(node, form)];
    return [
      el("header", { class: "inspector-head" },
        el("span", { class: "badge" }, nodeIcon(kind?.icon ?? "plug")),
        el("div", {}, el("h2", {}, this.model.titleOf(node)),
          el("div", { class: "small muted" }, !kind ? `${t("unknown node type")} ` : kind.title !== this.model.titleOf(node) ? `${kind.title} ` : "", el("code", { class: "tag" }, node.type)))),
      kind ? el("p", { class: "help" }, kind.description) : null,
      el("div", { class: "error", data: { error: "" } }),
      this.plain(form, ["name"], t("Name"), { placeholder: kind?.title ?? node.id }),
      settings,
      this.connections(node),
      this.section("behaviour", t("Errors, time limit, repetition"), this.behaviour(node, kind, form), ["on_error", "timeout", "retry", "compensate", "max_visits"].some((key) => key in node)),
      this.section("identity", t("Id and description"), this.identity(node, form), false),
      this.mayChange ? el("div", { class: "row" },
        button(t("Duplicate"), () => this.actions.duplicate(), { kind: "small", symbol: "copy" }),
        button(t("Delete"), () => this.actions.remove(), { kind: "small danger", symbol: "trash" })) : null,
    ];
  }

  plain(form, path, title, { placeholder, area = false, help, mono } = {}) {
    const id = `field-${path.join("-")}`;
    const input = el(area ? "textarea" : "input", {
      id, placeholder, rows: area ? "3" : null, class: mono ? "mono" : null, disabled: !this.mayChange, autocomplete: "off",
      value: String(form.read(path) ?? ""),
      oninput: () => form.write(path, input.value === "" ? undefined : input.value, true),
    });
    return el("div", { class: "field" }, el("label", { for: id }, title), input, help ? el("p", { class: "help" }, help) : null,
      el("div", { class: "error", data: { error: path.join(".") } }));
  }

  unknown(node, form) {
    const area = el("textarea", {
      id: "field-config", class: "mono", rows: "10", spellcheck: "false", disabled: !this.mayChange,
      oninput: () => {
        try {
          form.write(["config"], area.value.trim() ? JSON.parse(area.value) : undefined, true);
          area.classList.remove("invalid");
        } catch {
          area.classList.add("invalid"); // kept until it reads as JSON
        }
      },
    });
    area.value = node.config === undefined ? "" : JSON.stringify(node.config, null, 2);
    return el("div", { class: "field" }, el("label", { for: "field-config" }, t("Settings in JSON")), area,
      el("p", { class: "help" }, t("This node type is not installed here; what the document says of it is kept.")));
  }

  section(key, title, content, open) {
    const details = el("details", { class: "section", open: open || this.open.has(key), ontoggle: () => {
      if (details.open) this.open.add(key); else this.open.delete(key);
    } }, el("summary", {}, title), content);
    return details;
  }

  connections(node) {
    const name = (id) => this.model.titleOf(this.model.node(id));
    const go = (id) => el("button", { type: "button", class: "as-link", onclick: () => this.actions.goTo(id) }, name(id));
    const away = (edge, label) => (this.mayChange
      ? button("", () => this.model.disconnect(edge), { kind: "quiet small", symbol: "close", label }) : null);
    const out = this.model.edgesFrom(node.id).map((edge) => el("li", {},
      el("code", { class: "tag" }, (edge.port ?? "next").replace(/^case:/, "")), " → ", go(edge.to), el("span", { class: "grow" }), away(edge, t("Remove the connection to {name}", { name: name(edge.to) }))));
    const into = this.model.edgesTo(node.id).map((edge) => el("li", {},
      el("span", { class: "muted" }, t("from")), " ", go(edge.from), " ", el("code", { class: "tag" }, (edge.port ?? "next").replace(/^case:/, "")), el("span", { class: "grow" }), away(edge, t("Remove the connection from {name}", { name: name(edge.from) }))));
    return el("section", { class: "connections" }, el("h3", {}, t("Connections")),
      out.length || into.length ? el("ul", {}, into, out) : el("p", { class: "small muted" }, t("This step is connected to nothing yet.")),
      this.mayChange && this.model.choosablePorts(node).length
        ? button(t("Connect to …"), () => this.actions.connect(node.id), { kind: "small", symbol: "link", title: "C" }) : null);
  }

  behaviour(node, kind, form) {
    if (this.model.isTrigger(node)) return el("p", { class: "small muted" }, t("A trigger only starts runs."));
    const select = (path, title, options, fallback, help) => {
      const id = `field-${path.join("-")}`;
      const input = el("select", { id, value: form.read(path) ?? fallback, disabled: !this.mayChange, onchange: () => {
        form.write(path, input.value === fallback ? undefined : input.value);
      } }, options.map(([value, text]) => el("option", { value }, text)));
      return el("div", { class: "field" }, el("label", { for: id }, title), input, help ? el("p", { class: "help" }, help) : null, el("div", { class: "error", data: { error: path.join(".") } }));
    };
    const count = (path, title, placeholder, help) => {
      const id = `field-${path.join("-")}`;
      const input = el("input", { id, value: form.read(path) ?? "", inputmode: "numeric", placeholder, disabled: !this.mayChange, oninput: () => {
        const text = input.value.trim();
        form.write(path, /^\d+(\.\d+)?$/.test(text) ? Number(text) : text || undefined, true);
      } });
      return el("div", { class: "field" }, el("label", { for: id }, title), input, help ? el("p", { class: "help" }, help) : null, el("div", { class: "error", data: { error: path.join(".") } }));
    };
    const length = (path, title, fallback) => el("div", { class: "field" }, el("label", { for: `field-${path.join("-")}` }, title),
      durationField(form, path, { default: fallback }, { id: `field-${path.join("-")}` }), el("div", { class: "error", data: { error: path.join(".") } }));
    const others = this.model.nodes.filter((other) => other.id !== node.id && !this.model.isTrigger(other));
    return el("div", { class: "stack" },
      select(["on_error"], t("When it fails"), [["", t("as usual")], ...Object.entries(ON_ERROR).map(([value, text]) => [value, t(text)])], "",
        t("As usual: it leaves by the port error where an edge leads on, else the run fails.")),
      kind?.runsIn === "worker" || kind?.runsIn === "sql" ? [
        length(["timeout"], t("Time limit of one attempt"), kind.timeout ?? undefined),
        count(["retry", "max_attempts"], t("Attempts"), String(kind.maxAttempts)),
        length(["retry", "interval"], t("Pause before the second attempt"), "PT2S"),
        count(["retry", "backoff"], t("Each further pause is longer by"), "2"),
        length(["retry", "max_interval"], t("Longest pause"), "PT5M"),
      ] : null,
      select(["compensate"], t("Undone by"), [["", "–"], ...others.map((other) => [other.id, this.model.titleOf(other)])], "",
        t("The step that takes this one back when the run is cancelled with compensation or fails.")),
      count(["max_visits"], t("At most so many visits"), "1000"));
  }

  identity(node, form) {
    const input = el("input", { id: "field-id", value: node.id, class: "mono", spellcheck: "false", disabled: !this.mayChange, onchange: () => {
      if (!this.model.rename(node.id, input.value.trim())) {
        input.value = this.model.chosen?.id ?? node.id;
      }
    } });
    return el("div", { class: "stack" },
      el("div", { class: "field" }, el("label", { for: "field-id" }, t("Id")), input,
        el("p", { class: "help" }, t("Expressions read steps.{id}.output; they follow when the id changes.", { id: node.id })), el("div", { class: "error", data: { error: "id" } })),
      this.plain(form, ["description"], t("Description"), { area: true }));
  }

  // -- the others -------------------------------------------------------------------------------------------------

  many() {
    return [
      el("header", { class: "inspector-head" }, el("h2", {}, t("{number} steps chosen", { number: this.model.selection.size }))),
      this.mayChange ? el("div", { class: "row" },
        button(t("Tidy up"), () => this.actions.tidy(), { kind: "small", symbol: "tidy" }),
        button(t("Duplicate"), () => this.actions.duplicate(), { kind: "small", symbol: "copy" }),
        button(t("Delete"), () => this.actions.remove(), { kind: "small danger", symbol: "trash" })) : null,
      el("p", { class: "help" }, t("Shift with an arrow key moves them.")),
    ];
  }

  edgeForm(edge) {
    const name = (id) => this.model.titleOf(this.model.node(id));
    return [
      el("header", { class: "inspector-head" }, el("h2", {}, t("Connection"))),
      el("p", {}, name(edge.from), " ", el("code", { class: "tag" }, edge.port ?? "next"), " → ", name(edge.to)),
      this.mayChange ? el("div", { class: "row" },
        button(t("Insert a step here"), () => this.actions.insert(edge), { kind: "small", symbol: "plus" }),
        button(t("Delete"), () => this.model.disconnect(edge), { kind: "small danger", symbol: "trash" })) : null,
    ];
  }

  workflowForm() {
    const form = this.formOver(null, [], this.settingsSchema);
    return [
      el("header", { class: "inspector-head" }, el("h2", {}, t("Workflow")), el("span", { class: "grow" }), el("code", { class: "tag" }, this.model.document.slug ?? "")),
      el("div", { class: "error", data: { error: "" } }),
      this.plain(form, ["name"], t("Name")),
      this.plain(form, ["description"], t("Description"), { area: true }),
      el("fieldset", { class: "field" }, el("legend", {}, t("Input")), schemaEditor(form, ["input_schema"], "field-input_schema"),
        el("p", { class: "help" }, t("What a payload must look like; the form of Run is made from it.")), el("div", { class: "error", data: { error: "input_schema" } })),
      this.section("settings", t("Limits and times"), Object.entries(this.settingsSchema.properties).map(([name, part]) => field(form, ["settings", name], part, false)),
        Object.keys(this.model.document.settings ?? {}).length > 0),
      el("p", { class: "help" }, t("Choose a step to see its settings; drag one in from the left, or press / and type.")),
    ];
  }

  // -- problems ---------------------------------------------------------------------------------------------------

  /** Each problem below the field that it is about, or as near as there is one. */
  tellProblems() {
    const slots = new Map([...this.root.querySelectorAll("[data-error]")].map((slot) => [slot.dataset.error, slot]));
    for (const slot of slots.values()) slot.replaceChildren();
    for (const each of this.root.querySelectorAll("[aria-invalid]")) each.removeAttribute("aria-invalid");
    const node = this.model.chosen;
    if (!node && (this.model.selection.size || this.model.edge)) return;
    const problems = node ? this.model.problemsOf(node.id) : this.model.problems.filter((problem) => !problem.node && !/^(edges|nodes|steps)\b/.test(problem.path));
    for (const problem of problems) {
      let path = node ? problem.path.replace(/^(nodes|steps)\[\d+\]\.?/, "") : problem.path;
      while (path && !slots.has(path)) path = path.replace(/(\.[^.[\]]+|\[\d+\]|^[^.[\]]+)$/, "");
      const slot = slots.get(path) ?? slots.get("");
      if (!slot) continue;
      slot.append(el("p", { class: problem.severity === "error" ? "" : "warning" }, problem.message, problem.hint ? el("span", { class: "hint" }, ` ${problem.hint}`) : null));
      slot.closest(".field, .pair")?.querySelector("input, select, textarea")?.setAttribute("aria-invalid", "true");
      const details = slot.closest("details");
      if (details) details.open = true;
    }
  }

  /** Puts the cursor where a problem is. */
  focusProblem(problem) {
    const path = problem.path.replace(/^(nodes|steps)\[\d+\]\.?/, "");
    const target = this.root.querySelector(`[data-expression="${CSS.escape(path)}"]`)
      ?? [...this.root.querySelectorAll("[data-path]")].filter((each) => path.startsWith(each.dataset.path)).at(-1)?.querySelector("input, select, textarea");
    if (!target) return this.focus();
    target.focus();
    if (problem.position !== null && problem.position !== undefined && target.setSelectionRange) target.setSelectionRange(problem.position, problem.position);
    return undefined;
  }

  focus() {
    this.root.querySelector("[data-path] input, [data-path] select, [data-path] textarea, input, textarea, select")?.focus();
  }
}

export { resolve };
