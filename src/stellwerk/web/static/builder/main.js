// The builder of one workflow: everything put together. What the server knows stands in the page as JSON.

import { Canvas } from "./canvas.js";
import { Completion, scopeOf } from "./completion.js";
import { connectDialog, goDialog, helpDialog, openDialog, publishDialog, runDialog, simulateDialog } from "./dialogs.js";
import { button, debounce, el, icon, useSprites } from "./dom.js";
import { edgeAt, giveHands } from "./hands.js";
import { Inspector } from "./inspector.js";
import { download, jsonDialog } from "./json_view.js";
import { giveKeys } from "./keyboard.js";
import { addMinimap } from "./minimap.js";
import { Model } from "./model.js";
import { paletteList, palettePopup } from "./palette.js";
import { ask } from "./server.js";
import { showSimulation } from "./simulation.js";
import { problemCount, t, useTexts } from "./texts.js";
import { Values } from "./values.js";

const data = JSON.parse(document.getElementById("builder").dataset.page);
useSprites(data.icons, data.nodeIcons);
useTexts(data.texts);

const at = (id) => document.getElementById(id);
const { slug } = data;
const mayChange = data.may.design;
const model = new Model(data.document, data.palette);
const canvas = new Canvas(at("canvas"), model);
const state = { tag: data.tag, active: data.active, isDraft: data.isDraft, version: data.version, unsaved: false, saving: null, payload: null };

// -- actions: each has its button, its key, or both ---------------------------------------------------------------

const actions = {
  remove() {
    if (model.edge) model.disconnect(model.edge);
    else model.remove(model.selection);
    canvas.root.focus();
  },
  duplicate() {
    if (model.selection.size) model.paste(model.copy(model.selection));
  },
  tidy() {
    const places = canvas.tidied();
    // A part is tidied where it stands.
    const part = model.selection.size > 1 ? model.selection : null;
    model.move(new Map([...places].filter(([id]) => !part || part.has(id))));
    if (!part) canvas.fit();
  },
  open() {
    inspector.focus();
  },
  goTo(id) {
    model.select([id]);
    canvas.reveal(id);
    canvas.root.focus();
  },
  search() {
    at("palette").classList.add("opened");
    palette.search.focus();
    palette.search.select();
  },
  add() {
    const box = canvas.root.getBoundingClientRect();
    palettePopup(data.palette, { x: box.left + box.width / 2 - 150, y: box.top + 60 }, (type) => actions.append(type), { triggers: true });
  },
  /** Behind the chosen step where one is chosen and has a way out that leads nowhere; else at a free place. */
  append(type) {
    const kind = data.palette.find((each) => each.type === type);
    const node = model.chosen ?? (model.selection.size ? null : lastNode());
    const port = node && kind?.runsIn !== "trigger" ? freePort(node) : null;
    const card = node && canvas.cards.get(node.id);
    const spot = canvas.freeSpot(card ? { x: card.x + 270, y: card.y } : middle());
    const id = model.addNode(type, spot, port ? { from: node.id, port } : {});
    canvas.reveal(id);
    canvas.root.focus();
  },
  connect: (id) => connectDialog(model, id, canvas.root),
  insert(edge) {
    const line = canvas.tools.getBoundingClientRect();
    palettePopup(data.palette, { x: line.left, y: line.bottom }, (type) => insertInto(edge, type));
  },
  find: () => goDialog(model, actions.goTo),
  help: () => helpDialog(canvas.root),
  workflow() {
    model.select([]);
    inspector.focus();
  },
  // The head's buttons, where they are there and may be pressed.
  check: () => checking.click(),
  simulate: () => simulating.click(),
  run: () => running?.click(),
  publish: () => publishing.click(),
  nextProblem() {
    if (!model.problems.length) return;
    state.problem = ((state.problem ?? -1) + 1) % model.problems.length;
    showProblem(model.problems[state.problem]);
  },
  save: () => save.now(),
};

function lastNode() {
  return model.nodes.filter((node) => freePort(node)).at(-1) ?? null;
}

