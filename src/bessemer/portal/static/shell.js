// The shell: theme, navigation, dialogs, tabs, search, the map's keys and tip. Works on buttons that say data-act.
"use strict";
(() => {
  const root = document.documentElement;
  const $ = (id) => document.getElementById(id);
  const keep = (name, value) => { document.cookie = `${name}=${value}; Path=/; Max-Age=31536000; Secure; SameSite=Strict`; };
  const dark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  let opener = null;

  const alone = (button, attribute) => {
    const map = $("map"), same = map.dataset[attribute] === button.value;
    for (const other of document.querySelectorAll(`[data-act="${button.dataset.act}"]`)) {
      other.setAttribute("aria-pressed", String(!same && other === button));
    }
    if (same) delete map.dataset[attribute]; else map.dataset[attribute] = button.value;
  };
  const press = (button) => {
    for (const other of button.parentElement.querySelectorAll("button")) other.setAttribute("aria-pressed", String(other === button));
  };

  const acts = {
    theme() {
      root.dataset.theme = dark() ? "light" : "dark";
      keep("theme", root.dataset.theme);
      document.dispatchEvent(new Event("theme"));
    },
    nav(button) {
      const open = root.dataset.nav !== "open";
      root.dataset.nav = open ? "open" : "";
      for (const b of document.querySelectorAll("[data-act=nav][aria-expanded]")) b.setAttribute("aria-expanded", String(open));
      if (open) { opener = button; $("nav").querySelector("summary").focus(); } else if (opener) { opener.focus(); opener = null; }
    },
    search() { $("search").showModal(); $("search-words").select(); look(); },
    code() { $("code").showModal(); },
    close(button) { button.closest("dialog").close(); },
    tab(button) {
      for (const tab of button.closest("[role=tablist]").querySelectorAll("[role=tab]")) {
        const on = tab === button;
        tab.setAttribute("aria-selected", String(on));
        tab.tabIndex = on ? 0 : -1;
        $(tab.getAttribute("aria-controls")).hidden = !on;
      }
    },
    by(button) { press(button); $("map").dataset.by = button.value; },
    only(button) { alone(button, "only"); },
    flag(button) { alone(button, "flag"); },
    window(button) { press(button); document.dispatchEvent(new CustomEvent("window", { detail: button.value })); },
    print() { print(); },
    copy(button) {
      const said = button.querySelector("span"), text = $(button.value).textContent;
      navigator.clipboard?.writeText(text).then(() => {
        said.textContent = "Copied";
        setTimeout(() => { said.textContent = "Copy"; }, 2000);
      }, () => { said.textContent = "Not allowed"; });
    },
  };

  document.addEventListener("click", (event) => {
    const target = event.target, button = target.closest("[data-act]");
    if (button) acts[button.dataset.act]?.(button);
    else if (target.matches("dialog")) target.close();
    for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(target)) menu.open = false;
  });

  // What cannot be undone is asked for once more, by name.
  document.addEventListener("submit", (event) => {
    const button = event.submitter;
    if (!button?.dataset.ask) return;
    event.preventDefault();
    const ask = $("ask"), form = ask.querySelector("form");
    $("ask-h").textContent = button.dataset.ask;
    $("ask-yes").textContent = button.textContent.trim();
    form.action = event.target.action;
    for (const old of form.querySelectorAll("input")) old.remove();
    form.append(...[...event.target.querySelectorAll("input[type=hidden]")].map((field) => field.cloneNode()));
    ask.showModal();
  });

  document.addEventListener("keydown", (event) => {
    if ((event.metaKey || event.ctrlKey) && event.key.toLowerCase() === "k" && $("search")) {
      event.preventDefault();
      if (!$("search").open) acts.search();
    }
    if (event.key === "Escape") {
      if (root.dataset.nav === "open") acts.nav();
      for (const menu of document.querySelectorAll("details.menu[open]")) { menu.open = false; menu.querySelector("summary").focus(); }
    }
    const tab = event.target.closest?.("[role=tab]");
    if (tab && (event.key === "ArrowRight" || event.key === "ArrowLeft")) {
      const all = [...tab.closest("[role=tablist]").querySelectorAll("[role=tab]")];
      const next = all[(all.indexOf(tab) + (event.key === "ArrowRight" ? 1 : all.length - 1)) % all.length];
      acts.tab(next);
      next.focus();
    }
  });

  // The navigation drawer of phones keeps the focus while it is open.
  document.addEventListener("focusin", (event) => {
    if (root.dataset.nav === "open" && !$("nav").contains(event.target)) $("nav").querySelector("summary").focus();
  });

  // --- search -------------------------------------------------------------------------------------------------------
  let asked = 0, chosen = -1;
  const options = () => [...$("search-hits").querySelectorAll("[role=option]")];
  const choose = (index) => {
    const all = options();
    chosen = all.length ? (index + all.length) % all.length : -1;
    all.forEach((option, i) => option.setAttribute("aria-selected", String(i === chosen)));
    const words = $("search-words");
    if (chosen >= 0) { words.setAttribute("aria-activedescendant", all[chosen].id); all[chosen].scrollIntoView({ block: "nearest" }); }
    else words.removeAttribute("aria-activedescendant");
  };
  const look = async () => {
    const mine = ++asked, words = $("search-words").value;
    const answer = await fetch(`/search?q=${encodeURIComponent(words)}`, { headers: { Accept: "application/json" } });
    if (!answer.ok) return;
    const { groups } = await answer.json();
    if (mine !== asked) return;  // an answer that comes after that to a later question is of no use any more
    let number = 0;
    $("search-hits").replaceChildren(...groups.map((group) => {
      const box = document.createElement("div"), head = document.createElement("div");
      box.setAttribute("role", "group");
      box.setAttribute("aria-label", group.name);
      head.setAttribute("aria-hidden", "true");
      head.textContent = group.name;
      box.append(head, ...group.hits.map((hit) => {
        const option = document.createElement("div"), name = document.createElement("span"), note = document.createElement("span");
        option.setAttribute("role", "option");
        option.id = `hit-${number++}`;
        option.dataset.href = hit.href;
        name.textContent = hit.text;
        note.textContent = hit.note;
        note.className = "end";
        option.append(name, note);
        return option;
      }));
      return box;
    }));
    $("search-words").setAttribute("aria-expanded", String(number > 0));
    $("search-none").textContent = number ? "" : `Nothing that you may see is called “${words}”.`;
    choose(0);
  };
  $("search-words")?.addEventListener("input", look);
  $("search-words")?.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown") { event.preventDefault(); choose(chosen + 1); }
    if (event.key === "ArrowUp") { event.preventDefault(); choose(chosen - 1); }
    if (event.key === "Enter" && chosen >= 0) { event.preventDefault(); location.assign(options()[chosen].dataset.href); }
  });
  $("search-hits")?.addEventListener("click", (event) => {
    const option = event.target.closest("[role=option]");
    if (option) location.assign(option.dataset.href);
  });

  // --- the map: one tab stop for all of it, arrows walk, Enter opens --------------------------------------------------
  const map = $("map");
  if (!map) return;
  const tiles = () => [...map.querySelectorAll(".tile")];
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  tip.setAttribute("aria-hidden", "true");
  document.body.append(tip);
  const show = (tile) => {
    const box = tile.getBoundingClientRect();
    tip.textContent = tile.getAttribute("aria-label");
    tip.hidden = false;
    const left = Math.max(8, Math.min(box.left, innerWidth - tip.offsetWidth - 8));
    const below = box.bottom + tip.offsetHeight + 12 < innerHeight;
    tip.style.left = `${left}px`;
    tip.style.top = `${below ? box.bottom + 6 : box.top - tip.offsetHeight - 6}px`;
  };
  const stop = () => {
    const all = tiles();
    if (all.length && !all.some((tile) => tile.tabIndex === 0)) all[0].tabIndex = 0;
  };
  stop();
  document.addEventListener("parts", stop);
  map.addEventListener("mouseover", (event) => {
    const tile = event.target.closest(".tile");
    if (tile) show(tile); else tip.hidden = true;
  });
  // What the map paints is shown by whoever paints it (chart.js).
  document.addEventListener("tip", ({ detail }) => { if (detail) show(detail); else tip.hidden = true; });
  map.addEventListener("mouseleave", () => { tip.hidden = true; });
  map.addEventListener("focusin", (event) => {
    const tile = event.target.closest(".tile");
    if (!tile) return;
    for (const other of map.querySelectorAll('.tile[tabindex="0"]')) other.tabIndex = -1;
    tile.tabIndex = 0;
    show(tile);
  });
  map.addEventListener("focusout", () => { tip.hidden = true; });
  map.addEventListener("keydown", (event) => {
    const all = tiles(), at = all.indexOf(document.activeElement);
    if (at < 0) return;
    const wide = getComputedStyle(all[at].parentElement).gridTemplateColumns.split(" ").length;
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: wide, ArrowUp: -wide, Home: -at, End: all.length - 1 - at }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    all[Math.max(0, Math.min(all.length - 1, at + step))].focus();
  });
})();
