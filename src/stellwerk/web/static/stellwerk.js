// What all pages need beside htmx: the session's token, refusals at the place of the click, times that stay relative,
// language and theme. No page is built here.
"use strict";

(() => {
  const language = document.documentElement.lang;
  const relative = new Intl.RelativeTimeFormat(language, { numeric: "auto" });
  const absolute = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "medium" });
  const units = [["year", 31536000], ["month", 2592000], ["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];

  function ago(at) {
    const seconds = (at - Date.now()) / 1000;
    const [unit, length] = units.find(([, length]) => Math.abs(seconds) >= length) ?? units.at(-1);
    return relative.format(Math.trunc(seconds / length), unit);
  }

  function refreshTimes(root = document) {
    for (const element of root.querySelectorAll("time[datetime]")) {
      const at = new Date(element.dateTime);
      if (Number.isNaN(at.valueOf())) continue;
      element.textContent = element.matches(".exact") ? absolute.format(at) : ago(at);
      element.title = absolute.format(at);
    }
  }

  // A cookie of the browser's own wishes; nothing secret is in it.
  function remember(name, value) {
    document.cookie = `${name}=${value}; path=/; max-age=31536000; samesite=lax`;
  }

  function showRefusal(html, near) {
    const parsed = new DOMParser().parseFromString(html, "text/html").querySelector(".refusal");
    const refusal = document.createElement("div");
    refusal.className = "refusal";
    refusal.setAttribute("role", "alert");
    refusal.append(...(parsed ? parsed.childNodes : [html]));
    const place = near?.closest("[data-refusals]")?.querySelector(".refusals-here");
    if (place) {
      place.replaceChildren(refusal);
      return;
    }
    const corner = document.getElementById("refusals");
    const close = document.createElement("button");
    close.type = "button";
    close.className = "button quiet";
    close.textContent = corner.dataset.close;
    close.addEventListener("click", () => refusal.remove());
    refusal.append(close);
    corner.append(refusal);
  }

  document.addEventListener("htmx:configRequest", (event) => {
    const token = document.querySelector("meta[name=csrf-token]")?.content;
    if (token) event.detail.headers["x-csrf-token"] = token;
  });
  document.addEventListener("htmx:beforeRequest", (event) => {
    event.target.closest?.("[data-refusals]")?.querySelector(".refusals-here")?.replaceChildren();
  });
  document.addEventListener("htmx:responseError", (event) => {
    showRefusal(event.detail.xhr.responseText, event.target);
  });
  document.addEventListener("htmx:sendError", (event) => {
    showRefusal(document.body.dataset.offline ?? "The server does not answer.", event.target);
  });
  document.addEventListener("htmx:load", (event) => refreshTimes(event.target.parentElement ?? document));

  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("[data-set-language], [data-toggle-theme]");
    if (!button) return;
    if (button.dataset.setLanguage) {
      remember("language", button.dataset.setLanguage);
      location.reload();
      return;
    }
    const dark = getComputedStyle(document.documentElement).colorScheme === "dark"
      || (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
    document.documentElement.dataset.theme = dark ? "light" : "dark";
    remember("theme", document.documentElement.dataset.theme);
  });

  refreshTimes();
  setInterval(refreshTimes, 15000);

  // For the scripts of single pages.
  window.stellwerk = { ago, refreshTimes, remember, showRefusal };
})();
