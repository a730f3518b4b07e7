// A simulated run on the canvas: the way that was taken, what each step gave and what it would have done.

import { keyOf } from "./canvas.js";
import { button, el } from "./dom.js";
import { t } from "./texts.js";

const GLYPHS = { completed: "●", failed: "✕", skipped: "⤼", cancelled: "⊘", waiting: "◷", queued: "○", joining: "◐" };

/** Colours the canvas and fills the panel below it. */
export function showSimulation(canvas, panel, result, payload, { onClose, goTo }) {
  const { model } = canvas;
  const marks = new Map();
  const taken = new Set();
  const visits = new Map();
  for (const step of result.steps) visits.set(step.node_id, (visits.get(step.node_id) ?? 0) + 1);
  for (const step of result.steps) {
    const times = visits.get(step.node_id);
    marks.set(step.node_id, {
      state: step.state, glyph: (GLYPHS[step.state] ?? "○") + (times > 1 ? ` ${times}×` : ""), class: "marked", label: `${t(step.state)}${times > 1 ? `, ${times}×` : ""}`,
    });
    const port = step.port ?? (step.state === "completed" ? "next" : null);
    for (const edge of model.edgesFrom(step.node_id)) {
      if ((edge.port ?? "next") === port && visits.has(edge.to)) taken.add(keyOf(edge));
      if (step.type === "logic.loop" && edge.port === "each" && visits.has(edge.to)) taken.add(keyOf(edge));
      if (model.isTrigger(model.node(edge.from) ?? {}) && visits.has(edge.to)) taken.add(keyOf(edge));
    }
  }
  const silent = new Map(model.nodes.filter((node) => !visits.has(node.id)).map((node) => [node.id, { class: "ghost" }]));
  canvas.show(new Map([...silent, ...marks]), taken);
  const text = (value) => el("pre", {}, typeof value === "string" ? value : JSON.stringify(value, null, 2));
  panel.replaceChildren(el("header", {},
    el("h2", {}, t("Simulation")), el("span", { class: "state", "data-state": result.state }, GLYPHS[result.state] ?? "○", " ", t(result.state)),
    result.error ? el("span", { class: "error" }, result.error.message ?? JSON.stringify(result.error)) : null,
    el("span", { class: "grow" }), button(t("Close"), () => { canvas.show(new Map()); panel.hidden = true; onClose(); }, { kind: "small" })),
  el("ol", {}, result.steps.map((step) => {
    const node = model.node(step.node_id);
    return el("li", { "data-state": step.state }, el("details", {},
      el("summary", {}, el("span", { class: "glyph" }, GLYPHS[step.state] ?? "○"), el("b", {}, node ? model.titleOf(node) : step.node_id),
        step.index !== null && step.index !== undefined ? el("span", { class: "tag" }, `#${step.index}`) : null,
        step.port && step.port !== "next" ? el("span", { class: "tag" }, `→ ${step.port.replace(/^case:/, "")}`) : null,
        step.played ? el("span", { class: "small muted" }, t("not carried out")) : null,
        el("span", { class: "grow" }), el("button", { type: "button", class: "as-link small", onclick: (event) => { event.preventDefault(); goTo(step.node_id); } }, t("Show"))),
      step.settings ? [el("h3", {}, t("It would have worked with")), text(step.settings)] : null,
      el("h3", {}, step.played ? t("Example of its output") : t("Output")), text(step.output),
      step.error ? [el("h3", {}, t("Error")), text(step.error)] : null));
  })));
  panel.hidden = false;
  // Live values can now be shown with what the simulation gave.
  return {
    trigger: { payload, row: payload, old: null, source: "manual" },
    steps: Object.fromEntries(result.steps.map((step) => [step.node_id, { output: step.output, error: step.error }])),
    vars: {}, run: { id: "0", workflow: model.document.slug },
  };
}
