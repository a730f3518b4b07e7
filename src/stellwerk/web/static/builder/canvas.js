// The drawing: cards as HTML elements, edges as SVG paths, both in one world that is moved and scaled as a whole.
// It draws what the model holds; hands.js lets a pointer change it.

import { el, nodeIcon, svg } from "./dom.js";
import { curve } from "./edges.js";
import { layered } from "./layout.js";
import { Model } from "./model.js";
import { summary } from "./summary.js";
import { problemCount, t } from "./texts.js";

export const GRID = 10;
export const WIDTH = 200;
const FIRST_PORT = 24;
const NEXT_PORT = 20;
const SMALLEST = 0.15;
const LARGEST = 2;

export class Canvas extends EventTarget {
  /** @param {HTMLElement} root @param {Model} model */
  constructor(root, model) {
    super();
    this.root = root;
    this.model = model;
    this.view = { x: 0, y: 0, scale: 1 };
    this.cards = new Map();
    this.lines = new Map();
    this.marks = new Map();
    this.taken = new Set();
    this.draft = svg("path", { class: "draft" });
    this.paths = svg("g");
    this.svg = svg("svg", { class: "edges", "aria-hidden": "true" }, this.paths, this.draft);
    this.tools = el("div", { class: "edge-tools", hidden: true, role: "presentation" });
    this.world = el("div", { class: "world", role: "presentation" }, this.svg, this.tools);
    root.append(this.world);
    // Where the browser scrolls to what it has found or focused, the view goes along instead.
    root.addEventListener("scroll", () => {
      const { scrollLeft, scrollTop } = root;
      if (!scrollLeft && !scrollTop) return;
      root.scrollTo(0, 0);
      this.look({ ...this.view, x: this.view.x - scrollLeft, y: this.view.y - scrollTop });
    });
    model.addEventListener("change", () => this.draw());
    model.addEventListener("judged", () => this.draw());
    model.addEventListener("selection", () => this.drawSelection());
  }

  // -- drawing ----------------------------------------------------------------------------------------------------

  draw() {
    const nodes = this.model.nodes;
    const known = new Set(nodes.map((node) => node.id));
    for (const [id, card] of this.cards) {
      if (known.has(id)) continue;
      card.element.remove();
      this.cards.delete(id);
    }
    const fresh = [];
    for (const node of nodes) {
      const found = this.cards.get(node.id) ?? {};
      const look = this.lookOf(node);
      const signature = JSON.stringify(look);
      if (found.signature !== signature) {
        const element = this.cardOf(node, look);
        if (found.element) found.element.replaceWith(element);
        else this.world.append(element);
        found.element = element;
        found.signature = signature;
        found.ports = look.ports;
        this.cards.set(node.id, found);
        fresh.push(found);
      }
    }
    // All at once: measuring between insertions would lay the page out anew for each.
    for (const card of fresh) card.height = card.element.offsetHeight;
    this.placeMissing(nodes);
    for (const node of nodes) this.place(node.id, this.positionOf(node));
    this.drawEdges();
    this.drawSelection();
    this.dispatchEvent(new Event("drawn"));
  }

  lookOf(node) {
    const kind = this.model.kind(node);
    const problems = this.model.problemsOf(node.id);
    const mark = this.marks.get(node.id);
    return {
      title: this.model.titleOf(node),
      icon: kind?.icon ?? "plug",
      type: node.type,
      line: summary(node, kind),
      ports: this.model.portsOf(node),
      inlet: !this.model.isTrigger(node),
      trigger: this.model.isTrigger(node),
      errors: problems.filter((problem) => problem.severity === "error").length,
      warnings: problems.filter((problem) => problem.severity !== "error").length,
      unknown: !kind,
      mark: mark ?? null,
      language: document.documentElement.lang,
    };
  }

  cardOf(node, look) {
    const single = look.ports.length === 1 && look.ports[0] === "next";
    const problems = look.errors + look.warnings;
    const label = [
      look.title, look.type, look.line,
      problems ? problemCount(problems) : "",
      look.mark?.label ?? "",
    ].filter(Boolean).join(", ");
    const card = el("div", {
      class: ["node", look.trigger ? "trigger" : "", look.unknown ? "unknown" : "", look.mark?.class ?? ""].filter(Boolean).join(" "),
      id: `node-${node.id}`, role: "option", "aria-selected": "false", "aria-label": label, data: { id: node.id },
      "data-state": look.mark?.state,
    },
    el("span", { class: "badge" }, nodeIcon(look.icon)),
    el("b", {}, look.title),
    el("span", { class: "glyph", title: problems ? problemCount(problems) : null },
      look.mark?.glyph ?? (look.errors ? "●" : look.warnings ? "▲" : "")),
    el("small", {}, look.line || look.type));
    if (look.errors) card.classList.add("has-errors");
    else if (look.warnings) card.classList.add("has-warnings");
    if (look.inlet) card.append(el("span", { class: "inlet" }));
    look.ports.forEach((port, index) => {
      const dot = el("span", { class: "port", data: { port }, title: port });
      dot.style.top = `${FIRST_PORT + index * NEXT_PORT}px`;
      card.append(dot);
      if (!single) {
        const name = el("i", { class: "port-name", data: { port } }, port.replace(/^case:/, ""));
        name.style.top = `${FIRST_PORT + index * NEXT_PORT}px`;
        card.append(name);
      }
    });
    card.style.minHeight = `${FIRST_PORT * 2 + (look.ports.length - 1) * NEXT_PORT}px`;
    return card;
  }

