// The playground: one conversation, kept in this page alone. The answer streams; Stop ends it at the engine too.
"use strict";
(() => {
  const form = document.getElementById("chat-form"), log = document.getElementById("chat");
  if (!form) return;
  const say = document.getElementById("say"), send = document.getElementById("send"), halt = document.getElementById("halt");
  const turns = [], model = document.getElementById("model"), part = (id) => document.getElementById(id);
  // The portal takes 64 turns and 256 KiB (acts.py), one of them the system prompt: of a conversation that is longer the oldest are left out, a question
  // and its answer at a time.
  const TURNS = 62, BYTES = 230000;
  let stop = null;
  const trimmed = () => {
    const size = () => new TextEncoder().encode(JSON.stringify(turns)).length, before = turns.length;
    while (turns.length > 1 && (turns.length > TURNS || size() > BYTES)) turns.splice(0, 2);
    return turns.length < before;
  };
  let cut = false;

  // What is asked, as OpenAI's clients write it: what is left empty is not said.
  const settings = () => {
    const said = { model: model.value, stream: true }, number = (id, name) => {
      const field = part(id);
      if (field?.value !== undefined && field.value.trim() !== "" && field.checkValidity()) said[name] = Number(field.value);
    };
    number("temperature", "temperature");
    number("top-p", "top_p");
    number("max", "max_tokens");
    number("seed", "seed");
    const stops = (part("stop")?.value || "").split(",").map((text) => text.trim()).filter(Boolean).slice(0, 4);
    if (stops.length) said.stop = stops;
    return said;
  };
  const system = () => {
    const text = part("system")?.value.trim();
    return text ? [{ role: "system", content: text }] : [];
  };
  // What the code beside the conversation says: all that would be sent if what stands in the field were.
  const tell = () => {
    const next = say.value.trim(), asked = turns.at(-1)?.role === "user" ? turns : [...turns, { role: "user", content: next || "Why is steel blown with air?" }];
    document.dispatchEvent(new CustomEvent("asked", { detail: { ...settings(), messages: [...system(), ...asked] } }));
  };

  const message = (who, text, mine) => {
    document.getElementById("chat-none")?.remove();
    const box = document.createElement("div"), head = document.createElement("span"), name = document.createElement("b"), note = document.createElement("span"), words = document.createElement("div");
    box.className = mine ? "msg msg--me" : "msg";
    head.className = "msg__who";
    words.className = "msg__text";
    name.textContent = who;
    words.textContent = text;
    head.append(name, note);
    box.append(head, words);
    log.append(box);
    log.scrollTop = log.scrollHeight;
    return { box, note, words };
  };
  const busy = (on) => { send.hidden = on; halt.hidden = !on; };
  const figures = (answer, seconds) => {
    const first = answer.first ? `first token ${Math.round(answer.first - answer.begun)} ms` : "no token";
    const rate = answer.tokens > 1 && answer.first ? `, ${(answer.tokens / seconds).toFixed(answer.tokens / seconds < 10 ? 1 : 0)} tokens/s` : "";
    const gap = answer.tokens > 2 && answer.first ? `, ${(1000 * seconds / (answer.tokens - 1)).toFixed(1)} ms a token` : "", read = answer.read ? `, ${answer.read} read` : "";
    return `${first}, ${answer.tokens} tokens${read}${rate}${gap}${answer.end}${answer.said}${cut ? ", without the oldest turns" : ""}`;
  };

  const read = async (response, answer, shown) => {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      rest += value;
      const events = rest.split("\n\n");
      rest = events.pop();
      for (const event of events) {
        const data = event.replace(/^data: ?/, "");
        if (!event.startsWith("data:") || data === "[DONE]") continue;
        take(JSON.parse(data), answer, shown);
      }
    }
  };
  // What the gateway said in the heads of its answer, in words.
  const told = ({ endpoint, waking, maxTokens }) => [
    endpoint && endpoint !== model.value.split(":")[0] ? `, answered by ${endpoint}` : "",
    waking ? `, waited ${Number(waking).toFixed(1)} s for a replica to wake` : "",
    maxTokens ? `, a limit or budget left room for ${maxTokens} tokens` : "",
  ].join("");
  const take = (chunk, answer, shown) => {
    if (chunk.bessemer) { answer.said = told(chunk.bessemer); return; }
    if (chunk.error) { answer.error = chunk.error.message; return; }
    const choice = chunk.choices?.[0], text = choice?.delta?.content || "";
    if (text) {
      answer.first ||= performance.now();
      answer.last = performance.now();
      answer.text += text;
      answer.tokens += 1;
      const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
      shown.words.textContent = answer.text;
      if (atEnd) log.scrollTop = log.scrollHeight;
      shown.note.textContent = `streaming, ${answer.tokens} tokens`;
    }
    if (choice?.finish_reason === "length") answer.end = ", cut at its most tokens";
    if (chunk.usage) { answer.tokens = chunk.usage.completion_tokens; answer.read = chunk.usage.prompt_tokens; }
  };

  const ask = async (text) => {
    turns.push({ role: "user", content: text });
    cut = trimmed() || cut;
    message("You", text, true);
    tell();
    const shown = message(model.value, "", false), answer = { said: "", read: 0, begun: performance.now(), text: "", tokens: 0, first: 0, last: 0, end: "" };
    shown.note.textContent = "waiting";
    shown.words.setAttribute("aria-busy", "true");
    stop = new AbortController();
    busy(true);
    try {
      const response = await fetch((model.selectedOptions?.[0] || model).dataset.action, {
        method: "POST", signal: stop.signal, headers: { "Content-Type": "application/json", Accept: "text/event-stream" },
        body: JSON.stringify({ ...settings(), messages: [...system(), ...turns] }),
      });
      if (!response.ok) answer.error = (await response.json().catch(() => ({}))).error || `the portal answered ${response.status}`;
      else await read(response, answer, shown);
    } catch (error) {
      if (error.name === "AbortError") answer.end = ", stopped by you"; else answer.error = "The connection was lost.";
    }
    shown.words.removeAttribute("aria-busy");
    busy(false);
    if (answer.error) {
      shown.box.classList.add("msg--bad");
      shown.words.textContent = `${answer.text}${answer.text ? "\n" : ""}${answer.error}`;
      shown.note.textContent = "";
      turns.pop();
      return;
    }
    turns.push({ role: "assistant", content: answer.text });
    shown.note.textContent = figures(answer, (answer.last - answer.first) / 1000 || 0.001);
    const stat = part("stat-first");
    if (answer.first && stat) {
      stat.querySelector(".figure").textContent = `${Math.round(answer.first - answer.begun)} ms`;
      stat.querySelector(".note").textContent = "as this page saw it";
    }
    document.dispatchEvent(new Event("usage"));
    tell();
  };

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = say.value.trim();
    if (!text || stop && !halt.hidden) return;
    say.value = "";
    ask(text);
  });
  say.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); form.requestSubmit(); }
  });
  halt.addEventListener("click", () => { stop?.abort(); say.focus(); });
  part("anew")?.addEventListener("click", () => {
    stop?.abort();
    turns.length = 0;
    cut = false;
    log.replaceChildren();
    tell();
    say.focus();
  });
  for (const id of ["model", "system", "temperature", "top-p", "max", "seed", "stop"]) part(id)?.addEventListener("input", tell);
  say.addEventListener("input", tell);
  model.addEventListener("change", () => { say.placeholder = `Ask ${model.value}`; });
  say.placeholder = `Ask ${model.value}`;
  tell();
})();
