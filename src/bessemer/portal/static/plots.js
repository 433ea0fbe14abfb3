// Usage over time, from the api's figures: five plots of what is chosen in the table below them, and that table.
"use strict";
(() => {
  const box = document.getElementById("usage"), $ = (id) => document.getElementById(id);
  if (!box?.dataset.href) return;
  let of = "hour", by = "", chosen = "", shown = "", last = null, number = 0;
  const drawn = new Map();
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const count = (n) => n.toLocaleString("en", { maximumFractionDigits: n < 10 && n % 1 ? 1 : 0 });
  const ms = (n) => n == null ? "–" : n >= 1000 ? `${(n / 1000).toFixed(2)} s` : `${n >= 100 ? Math.round(n) : n.toFixed(1)} ms`;
  const signs = { EUR: "€", USD: "$", GBP: "£" };
  // The smallest that is not nothing is shown with the digits that decide.
  const money = (micro) => {
    const value = micro / 1e6, digits = !value || value >= 1 ? 2 : value >= 0.01 ? 4 : 6;
    return `${signs[last.currency] || last.currency} ${value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits })}`;
  };

  // [plot, what each line is of a step, how a value is said, whether it is added up (else it is a pace), per what seconds]
  const PLOTS = [
    ["plot-tokens", [(s) => s.outputTokens, (s) => s.inputTokens, (s) => s.cachedInputTokens], count, true, 60],
    ["plot-requests", [(s) => s.requests], count, true, 60],
    ["plot-cost", [(s) => s.micro], money, true, 3600],
    ["plot-first", [(s) => s.firstTokenMs?.p50, (s) => s.firstTokenMs?.p95], ms, false, 0],
    ["plot-next", [(s) => s.interTokenMs?.p50, (s) => s.interTokenMs?.p95], ms, false, 0],
  ];
  const series = () => {
    const times = [], steps = new Map((row().steps || []).map((step) => [step.at, step]));
    for (let at = last.from; at < last.to; at += last.step) times.push(at);
    return { times, steps: times.map((at) => steps.get(at)) };
  };
  const row = () => chosen ? last.rows.find((one) => one.name === chosen) || { requests: 0, steps: [] } : last.total;

  const draw = () => {
    const { times, steps } = series();
    for (const [id, lines, say, adds, per] of PLOTS) {
      const values = lines.map((value) => steps.map((step) => step ? value(step) ?? null : adds ? 0 : null));
      const sizes = adds ? values.map((list) => list.map((n) => n * per / last.step)) : values;
      paint(id, times, sizes, say, adds);
      lines.forEach((value, at) => {
        const all = value(row());
        $(`${id}-${at + 1}`).textContent = all == null ? adds ? say(0) : "–" : say(all);
      });
      const most = Math.max(0, ...sizes[0].filter((n) => n != null)), title = $(`${id}-h`).textContent;
      const peak = times[sizes[0].indexOf(most)];
      const when = peak && new Date(peak * 1000).toLocaleString("en-GB", { weekday: of === "week" ? "short" : undefined, hour: "2-digit", minute: "2-digit" });
      $(id).setAttribute("aria-label", most ? `${title} over the last ${of}: the most, ${say(most)}${adds ? per === 60 ? " a minute" : " an hour" : ""}, at ${when}.` : `${title}: none in the last ${of}.`);
    }
    $("usage-of").textContent = chosen ? `of ${chosen}` : "all of it";
  };
  const paint = (id, times, lists, say, adds) => {
    const place = $(id), stroke = ["--plot-1", "--plot-2", "--plot-3"].map(colour);
    const axis = { stroke: colour("--ink-3"), font: `11px ${colour("--font-sans")}`, grid: { stroke: colour("--plot-grid"), width: 1 }, ticks: { show: false } };
    drawn.get(id)?.destroy();
    const at = [...times, last.to], closed = (list) => [...list, list.at(-1)];
    const line = (which) => adds
      ? { stroke: stroke[which], width: which ? 1.5 : 2, fill: which ? undefined : colour("--plot-band"), points: { show: false }, paths: uPlot.paths.stepped({ align: 1 }) }
      : { stroke: stroke[which], width: which ? 1.5 : 2, points: { show: true, size: 4, fill: stroke[which] } };
    // As many digits as tell the ticks apart, and room for the longest of them.
    const ticks = (_, all) => {
      const unit = say === money ? 1e6 : say === ms && all.at(-1) >= 2000 ? 1000 : 1, step = (all[1] - all[0]) / unit || 1;
      const digits = Math.min(6, Math.max(0, Math.ceil(-Math.log10(step) - 1e-9)));
      const number = (n) => (n / unit).toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
      const sign = signs[last.currency] || last.currency;
      return all.map((n) => say === money ? `${sign} ${number(n)}` : say === ms ? `${number(n)} ${unit === 1 ? "ms" : "s"}` : number(n));
    };
    drawn.set(id, new uPlot({
      width: place.clientWidth, height: place.clientHeight, legend: { show: false }, cursor: { y: false, points: { size: 6 } },
      scales: { x: { range: () => [last.from, last.to] }, y: { range: (_, low, high) => [0, high > 0 ? high * 1.15 : 1] } },
      axes: [
        { ...axis, size: 28, space: 60, values: [[86400, "{D} {MMM}"], [3600, "{HH}:{mm}"], [60, "{HH}:{mm}"], [1, "{HH}:{mm}:{ss}"]] },
        { ...axis, size: say === money ? 72 : say === ms ? 54 : 48, space: 32, values: ticks },
      ],
      padding: [8, 20, 0, 0],
      series: [{}, ...lists.map((_, which) => line(which))],
    }, [adds ? at : times.map((time) => time + last.step / 2), ...lists.map((list) => adds ? closed(list) : list)], place));
  };

  // --- the table ----------------------------------------------------------------------------------------------------
  const cell = (text, low) => {
    const td = document.createElement("td");
    td.className = low ? "num lo" : "num";
    td.textContent = text;
    return td;
  };
  const name = (one) => {
    const head = document.createElement("th"), button = document.createElement("button");
    head.scope = "row";
    button.type = "button";
    button.className = "pick break";
    button.dataset.pick = one.name;
    button.setAttribute("aria-pressed", String(chosen === one.name && one !== last.total));
    button.textContent = one === last.total ? "All together" : one.name || "nobody's";
    head.append(button);
    return head;
  };
  const fill = () => {
    const focus = document.activeElement?.dataset?.pick, rows = last.rows.length > 1 ? [...last.rows, { ...last.total, name: "" }] : last.rows;
    const lines = rows.map((one, at) => {
      const tr = document.createElement("tr"), whole = last.rows.length > 1 && at === rows.length - 1, first = one.firstTokenMs || {}, next = one.interTokenMs || {};
      tr.append(name(whole ? last.total : one), cell(count(one.requests)), cell(count(one.inputTokens), true), cell(count(one.outputTokens)), cell(money(one.micro)), cell(ms(first.p50), true), cell(ms(first.p95), true), cell(ms(next.p50), true), cell(ms(next.p95), true));
      if (whole) {
        tr.className = "strong";
        tr.querySelector("button").dataset.pick = "";
        tr.querySelector("button").setAttribute("aria-pressed", String(!chosen));
      }
      return tr;
    });
    if (!lines.length) {
      const tr = document.createElement("tr"), td = document.createElement("td"), p = document.createElement("p");
      td.colSpan = 9;
      td.className = "empty";
      p.textContent = `Nothing was asked in the last ${of}.`;
      td.append(p);
      tr.append(td);
      lines.push(tr);
    }
    if (last.left) {
      const tr = document.createElement("tr"), td = document.createElement("td");
      td.colSpan = 9;
      td.textContent = `And ${last.left} more, which are in the sum alone.`;
      tr.append(td);
      lines.push(tr);
    }
    $("usage-rows").replaceChildren(...lines);
    if (focus !== undefined) $("usage-rows").querySelector(`[data-pick="${CSS.escape(focus)}"]`)?.focus();
  };

  const fetchIt = async () => {
    if (document.hidden) return;
    const mine = ++number, url = new URL(box.dataset.href, location.href);
    url.searchParams.set("window", of);
    if (by) url.searchParams.set("by", by);
    const answer = await fetch(url, { headers: { Accept: "application/json" } }).catch(() => null);
    if (mine !== number) return;
    if (!answer?.ok) {
      $("usage-of").textContent = answer ? (await answer.json().catch(() => ({}))).error || "cannot be read now" : "cannot be read now";
      return;
    }
    const text = await answer.text();
    if (mine !== number || text === shown) return;
    shown = text;
    last = JSON.parse(text);
    if (chosen && !last.rows.some((one) => one.name === chosen)) chosen = "";
    fill();
    draw();
  };
  $("usage-rows").addEventListener("click", ({ target }) => {
    const button = target.closest("[data-pick]");
    if (!button) return;
    chosen = chosen === button.dataset.pick ? "" : button.dataset.pick;
    fill();
    draw();
    $("usage-said").textContent = `The plots show ${chosen || "all of it"}.`;
  });
  document.addEventListener("click", ({ target }) => {
    const button = target.closest("[data-by]");
    if (!button) return;
    for (const other of button.parentElement.querySelectorAll("[data-by]")) other.setAttribute("aria-pressed", String(other === button));
    by = button.dataset.by;
    chosen = "";
    fetchIt();
  });
  document.addEventListener("window", ({ detail }) => { of = detail; shown = ""; fetchIt(); });
  document.addEventListener("theme", () => { if (last) draw(); });
  addEventListener("resize", () => { for (const [id, plot] of drawn) plot.setSize({ width: $(id).clientWidth, height: $(id).clientHeight }); });
  document.addEventListener("visibilitychange", fetchIt);
  setInterval(fetchIt, 10000);
  fetchIt();
})();