function freePort(node) {
  const used = new Set(model.edgesFrom(node.id).map((edge) => edge.port ?? "next"));
  const ports = model.portsOf(node).filter((port) => port !== "error");
  return ports.find((port) => !used.has(port)) ?? ports[0] ?? null;
}

function middle() {
  const box = canvas.root.getBoundingClientRect();
  return canvas.toWorld({ x: box.left + box.width / 2 - 100, y: box.top + box.height / 2 - 30 });
}

function insertInto(edge, type) {
  const from = canvas.cards.get(edge.from);
  const to = canvas.cards.get(edge.to);
  const spot = canvas.freeSpot({ x: (from.x + to.x) / 2, y: (from.y + to.y) / 2 });
  model.addNode(type, spot, { into: model.edges.find((each) => each === edge) ?? edge });
}

// -- parts --------------------------------------------------------------------------------------------------------

const inspector = new Inspector(at("inspector"), model, { names: data.names, settingsSchema: data.settingsSchema, mayChange, actions });
const values = new Values(at("inspector"), model, slug);
new Completion(at("inspector"), { scope: () => (model.chosen ? scopeOf(model, model.chosen.id, values.context) : {}), functions: data.functions });
const palette = paletteList(data.palette, {
  onPick: (type) => actions.append(type),
  onDrag(type, corner, point) {
    const box = canvas.root.getBoundingClientRect();
    if (point.x < box.left || point.x > box.right || point.y < box.top || point.y > box.bottom) return;
    const edge = edgeAt(canvas, point);
    if (edge && data.palette.find((kind) => kind.type === type)?.runsIn !== "trigger") insertInto(edge, type);
    else model.addNode(type, canvas.freeSpot(canvas.toWorld(corner)));
    canvas.root.focus();
  },
});
if (mayChange) at("palette").append(palette.element);
else at("palette").remove();

giveHands(canvas, {
  mayChange,
  onEmptyPort: (from, port, spot, event) => palettePopup(data.palette, { x: event.clientX, y: event.clientY }, (type) => {
    model.addNode(type, canvas.freeSpot({ x: spot.x, y: spot.y - 24 }), { from, port });
    canvas.root.focus();
  }),
  onInsert: (edge) => actions.insert(edge),
  onOpen: () => inspector.focus(),
});
giveKeys(canvas, actions, { mayChange });
addMinimap(canvas);

// -- head ---------------------------------------------------------------------------------------------------------

const badge = el("span", { class: "state" });
const saved = el("span", { class: "small muted saved", role: "status" });
const publishing = button(t("Publish"), async () => {
  while (state.unsaved && !state.stopped && !(await failed())) { /* what was changed while it was saved is saved too */ }
  if (!state.unsaved) publishDialog(model, slug, onPublished).catch(tell);
}, { kind: "primary", title: "U" });

function onPublished({ version, tag }) {
  Object.assign(state, { active: version, version, isDraft: false, tag });
  notice(t("Version {version} is published.", { version }), "done");
  drawHead();
}

function drawHead() {
  badge.dataset.state = state.isDraft ? "draft" : "published";
  badge.replaceChildren(el("span", { "aria-hidden": "true" }, state.isDraft ? "✎" : "●"),
    state.isDraft ? t("Draft") : "", state.active ? `${state.isDraft ? " · " : ""}${t("v{version} active", { version: state.active })}` : "");
  saved.textContent = !mayChange ? t("read only") : state.saving ? t("Saving …") : state.unsaved ? t("Not saved") : t("Saved");
  publishing.disabled = !mayChange;
}

const checking = button(t("Check"), async () => {
  await check.now();
  const number = model.problems.length;
  if (number) showProblem(model.problems[0]);
  notice(number ? problemCount(number) : t("Everything is in order."), number ? "fail" : "done");
}, { symbol: "check", title: "K" });
const simulating = button(t("Simulate"), () => simulateDialog(model, startPayload(), state.ports ?? {}, simulate), { symbol: "signal", title: "S" });
const running = data.may.start
  ? button(t("Run …"), () => runDialog(model, { slug, active: state.active, isDraft: state.isDraft, payload: startPayload() }), { symbol: "play", title: "R" }) : null;
