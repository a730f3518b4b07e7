// The palette: node types by group, found by typing, taken by dragging or with Enter.

import { button, el, nodeIcon } from "./dom.js";
import { t } from "./texts.js";

/** The list with its search field. `onPick(type)` for a key or a click, `onDrag(type, event)` when it is pulled out. */
export function paletteList(kinds, { onPick, onDrag, only = () => true, label }) {
  const list = el("div", { class: "kinds" });
  const nothing = el("p", { class: "muted small", hidden: true }, t("No node type fits."));
  const search = el("input", { type: "search", placeholder: t("Search node types …"), "aria-label": label ?? t("Search node types"), autocomplete: "off", spellcheck: "false" });
  const groups = new Map();
  for (const kind of kinds.filter(only)) {
    if (!groups.has(kind.group)) groups.set(kind.group, []);
    groups.get(kind.group).push(kind);
  }
  const entries = [];
  for (const [group, members] of groups) {
    const section = el("section", {}, el("h3", {}, group));
    for (const kind of members) {
      const entry = el("button", {
        type: "button", class: "kind", data: { type: kind.type }, title: kind.description, tabindex: "-1",
        onclick: () => { if (!entry.pulled) onPick(kind.type); },
      }, el("span", { class: "badge" }, nodeIcon(kind.icon)), el("span", {}, el("b", {}, kind.title), el("small", {}, kind.description)));
      if (!kind.executable) entry.append(el("span", { class: "tag" }, t("later")));
      if (onDrag) entry.addEventListener("pointerdown", (event) => pull(event, kind, entry, onDrag));
      section.append(entry);
      entries.push({ entry, section, words: `${kind.title} ${kind.type} ${kind.description} ${kind.group}`.toLowerCase() });
    }
    list.append(section);
  }

  const shown = () => entries.filter(({ entry }) => !entry.hidden).map(({ entry }) => entry);
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const each of entries) each.entry.hidden = !words.every((word) => each.words.includes(word));
    for (const section of list.children) section.hidden = ![...section.querySelectorAll(".kind")].some((entry) => !entry.hidden);
    nothing.hidden = shown().length > 0;
    reach(0);
  };
  const reach = (index) => shown().forEach((entry, at) => { entry.tabIndex = at === index ? 0 : -1; });
  search.addEventListener("input", filter);
  search.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown") {
      shown()[0]?.focus();
      event.preventDefault();
    } else if (event.key === "Enter") {
      shown()[0]?.click();
      event.preventDefault();
    }
  });
  list.addEventListener("keydown", (event) => {
    const all = shown();
    const at = all.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: all.length - 1 }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    if (to < 0) search.focus();
    else {
      reach(Math.min(to, all.length - 1));
      all[Math.min(to, all.length - 1)].focus();
    }
  });
  filter();
  return { element: el("div", { class: "palette-list" }, search, list, nothing), search };
}

/** Pulling an entry out of the list shows a ghost until it is let go. */
function pull(event, kind, entry, onDrag) {
  if (event.button !== 0) return;
  const start = { x: event.clientX, y: event.clientY };
  let ghost = null;
  entry.pulled = false;
  const go = (now) => {
    if (!ghost && Math.hypot(now.clientX - start.x, now.clientY - start.y) < 5) return;
    if (!ghost) {
      entry.pulled = true; // the click that may follow picks nothing
      ghost = el("div", { class: "node ghost-node" }, el("span", { class: "badge" }, nodeIcon(kind.icon)), el("b", {}, kind.title), el("small", {}, kind.type));
      document.body.append(ghost);
    }
    ghost.style.transform = `translate(${now.clientX - 24}px, ${now.clientY - 24}px)`;
  };
  const end = (now) => {
    removeEventListener("pointermove", go);
    removeEventListener("pointerup", end);
    removeEventListener("pointercancel", end);
    if (!ghost) return;
    ghost.remove();
    if (now.type === "pointerup") onDrag(kind.type, { x: now.clientX - 24, y: now.clientY - 24 }, { x: now.clientX, y: now.clientY });
  };
  addEventListener("pointermove", go);
  addEventListener("pointerup", end);
  addEventListener("pointercancel", end);
}

/** The palette as a small window at a place of the screen: what comes next? */
export function palettePopup(kinds, point, onPick, { triggers = false } = {}) {
  const only = (kind) => triggers || kind.runsIn !== "trigger";
  const dialog = el("dialog", { class: "palette-popup", "aria-label": t("Add a step") });
  const pick = (type) => {
    dialog.close();
    onPick(type);
  };
  const { element, search } = paletteList(kinds, { onPick: pick, only });
  dialog.append(element, el("div", { class: "row end" }, button(t("Cancel"), () => dialog.close(), { kind: "quiet" })));
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  document.body.append(dialog);
  dialog.showModal();
  const box = dialog.getBoundingClientRect();
  dialog.style.margin = "0";
  dialog.style.left = `${Math.max(8, Math.min(point.x, innerWidth - box.width - 8))}px`;
  dialog.style.top = `${Math.max(8, Math.min(point.y, innerHeight - box.height - 8))}px`;
  search.focus();
}
