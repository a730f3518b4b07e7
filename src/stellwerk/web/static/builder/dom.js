// Elements made in code. Everything that comes from outside goes in as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";
const addresses = {};

/** Where the sprites lie: told once, for their addresses change with their content. */
export function useSprites(icons, nodeIcons) {
  addresses.icons = icons;
  addresses.nodes = nodeIcons;
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name === "value" && "value" in element) element.value = value;
    else if (name === "checked") element.checked = Boolean(value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) element.append(child);
  }
  return element;
}

/** `el("button", { class: "button", onclick: go }, "Go")` */
export function el(tag, attributes, ...children) {
  const element = document.createElement(tag);
  // A select takes its value once its options are there.
  const { value, ...others } = attributes ?? {};
  fill(element, tag === "select" ? others : attributes, children);
  if (tag === "select" && value !== undefined && value !== null) element.value = value;
  return element;
}

export function svg(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  return fill(element, attributes, children);
}

/** A symbol of the application's sprite. */
export function icon(name) {
  return svg("svg", { class: "icon", "aria-hidden": "true" }, svg("use", { href: `${addresses.icons}#${name}` }));
}

/** A symbol of a node type. */
export function nodeIcon(name) {
  return svg("svg", { class: "icon", "aria-hidden": "true" }, svg("use", { href: `${addresses.nodes}#${name}` }));
}

export function button(text, onclick, { kind = "", symbol, label, title, ...more } = {}) {
  return el("button", { type: "button", class: `button ${kind}`.trim(), onclick, "aria-label": label, title: title ?? label, ...more },
    symbol ? icon(symbol) : null, text);
}

/** Waits until nothing has happened for a while. */
export function debounce(milliseconds, act) {
  let timer;
  const later = (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => act(...values), milliseconds);
  };
  later.now = (...values) => { clearTimeout(timer); return act(...values); };
  later.stop = () => clearTimeout(timer);
  return later;
}
