// The playground of an endpoint that embeds: one or two texts go to the gateway with a key of this session; what they became is shown in short.
"use strict";
(() => {
  const form = document.getElementById("embed-form"), $ = (id) => document.getElementById(id);
  if (!form) return;
  const fact = (label, value, mono) => {
    const box = document.createElement("div"), name = document.createElement("dt"), words = document.createElement("dd");
    name.textContent = label;
    words.textContent = value;
    if (mono) words.className = "mono";
    box.append(name, words);
    return box;
  };
  const number = (n) => n.toFixed(4).replace("-", "\u2212");
  const shown = ({ vectors, similarity, tokens, ms }) => {
    const facts = [];
    if (similarity != null) facts.push(fact("Similarity", `${number(similarity)} of 1, which a text is to itself`));
    facts.push(fact("Dimension", `${vectors[0].numbers.toLocaleString("en")} numbers`));
    vectors.forEach(({ first, length, numbers }, at) => {
      facts.push(fact(vectors.length > 1 ? (at ? "Compared with" : "Text") : "Vector", `${first.map(number).join(" ")}${numbers > first.length ? " …" : ""}, length ${length}`, true));
    });
    facts.push(fact("Took", `${ms.toLocaleString("en")} ms, ${tokens.toLocaleString("en")} tokens`));
    return facts;
  };
  let busy = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const texts = ["text-1", "text-2"].map((id) => $(id).value.trim()).filter(Boolean);
    if (!texts.length || busy) return;
    busy = true;
    $("vectors").setAttribute("aria-busy", "true");
    let found;
    try {
      const response = await fetch(form.action, { method: "POST", headers: { "Content-Type": "application/json", Accept: "application/json" }, body: JSON.stringify({ texts }) });
      const said = await response.json().catch(() => ({}));
      found = response.ok ? shown(said) : [fact("Refused", said.error || `the portal answered ${response.status}`)];
    } catch {
      found = [fact("Refused", "The connection was lost.")];
    }
    busy = false;
    $("vectors").removeAttribute("aria-busy");
    $("vectors").hidden = false;
    $("vector-facts").replaceChildren(...found);
    document.dispatchEvent(new Event("usage"));
  });
})();
