// A line of an invoice opens to the ledger rows that it is made of; they are fetched when it opens, and again when the
// line says that they are others.
"use strict";
(() => {
  const fill = async (button) => {
    const rows = document.getElementById(button.getAttribute("aria-controls"))?.querySelector("[data-rows]");
    if (!rows || rows.dataset.rows === button.dataset.href) return;
    rows.dataset.rows = button.dataset.href;
    const answer = await fetch(button.dataset.href, { headers: { Accept: "text/html" } });
    if (answer.ok) rows.innerHTML = await answer.text();
    else rows.dataset.rows = "";
  };
  const open = (button) => button.getAttribute("aria-expanded") === "true";
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-act=line]");
    if (!button) return;
    button.setAttribute("aria-expanded", String(!open(button)));
    document.getElementById(button.getAttribute("aria-controls")).hidden = !open(button);
    if (open(button)) fill(button);
  });
  document.addEventListener("parts", () => { for (const button of document.querySelectorAll("[data-act=line]")) if (open(button)) fill(button); });
})();
