// An instance's page: the bars of its phases on one scale, growing while a phase runs, and its serial console.
"use strict";
(() => {
  const phases = document.getElementById("phases"), scale = document.getElementById("scale");
  const STEPS = [2, 4, 8, 12, 20, 40, 60, 120, 240, 600, 1200, 3600, 14400, 86400];
  const short = (s) => (s < 1 ? `${Math.round(s * 1000)} ms` : s < 10 ? `${s.toFixed(1)} s` : s < 60 ? `${Math.round(s)} s` : s < 3600 ? `${Math.floor(s / 60)} min ${Math.round(s % 60)} s` : `${Math.floor(s / 3600)} h`);
  const mark = (s) => (s >= 120 && s % 60 === 0 ? `${s / 60} min` : `${+s.toFixed(1)} s`);

  const draw = () => {
    const now = window.serverNow(), rows = [...phases.querySelectorAll(".phase")];
    const times = rows.map((row) => {
      const zero = Number(row.dataset.zero), start = Number(row.dataset.start), end = Number(row.dataset.end);
      const running = row.matches(".phase--now, .phase--stuck");
      return row.dataset.start ? { row, from: start - zero, to: (running ? now : end || start) - zero, running } : { row };
    });
    const longest = Math.max(0.5, ...times.map((t) => t.to || 0));
    const whole = STEPS.find((s) => s >= longest * 1.05) || longest * 1.1;
    times.forEach(({ row, from, to, running }) => {
      const fill = row.querySelector(".fill");
      if (from === undefined) { fill.setAttribute("width", "0%"); return; }
      const x = Math.min(99.5, (100 * from) / whole), width = Math.max(0.5, Math.min(100 - x, (100 * (to - from)) / whole));
      fill.setAttribute("x", `${x.toFixed(2)}%`);
      fill.setAttribute("width", `${width.toFixed(2)}%`);
      if (running) row.querySelector(".took").textContent = short(to - from);
    });
    [...scale.children].forEach((label, i) => { const text = mark((whole * i) / 4); if (label.textContent !== text) label.textContent = text; });
  };
  document.addEventListener("parts", draw);
  setInterval(() => { if (phases.querySelector(".phase--now, .phase--stuck")) draw(); }, 250);
  draw();

  // --- serial console: read only, the last 200 kB ----------------------------------------------------------------------
  const log = document.getElementById("log"), state = document.getElementById("log-state"), KEPT = 200000;
  const status = (tone, word) => {
    if (state.dataset.word === word) return;
    state.dataset.word = word;
    state.innerHTML = `<span class="status status--${tone}"><svg class="i i--s" aria-hidden="true"><use href="#i-${tone}"/></svg><span></span></span>`;
    state.querySelector(":scope > span > span").textContent = word;
  };
  const plain = (text) => text.replace(/\u001b\[[0-9;?]*[A-Za-z]|\u001b[()][A-Z0-9]|[\u0000-\u0008\u000b\u000c\u000e-\u001a\u001c-\u001f\u007f]/g, "").replace(/\r\n?/g, "\n").replace(/\n{3,}/g, "\n\n");
  const add = (text) => {
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    for (const lineText of text.split(/(?<=\n)/)) {
      const stamp = /^\[ *\d+\.\d+\] ?/.exec(lineText);
      if (stamp) {
        const dim = document.createElement("span");
        dim.className = "d";
        dim.textContent = stamp[0];
        log.append(dim, lineText.slice(stamp[0].length));
      } else log.append(lineText);
    }
    while (log.textContent.length > KEPT && log.firstChild) log.firstChild.remove();
    if (atEnd) log.scrollTop = log.scrollHeight;
  };
  document.addEventListener("log", ({ detail }) => {
    if (detail.w) { status("waiting", detail.w); return; }
    if (detail.r) log.replaceChildren();
    status("ok", "Following");
    add(plain(detail.l));
  });
})();
