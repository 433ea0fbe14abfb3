// Paints a map that is too large for elements: what is in sight of it, on a canvas that stays in sight. Each leaf is a
// line of text (pages/chart.py). One link lies under the pointer and one where the keyboard is, each over its host, so
// that pressing, opening in a tab and reading aloud are the browser's own; the arrow keys walk.
"use strict";
(() => {
  const PER_LINE = 16, LABEL = 34, USE = 52, HEAD = 26, GAP = 8;
  const root = document.documentElement, map = document.getElementById("map");
  let chart = null, paper = null, leaves = [], lines = [], hosts = [], height = 0, colours = null, at = 0, asked = false;

  // --- reading ------------------------------------------------------------------------------------------------------
  const read = (strip) => {
    if (strip.kept?.text === strip.dataset.hosts && strip.kept.owners === strip.dataset.owners) return strip.kept;
    const owners = strip.dataset.owners.split("\n").map((line) => line.split("\t")), models = strip.dataset.note.split("\n");
    const fake = "fake" in strip.dataset;
    const found = strip.dataset.hosts.split("\n").map((line) => {
      const [name, model, cells, frame, state, flags] = line.split("\t");
      const worn = [...cells].map((c) => (c === "." ? "fr" : c === "-" ? "co" : c === "!" ? "bad" : owners[c.codePointAt(0) - 0x100][0]));
      return { name, about: models[Number(model)], cells, worn, owners, frame, state, flags: flags.split(" "), fake };
    });
    return (strip.kept = { text: strip.dataset.hosts, owners: strip.dataset.owners, hosts: found });
  };
  const label = (host) => {
    const counts = new Map();
    for (const c of host.cells) {
      const owner = c === "!" ? "failed" : c === "." || c === "-" ? "free" : host.owners[c.codePointAt(0) - 0x100][1];
      counts.set(owner, (counts.get(owner) || 0) + 1);
    }
    const held = [...counts].sort((a, b) => (a[0] === "free") - (b[0] === "free") || b[1] - a[1]).map(([who, n]) => `${who} ${n}`).join(", ");
    return `${host.name}, ${host.about}: ${held}${host.state && `; ${host.state}`}${host.fake ? "; fake host" : ""}`;
  };

  // --- layout -------------------------------------------------------------------------------------------------------
  const layout = () => {
    const began = performance.now(), width = chart.clientWidth;
    const coarse = matchMedia("(pointer: coarse)").matches || width < 560, per = coarse ? PER_LINE / 2 : PER_LINE;
    const label_ = coarse ? 26 : LABEL, use = coarse ? 0 : USE, beside = coarse ? 1 : Math.max(1, Math.floor(width / 360));
    const tile = Math.min(41, Math.floor((width / beside - label_ - use - GAP) / per)), cell = Math.floor((tile - 6) / 4);
    const tall = Math.max(coarse ? 25 : 0, 2 * cell + 7);
    leaves = [];
    hosts = [];
    let y = 0, slot = 0, deep = 0;
    for (const strip of document.getElementById("strips").children) {
      if (strip.dataset.site !== undefined) {
        y += slot ? deep : 0;
        y += leaves.length ? GAP : 0;
        leaves.push({ y, height: HEAD, x: 0, site: strip.dataset.site, note: strip.dataset.note, use: strip.dataset.use, fake: "fake" in strip.dataset });
        y += HEAD;
        slot = deep = 0;
        continue;
      }
      const x = slot * Math.floor(width / beside), found = read(strip).hosts;
      const leaf = { x, y, name: strip.dataset.leaf, use: use ? strip.dataset.use : "", hosts: found, right: x + label_ + per * tile + use, height: Math.ceil(found.length / per) * tall + 2 };
      found.forEach((host, i) => Object.assign(host, { x: x + label_ + (i % per) * tile, y: y + Math.floor(i / per) * tall, width: tile, height: tall, cell }));
      hosts.push(...found);
      leaves.push(leaf);
      deep = Math.max(deep, leaf.height);
      slot += 1;
      if (slot === beside) { y += deep; slot = deep = 0; }
    }
    height = y + deep;
    const byLine = new Map();
    for (const host of hosts) byLine.has(host.y) ? byLine.get(host.y).push(host) : byLine.set(host.y, [host]);
    lines = [...byLine].sort((a, b) => a[0] - b[0]);
    chart.style.height = `${height}px`;
    const ratio = devicePixelRatio || 1, shown = Math.min(height, innerHeight);
    paper.style.height = `${shown}px`;
    if (paper.width !== Math.round(width * ratio) || paper.height !== Math.round(shown * ratio)) { paper.width = Math.round(width * ratio); paper.height = Math.round(shown * ratio); }
    told("map-layout", began);
  };
  const told = (name, began) => { performance.clearMeasures(name); performance.measure(name, { start: began, end: performance.now() }); };

  // --- painting -----------------------------------------------------------------------------------------------------
  const tints = () => {
    const style = getComputedStyle(root), of = (name) => style.getPropertyValue(name).trim();
    colours = { t0: of("--ink-3"), fr: of("--cell-free"), line: of("--cell-free-line"), hatch: of("--cell-hatch"), bad: of("--failed-bg"), "bad-line": of("--failed-line"), ink: of("--ink"), soft: of("--ink-2"), dim: of("--ink-3"), ok: of("--ok-bg"), "ok-line": of("--ok-line"), cordoned: of("--cordoned-line"), failed: of("--failed-line"), stuck: of("--stuck-line"), fake: of("--line-control"), mono: of("--font-mono"), sans: of("--font-sans") };
    for (let i = 1; i <= 10; i += 1) colours[`t${i}`] = of(`--tenant-${i}`);
    const piece = document.createElement("canvas");
    piece.width = piece.height = 4;
    const pen = piece.getContext("2d");
    pen.fillStyle = colours.fr;
    pen.fillRect(0, 0, 4, 4);
    pen.strokeStyle = colours.hatch;
    pen.beginPath();
    for (const shift of [-4, 0, 4]) { pen.moveTo(shift, 4); pen.lineTo(shift + 4, 0); }
    pen.stroke();
    colours.co = pen.createPattern(piece, "repeat");
  };
  const [CALM, DIM] = [1, 0.17];
  // Shapes of one colour and weight are one path: a few hundred strokes of the pen for thousands of cells.
  const gathered = (low, high) => {
    const paths = new Map(), { by, only, flag } = map.dataset;
    const into = (colour, weight) => {
      const key = `${weight} ${colour}`;
      if (!paths.has(key)) paths.set(key, { colour, weight, path: new Path2D() });
      return paths.get(key).path;
    };
    for (const leaf of leaves) {
      if (!leaf.hosts || leaf.y > high || leaf.y + leaf.height < low) continue;
      for (const host of leaf.hosts) {
        const calm = !flag || host.flags.includes(flag), wide = host.worn.length > 8 || host.about.startsWith("no GPU") || host.about.startsWith("not ");
        const across = wide ? host.worn.length : 4, each = wide ? Math.max(1, Math.floor((host.width - 5) / across) - 1) : host.cell - 1, deep = wide ? host.height - 6 : Math.floor((host.height - 7) / 2);
        host.worn.forEach((worn, i) => {
          const weight = calm && (!only || worn === only || (only === "co" && worn === "bad")) ? CALM : DIM;
          const x = host.x + 2 + (i % across) * (each + 1), y = host.y + 2 + Math.floor(i / across) * (deep + 1);
          const sound = worn !== "co" && worn !== "bad";
          if (by === "health" && sound) { into("ok-line", weight).rect(x, y, each, deep); into("ok", weight).rect(x + 1, y + 1, each - 2, deep - 2); }
          else if (worn === "fr" && host.cell < 6) into("fr", weight).rect(x, y, each, deep);
          else if (worn === "fr") { into("line", weight).rect(x, y, each, deep); into("fr", weight).rect(x + 1, y + 1, each - 2, deep - 2); }
          else if (worn === "bad") { into("bad-line", weight).rect(x, y, each, deep); into("bad", weight).rect(x + 1, y + 1, each - 2, deep - 2); }
          else into(by === "use" && sound ? "soft" : worn, weight).rect(x, y, each, deep);
        });
        if (host.fake) into(host.cell < 6 ? "frame-line" : "frame-fake", calm ? CALM : DIM).rect(host.x + 0.5, host.y + 0.5, host.width - 2, host.height - 2);
        if (host.frame) into(`frame-${host.frame}`, calm ? CALM : DIM).rect(host.x + 1, host.y + 1, host.width - 3, host.height - 3);
      }
    }
    return paths.values();
  };
  const words = (pen, leaf) => {
    pen.textBaseline = "middle";
    pen.textAlign = "left";
    if (leaf.hosts) {
      pen.font = `11px ${colours.mono}`;
      pen.fillStyle = colours.soft;
      pen.fillText(leaf.name, leaf.x, leaf.y + leaf.hosts[0].height / 2, LABEL - 4);
      pen.textAlign = "right";
      pen.font = `11px ${colours.sans}`;
      pen.fillStyle = colours.dim;
      if (leaf.use) pen.fillText(leaf.use, leaf.right - 4, leaf.y + leaf.hosts[0].height / 2, USE);
      return;
    }
    pen.font = `600 13px ${colours.sans}`;
    pen.fillStyle = colours.ink;
    const name = leaf.fake ? `${leaf.site}, fake hosts` : leaf.site, middle = leaf.y + HEAD / 2;
    pen.fillText(name, leaf.x, middle);
    const after = leaf.x + pen.measureText(name).width + 10;
    pen.font = `12px ${colours.sans}`;
    pen.fillStyle = colours.dim;
    const right = chart.clientWidth - 4, room = right - pen.measureText(leaf.use).width - 10 - after;
    if (leaf.note && room > pen.measureText(leaf.note).width) pen.fillText(leaf.note, after, middle);
    pen.textAlign = "right";
    pen.fillText(leaf.use, right, middle);
  };
  const paint = () => {
    asked = false;
    if (!chart?.isConnected) return;
    const began = performance.now(), shown = paper.clientHeight, ratio = devicePixelRatio || 1;
    const above = Math.max(0, Math.min(height - shown, -chart.getBoundingClientRect().top)), pen = paper.getContext("2d");
    if (!colours) tints();
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, paper.width, paper.height);
    pen.translate(0, -Math.round(above));
    for (const { colour, weight, path } of gathered(above, above + shown)) {
      pen.globalAlpha = weight;
      const frame = colour.startsWith("frame-") && colour.slice(6);
      if (frame) {
        pen.strokeStyle = colours[frame];
        const fake = frame === "fake" || frame === "line";
        pen.lineWidth = fake ? 1 : 1.5;
        pen.setLineDash(fake ? [2, 2] : []);
        pen.stroke(path);
      } else { pen.fillStyle = colours[colour]; pen.fill(path); }
    }
    pen.globalAlpha = 1;
    for (const leaf of leaves) if (leaf.y <= above + shown && leaf.y + leaf.height >= above) words(pen, leaf);
    told("map-paint", began);
  };
  const soon = () => { if (!asked) { asked = true; requestAnimationFrame(paint); } };

  // --- who is where -------------------------------------------------------------------------------------------------
  let spots = [], key = 1;
  const tip = (spot) => document.dispatchEvent(new CustomEvent("tip", { detail: spot }));
  const put = (spot, host) => {
    Object.assign(spot.style, { left: `${host.x}px`, top: `${host.y}px`, width: `${host.width - 1}px`, height: `${host.height - 1}px` });
    spot.href = `/hosts/${host.name}`;
    spot.setAttribute("aria-label", label(host));
    spot.hidden = false;
  };
  const under = (x, y) => {
    let low = 0, high = lines.length - 1;
    while (low < high) { const middle = (low + high + 1) >> 1; if (lines[middle][0] <= y) low = middle; else high = middle - 1; }
    return lines[low]?.[1].find((host) => x >= host.x && x < host.x + host.width && y >= host.y && y < host.y + host.height);
  };
  // Two links take turns, so that each step is a move of the focus, which is read aloud.
  const go = (index) => {
    at = Math.max(0, Math.min(hosts.length - 1, index));
    const old = spots[key];
    key = 3 - key;
    put(spots[key], hosts[at]);
    spots[key].tabIndex = 0;
    spots[key].focus();
    old.hidden = true;
    old.tabIndex = -1;
  };
  const beside = (host, down) => {
    const line = lines.findIndex(([y]) => y === host.y), next = lines[line + (down ? 1 : -1)]?.[1];
    return next ? hosts.indexOf(next.reduce((a, b) => (Math.abs(b.x - host.x) < Math.abs(a.x - host.x) ? b : a))) : at;
  };
  const follow = () => {
    chart.addEventListener("mousemove", ({ clientX, clientY }) => {
      const box = chart.getBoundingClientRect(), host = under(clientX - box.left, clientY - box.top);
      if (!host) { spots[0].hidden = true; tip(null); return; }
      if (spots[0].hidden || spots[0].pathname !== `/hosts/${host.name}`) put(spots[0], host);
      tip(spots[0]);
    });
    chart.addEventListener("mouseleave", () => { spots[0].hidden = true; });
    chart.addEventListener("focusin", ({ target }) => { if (target.matches(".spot")) tip(target); });
    chart.addEventListener("keydown", (event) => {
      const host = hosts[at], step = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: hosts.length - 1 }[event.key];
      const to = step ?? (event.key === "ArrowDown" ? beside(host, true) : event.key === "ArrowUp" ? beside(host, false) : undefined);
      if (to === undefined || !event.target.matches(".spot")) return;
      event.preventDefault();
      go(to);
    });
  };

  // --- beginning, and again when parts come ----------------------------------------------------------------------------
  const refresh = () => {
    const found = document.getElementById("chart");
    if (!found) { chart = null; return; }
    const fresh = found !== chart, name = hosts[at]?.name;
    if (fresh) {
      chart = found;
      paper = chart.querySelector("canvas");
      spots = [...chart.querySelectorAll(".spot")];
      follow();
    }
    layout();
    at = Math.max(0, hosts.findIndex((host) => host.name === name));
    if (hosts.length) { put(spots[key], hosts[at]); spots[key].tabIndex = 0; }
    soon();
  };
  document.addEventListener("parts", refresh);
  document.addEventListener("theme", () => { colours = null; soon(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { colours = null; soon(); });
  new MutationObserver(soon).observe(map, { attributes: true });
  addEventListener("scroll", soon, { passive: true });
  addEventListener("resize", () => { if (chart) { layout(); soon(); } });
  document.fonts?.ready.then(soon);
  refresh();
})();
