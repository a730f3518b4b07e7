// The document and its history. Whoever changes it says so with `change`; everybody else listens.
//
// The document stays as it was written: parts that this page does not understand are kept, and only passed over where
// nodes and edges are drawn.

const MOST_STEPS_BACK = 200;
const TOGETHER = 1200; // milliseconds within which typing in one field is one change

export class Model extends EventTarget {
  constructor(document, palette) {
    super();
    this.document = document;
    this.kinds = new Map(palette.map((kind) => [kind.type, kind]));
    this.ports = {};
    this.problems = [];
    this.selection = new Set();
    this.edge = null;
    this.past = [];
    this.future = [];
    this.last = { key: null, at: 0 };
  }

  // -- reading ----------------------------------------------------------------------------------------------------

  get nodes() {
    const nodes = Array.isArray(this.document.nodes) ? this.document.nodes : [];
    const seen = new Set();
    return nodes.filter((node) => node && typeof node === "object" && typeof node.id === "string"
      && !seen.has(node.id) && seen.add(node.id));
  }

  get edges() {
    const known = new Set(this.nodes.map((node) => node.id));
    const edges = Array.isArray(this.document.edges) ? this.document.edges : [];
    return edges.filter((edge) => edge && typeof edge === "object" && known.has(edge.from) && known.has(edge.to));
  }

  node(id) {
    return this.nodes.find((node) => node.id === id);
  }

  kind(node) {
    return this.kinds.get(node?.type);
  }

  titleOf(node) {
    return node.name || this.kind(node)?.title || node.id;
  }

  isTrigger(node) {
    return this.kind(node)?.runsIn === "trigger" || String(node.type).startsWith("trigger.");
  }

  /** The ports of a node as far as they are known: the server's word, the palette's, and what edges use. */
  portsOf(node) {
    const ports = [...(this.ports[node.id] ?? this.kind(node)?.ports ?? ["next"])];
    for (const edge of this.edges) {
      const port = edge.port ?? "next";
      if (edge.from === node.id && !ports.includes(port)) ports.push(port);
    }
    if (node.on_error === "route" && !ports.includes("error")) ports.push("error");
    return ports;
  }

  /** What may be chosen when connecting: the port `error` too, which is drawn only where it is used. */
  choosablePorts(node) {
    const ports = this.portsOf(node);
    return ports.includes("error") || this.isTrigger(node) || node.type === "logic.stop" ? ports : [...ports, "error"];
  }

  edgesFrom(id) {
    return this.edges.filter((edge) => edge.from === id);
  }

  edgesTo(id) {
    return this.edges.filter((edge) => edge.to === id);
  }

  /** The nodes that may have ended before this one begins, the nearest first. */
  before(id) {
    const found = [];
    let row = [id];
    const seen = new Set([id]);
    while (row.length) {
      const next = [];
      for (const name of row) {
        for (const edge of this.edgesTo(name)) {
          if (seen.has(edge.from)) continue;
          seen.add(edge.from);
          found.push(edge.from);
          next.push(edge.from);
        }
      }
      row = next;
    }
    return found;
  }

  /** The innermost loop in whose body a node stands. */
  loopAround(id) {
    let best = null;
    for (const loop of this.nodes.filter((node) => node.type === "logic.loop")) {
      const body = this.bodyOf(loop.id);
      if (body.has(id) && (!best || body.size < best.size)) best = { id: loop.id, size: body.size };
    }
    return best?.id ?? null;
  }

  bodyOf(loop) {
    const body = new Set();
    const stack = this.edgesFrom(loop).filter((edge) => edge.port === "each").map((edge) => edge.to);
    while (stack.length) {
      const id = stack.pop();
      if (id === loop || body.has(id)) continue;
      body.add(id);
      stack.push(...this.edgesFrom(id).map((edge) => edge.to));
    }
    return body;
  }

  problemsOf(id) {
    return this.problems.filter((problem) => problem.node === id);
  }

  // -- changing ---------------------------------------------------------------------------------------------------

