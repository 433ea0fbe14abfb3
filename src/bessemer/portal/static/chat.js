// The playground: one conversation, kept in this page alone. The answer streams; Stop ends it at the engine too.
"use strict";
(() => {
  const form = document.getElementById("chat-form"), log = document.getElementById("chat");
  if (!form) return;
  const say = document.getElementById("say"), send = document.getElementById("send"), halt = document.getElementById("halt");
  const turns = [];
  // The portal takes 64 turns and 256 KiB (acts.py): of a conversation that is longer the oldest are left out, a question
  // and its answer at a time.
  const TURNS = 63, BYTES = 250000;
  let stop = null;
  const trimmed = () => {
    const size = () => new TextEncoder().encode(JSON.stringify(turns)).length, before = turns.length;
    while (turns.length > 1 && (turns.length > TURNS || size() > BYTES)) turns.splice(0, 2);
    return turns.length < before;
  };
  let cut = false;

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
    return `${first}, ${answer.tokens} tokens${rate}${answer.end}${cut ? ", without the oldest turns" : ""}`;
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
  const take = (chunk, answer, shown) => {
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
    if (choice?.finish_reason === "length") answer.end = `, cut at ${document.getElementById("max").value} tokens`;
    if (chunk.usage) answer.tokens = chunk.usage.completion_tokens;
  };

  const ask = async (text) => {
    turns.push({ role: "user", content: text });
    cut = trimmed() || cut;
    message("You", text, true);
    const shown = message(form.dataset.model, "", false), answer = { begun: performance.now(), text: "", tokens: 0, first: 0, last: 0, end: "" };
    shown.note.textContent = "waiting";
    shown.words.setAttribute("aria-busy", "true");
    stop = new AbortController();
    busy(true);
    try {
      const response = await fetch(form.action, {
        method: "POST", signal: stop.signal, headers: { "Content-Type": "application/json", Accept: "text/event-stream" },
        body: JSON.stringify({ messages: turns, temperature: Number(document.getElementById("temperature").value), max_tokens: Number(document.getElementById("max").value) }),
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
    const part = document.getElementById("stat-first");
    if (answer.first && part) {
      part.querySelector(".figure").textContent = `${Math.round(answer.first - answer.begun)} ms`;
      part.querySelector(".note").textContent = "as this page saw it";
    }
    document.dispatchEvent(new Event("usage"));
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
})();
