// The pages of runs: what is chosen stays marked while the page changes under it; times are sent with their offset.
"use strict";

(() => {
  const chosen = { node: null, step: null };

  function mark() {
    for (const place of document.querySelectorAll(".place")) place.classList.toggle("chosen", place.dataset.node === chosen.node);
    for (const line of document.querySelectorAll("a.line")) line.classList.toggle("chosen", line.id === chosen.step);
  }

  document.addEventListener("click", (event) => {
    const place = event.target.closest?.(".place");
    const line = event.target.closest?.("a.line");
    if (!place && !line) return;
    chosen.node = place ? place.dataset.node : null;
    chosen.step = line ? line.id : null;
    mark();
  });

  document.addEventListener("htmx:sseMessage", (event) => {
    const fresh = document.querySelector("[data-fresh]");
    if (event.detail?.type === "change" && fresh) fresh.hidden = false;
    window.stellwerk.refreshTimes();
    mark();
  });
  document.addEventListener("htmx:afterSwap", (event) => {
    const shown = event.target.querySelector?.("[data-shown]")?.dataset.shown;
    if (shown) chosen.node = shown;
    mark();
    const fresh = document.querySelector("[data-fresh]");
    if (fresh && event.target.id === "runs") fresh.hidden = true;
    for (const time of document.querySelectorAll("time[data-exact]")) {
      time.textContent = new Intl.DateTimeFormat(document.documentElement.lang, { dateStyle: "full", timeStyle: "short" }).format(new Date(time.dateTime));
      time.removeAttribute("datetime");
    }
    const panel = event.target.id === "panel" ? event.target : null;
    panel?.querySelector("form :is(input:not([readonly], [type=hidden]), select, textarea)")?.focus({ preventScroll: true });
    if (panel && panel.getBoundingClientRect().top > innerHeight - 120) panel.scrollIntoView({ behavior: "smooth", block: "nearest" });
  });
  document.addEventListener("htmx:sseOpen", () => { for (const sign of document.querySelectorAll("[data-live]")) sign.hidden = false; });
  document.addEventListener("htmx:sseError", () => { for (const sign of document.querySelectorAll("[data-live]")) sign.hidden = true; });

  // A time of a form is meant in the browser's zone, and goes out with its offset.
  document.addEventListener("htmx:configRequest", (event) => {
    for (const name of ["since", "until"]) {
      const value = event.detail.parameters[name];
      if (typeof value !== "string" || !/^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d)?$/.test(value)) continue;
      event.detail.parameters[name] = new Date(value).toISOString();
    }
  });
})();
