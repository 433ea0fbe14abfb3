// Usage over time as a plot (uPlot), from the ledger: drawn anew as soon as the page hears of a row that was settled, and
// now and then besides, for time goes on without any. What the portal has not added up yet is fetched as it comes.
"use strict";
(() => {
  const box = document.getElementById("plot"), $ = (id) => document.getElementById(id);
  let plot = null, window_ = "hour", shown = "", asking = false, again = false;
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const count = (n) => n.toLocaleString("en", { maximumFractionDigits: n < 10 && n % 1 ? 1 : 0 });
  const stat = (id, figure, note) => {
    const part = $(id);
    if (!part) return;
    part.querySelector(".figure").textContent = figure;
    part.querySelector(".note").textContent = note;
  };

  const draw = (data) => {
    const per = 60 / data.step, out = data.out.map((n) => n * per), into = data.in.map((n) => n * per);
    plot?.destroy();
    const at = [...data.at, data.at.at(-1) + data.step], closed = (list) => [...list, list.at(-1)];
    const line = (label, stroke, width, fill) => ({ label, stroke, width, fill, points: { show: false }, paths: uPlot.paths.stepped({ align: 1 }) });
    const axis = { stroke: colour("--ink-3"), font: `11px ${colour("--font-sans")}`, grid: { stroke: colour("--plot-grid"), width: 1 }, ticks: { show: false } };
    plot = new uPlot({
      width: box.clientWidth, height: box.clientHeight, legend: { show: false }, cursor: { y: false, points: { size: 6 } },
      scales: { y: { range: (_, low, high) => [0, Math.max(10, high * 1.15)] } },
      axes: [
        { ...axis, size: 28, space: 70, values: [[86400, "{D} {MMM}"], [3600, "{HH}:{mm}"], [60, "{HH}:{mm}"], [1, "{HH}:{mm}:{ss}"]] },
        { ...axis, size: 52, values: (_, ticks) => ticks.map(count) },
      ],
      padding: [8, 18, 0, 0],
      series: [{}, line("tokens out", colour("--plot-1"), 2, colour("--plot-band")), line("tokens in", colour("--plot-2"), 1.5)],
    }, [at, closed(out), closed(into)], box);
    const sum = (list) => list.reduce((a, b) => a + b, 0), peak = Math.max(...out);
    $("key-out").textContent = `${count(sum(data.out))}`;
    $("key-in").textContent = `${count(sum(data.in))}`;
    const over = data.whole ? `over the last ${window_}` : `of the last ${window_}, as far as it is added up`;
    const note = data.whole ? `in the last ${window_}` : "still adding up";
    const when = new Date(data.at[out.indexOf(peak)] * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
    const text = peak ? `${count(sum(data.out))} tokens out and ${count(sum(data.in))} in ${over}; the most, ${count(peak)} a minute, at ${when}` : `No tokens ${over}`;
    box.setAttribute("aria-label", `Usage over time: ${text}.`);
    stat("stat-requests", count(sum(data.requests)), note);
    stat("stat-out", count(sum(data.out)), note);
  };
  let last = null;
  // One question at a time: what comes meanwhile is asked for after it.
  const fetchIt = async () => {
    if (document.hidden) return;
    if (asking) { again = true; return; }
    asking = true;
    again = false;
    try { await ask(); } finally { asking = false; }
    if (again) fetchIt();
  };
  const ask = async () => {
    const of = window_, answer = await fetch(`${box.dataset.href}?window=${of}`, { headers: { Accept: "application/json" } });
    if (!answer.ok) return;
    const text = await answer.text();
    if (of !== window_) return;
    if (text !== shown) {
      shown = text;
      last = JSON.parse(text);
      draw(last);
    }
    if (!last.whole) setTimeout(fetchIt, 1000);
  };
  document.addEventListener("window", ({ detail }) => { window_ = detail; shown = ""; fetchIt(); });
  document.addEventListener("theme", () => { if (last) draw(last); });
  document.addEventListener("usage", fetchIt);
  addEventListener("resize", () => { plot?.setSize({ width: box.clientWidth, height: box.clientHeight }); });
  const settled = () => $("settled").textContent.trim();
  let row = settled();
  document.addEventListener("parts", () => { if (row !== settled()) { row = settled(); fetchIt(); } });
  document.addEventListener("visibilitychange", fetchIt);
  setInterval(fetchIt, 10000);
  fetchIt();
})();