  positionOf(node) {
    const { x, y } = node.ui ?? {};
    return { x: Number.isFinite(x) ? x : 0, y: Number.isFinite(y) ? y : 0 };
  }

  place(id, { x, y }) {
    const card = this.cards.get(id);
    if (!card) return;
    if (card.x === x && card.y === y && card.placed === card.element) return;
    card.x = x;
    card.y = y;
    card.placed = card.element;
    card.element.style.transform = `translate(${x}px, ${y}px)`;
  }

  /** Documents that were written by hand say nothing of places: all nodes are laid out, and nothing counts as changed. */
  placeMissing(nodes) {
    const without = nodes.filter((node) => !node.ui || !Number.isFinite(node.ui.x) || !Number.isFinite(node.ui.y));
    if (!without.length) return;
    const places = this.tidied();
    const all = without.length === nodes.length;
    for (const node of all ? nodes : without) node.ui = places.get(node.id);
  }

  tidied() {
    const nodes = this.model.nodes.map((node) => ({ id: node.id, height: this.cards.get(node.id)?.height ?? 56 }));
    return layered(nodes, this.model.edges.map((edge) => {
      const ports = this.cards.get(edge.from)?.ports ?? [];
      return { from: edge.from, to: edge.to, lean: ports.length > 1 ? Math.max(0, ports.indexOf(edge.port ?? "next")) / ports.length - 0.5 : 0 };
    }));
  }

  outlet(id, port) {
    const card = this.cards.get(id);
    const index = Math.max(0, card.ports.indexOf(port));
    return { x: card.x + WIDTH, y: card.y + FIRST_PORT + index * NEXT_PORT };
  }

  inlet(id) {
    const card = this.cards.get(id);
    return { x: card.x, y: card.y + FIRST_PORT };
  }

  drawEdges(only = null) {
    const seen = new Set();
    for (const edge of this.model.edges) {
      const key = keyOf(edge);
      seen.add(key);
      if (only && !only.has(edge.from) && !only.has(edge.to) && this.lines.has(key)) continue;
      const below = Math.max(this.bottom(edge.from), this.bottom(edge.to));
      const d = curve(this.outlet(edge.from, edge.port ?? "next"), this.inlet(edge.to), below);
      let line = this.lines.get(key);
      if (!line) {
        line = { path: svg("path", { class: "edge" }), hit: svg("path", { class: "hit" }) };
        line.group = svg("g", {}, line.path, line.hit);
        this.paths.append(line.group);
        this.lines.set(key, line);
      }
      line.edge = edge;
      line.hit.edge = edge;
      if (line.d !== d) {
        line.d = d;
        line.path.setAttribute("d", d);
        line.hit.setAttribute("d", d);
      }
      line.path.classList.toggle("taken", this.taken.has(key));
      line.path.classList.toggle("fault", (edge.port ?? "next") === "error");
      const mark = this.marks.get(key);
      for (const name of ["added", "removed"]) line.path.classList.toggle(name, mark === name);
    }
    for (const [key, line] of this.lines) {
      if (seen.has(key)) continue;
      line.group.remove();
      this.lines.delete(key);
    }
    this.drawEdgeTools();
  }

  bottom(id) {
    const card = this.cards.get(id);
    return card.y + card.height;
  }

  drawSelection() {
    const { selection, edge } = this.model;
    for (const [id, card] of this.cards) {
      card.element.setAttribute("aria-selected", String(selection.has(id)));
    }
    const chosen = edge ? keyOf(edge) : null;
    for (const [key, line] of this.lines) line.path.classList.toggle("chosen", key === chosen);
    const last = [...selection].at(-1);
    if (last && this.cards.has(last)) this.root.setAttribute("aria-activedescendant", `node-${last}`);
    else this.root.removeAttribute("aria-activedescendant");
    this.drawEdgeTools();
  }

  drawEdgeTools() {
    const line = this.model.edge && this.lines.get(keyOf(this.model.edge));
    this.tools.hidden = !line || !this.tools.childElementCount;
    if (this.tools.hidden) return;
    const middle = line.path.getPointAtLength(line.path.getTotalLength() / 2);
    this.tools.style.transform = `translate(${middle.x}px, ${middle.y}px) translate(-50%, -50%)`;
  }