  /** One step of the history; steps with the same key that follow at once become one. */
  change(act, key = null) {
    const before = JSON.stringify(this.document);
    act(this.document);
    const after = JSON.stringify(this.document);
    if (before === after) return false;
    const now = Date.now();
    const together = key !== null && key === this.last.key && now - this.last.at < TOGETHER;
    if (!together) {
      this.past.push(before);
      if (this.past.length > MOST_STEPS_BACK) this.past.shift();
    }
    this.future = [];
    this.last = { key, at: now };
    this.tell("change", { key });
    return true;
  }

  undo() {
    this.step(this.past, this.future);
  }

  redo() {
    this.step(this.future, this.past);
  }

  step(from, to) {
    if (!from.length) return;
    to.push(JSON.stringify(this.document));
    this.document = JSON.parse(from.pop());
    this.last = { key: null, at: 0 };
    this.keepSelectionSound();
    this.tell("change", { key: null, whole: true });
  }

  /** Another document altogether, as one step that can be taken back. */
  replace(document) {
    this.past.push(JSON.stringify(this.document));
    this.future = [];
    this.document = document;
    this.keepSelectionSound();
    this.tell("change", { key: null, whole: true });
  }

  keepSelectionSound() {
    const known = new Set(this.nodes.map((node) => node.id));
    this.selection = new Set([...this.selection].filter((id) => known.has(id)));
    this.edge = null;
    this.tell("selection");
  }

  addNode(type, { x, y }, { config, id, from, port, into } = {}) {
    const name = id ?? this.newId(type);
    this.change((document) => {
      if (!Array.isArray(document.nodes)) document.nodes = [];
      if (!Array.isArray(document.edges)) document.edges = [];
      const node = { id: name, type };
      if (config && Object.keys(config).length) node.config = config;
      node.ui = { x: Math.round(x), y: Math.round(y) };
      document.nodes.push(node);
      if (from) document.edges.push(edge(from, port, name));
      if (into) {
        // Between two nodes: the edge now leads here, and on from here.
        const target = into.to;
        const ports = this.portsOf(node).filter((each) => each !== "timeout");
        into.to = name;
        if (ports.length) document.edges.push(edge(name, ports[0], target));
      }
    });
    this.select([name]);
    return name;
  }

  newId(type) {
    const stem = type.split(".").at(-1).replace(/[^a-z0-9_]/g, "_") || "node";
    const taken = new Set(this.nodes.map((node) => node.id));
    if (!taken.has(stem)) return stem;
    let number = 2;
    while (taken.has(`${stem}_${number}`)) number += 1;
    return `${stem}_${number}`;
  }

  connect(from, port, to) {
    const exists = this.edges.some((edge) => edge.from === from && (edge.port ?? "next") === port && edge.to === to);
    if (exists || !this.node(from) || !this.node(to) || this.isTrigger(this.node(to))) return false;
    return this.change((document) => {
      if (!Array.isArray(document.edges)) document.edges = [];
      document.edges.push(edge(from, port, to));
    });
  }

  disconnect(wanted) {
    this.change((document) => {
      document.edges = document.edges.filter((each) => !sameEdge(each, wanted));
    });
    if (this.edge && sameEdge(this.edge, wanted)) this.selectEdge(null);
  }

  remove(ids) {
    const gone = new Set(ids);
    if (!gone.size) return;
    this.change((document) => {
      document.nodes = document.nodes.filter((node) => !gone.has(node?.id));
      document.edges = (document.edges ?? []).filter((each) => !gone.has(each?.from) && !gone.has(each?.to));
    });
    this.select([]);
  }

  move(positions, key = null) {
    this.change(() => {
      for (const [id, { x, y }] of positions) {
        const node = this.node(id);
        if (node) node.ui = { x: Math.round(x), y: Math.round(y) };
      }
    }, key);
  }

  /** Puts a value at a path such as ["config", "cases", 0, "when"]; undefined takes it out. */
  set(id, path, value, key = null) {
    this.change(() => put(this.node(id), path, value), key);
  }

  setDocument(path, value, key = null) {
    this.change((document) => put(document, path, value), key);
  }

