// What a vetting measured, against the load that was offered (uPlot): from the JSON in `figures`, drawn anew when that changes. The amber lines are
// the load that it bears and the times that it was to hold.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id), drawn = new Map();
  if (!$("figures")) return;
  let shown = "";
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const count = (n) => n.toLocaleString("en", { maximumSignificantDigits: 3 });
  const ms = (n) => n >= 1000 ? `${count(n / 1000)} s` : `${count(n)} ms`;
  // [plot, its lines, the goal of it, how a value is said]
  const PLOTS = [
    ["load-tokens", ["tokens"], "", count],
    ["load-first", ["ttft_p50", "ttft_p95"], "ttft", ms],
    ["load-next", ["inter_token_p50", "inter_token_p95"], "inter_token", ms],
    ["load-end", ["end_p50", "end_p95"], "end", ms],
  ];

  // A dotted line from edge to edge: upright where the load is what it bears, level where a time is its goal.
  const dotted = (plot, value, axis) => {
    const { ctx, bbox } = plot, at = Math.round(plot.valToPos(value, axis, true)), dots = devicePixelRatio * 4;
    if (axis === "y" && (at < bbox.top || at > bbox.top + bbox.height)) return;
    ctx.save();
    ctx.strokeStyle = colour("--plot-goal");
    ctx.lineWidth = 1.5 * devicePixelRatio;
    ctx.setLineDash([dots / 2, dots]);
    ctx.beginPath();
    if (axis === "x") { ctx.moveTo(at, bbox.top); ctx.lineTo(at, bbox.top + bbox.height); } else { ctx.moveTo(bbox.left, at); ctx.lineTo(bbox.left + bbox.width, at); }
    ctx.stroke();
    ctx.restore();
  };
  const paint = (id, data, lines, goal, say) => {
    const place = $(id), stroke = ["--plot-1", "--plot-2"].map(colour), most = Math.max(...lines.flat());
    const axis = { stroke: colour("--ink-3"), font: `11px ${colour("--font-sans")}`, grid: { stroke: colour("--plot-grid"), width: 1 }, ticks: { show: false } };
    drawn.get(id)?.destroy();
    const line = (which) => ({ stroke: stroke[which], width: which ? 1.5 : 2, fill: lines.length === 1 ? colour("--plot-band") : undefined, points: { show: true, size: 5, fill: stroke[which] } });
    drawn.set(id, new uPlot({
      width: place.clientWidth, height: place.clientHeight, legend: { show: false }, cursor: { y: false, points: { size: 6 } },
      scales: { x: { time: false, range: () => [0, data.rate.at(-1) * 1.04] }, y: { range: () => [0, most > 0 ? most * 1.15 : 1] } },
      axes: [{ ...axis, size: 28, space: 50, values: (_, all) => all.map(count) }, { ...axis, size: 54, space: 32, values: (_, all) => all.map(say) }],
      padding: [8, 20, 0, 0],
      series: [{}, ...lines.map((_, which) => line(which))],
      hooks: { draw: [(plot) => { if (data.knee) dotted(plot, data.knee, "x"); if (goal) dotted(plot, goal, "y"); }] },
    }, [data.rate, ...lines], place));
  };
  const draw = () => {
    const text = $("figures").textContent.trim();
    if (text === shown) return;
    if (!text || !$("load-tokens")) return;
    shown = text;
    const data = JSON.parse(text), knee = data.rate.indexOf(data.knee);
    for (const [id, names, goal, say] of PLOTS) {
      if (!$(id)) continue;
      const lines = names.map((name) => data[name]), title = $(`${id}-h`).textContent, at = knee < 0 ? data.rate.length - 1 : knee;
      lines.forEach((line, which) => { $(`${id}-${which + 1}`).textContent = say(line[at]); });
      const bears = knee < 0 ? "at no rate all is well" : `at ${count(data.knee)} requests a second, which it bears, ${say(lines.at(-1)[at])}`;
      $(id).setAttribute("aria-label", `${title} from ${count(data.rate[0])} to ${count(data.rate.at(-1))} requests a second: ${bears}; at the most load ${say(lines.at(-1).at(-1))}.`);
      paint(id, data, lines, data.goals[goal], say);
    }
    $("load-key").textContent = knee < 0 ? "bears none of these" : `bears ${count(data.knee)} requests a second`;
  };
  document.addEventListener("parts", draw);
  document.addEventListener("theme", () => { shown = ""; draw(); });
  addEventListener("resize", () => { for (const [id, plot] of drawn) if ($(id)) plot.setSize({ width: $(id).clientWidth, height: $(id).clientHeight }); });
  draw();
})();
