// From twenty nodes on a small picture of the whole, in which a click goes to a place.

import { WIDTH } from "./canvas.js";
import { svg } from "./dom.js";

const LARGEST = { width: 190, height: 110 };
const MARGIN = 120;
const FROM = 20;

export function addMinimap(canvas) {
  const nodes = svg("g", { class: "minimap-nodes" });
  const frame = svg("rect", { class: "minimap-view" });
  const map = svg("svg", { class: "minimap", hidden: true, "aria-hidden": "true", }, nodes, frame);
  canvas.root.append(map);
  let scale = 1;
  let origin = { x: 0, y: 0 };

  function draw() {
    const shown = canvas.cards.size >= FROM;
    map.toggleAttribute("hidden", !shown);
    if (!shown) return;
    const all = canvas.bounds();
    scale = Math.min(LARGEST.width / (all.width + MARGIN), LARGEST.height / (all.height + MARGIN));
    origin = { x: all.x - MARGIN / 2, y: all.y - MARGIN / 2 };
    map.setAttribute("width", (all.width + MARGIN) * scale);
    map.setAttribute("height", (all.height + MARGIN) * scale);
    nodes.replaceChildren(...[...canvas.cards.values()].map((card) => svg("rect", {
      x: (card.x - origin.x) * scale, y: (card.y - origin.y) * scale, width: WIDTH * scale, height: card.height * scale, rx: 1.5,
    })));
    look();
  }

  function look() {
    const { x, y, scale: zoom } = canvas.view;
    frame.setAttribute("x", (-x / zoom - origin.x) * scale);
    frame.setAttribute("y", (-y / zoom - origin.y) * scale);
    frame.setAttribute("width", (canvas.root.clientWidth / zoom) * scale);
    frame.setAttribute("height", (canvas.root.clientHeight / zoom) * scale);
  }

  function go(event) {
    const box = map.getBoundingClientRect();
    const zoom = canvas.view.scale;
    const x = (event.clientX - box.left) / scale + origin.x;
    const y = (event.clientY - box.top) / scale + origin.y;
    canvas.look({ x: canvas.root.clientWidth / 2 - x * zoom, y: canvas.root.clientHeight / 2 - y * zoom, scale: zoom });
  }

  map.addEventListener("pointerdown", (event) => {
    event.stopPropagation();
    map.setPointerCapture(event.pointerId);
    go(event);
  });
  map.addEventListener("pointermove", (event) => { if (event.buttons) go(event); });
  canvas.addEventListener("drawn", draw);
  canvas.addEventListener("looked", look);
}