  /** Another id, everywhere: in edges, in `compensate`, and in expressions that read the step. */
  rename(id, wanted) {
    if (id === wanted || this.node(wanted) || !/^[a-z][a-z0-9_]{0,62}$/.test(wanted)) return false;
    const read = new RegExp(`(\\bsteps?\\s*\\.\\s*)${id}\\b`, "g");
    this.change((document) => {
      this.node(id).id = wanted;
      for (const each of document.edges ?? []) {
        if (each?.from === id) each.from = wanted;
        if (each?.to === id) each.to = wanted;
      }
      for (const node of this.nodes) {
        if (node.compensate === id) node.compensate = wanted;
        if (node.config) node.config = deep(node.config, (text) => text.replace(read, `$1${wanted}`));
      }
    });
    if (this.ports[id]) this.ports[wanted] = this.ports[id];
    this.select([wanted]);
    return true;
  }

  copy(ids) {
    const wanted = new Set(ids);
    return JSON.parse(JSON.stringify({
      nodes: this.nodes.filter((node) => wanted.has(node.id)),
      edges: this.edges.filter((each) => wanted.has(each.from) && wanted.has(each.to)),
    }));
  }

  paste({ nodes, edges }, { x = 40, y = 40 } = {}) {
    const names = new Map();
    const taken = new Set(this.nodes.map((node) => node.id));
    for (const node of nodes) {
      const stem = node.id.replace(/_\d+$/, "");
      let number = 2;
      while (taken.has(`${stem}_${number}`)) number += 1;
      const name = taken.has(node.id) ? `${stem}_${number}` : node.id;
      names.set(node.id, name);
      taken.add(name);
    }
    this.change((document) => {
      if (!Array.isArray(document.nodes)) document.nodes = [];
      if (!Array.isArray(document.edges)) document.edges = [];
      for (const node of nodes) {
        document.nodes.push({ ...node, id: names.get(node.id), ui: { x: (node.ui?.x ?? 0) + x, y: (node.ui?.y ?? 0) + y } });
      }
      for (const each of edges) document.edges.push({ ...each, from: names.get(each.from), to: names.get(each.to) });
    });
    this.select([...names.values()]);
  }

  // -- what is chosen ---------------------------------------------------------------------------------------------

  select(ids) {
    const wanted = new Set(ids);
    if (!this.edge && wanted.size === this.selection.size && [...wanted].every((id) => this.selection.has(id))) return;
    this.selection = wanted;
    this.edge = null;
    this.tell("selection");
  }

  toggle(id) {
    const selection = new Set(this.selection);
    if (!selection.delete(id)) selection.add(id);
    this.select(selection);
  }

  selectEdge(chosen) {
    this.selection = new Set();
    this.edge = chosen;
    this.tell("selection");
  }

  /** The one node that is chosen, if it is one. */
  get chosen() {
    return this.selection.size === 1 ? this.node([...this.selection][0]) : undefined;
  }

  judge({ problems, ports }) {
    this.problems = problems;
    this.ports = ports;
    this.tell("judged");
  }

  tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

export function sameEdge(a, b) {
  return a === b || (a?.from === b?.from && (a?.port ?? "next") === (b?.port ?? "next") && a?.to === b?.to);
}

function edge(from, port, to) {
  return port && port !== "next" ? { from, port, to } : { from, to };
}

function put(target, path, value) {
  const [key, ...rest] = path;
  if (rest.length) {
    if (target[key] === null || typeof target[key] !== "object") {
      if (value === undefined) return;
      target[key] = typeof rest[0] === "number" ? [] : {};
    }
    put(target[key], rest, value);
    const inner = target[key];
    if (value === undefined && !Array.isArray(inner) && !Object.keys(inner).length) delete target[key];
  } else if (value === undefined) {
    if (Array.isArray(target)) target.splice(key, 1);
    else delete target[key];
  } else target[key] = value;
}

function deep(value, change) {
  if (typeof value === "string") return change(value);
  if (Array.isArray(value)) return value.map((item) => deep(item, change));
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, deep(item, change)]));
  }
  return value;
}
