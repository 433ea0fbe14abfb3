// Keeps a page current: joins the stream, applies what is new to the parts, lets times tick, says how old the page is.
// A part is replaced in place: lists within it, focus, scroll and what a person pressed stay as they are.
"use strict";
(() => {
  const body = document.body;
  let token = body.dataset.tab, seen = 0, last = performance.now(), skew = Number(body.dataset.now) - Date.now() / 1000, ended = false, full = false;
  // Who signs out here goes where that leads, not to the door that a session which ended elsewhere leads to.
  let leaving = false;
  document.addEventListener("submit", (event) => { if (new URL(event.target.action).pathname === "/signout") leaving = true; });
  const now = () => Date.now() / 1000 + skew;
  window.serverNow = now;

  // --- operations ---------------------------------------------------------------------------------------------------
  const made = (html) => {
    const template = document.createElement("template");
    template.innerHTML = html;
    return template.content.firstElementChild;
  };
  const KEPT = ["tabindex", "aria-pressed", "aria-expanded"];
  // What a person has marked, to copy it, stays as it is until they let go of it.
  const marked = new Map();
  const inside = (element) => { const chosen = getSelection(); return !chosen.isCollapsed && chosen.containsNode(element, true); };
  document.addEventListener("selectionchange", () => { for (const [id, html] of marked) { marked.delete(id); set(id, html); } });
  const set = (id, html) => {
    const old = document.getElementById(id);
    if (!old) return;
    if (inside(old)) { marked.set(id, html); return; }
    const fresh = made(html);
    for (const list of fresh.querySelectorAll("[data-list]")) {
      const mine = document.getElementById(list.id);
      if (mine && old.contains(mine)) list.replaceWith(mine);
    }
    const focused = old !== document.activeElement && old.contains(document.activeElement) ? reachable(old).indexOf(document.activeElement) : -1;
    for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name) && !KEPT.includes(name)) old.removeAttribute(name);
    for (const { name, value } of [...fresh.attributes]) if (!KEPT.includes(name) && old.getAttribute(name) !== value) old.setAttribute(name, value);
    const pressed = [...old.querySelectorAll("[aria-pressed=true]")].map((b) => b.value);
    const open = [...old.querySelectorAll("[aria-expanded=true]")].map((b) => b.getAttribute("aria-controls"));
    if (old.innerHTML !== fresh.innerHTML) old.replaceChildren(...fresh.childNodes);
    for (const button of old.querySelectorAll("[aria-pressed]")) if (pressed.includes(button.value)) button.setAttribute("aria-pressed", "true");
    for (const button of old.querySelectorAll("[aria-expanded]")) if (open.includes(button.getAttribute("aria-controls"))) button.setAttribute("aria-expanded", "true");
    if (focused >= 0) reachable(old)[focused]?.focus({ preventScroll: true });
  };
  const reachable = (element) => [...element.querySelectorAll("a[href], button, input, summary, [tabindex]")];
  const ops = {
    set,
    put(list, before, html) {
      const into = document.getElementById(list);
      if (!into) return;
      const fresh = made(html), mine = document.getElementById(fresh.id);
      mine?.remove();
      const next = before && document.getElementById(before);
      into.insertBefore(fresh, next && next.parentElement === into ? next : null);
      if (into.id === "feed") { fresh.classList.add("is-new"); setTimeout(() => fresh.classList.remove("is-new"), 4000); }
    },
    del(id) { document.getElementById(id)?.remove(); },
    // Nothing is moved under a pointer or a focus; it is when both have gone.
    order(list, ids) {
      const into = document.getElementById(list);
      if (!into) return;
      const sort = () => ids.forEach((id) => { const child = document.getElementById(id); if (child?.parentElement === into) into.append(child); });
      if (into.matches(":hover") || into.contains(document.activeElement)) into.addEventListener("pointerleave", sort, { once: true });
      else sort();
    },
  };
  const apply = (operations) => {
    for (const [name, ...rest] of operations) ops[name](...rest);
    document.dispatchEvent(new Event("parts"));
    tick();
  };

  // --- the stream ---------------------------------------------------------------------------------------------------
  const hear = (message) => {
    last = performance.now();
    if (message.b) skew = message.b - Date.now() / 1000;
    if (message.o) apply(message.o);
    if (message.n !== undefined) seen = message.n;
    if (message.l !== undefined || message.w) document.dispatchEvent(new CustomEvent("log", { detail: message }));
    if (message.x === "signedout" && !leaving) { ended = true; location.assign(`/signin?back=${encodeURIComponent(location.pathname + location.search)}`); }
    if (message.x === "full") ended = full = true; // so many pages are open that the session follows this one no more
    if (message.x === "gone") { ended = true; document.getElementById("gone").hidden = false; }
    if (message.x === "stale") refresh();
    age();
  };
  let line = null, shared = Boolean(window.SharedWorker);
  const connect = () => {
    if (shared) {
      const port = new SharedWorker(body.dataset.worker, { name: body.dataset.worker }).port;
      port.onmessage = ({ data }) => hear(data);
      return { join: () => port.postMessage({ join: token, number: seen }), leave: () => port.postMessage({ leave: token }) };
    }
    const stream = new Stream();
    return { join: () => stream.join(token, seen, hear), leave: () => stream.leave(token) };
  };
  // What this page was drawn from is forgotten (a restart, a long sleep): draw it again, in place.
  const refresh = async () => {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (answer.redirected && new URL(answer.url).pathname === "/signin") { location.assign(answer.url); return; }
    if (!answer.ok) { setTimeout(refresh, 2000); return; }
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const list of document.querySelectorAll("[data-list]")) {
      const same = fresh.getElementById(list.id);
      if (same && list.isConnected && list.innerHTML !== same.innerHTML) list.replaceChildren(...[...same.childNodes].map((n) => document.importNode(n, true)));
    }
    token = fresh.body.dataset.tab;
    seen = 0;
    document.dispatchEvent(new Event("parts"));
    line.join();
  };
  line = connect();
  line.join();
  addEventListener("pagehide", () => line.leave());
  addEventListener("pageshow", (event) => { if (event.persisted) line.join(); });

  // --- time ---------------------------------------------------------------------------------------------------------
  const ago = (then) => {
    const passed = Math.max(0, now() - then);
    for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"]]) if (passed >= size) return `${Math.floor(passed / size)} ${unit}`;
    return `${Math.floor(passed)} s`;
  };
  const tick = () => {
    for (const time of document.querySelectorAll("time[data-ago]")) {
      const text = ago(Number(time.dataset.ago));
      if (time.textContent !== text) time.textContent = text;
      if (!time.title) time.title = new Date(Number(time.dataset.ago) * 1000).toLocaleString("en-GB");
    }
  };
  const clock = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit" });
  for (const time of document.querySelectorAll("time[data-clock]")) time.textContent = clock.format(Number(time.dataset.clock) * 1000);

  const foot = document.getElementById("age"), said = foot.querySelector("[data-age]");
  const age = () => {
    if (ended) { foot.classList.add("is-old"); said.textContent = full ? "No longer live: too many pages are open" : "No longer live"; return; }
    const passed = (performance.now() - last) / 1000, old = passed > 5;
    foot.classList.toggle("is-old", old);
    // A worker that does not come back (another version of us may run it) is left to itself.
    if (passed > 15 && shared) { shared = false; line.leave(); line = connect(); line.join(); }
    const text = old ? `Not live since ${new Date(Date.now() - passed * 1000).toLocaleTimeString("en-GB")}` : `Live, ${passed.toFixed(1)} s old`;
    if (said.textContent !== text) said.textContent = text;
  };
  setInterval(() => { tick(); age(); }, 1000);
  tick();
})();
