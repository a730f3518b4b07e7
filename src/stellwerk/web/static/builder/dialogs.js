// The windows over the canvas: connecting, JSON, running, simulating, publishing, keys.

import { brief } from "./completion.js";
import { button, el, icon } from "./dom.js";
import { field, showAny } from "./fields.js";
import { keyTable } from "./keyboard.js";
import { ask } from "./server.js";
import { t } from "./texts.js";

/** A window with a title; it closes by Escape, by its button and by a click beside it. */
export function openDialog(title, content, { actions = [], wide = false, back = null } = {}) {
  const dialog = el("dialog", { class: `window${wide ? " wide" : ""}`, "aria-label": title });
  const close = () => dialog.close();
  dialog.append(
    el("header", {}, el("h2", {}, title), el("span", { class: "grow" }), button("", close, { kind: "quiet small", symbol: "close", label: t("Close") })),
    el("div", { class: "in" }, content),
    el("div", { class: "refusals-here", role: "alert" }),
    el("footer", {}, actions.map((make) => (typeof make === "function" ? make(close, dialog) : make))));
  dialog.addEventListener("close", () => {
    // The event comes late: who has gone on meanwhile is not called back.
    const lost = document.activeElement === document.body || dialog.contains(document.activeElement);
    dialog.remove();
    if (lost) back?.focus();
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/** What was refused, at the place of the click. */
export function tellRefusal(dialog, error) {
  const place = dialog.querySelector(".refusals-here");
  place.replaceChildren(el("div", { class: "refusal" }, el("p", {}, error.message), error.hint ? el("p", { class: "small muted" }, error.hint) : null));
}

/** The keyboard's way to draw an edge. */
export function connectDialog(model, from, back) {
  const node = model.node(from);
  const ports = model.choosablePorts(node);
  const targets = model.nodes.filter((other) => !model.isTrigger(other) && other.id !== from);
  const free = ports.find((port) => !model.edgesFrom(from).some((edge) => (edge.port ?? "next") === port)) ?? ports[0];
  const port = el("select", { id: "connect-port", value: free }, ports.map((each) => el("option", { value: each }, each.replace(/^case:/, ""))));
  const to = el("select", { id: "connect-to", size: String(Math.min(10, Math.max(2, targets.length))) }, targets.map((each, index) =>
    el("option", { value: each.id, selected: index === 0 }, `${model.titleOf(each)} (${each.id})`)));
  let dialog;
  const go = () => {
    if (!to.value) return;
    model.connect(from, port.value, to.value);
    dialog.close();
  };
  to.addEventListener("keydown", (event) => { if (event.key === "Enter") { event.preventDefault(); go(); } });
  to.addEventListener("dblclick", go);
  dialog = openDialog(t("Connect {name}", { name: model.titleOf(node) }), targets.length
    ? el("div", { class: "stack" },
      el("div", { class: "field" }, el("label", { for: "connect-port" }, t("Leaves by")), port),
      el("div", { class: "field" }, el("label", { for: "connect-to" }, t("Leads to")), to))
    : el("p", {}, t("There is no other step yet.")),
  { actions: targets.length ? [() => button(t("Connect"), go, { kind: "primary" })] : [], back });
  (ports.length > 1 ? port : to).focus();
}

/** To a step by its name. */
export function goDialog(model, go) {
  const list = el("select", { id: "go-to", "aria-label": t("Step"), size: String(Math.min(12, Math.max(2, model.nodes.length))) }, model.nodes.map((each, index) =>
    el("option", { value: each.id, selected: index === 0 }, `${model.titleOf(each)} (${each.id})`)));
  const take = () => {
    dialog.close();
    if (list.value) go(list.value);
  };
  list.addEventListener("keydown", (event) => { if (event.key === "Enter") { event.preventDefault(); take(); } });
  list.addEventListener("dblclick", take);
  const dialog = openDialog(t("Go to a step"), list, { actions: [() => button(t("Go there"), take, { kind: "primary" })] });
  list.focus();
}

export function helpDialog(back) {
  openDialog(t("Keys"), el("dl", { class: "keys" }, keyTable().map(([keys, text]) => [el("dt", {}, el("kbd", {}, keys)), el("dd", {}, text)])), { back });
}

/** A payload: fields from the input schema, or JSON. Answers `{ element, read }`. */
export function payloadForm(schema, start) {
  let value = start && typeof start === "object" ? structuredClone(start) : start ?? {};
  const root = schema && schema.type === "object" && Object.keys(schema.properties ?? {}).length ? schema : null;
  const holder = el("div", { class: "stack" });
  let asJson = !root;
  let area = null;
  const plain = (part) => ({ ...part, literal: true });
  const draw = () => {
    area = null;
    if (asJson) {
      area = el("textarea", { class: "mono", rows: "12", spellcheck: "false", id: "payload-json", "aria-label": t("Payload in JSON") });
      area.value = JSON.stringify(value, null, 2);
      holder.replaceChildren(area);
    } else {
      const form = {
        root, names: {}, mayChange: true, again: draw,
        // The fields' ids begin with their path: "payload" keeps them apart from the inspector's.
        read: ([, ...path]) => path.reduce((found, part) => found?.[part], value),
        write: ([, ...path], next) => { put(value, path, next); },
      };
      holder.replaceChildren(...Object.entries(root.properties).map(([name, part]) => field(form, ["payload", name], plain(part), (root.required ?? []).includes(name))));
    }
    if (root) {
      holder.append(button(asJson ? t("As fields") : t("As JSON"), () => {
        try { value = read(); } catch { return; } // kept until it reads as JSON
        asJson = !asJson;
        draw();
      }, { kind: "quiet small" }));
    }
  };
  const read = () => (area ? JSON.parse(area.value.trim() || "{}") : value);
  draw();
  return { element: holder, read };
}

function put(target, path, value) {
  const [key, ...rest] = path;
  if (rest.length) put((target[key] ??= {}), rest, value);
  else if (value === undefined) delete target[key];
  else target[key] = value;
}

export function runDialog(model, { slug, active, isDraft, payload }) {
  const form = payloadForm(model.document.input_schema, payload);
  const dialog = openDialog(t("Start a run"), [
    active ? el("p", { class: "small muted" }, isDraft ? t("Version {version} runs, which is published; the draft does not.", { version: active }) : t("Version {version} runs.", { version: active }))
      : el("p", { class: "error" }, t("Nothing is published yet: a run needs a published version. Simulate runs the draft.")),
    form.element,
  ], {
    actions: [(close, window) => button(t("Start the run"), async (event) => {
      event.target.disabled = true;
      try {
        const run = await ask("POST", "/workflow-builder/api/run", { workflow_id: slug, payload: form.read(), wait: 0 });
        location.href = run.href;
      } catch (error) {
        event.target.disabled = false;
        tellRefusal(window, error);
      }
    }, { kind: "primary", symbol: "play", disabled: !active })],
  });
  return dialog;
}

const CHANGE = {
  node_added: "new", node_removed: "gone", node_renamed: "renamed", type_changed: "other type", field: "changed", expression: "changed",
  layout: "moved", edge_added: "connected", edge_removed: "disconnected", workflow: "changed", setting: "changed", input_schema: "changed",
};

/** One line for each change of `diff_versions`; places on the canvas are only counted. */
export function changeList(changes, titleOf = (id) => id) {
  const shown = changes.filter((change) => change.kind !== "layout");
  const moved = changes.length - shown.length;
  if (!changes.length) return el("p", { class: "muted" }, t("Nothing is different."));
  // A whole step that came or went is seen on the canvas.
  const told = (change, each) => (change.kind.startsWith("node_") && typeof each === "object" ? null : value(each));
  const value = (each) => (each === null || each === undefined ? el("span", { class: "muted" }, "–") : el("code", {}, typeof each === "string" ? each : brief(each, 300)));
  return [
    shown.length ? el("table", { class: "changes" }, el("tbody", {}, shown.map((change) => el("tr", { "data-change": change.kind },
      el("td", {}, el("span", { class: "tag" }, t(CHANGE[change.kind] ?? change.kind))),
      el("td", {}, el("b", {}, change.node_id ? titleOf(change.node_id) : t("Workflow")), change.was ? el("span", { class: "muted" }, ` (${t("before: {name}", { name: change.was })})`) : null,
        change.field ? [" ", el("code", { class: "small" }, change.field.replace(/^config\./, ""))] : null,
        el("div", { class: "before" }, told(change, change.before)), el("div", { class: "after" }, told(change, change.after))))))) : null,
    moved ? el("p", { class: "small muted" }, t("{number} places on the canvas have changed.", { number: moved })) : null,
  ];
}

export async function publishDialog(model, slug, onDone) {
  const found = await ask("GET", `/workflow-builder/${slug}/publishing`);
  const errors = model.problems.filter((problem) => problem.severity === "error").length;
  const live = found.live.reduce((sum, each) => sum + each.runs, 0);
  const content = [
    !found.isDraft ? el("p", {}, t("Version {version} is published, and nothing has changed since.", { version: found.version })) : null,
    errors ? el("p", { class: "error" }, t("{number} errors keep the draft from being published.", { number: errors })) : null,
    found.isDraft && !found.active ? el("p", {}, t("This is the first version. From now on it starts by:")) : null,
    found.isDraft && found.active ? [el("h3", {}, t("What changes from version {active} to version {version}", { active: found.active, version: found.version })), changeList(found.changes)] : null,
    found.isDraft && !found.active ? el("ul", {}, found.triggers.map((each) => el("li", {}, each.title, each.table ? [" ", el("code", {}, each.table)] : null))) : null,
    live ? el("div", { class: "why", "data-state": "waiting" }, icon("run"), el("div", {}, el("strong", {},
      live === 1 ? t("1 run is under way") : t("{number} runs are under way", { number: live >= 1000 ? `${live}+` : live })),
    el("div", { class: "small" }, found.live.map((each) => t("{number} with version {version}", { number: each.runs, version: each.version })).join(", "), ". ",
      t("They keep their version; new runs take the new one. Runs can be moved on the page of versions."))))
      : found.isDraft && found.active ? el("p", { class: "small muted" }, t("No run is under way.")) : null,
  ];
  const past = found.isDraft && found.active && !errors ? el("div", { class: "stack" }, button(t("Try it on past runs"), async (event) => {
    event.target.disabled = true;
    try {
      past.replaceChildren(...pastRuns(await ask("POST", `/api/workflows/${slug}/backtest`, { version: found.version })));
    } catch (error) {
      event.target.disabled = false;
      tellRefusal(event.target.closest("dialog"), error);
    }
  }, { symbol: "history" })) : null;
  openDialog(t("Publish"), [...content, past], {
    wide: true,
    actions: [(close, window) => button(t("Publish version {version}", { version: found.version }), async (event) => {
      event.target.disabled = true;
      try {
        const done = await ask("POST", `/workflow-builder/${slug}/publish`, { version: found.version });
        close();
        onDone(done);
      } catch (error) {
        event.target.disabled = false;
        tellRefusal(window, error);
      }
    }, { kind: "primary", disabled: !found.isDraft || errors > 0 })],
  });
}

/** What a draft would have made of runs that have ended: how many go the same way, and where the others part. */
function pastRuns(found) {
  const others = found.items.filter((each) => !each.same);
  return [
    el("p", {}, found.runs ? t("{same} of {runs} past runs would go the same way to the same output.", found) : t("No run has ended yet.")),
    others.length ? el("table", { class: "changes" }, el("tbody", {}, others.map((each) => el("tr", {},
      el("td", {}, el("a", { class: "link", href: `/runs/${each.run_id}`, target: "_blank" }, `#${each.run_id}`)),
      el("td", {}, el("code", {}, each.before), " → ", el("code", {}, each.after)),
      el("td", {}, each.parted_at ? t("other way at {node}", { node: each.parted_at }) : t("other output"), each.reason ? el("div", { class: "small muted" }, each.reason) : null))))) : null,
    el("p", { class: "small muted" }, t("Calls, tasks and waits gave what they gave then; nothing was done outside.")),
  ].filter(Boolean);
}

/** What is simulated with which payload; `go(payload, trigger, ports)` walks it. */
export function simulateDialog(model, payload, choices, go) {
  const form = payloadForm(model.document.input_schema, payload);
  const triggers = model.nodes.filter((node) => model.isTrigger(node));
  const trigger = triggers.length > 1 ? el("select", { id: "simulate-trigger" }, triggers.map((node) => el("option", { value: node.id }, model.titleOf(node)))) : null;
  const forks = model.nodes.filter((node) => !model.isTrigger(node) && !/^(logic\.(?!call|wait)|log\.)/.test(node.type)
    && model.portsOf(node).filter((port) => model.edgesFrom(node.id).some((edge) => (edge.port ?? "next") === port)).length > 1);
  const ports = new Map(forks.map((node) => {
    const used = model.portsOf(node).filter((port) => model.edgesFrom(node.id).some((edge) => (edge.port ?? "next") === port));
    return [node.id, el("select", { id: `simulate-${node.id}`, value: choices[node.id] ?? used[0] }, used.map((port) => el("option", { value: port }, port)))];
  }));
  openDialog(t("Simulate"), [
    el("p", { class: "small muted" }, t("Walks the draft with every effect off: calls, messages, rows, tasks and waits are replaced by examples, and nothing is kept.")),
    trigger ? el("div", { class: "field" }, el("label", { for: "simulate-trigger" }, t("Begins with")), trigger) : null,
    el("h3", {}, t("Payload")), form.element,
    ports.size ? [el("h3", {}, t("Which way others decide")), [...ports].map(([id, select]) => el("div", { class: "field" }, el("label", { for: `simulate-${id}` }, model.titleOf(model.node(id))), select))] : null,
  ], {
    actions: [(close, window) => button(t("Simulate"), async (event) => {
      event.target.disabled = true;
      try {
        await go(form.read(), trigger?.value, Object.fromEntries([...ports].map(([id, select]) => [id, select.value])));
        close();
      } catch (error) {
        tellRefusal(window, error);
      }
      event.target.disabled = false;
    }, { kind: "primary", symbol: "play" })],
  });
}

export { showAny };
