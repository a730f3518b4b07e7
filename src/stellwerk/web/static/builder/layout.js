// Tidying up: nodes in columns by how far they are from the start, so ordered within them that few edges cross.

const COLUMN = 270;
const GAP = 34;
const ROOM = 16; // for an edge that passes
const SWEEPS = 12;
const UNFOLDED = 10; // columns that stand in one band; longer ways go on below, as lines of a text do
const BETWEEN_BANDS = 90;
const SHAPE = 1.6; // how much wider than high the whole is wanted

/**
 * Where each node goes.
 * @param {{id: string, height: number}[]} nodes in document order
 * @param {{from: string, to: string, lean?: number}[]} edges `lean`: how high on its node an edge begins
 * @returns {Map<string, {x: number, y: number}>}
 */
export function layered(nodes, edges, origin = { x: 60, y: 60 }) {
  const names = nodes.map((node) => node.id);
  const height = new Map(nodes.map((node) => [node.id, node.height]));
  const forward = withoutReturns(names, edges);
  const column = columns(names, forward);
  const { all, passing } = withRoom(names, forward, column, height);
  const rows = order(all, passing, column);
  const found = place(rows, passing, height, origin);
  return new Map(names.map((name) => [name, found.get(name)]));
}

/** In every column that an edge passes a place is kept free, so that it runs beside the nodes and not behind them. */
function withRoom(names, edges, column, height) {
  const all = [...names];
  const passing = [];
  for (const edge of edges) {
    let from = edge.from;
    for (let at = column.get(edge.from) + 1; at < column.get(edge.to); at += 1) {
      const room = `${edge.from}\n${edge.to}\n${at}`;
      if (!column.has(room)) {
        all.push(room);
        column.set(room, at);
        height.set(room, ROOM);
      }
      passing.push({ from, to: room, lean: from === edge.from ? edge.lean : 0 });
      from = room;
    }
    passing.push({ from, to: edge.to, lean: from === edge.from ? edge.lean : 0 });
  }
  return { all, passing };
}

/** The edges without those that lead back, which a walk in document order finds. */
function withoutReturns(names, edges) {
  const out = new Map(names.map((name) => [name, []]));
  for (const edge of edges) out.get(edge.from)?.push(edge);
  const state = new Map();
  const returning = new Set();
  const walk = (start) => {
    const stack = [[start, 0]];
    state.set(start, 1);
    while (stack.length) {
      const top = stack.at(-1);
      const edge = out.get(top[0])[top[1]];
      top[1] += 1;
      if (!edge) {
        state.set(top[0], 2);
        stack.pop();
      } else if (state.get(edge.to) === 1) returning.add(edge);
      else if (!state.has(edge.to) && out.has(edge.to)) {
        state.set(edge.to, 1);
        stack.push([edge.to, 0]);
      }
    }
  };
  const entered = new Set(edges.map((edge) => edge.to));
  for (const name of [...names.filter((each) => !entered.has(each)), ...names]) if (!state.has(name)) walk(name);
  return edges.filter((edge) => !returning.has(edge) && edge.from !== edge.to && out.has(edge.to) && out.has(edge.from));
}

/** The column of each node: one behind the last of those that lead to it. */
function columns(names, edges) {
  const waiting = new Map(names.map((name) => [name, 0]));
  const out = new Map(names.map((name) => [name, []]));
  for (const edge of edges) {
    waiting.set(edge.to, waiting.get(edge.to) + 1);
    out.get(edge.from).push(edge.to);
  }
  const column = new Map();
  const ready = names.filter((name) => !waiting.get(name));
  for (const name of ready) column.set(name, 0);
  while (ready.length) {
    const name = ready.shift();
    for (const target of out.get(name)) {
      column.set(target, Math.max(column.get(target) ?? 0, column.get(name) + 1));
      waiting.set(target, waiting.get(target) - 1);
      if (!waiting.get(target)) ready.push(target);
    }
  }
  for (const name of names) if (!column.has(name)) column.set(name, 0);
  return column;
}