at("tools").append(
  saved, badge,
  el("a", { class: "button quiet", href: `/workflows/${slug}/versions`, title: t("Versions") }, icon("history"), t("History")),
  button(t("JSON"), () => jsonDialog(model, slug, mayChange), { kind: "quiet", symbol: "json" }),
  checking, simulating, running ?? "", mayChange ? publishing : "",
);

function startPayload() {
  return state.payload ?? values.context?.trigger?.payload ?? data.sample ?? sampleOf(model.document.input_schema) ?? {};
}

function sampleOf(schema) {
  if (!schema?.properties) return null;
  return Object.fromEntries(Object.entries(schema.properties).filter(([, part]) => part?.default !== undefined).map(([name, part]) => [name, part.default]));
}

async function simulate(payload, trigger, ports) {
  const result = await ask("POST", `/workflow-builder/${slug}/simulate`, { document: model.document, payload, trigger, ports, run: values.run });
  Object.assign(state, { payload, ports });
  values.useSimulation(showSimulation(canvas, at("simulation"), result, payload, {
    onClose: () => useSample(sample.value), goTo: actions.goTo,
  }));
  canvas.fit(); // the panel has taken room
}

// -- foot ---------------------------------------------------------------------------------------------------------

const problems = el("div", { class: "problems" });
const counts = el("span", { class: "muted counts" });
const zoom = button("100 %", () => canvas.zoom(1 / canvas.view.scale), { kind: "quiet small", label: t("Show at full size") });
const undo = button("", () => model.undo(), { kind: "quiet small", symbol: "undo", label: t("Undo"), title: `${t("Undo")} (Ctrl+Z)` });
const redo = button("", () => model.redo(), { kind: "quiet small", symbol: "redo", label: t("Redo"), title: `${t("Redo")} (Ctrl+Shift+Z)` });
const sample = el("select", { class: "sample", "aria-label": t("Past run that lends its data"), onchange: () => useSample(sample.value) },
  data.samples.length ? data.samples.map((run) => el("option", { value: run.id }, t("run {run}, {time}", { run: run.id, time: window.stellwerk?.ago(new Date(run.created_at)) ?? run.created_at })))
    : el("option", { value: "" }, t("no run yet")));
at("foot").append(problems, el("span", { class: "grow" }),
  el("label", { class: "with-data" }, el("span", {}, t("Data of")), sample), counts,
  el("span", { class: "row" },
    button("", () => canvas.zoom(1 / 1.2), { kind: "quiet small", symbol: "minus", label: t("Smaller") }), zoom,
    button("", () => canvas.zoom(1.2), { kind: "quiet small", symbol: "plus", label: t("Larger") }),
    button("", () => canvas.fit(), { kind: "quiet small", symbol: "fit", label: t("Fit") }),
    mayChange ? [button("", () => actions.tidy(), { kind: "quiet small", symbol: "tidy", label: t("Tidy up") }), undo, redo] : null,
    button("?", () => actions.help(), { kind: "quiet small", label: t("Keys") })));
at("foot").before(el("section", { class: "simulation", id: "simulation", hidden: true, "aria-label": t("Simulation") }));

function useSample(run) {
  values.use(run || null);
}

function drawFoot() {
  counts.textContent = t("{nodes} steps · {edges} connections", { nodes: model.nodes.length, edges: model.edges.length });
  undo.disabled = !model.past.length;
  redo.disabled = !model.future.length;
  const errors = model.problems.filter((problem) => problem.severity === "error").length;
  const warnings = model.problems.length - errors;
  const head = errors ? el("span", { class: "error" }, `● ${problemCount(errors)}`)
    : warnings ? el("span", { class: "warning" }, `▲ ${warnings === 1 ? t("1 warning") : t("{number} warnings", { number: warnings })}`)
      : el("span", { class: "fine" }, `✓ ${t("No problems")}`);
  const line = (problem) => el("button", { type: "button", class: `as-link problem ${problem.severity}`, onclick: () => showProblem(problem), title: [problem.message, problem.hint].filter(Boolean).join(" ") },
    problem.node && model.node(problem.node) ? el("b", {}, `${model.titleOf(model.node(problem.node))}: `) : null, problem.message);
  const more = model.problems.length > 2 ? button(t("all"), () => openDialog(t("Problems"), el("ul", { class: "all-problems" }, model.problems.map((problem) =>
    el("li", {}, line(problem), problem.hint ? el("div", { class: "small muted" }, problem.hint) : null)))), { kind: "quiet small" }) : null;
  problems.replaceChildren(head, ...model.problems.slice(0, 2).map(line), ...(more ? [more] : []));
}

