// A request as curl, Python and JavaScript: what is sent, and nothing more. The key is read from the environment.
"use strict";
(() => {
  const box = document.getElementById("snippets");
  if (!box) return;
  const url = `${box.dataset.gateway}/v1`, trust = "trust" in box.dataset, put = (id, text) => { document.getElementById(`as-${id}`).textContent = text; };
  const shell = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  // JSON's literals are Python's, but for three words, of which a request of ours says none within a value.
  const python = (value) => value === true ? "True" : JSON.stringify(value);
  const listed = (messages, indent) => `[\n${messages.map((one) => `${indent}    ${JSON.stringify(one)},`).join("\n")}\n${indent}]`;

  const curl = (body) => [
    `curl -N ${trust ? '--cacert "$SSL_CERT_FILE" ' : ""}\\`,
    `  ${url}/chat/completions \\`,
    '  -H "Authorization: Bearer $BESSEMER_API_KEY" \\',
    '  -H "Content-Type: application/json" \\',
    `  -d ${shell(JSON.stringify(body, null, 2))}`,
  ].join("\n");
  const inPython = ({ messages, ...rest }) => [
    "import os", "", "from openai import OpenAI", "",
    "client = OpenAI(", `    base_url=${JSON.stringify(url)},`, '    api_key=os.environ["BESSEMER_API_KEY"],', ")",
    "stream = client.chat.completions.create(",
    ...Object.entries(rest).map(([name, value]) => `    ${name}=${python(value)},`),
    `    messages=${listed(messages, "    ")},`, ")",
    "for chunk in stream:", "    if chunk.choices:", '        print(chunk.choices[0].delta.content or "", end="", flush=True)',
  ].join("\n");
  const inJavaScript = ({ messages, ...rest }) => [
    'import OpenAI from "openai";', "",
    "const client = new OpenAI({", `  baseURL: ${JSON.stringify(url)},`, "  apiKey: process.env.BESSEMER_API_KEY,", "});",
    "const stream = await client.chat.completions.create({",
    ...Object.entries(rest).map(([name, value]) => `  ${name}: ${JSON.stringify(value)},`),
    `  messages: ${listed(messages, "  ")},`, "});",
    "for await (const chunk of stream) {", '  process.stdout.write(chunk.choices[0]?.delta?.content ?? "");', "}",
  ].join("\n");

  document.addEventListener("asked", ({ detail }) => {
    const trusted = trust ? "export SSL_CERT_FILE=gateway-ca.pem  # who signed the gateway\n" : "";
    put("curl", trusted + curl(detail));
    put("python", (trust ? "# with SSL_CERT_FILE=gateway-ca.pem in the environment: who signed the gateway\n" : "") + inPython(detail));
    put("javascript", (trust ? "// with NODE_EXTRA_CA_CERTS=gateway-ca.pem in the environment: who signed the gateway\n" : "") + inJavaScript(detail));
  });
})();