/** Within columns each node goes to the middle of its neighbours, to and fro until it settles. */
function order(names, edges, column) {
  const rows = [];
  for (const name of names) (rows[column.get(name)] ??= []).push(name);
  for (let index = 0; index < rows.length; index += 1) rows[index] ??= [];
  const into = new Map(names.map((name) => [name, []]));
  const out = new Map(names.map((name) => [name, []]));
  for (const edge of edges) {
    into.get(edge.to).push([edge.from, edge.lean ?? 0]);
    out.get(edge.from).push([edge.to, 0]);
  }
  const at = new Map();
  const note = () => rows.forEach((row) => row.forEach((name, index) => at.set(name, index - row.length / 2)));
  note();
  for (let sweep = 0; sweep < SWEEPS; sweep += 1) {
    const down = sweep % 2 === 0;
    for (const row of down ? rows : [...rows].reverse()) {
      const middle = new Map(row.map((name) => {
        const near = (down ? into : out).get(name).map(([each, lean]) => at.get(each) + lean);
        return [name, near.length ? near.reduce((a, b) => a + b, 0) / near.length : at.get(name)];
      }));
      row.sort((a, b) => middle.get(a) - middle.get(b));
      row.forEach((name, index) => at.set(name, index - row.length / 2));
    }
  }
  return rows;
}

/** Heights are known, so columns are packed; each node then moves towards its neighbours as far as there is room. */
function place(rows, edges, height, origin) {
  const y = new Map();
  for (const row of rows) {
    let at = 0;
    for (const name of row) {
      y.set(name, at);
      at += height.get(name) + GAP;
    }
    const shift = (at - GAP) / 2;
    for (const name of row) y.set(name, y.get(name) - shift);
  }
  const near = new Map();
  for (const edge of edges) {
    (near.get(edge.to) ?? near.set(edge.to, []).get(edge.to)).push(edge.from);
    (near.get(edge.from) ?? near.set(edge.from, []).get(edge.from)).push(edge.to);
  }
  const middle = (name) => y.get(name) + height.get(name) / 2;
  for (let sweep = 0; sweep < 8; sweep += 1) {
    for (const row of sweep % 2 ? [...rows].reverse() : rows) {
      row.forEach((name, index) => {
        const around = near.get(name) ?? [];
        if (!around.length) return;
        const wanted = around.map(middle).reduce((a, b) => a + b, 0) / around.length - height.get(name) / 2;
        const low = index ? y.get(row[index - 1]) + height.get(row[index - 1]) + GAP : -Infinity;
        const high = index < row.length - 1 ? y.get(row[index + 1]) - height.get(name) - GAP : Infinity;
        y.set(name, Math.min(Math.max(wanted, low), Math.max(high, low)));
      });
    }
  }
  return folded(rows, y, height, origin);
}

/** Columns from left to right; where there are many, in bands one below the other. */
function folded(rows, y, height, origin) {
  const bottom = (name) => y.get(name) + height.get(name);
  const tallest = Math.max(...[...y.keys()].map(bottom), 0) - Math.min(...y.values(), 0) + BETWEEN_BANDS;
  let wide = rows.length;
  if (rows.length > UNFOLDED) {
    wide = 6;
    while (wide < rows.length && wide * COLUMN < SHAPE * Math.ceil(rows.length / wide) * tallest) wide += 1;
  }
  const found = new Map();
  let begin = origin.y;
  for (let first = 0; first < rows.length; first += wide) {
    const band = rows.slice(first, first + wide);
    const names = band.flat();
    const top = Math.min(...names.map((name) => y.get(name)));
    band.forEach((row, index) => {
      for (const name of row) {
        found.set(name, { x: origin.x + index * COLUMN, y: Math.round((begin + y.get(name) - top) / 10) * 10 });
      }
    });
    begin += Math.max(...names.map(bottom)) - top + BETWEEN_BANDS;
  }
  return found;
}
