// Two versions on one canvas: what came is green, what went is red, and a chosen step tells what changed in it.

import { Canvas, keyOf } from "./canvas.js";
import { changeList } from "./dialogs.js";
import { button, el, useSprites } from "./dom.js";
import { giveHands } from "./hands.js";
import { giveKeys } from "./keyboard.js";
import { addMinimap } from "./minimap.js";
import { Model } from "./model.js";
import { t, useTexts } from "./texts.js";

const data = JSON.parse(document.getElementById("compare").dataset.page);
useSprites(data.icons, data.nodeIcons);
useTexts(data.texts);

const listOf = (value) => (Array.isArray(value) ? value : []);
const after = new Model(data.after, data.palette);
const before = new Model(data.before, data.palette);
const renamed = new Map(data.changes.filter((change) => change.was).map((change) => [change.was, change.node_id]));
const nameNow = (id) => renamed.get(id) ?? id;
const gone = before.nodes.filter((node) => !after.node(nameNow(node.id)));
const known = new Set([...after.nodes, ...gone].map((node) => node.id));
const edges = [...after.edges];
for (const edge of before.edges) {
  const now = { ...edge, from: nameNow(edge.from), to: nameNow(edge.to) };
  if (known.has(now.from) && known.has(now.to) && !edges.some((each) => keyOf(each) === keyOf(now))) edges.push(now);
}
const model = new Model(structuredClone({ ...data.after, nodes: [...listOf(data.after.nodes), ...gone], edges }), data.palette);
const canvas = new Canvas(document.getElementById("canvas"), model);

const marks = new Map();
const label = { added: t("added"), removed: t("removed"), changed: t("changed") };
const mark = (id, kind) => marks.set(id, { class: kind, glyph: { added: "+", removed: "−", changed: "±" }[kind], label: label[kind] });
for (const change of data.changes) {
  if (change.kind === "node_added") mark(change.node_id, "added");
  else if (change.kind === "node_removed") mark(change.node_id, "removed");
  else if (["field", "expression", "type_changed", "node_renamed"].includes(change.kind) && !marks.has(change.node_id)) mark(change.node_id, "changed");
}
const old = new Set(before.edges.map((edge) => keyOf({ ...edge, from: nameNow(edge.from), to: nameNow(edge.to) })));
const now = new Set(after.edges.map(keyOf));
for (const edge of edges) {
  const key = keyOf(edge);
  if (!old.has(key)) marks.set(key, "added");
  else if (!now.has(key)) marks.set(key, "removed");
}

const panel = document.getElementById("changes");
function tell() {
  const id = model.chosen?.id;
  const shown = id ? data.changes.filter((change) => change.node_id === id) : data.changes;
  panel.replaceChildren(...[
    el("h2", {}, id ? model.titleOf(model.chosen) : data.a === data.b ? t("Choose two versions") : t("From version {a} to version {b}", { a: data.a, b: data.b })),
    id ? button(t("All changes"), () => model.select([]), { kind: "quiet small" }) : null,
    changeList(shown, (id) => (model.node(id) ? model.titleOf(model.node(id)) : id)),
  ].flat(Infinity).filter(Boolean));
}

giveHands(canvas, { mayChange: false, onOpen: () => {}, onInsert: () => {}, onEmptyPort: () => {} });
giveKeys(canvas, { open() {}, search() {}, help() {}, nextProblem() {}, save() {} }, { mayChange: false });
addMinimap(canvas);
model.addEventListener("selection", tell);
canvas.show(marks);
canvas.begin();
// Where not all of it can be read at once the view begins with what has changed.
const changed = model.nodes.map((node) => node.id).filter((id) => marks.has(id));
if (changed.length && canvas.view.scale < 0.8) {
  canvas.fit(changed);
  canvas.zoom(0.8);
}
tell();
document.documentElement.dataset.ready = "compare";
