// The keyboard's way to everything that a pointer can do.

import { GRID } from "./canvas.js";
import { t } from "./texts.js";

export const KEYS = [
  ["←↑→↓", "go to the next step in that direction"],
  ["G", "go to a step by its name"],
  ["Tab", "leave the canvas"],
  ["Shift + ←↑→↓", "move the chosen steps"],
  ["Enter", "settings of the chosen step"],
  ["Esc", "back to the canvas, choose nothing"],
  ["/", "search the palette; Enter appends behind the chosen step"],
  ["A", "add a step behind the chosen one"],
  ["C", "connect to …"],
  ["Space", "add the step under the cursor to those that are chosen"],
  ["Ctrl + A", "choose all"],
  ["Del", "delete"],
  ["Ctrl + C / V / D", "copy, paste, duplicate"],
  ["Ctrl + Z / Ctrl + Shift + Z", "undo, redo"],
  ["T", "tidy up"],
  ["+ / − / 0", "larger, smaller, fit"],
  ["P", "next problem"],
  ["W", "settings of the workflow"],
  ["K", "check"],
  ["S", "simulate"],
  ["R", "run"],
  ["U", "publish"],
  ["Ctrl + S", "save now"],
  ["?", "this list"],
];

const DIRECTIONS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export function giveKeys(canvas, actions, { mayChange }) {
  const { root, model } = canvas;

  root.addEventListener("focus", () => {
    if (!model.selection.size && !model.edge && root.matches(":focus-visible")) {
      const first = model.nodes[0];
      if (first) model.select([first.id]);
    }
  });

  root.addEventListener("keydown", (event) => {
    if (event.target !== root) return;
    root.classList.remove("by-pointer");
    const command = event.ctrlKey || event.metaKey;
    const direction = DIRECTIONS[event.key];
    const does = {
      Enter: () => (model.chosen ? actions.open() : null),
      Delete: mayChange && actions.remove, Backspace: mayChange && actions.remove,
      Escape: () => model.select([]),
      "+": () => canvas.zoom(1.2), "=": () => canvas.zoom(1.2), "-": () => canvas.zoom(1 / 1.2), "0": () => canvas.fit(), "1": () => canvas.zoom(1 / canvas.view.scale),
      "?": actions.help, "/": actions.search,
      a: mayChange && !command && actions.add, c: mayChange && !command && (() => model.chosen && actions.connect(model.chosen.id)),
      t: mayChange && actions.tidy, p: actions.nextProblem,
      g: actions.find, w: actions.workflow, k: actions.check, s: actions.simulate, r: actions.run, u: actions.publish,
    };
    if (direction && command) return;
    if (direction && event.shiftKey) {
      if (mayChange) nudge(direction);
    } else if (direction) go(direction);
    else if (command && event.key.toLowerCase() === "a") model.select(model.nodes.map((node) => node.id));
    else if (command && event.key.toLowerCase() === "d") { if (mayChange) actions.duplicate(); }
    else if (event.key === " ") { if (cursor) model.toggle(cursor); }
    else if (!command && does[event.key]) does[event.key]();
    else if (!command && does[event.key.toLowerCase()]) does[event.key.toLowerCase()]();
    else return;
    event.preventDefault();
  });

  let cursor = null;
  model.addEventListener("selection", () => { cursor = [...model.selection].at(-1) ?? cursor; });

  /** To the nearest card in a direction; what lies aside counts double. */
  function go([dx, dy]) {
    const from = canvas.cards.get(cursor) ?? canvas.cards.get(model.nodes[0]?.id);
    if (!from) return;
    let best = null;
    for (const [id, card] of canvas.cards) {
      if (card === from) continue;
      const ahead = (card.x - from.x) * dx + (card.y - from.y) * dy;
      const aside = Math.abs((card.x - from.x) * dy) + Math.abs((card.y - from.y) * dx);
      if (ahead <= 4) continue;
      const far = ahead + 2 * aside;
      if (!best || far < best.far) best = { id, far };
    }
    if (!best) return;
    model.select([best.id]);
    canvas.reveal(best.id);
  }

  function nudge([dx, dy]) {
    if (!model.selection.size) return;
    const step = GRID * 2;
    model.move(new Map([...model.selection].map((id) => {
      const card = canvas.cards.get(id);
      return [id, { x: card.x + dx * step, y: card.y + dy * step }];
    })), "nudge");
  }

  // Everywhere on the page, unless a field has its own use for the keys.
  document.addEventListener("keydown", (event) => {
    const command = event.ctrlKey || event.metaKey;
    const typing = event.target.matches?.("input, textarea, select");
    if (command && event.key.toLowerCase() === "s") {
      event.preventDefault();
      actions.save();
    } else if (command && event.key.toLowerCase() === "z" && !typing && mayChange) {
      event.preventDefault();
      if (event.shiftKey) model.redo();
      else model.undo();
    } else if (command && event.key.toLowerCase() === "y" && !typing && mayChange) {
      event.preventDefault();
      model.redo();
    } else if (event.key === "Escape" && !document.querySelector("dialog[open]") && event.target.closest?.(".inspector, .palette")) {
      root.focus();
    }
  });
  const away = () => document.activeElement !== root || getSelection()?.toString();
  document.addEventListener("copy", (event) => {
    if (away() || !model.selection.size) return;
    event.clipboardData.setData("text/plain", JSON.stringify({ stellwerk: "steps", ...model.copy(model.selection) }));
    event.preventDefault();
  });
  document.addEventListener("cut", (event) => {
    if (away() || !model.selection.size || !mayChange) return;
    event.clipboardData.setData("text/plain", JSON.stringify({ stellwerk: "steps", ...model.copy(model.selection) }));
    event.preventDefault();
    actions.remove();
  });
  document.addEventListener("paste", (event) => {
    if (away() || !mayChange) return;
    let copied;
    try {
      copied = JSON.parse(event.clipboardData.getData("text/plain"));
    } catch {
      return; // some other text
    }
    if (copied?.stellwerk !== "steps" || !Array.isArray(copied.nodes)) return;
    event.preventDefault();
    model.paste({ nodes: copied.nodes, edges: copied.edges ?? [] });
  });
}

export function keyTable() {
  return KEYS.map(([keys, text]) => [keys, t(text)]);
}
