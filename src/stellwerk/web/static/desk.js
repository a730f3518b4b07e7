// The list of cases: choosing many, and the file that follows the filter.
"use strict";

(() => {
  function count() {
    const bulk = document.querySelector("[data-bulk]");
    if (!bulk) return;
    const chosen = document.querySelectorAll("#cases input[name=case]:checked").length;
    const text = bulk.querySelector("[data-chosen]");
    text.textContent = chosen ? `${chosen} ${text.dataset.text}` : "";
    bulk.classList.toggle("some", chosen > 0);
  }

  document.addEventListener("change", (event) => {
    if (event.target.matches("[data-choose-all]")) {
      for (const box of document.querySelectorAll("#cases input[name=case]")) box.checked = event.target.checked;
    }
    count();
  });
  document.addEventListener("htmx:afterSettle", () => {
    count();
    const csv = document.getElementById("csv");
    const filter = document.getElementById("case-filter");
    if (csv && filter) csv.href = `/backoffice/cases.csv?${new URLSearchParams(new FormData(filter))}`;
  });
})();
