// Lists that change by themselves, but never under somebody's hands: while a field of the list has the focus or holds
// something that was not sent, something is chosen, or further pages were loaded, the list waits.
"use strict";

(() => {
  const PAUSE = 400;

  function inHand(list) {
    if (list.contains(document.activeElement) && document.activeElement.matches("input, select, textarea")) return true;
    // What was just answered to somebody is there to be read.
    if (list.querySelector(".htmx-request, .notice, .refusal") || list.dataset.grown) return true;
    for (const field of list.querySelectorAll("input, textarea")) {
      if (field.type === "checkbox" ? field.checked !== field.defaultChecked : field.value !== field.defaultValue) return true;
    }
    for (const field of list.querySelectorAll("select")) {
      const given = [...field.options].findIndex((option) => option.defaultSelected);
      if (field.selectedIndex !== Math.max(given, 0)) return true;
    }
    return false;
  }

  function refresh(place) {
    const list = document.querySelector(place.dataset.liveList);
    if (!list || !place.dataset.stale) return;
    if (inHand(list)) return;
    delete place.dataset.stale;
    htmx.trigger(place.querySelector("[data-refresh]"), "stellwerk:refresh");
  }

  function later() {
    setTimeout(() => { for (const place of document.querySelectorAll("[data-live-list]")) refresh(place); }, PAUSE);
  }

  document.addEventListener("htmx:sseMessage", (event) => {
    const place = event.target.closest?.("[data-live-list]");
    if (!place || event.detail?.type !== "change") return;
    place.dataset.stale = "true";
    refresh(place);
  });
  document.addEventListener("focusout", later);
  document.addEventListener("change", later);
  document.addEventListener("htmx:afterRequest", (event) => {
    // A further page: the list is longer than what would come again.
    const row = event.target.closest?.("tr.more") ? document.querySelector("[data-live-list]") : null;
    if (row) document.querySelector(row.dataset.liveList).dataset.grown = "true";
    later();
  });
  document.addEventListener("htmx:afterSwap", (event) => { delete event.target.dataset.grown; });
  document.addEventListener("htmx:afterSettle", () => window.stellwerk.refreshTimes());
})();
