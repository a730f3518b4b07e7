// Lists in forms that are drawn from a JSON Schema: rows are added from the list's template, and taken away.
"use strict";

(() => {
  // The name of a list holds no star of its own: the first one after it is the row's number.
  function number(row, list, place) {
    const own = list.dataset.list;
    for (const element of [row, ...row.querySelectorAll("*")]) {
      for (const attribute of ["name", "data-list"]) {
        const value = element.getAttribute(attribute);
        if (value?.startsWith(`${own}/*`)) element.setAttribute(attribute, `${own}/${place}${value.slice(own.length + 2)}`);
      }
      for (const attribute of ["id", "for", "aria-describedby"]) {
        const value = element.getAttribute(attribute);
        if (value) element.setAttribute(attribute, value.replace("*", place));
      }
      if (element.content) number(element.content.firstElementChild, list, place);
    }
  }

  document.addEventListener("click", (event) => {
    const add = event.target.closest?.("[data-add-row]");
    if (add) {
      const list = add.closest("[data-list]");
      const rows = list.querySelector(":scope > .rows");
      const place = Number(list.dataset.next ?? rows.children.length);
      list.dataset.next = place + 1;
      const row = list.querySelector(":scope > template").content.firstElementChild.cloneNode(true);
      number(row, list, place);
      rows.append(row);
      row.querySelector("input:not([type=hidden]), select, textarea")?.focus();
      return;
    }
    const remove = event.target.closest?.("[data-remove-row]");
    if (!remove) return;
    const row = remove.closest(".list-row");
    const list = row.closest("[data-list]");
    list.dataset.next ??= row.parentElement.children.length;
    row.remove();
    list.querySelector(":scope > div > [data-add-row]").focus();
    list.dispatchEvent(new Event("input", { bubbles: true }));
  });
})();

// A form that comes back with errors at its fields, or a row as somebody else left it, takes its place though it is a refusal.
document.addEventListener("htmx:beforeSwap", (event) => {
  if (!event.detail.xhr.getResponseHeader("x-in-place")) return;
  event.detail.shouldSwap = true;
  event.detail.isError = false;
});
document.addEventListener("htmx:afterSettle", (event) => {
  const scope = event.target.parentElement ?? document;
  scope.querySelector("[aria-invalid=true]")?.focus();
});
