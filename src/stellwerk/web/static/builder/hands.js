// The pointer: moving nodes and the view, choosing, drawing edges, dropping what the palette holds.

import { snap } from "./canvas.js";
import { button, el } from "./dom.js";
import { curve } from "./edges.js";
import { t } from "./texts.js";

const CLICK = 4; // pixels that a hand may tremble

/**
 * @param {import("./canvas.js").Canvas} canvas
 * @param {{ onEmptyPort: Function, onInsert: Function, onOpen: Function, mayChange: boolean }} wishes
 */
export function giveHands(canvas, { onEmptyPort, onInsert, onOpen, mayChange }) {
  const { root, model } = canvas;
  let deed = null;

  if (mayChange) {
    canvas.tools.append(
      button("", () => onInsert(model.edge), { kind: "small", symbol: "plus", label: t("Insert a step here") }),
      button("", () => model.disconnect(model.edge), { kind: "small", symbol: "trash", label: t("Remove this connection") }),
    );
  }

  root.addEventListener("pointerdown", (event) => {
    if (event.button === 1) return begin(event, pan(event));
    if (event.button !== 0 || event.target.closest(".edge-tools, .minimap, .palette-popup")) return undefined;
    root.classList.add("by-pointer");
    root.focus({ preventScroll: true });
    const card = event.target.closest(".node");
    const port = event.target.closest(".port, .port-name");
    if (card && port && mayChange) return begin(event, connect(card.dataset.id, port.dataset.port));
    if (card) return begin(event, move(card.dataset.id, event));
    if (event.target.classList.contains("hit")) {
      model.selectEdge(event.target.edge);
      return undefined;
    }
    return begin(event, event.shiftKey ? lasso(event) : pan(event));
  });

  function begin(event, made) {
    event.preventDefault();
    deed = { ...made, pointer: event.pointerId, moved: false, start: { x: event.clientX, y: event.clientY } };
    root.setPointerCapture(event.pointerId);
  }

  root.addEventListener("pointermove", (event) => {
    if (!deed || event.pointerId !== deed.pointer) return;
    if (!deed.moved && Math.hypot(event.clientX - deed.start.x, event.clientY - deed.start.y) < CLICK) return;
    deed.moved = true;
    deed.go?.(event);
  });

  const end = (event) => {
    if (!deed || event.pointerId !== deed.pointer) return;
    const done = deed;
    deed = null;
    if (event.type === "pointercancel") done.undo?.();
    else if (done.moved) done.end?.(event);
    else done.click?.(event);
    root.classList.remove("panning", "connecting");
  };
  root.addEventListener("pointerup", end);
  root.addEventListener("pointercancel", end);
  root.addEventListener("dblclick", (event) => {
    const card = event.target.closest(".node");
    if (card) onOpen(card.dataset.id);
  });

  root.addEventListener("wheel", (event) => {
    event.preventDefault();
    if (event.ctrlKey || event.metaKey) {
      canvas.zoom(Math.exp(-event.deltaY * 0.0022), { x: event.clientX, y: event.clientY });
      return;
    }
    const { x, y, scale } = canvas.view;
    const [dx, dy] = event.shiftKey && !event.deltaX ? [event.deltaY, 0] : [event.deltaX, event.deltaY];
    canvas.look({ x: x - dx, y: y - dy, scale });
  }, { passive: false });

  function pan(event) {
    const from = { ...canvas.view };
    const start = { x: event.clientX, y: event.clientY };
    return {
      go(now) {
        root.classList.add("panning");
        canvas.look({ x: from.x + now.clientX - start.x, y: from.y + now.clientY - start.y, scale: from.scale });
      },
      click: () => model.select([]),
    };
  }

  function move(id, event) {
    const add = event.shiftKey || event.ctrlKey || event.metaKey;
    if (!add && !model.selection.has(id)) model.select([id]);
    const start = canvas.toWorld({ x: event.clientX, y: event.clientY });
    const moving = model.selection.has(id) ? [...model.selection] : [id];
    const from = new Map(moving.map((each) => [each, { x: canvas.cards.get(each).x, y: canvas.cards.get(each).y }]));
    let positions = null;
    return {
      go(now) {
        if (!mayChange) return;
        const at = canvas.toWorld({ x: now.clientX, y: now.clientY });
        positions = new Map([...from].map(([each, { x, y }]) => [each, { x: snap(x + at.x - start.x), y: snap(y + at.y - start.y) }]));
        canvas.drag(positions);
      },
      end() {
        if (positions) model.move(positions);
      },
      undo: () => canvas.drag(from),
      click() {
        if (add) model.toggle(id);
        else model.select([id]);
      },
    };
  }

  function connect(from, port) {
    root.classList.add("connecting");
    let over = null;
    const clear = () => {
      canvas.draft.removeAttribute("d");
      over?.classList.remove("target");
      over = null;
    };
    return {
      go(now) {
        const at = canvas.toWorld({ x: now.clientX, y: now.clientY });
        canvas.draft.setAttribute("d", curve(canvas.outlet(from, port), at));
        const card = nodeAt(now);
        if (card !== over) {
          over?.classList.remove("target");
          over = card && card.dataset.id !== from && !model.isTrigger(model.node(card.dataset.id)) ? card : null;
          over?.classList.add("target");
        }
      },
      end(now) {
        const card = nodeAt(now);
        clear();
        if (card) model.connect(from, port, card.dataset.id);
        else onEmptyPort(from, port, canvas.toWorld({ x: now.clientX, y: now.clientY }), now);
      },
      undo: clear,
      click: () => model.select([from]),
    };
  }

  function lasso(event) {
    const start = { x: event.clientX, y: event.clientY };
    const before = new Set(model.selection);
    const box = root.getBoundingClientRect();
    const frame = el("div", { class: "lasso" });
    root.append(frame);
    return {
      go(now) {
        const [left, right] = [start.x, now.clientX].sort((a, b) => a - b);
        const [top, bottom] = [start.y, now.clientY].sort((a, b) => a - b);
        Object.assign(frame.style, {
          left: `${left - box.left}px`, top: `${top - box.top}px`, width: `${right - left}px`, height: `${bottom - top}px`,
        });
        const hit = [...canvas.cards].filter(([, card]) => {
          const at = card.element.getBoundingClientRect();
          return at.left < right && at.right > left && at.top < bottom && at.bottom > top;
        }).map(([id]) => id);
        model.select([...before, ...hit]);
      },
      end: () => frame.remove(),
      undo: () => frame.remove(),
      click: () => frame.remove(),
    };
  }

  function nodeAt(event) {
    return document.elementsFromPoint(event.clientX, event.clientY).map((each) => each.closest(".node")).find((card) => card && root.contains(card));
  }
}

/** The edge under a point of the screen, for dropping a step between two others. */
export function edgeAt(canvas, { x, y }) {
  return document.elementsFromPoint(x, y).find((each) => each.classList?.contains("hit"))?.edge ?? null;
}