  /** While something is dragged: only what hangs on these nodes is drawn anew. */
  drag(positions) {
    for (const [id, position] of positions) this.place(id, position);
    this.drawEdges(new Set(positions.keys()));
  }

  /** States of a simulated run, or what differs between two versions. */
  show(marks, taken = new Set()) {
    this.marks = marks;
    this.taken = taken;
    this.draw();
  }

  // -- the view ---------------------------------------------------------------------------------------------------

  look({ x, y, scale }) {
    this.view = { x, y, scale: Math.min(LARGEST, Math.max(SMALLEST, scale)) };
    this.world.style.transform = `translate(${this.view.x}px, ${this.view.y}px) scale(${this.view.scale})`;
    const cell = 20 * this.view.scale;
    this.root.style.backgroundSize = `${cell < 10 ? cell * 4 : cell}px ${cell < 10 ? cell * 4 : cell}px`;
    this.root.style.backgroundPosition = `${this.view.x}px ${this.view.y}px`;
    this.dispatchEvent(new Event("looked"));
  }

  /** Larger or smaller around a point of the screen, by default the middle. */
  zoom(factor, at = null) {
    const box = this.root.getBoundingClientRect();
    const point = at ? { x: at.x - box.left, y: at.y - box.top } : { x: box.width / 2, y: box.height / 2 };
    const scale = Math.min(LARGEST, Math.max(SMALLEST, this.view.scale * factor));
    const by = scale / this.view.scale;
    this.look({ x: point.x - (point.x - this.view.x) * by, y: point.y - (point.y - this.view.y) * by, scale });
  }

  bounds(ids = null) {
    const cards = ids ? ids.map((id) => this.cards.get(id)) : [...this.cards.values()];
    if (!cards.length) return { x: 0, y: 0, width: 400, height: 300 };
    const x = Math.min(...cards.map((card) => card.x));
    const y = Math.min(...cards.map((card) => card.y));
    return {
      x, y,
      width: Math.max(...cards.map((card) => card.x + WIDTH + 30)) - x,
      height: Math.max(...cards.map((card) => card.y + card.height)) - y,
    };
  }

  /** All of it, or these nodes, as large as there is room. */
  fit(ids = null) {
    const box = this.root.getBoundingClientRect();
    const all = this.bounds(ids);
    const room = 44;
    const scale = Math.min(1, (box.width - 2 * room) / all.width, (box.height - 2 * room) / all.height);
    const kept = Math.min(LARGEST, Math.max(SMALLEST, scale));
    this.look({
      x: (box.width - all.width * kept) / 2 - all.x * kept,
      y: (box.height - all.height * kept) / 2 - all.y * kept,
      scale: kept,
    });
  }

  /** As it is opened: all of it where it can be read so, else its beginning. */
  begin() {
    this.fit();
    const readable = 0.7;
    if (this.view.scale >= readable) return;
    const box = this.root.getBoundingClientRect();
    const all = this.bounds();
    const first = this.cards.get(this.model.nodes[0]?.id);
    const middle = first ? first.y + first.height / 2 : all.y + all.height / 2;
    const fits = all.height * readable < box.height - 40;
    this.look({ x: 44 - all.x * readable, y: box.height / 2 - (fits ? all.y + all.height / 2 : middle) * readable, scale: readable });
  }

  /** Moves the view as little as needed for a node to be seen. */
  reveal(id) {
    const card = this.cards.get(id);
    if (!card) return;
    const box = this.root.getBoundingClientRect();
    const { x, y, scale } = this.view;
    const left = card.x * scale + x;
    const top = card.y * scale + y;
    const room = 30;
    const dx = left < room ? room - left : Math.min(0, box.width - room - (left + WIDTH * scale));
    const dy = top < room ? room - top : Math.min(0, box.height - room - (top + card.height * scale));
    if (dx || dy) this.look({ x: x + dx, y: y + dy, scale });
  }

  toWorld({ x, y }) {
    const box = this.root.getBoundingClientRect();
    return { x: (x - box.left - this.view.x) / this.view.scale, y: (y - box.top - this.view.y) / this.view.scale };
  }

  /** A free place near one that is wanted. */
  freeSpot({ x, y }) {
    const spot = { x: snap(x), y: snap(y) };
    const hits = () => [...this.cards.values()].some((card) =>
      Math.abs(card.x - spot.x) < WIDTH + 20 && spot.y < card.y + card.height + 14 && spot.y + 56 > card.y - 14);
    for (let tries = 0; hits() && tries < 200; tries += 1) spot.y += 30;
    return spot;
  }
}

export function keyOf(edge) {
  return `${edge.from}\n${edge.port ?? "next"}\n${edge.to}`;
}

export function snap(number) {
  return Math.round(number / GRID) * GRID;
}