function showProblem(problem) {
  document.querySelector("dialog[open]")?.close();
  if (problem.node && model.node(problem.node)) {
    model.select([problem.node]);
    canvas.reveal(problem.node);
  } else model.select([]);
  inspector.focusProblem(problem);
}

// -- checking and saving ------------------------------------------------------------------------------------------

let asked = 0;
const check = debounce(350, async () => {
  const number = ++asked;
  try {
    const verdict = await ask("POST", `/workflow-builder/${slug}/check`, { document: model.document });
    if (number === asked) model.judge(verdict);
  } catch (error) {
    tell(error);
  }
});

const save = debounce(1200, () => {
  if (!mayChange || !state.unsaved || state.stopped) return Promise.resolve();
  state.saving ??= store().finally(() => {
    state.saving = null;
    drawHead();
    if (state.again) { state.again = false; save(); }
  });
  drawHead();
  return state.saving;
});

async function failed() {
  const before = state.tag;
  await save.now();
  return state.unsaved && state.tag === before;
}

async function store(over = false) {
  state.unsaved = false;
  try {
    const done = await ask("PUT", `/workflow-builder/${slug}`, { document: model.document, tag: state.tag, over });
    Object.assign(state, { tag: done.tag, version: done.version, isDraft: true });
  } catch (error) {
    state.unsaved = true;
    if (error.status === 412) conflict(error);
    else tell(error);
  }
}

/** Somebody else has saved: nothing is lost, and nobody is overwritten without being asked. Mine stays one undo away. */
function conflict(error) {
  state.stopped = true;
  const row = notice(error.message, "fail", false);
  const settle = () => { state.stopped = false; row.remove(); };
  row.append(
    button(t("Take theirs (Undo brings mine back)"), async () => {
      const theirs = await ask("GET", `/workflow-builder/${slug}/draft`);
      settle();
      Object.assign(state, { tag: theirs.tag, version: theirs.version, isDraft: theirs.isDraft });
      model.replace(theirs.document);
      drawHead();
    }, { kind: "small" }),
    button(t("Export mine"), () => download(`${slug}.json`, JSON.stringify(model.document, null, 2)), { kind: "small" }),
    button(t("Save over it"), async () => { settle(); await store(true); drawHead(); }, { kind: "small danger" }));
}

function tell(error) {
  notice([error.message, error.hint].filter(Boolean).join(" "), "fail");
}

function notice(text, kind, passing = true) {
  const row = el("div", { class: `notice ${kind}` }, el("span", {}, text));
  at("notices").replaceChildren(row);
  if (passing) setTimeout(() => row.remove(), kind === "fail" ? 9000 : 4000);
  return row;
}

addEventListener("beforeunload", (event) => { if (state.unsaved && mayChange) event.preventDefault(); });
model.addEventListener("change", () => {
  state.unsaved = true;
  if (state.saving) state.again = true;
  drawHead();
  drawFoot();
  check();
  save();
});
model.addEventListener("judged", drawFoot);
canvas.addEventListener("looked", () => { zoom.textContent = `${Math.round(canvas.view.scale * 100)} %`; });

model.judge({ problems: data.problems, ports: data.ports });
inspector.draw();
canvas.begin();
drawHead();
drawFoot();
useSample(data.samples[0]?.id);
document.documentElement.dataset.ready = "builder";
