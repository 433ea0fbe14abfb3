// A line of an invoice opens to the ledger rows that it is made of; they are fetched once, when it is first opened.
"use strict";
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-act=line]");
  if (!button) return;
  const drill = document.getElementById(button.getAttribute("aria-controls")), open = button.getAttribute("aria-expanded") !== "true";
  button.setAttribute("aria-expanded", String(open));
  drill.hidden = !open;
  const rows = drill.querySelector("[data-rows]");
  if (!open || rows.dataset.rows) return;
  rows.dataset.rows = "asked";
  const answer = await fetch(button.dataset.href, { headers: { Accept: "text/html" } });
  if (answer.ok) rows.innerHTML = await answer.text();
  else { delete rows.dataset.rows; rows.setAttribute("data-rows", ""); }
});
