"""Each page as code: the commands and manifests that do what the page shows. Tabs are (name, text)."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bessemer.client.paths import NEWEST, api_version, regular_plural
from bessemer.core.resource import API_VERSION

Tabs = tuple[tuple[str, str], ...]


def manifest(body: Mapping[str, Any]) -> str:
    """An object as one would write it, and its status below, without what only the server keeps."""
    meta = body.get("metadata") or {}
    kept = {k: meta[k] for k in ("name", "namespace", "labels", "annotations") if meta.get(k)}
    shown = {"apiVersion": body.get("apiVersion", API_VERSION), "kind": body.get("kind"), "metadata": kept}
    shown |= {part: body[part] for part in ("spec", "status") if body.get(part)}
    return yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=100)


def path(plural: str, name: str = "", *, project: str = "") -> str:
    """The request behind a page."""
    place = f"/namespaces/{project}" if project else ""
    version = next((api_version(kind) for kind in NEWEST if regular_plural(kind) == plural), API_VERSION)
    return f"GET /apis/{version}{place}/{plural}" + (f"/{name}" if name else "")


def fleet_code() -> Tabs:
    return (
        (
            "kubectl",
            "kubectl get hosts -o wide\nkubectl get claims -A -w\nkubectl get events -A --field-selector type!=Normal",
        ),
        ("CLI", "bessemer get hosts -o wide\nbessemer events\nbessemer why instance/NAME -n TENANT--PROJECT"),
    )


def host_code(name: str, body: str) -> Tabs:
    return (
        ("kubectl", f"kubectl describe host {name}\nkubectl get claims -A --field-selector spec.host={name}"),
        ("CLI", f"bessemer describe host {name}\nbessemer host cordon {name}\nbessemer host uncordon {name}"),
        ("YAML", body),
    )


def list_code(plural: str, project: str, *, namespaced: bool = True) -> Tabs:
    """A list of one kind, in a project or in all."""
    kubectl, cli = (f" -n {project}", f" -n {project}") if project else (" -A" if namespaced else "", "")
    return (
        ("kubectl", f"kubectl get {plural}{kubectl}\nkubectl get {plural}{kubectl} -w"),
        ("CLI", f"bessemer get {plural}{cli}"),
    )


def new_instance(project: str) -> str:
    return f"""apiVersion: {API_VERSION}
kind: Instance
metadata:
  name: vm
  namespace: {project or "TENANT--PROJECT"}
spec:
  flavor: micro
  image: micro-guest
"""


def new_endpoint(project: str) -> str:
    return f"""apiVersion: {API_VERSION}
kind: Endpoint
metadata:
  name: smol
  namespace: {project or "TENANT--PROJECT"}
spec:
  model: smollm2-135m
  flavor: serve-small
"""


def instance_code(project: str, name: str, *, body: str) -> Tabs:
    return (
        (
            "kubectl",
            f"kubectl -n {project} get instance {name} -w\n"
            f"kubectl -n {project} wait instance/{name} \\\n  --for=condition=Ready --timeout=120s",
        ),
        (
            "CLI",
            f"bessemer get instance {name} -n {project}\n"
            f"bessemer why instance/{name} -n {project}\n"
            f"bessemer logs instance {name} -f -n {project}\n"
            f"bessemer console {name} -n {project}",
        ),
        ("YAML", body),
    )


@dataclass(frozen=True, slots=True)
class Gate:
    """Where applications reach the models. ``ca`` is the file of the authority that signed it; None: everybody's."""

    url: str
    ca: Path | None


def endpoint_code(project: str, name: str, *, body: str, gate: Gate, embeds: bool = False) -> Tabs:
    chat = "" if embeds else f'\nbessemer chat {name} "What is a furnace?" -n {project}'
    return (
        ("kubectl", f"kubectl -n {project} get endpoint {name} -w\nkubectl -n {project} describe endpoint {name}"),
        (
            "CLI",
            f"bessemer get endpoint {name} -n {project}\nbessemer key create app -n {project}{chat}",
        ),
        ("YAML", body),
        ("curl", f"{shell(project, gate)}\n\n{calls(name, gate, embeds=embeds)[0]}"),
    )


def shell(project: str, gate: Gate) -> str:
    """What a shell needs to know before `curl` or `python` run in it: whom to trust, and a key, which is shown once."""
    trust = f"export SSL_CERT_FILE={shlex.quote(str(gate.ca.absolute()))}\n" if gate.ca else ""
    return f'{trust}export BESSEMER_API_KEY="$(bessemer key create app -n {project})"'


def calls(model: str, gate: Gate, *, embeds: bool) -> tuple[str, str, str]:
    """By curl, in Python and in JavaScript: a conversation, or texts that become vectors."""
    if embeds:
        return embed_curl(model, gate), embed_python(model, gate), embed_javascript(model, gate)
    return curl(model, gate), python(model, gate), javascript(model, gate)


def embed_curl(model: str, gate: Gate) -> str:
    """Two texts with nothing but curl."""
    trust = '--cacert "$SSL_CERT_FILE" ' if gate.ca else ""
    return f"""curl {trust}\\
  {gate.url}/v1/embeddings \\
  -H "Authorization: Bearer $BESSEMER_API_KEY" \\
  -H "Content-Type: application/json" \\
  -d '{{
    "model": "{model}",
    "input": ["Steel is blown with air.", "Air makes steel."]
  }}'"""


def embed_python(model: str, gate: Gate) -> str:
    """The same with the official client."""
    return f"""import os

from openai import OpenAI

client = OpenAI(
    base_url="{gate.url}/v1",
    api_key=os.environ["BESSEMER_API_KEY"],
)
answer = client.embeddings.create(
    model="{model}",
    input=["Steel is blown with air.", "Air makes steel."],
)
for one in answer.data:
    print(len(one.embedding), one.embedding[:4])
"""


def embed_javascript(model: str, gate: Gate) -> str:
    """The same with the official client for Node.js."""
    trust = '// node finds the authority by: export NODE_EXTRA_CA_CERTS="$SSL_CERT_FILE"\n' if gate.ca else ""
    return f"""{trust}import OpenAI from "openai";

const client = new OpenAI({{
  baseURL: "{gate.url}/v1",
  apiKey: process.env.BESSEMER_API_KEY,
}});
const answer = await client.embeddings.create({{
  model: "{model}",
  input: ["Steel is blown with air.", "Air makes steel."],
}});
for (const one of answer.data) {{
  console.log(one.embedding.length, one.embedding.slice(0, 4));
}}
"""


def curl(model: str, gate: Gate) -> str:
    """A call with nothing but curl."""
    trust = '--cacert "$SSL_CERT_FILE" ' if gate.ca else ""
    return f"""curl {trust}\\
  {gate.url}/v1/chat/completions \\
  -H "Authorization: Bearer $BESSEMER_API_KEY" \\
  -H "Content-Type: application/json" \\
  -d '{{
    "model": "{model}",
    "stream": true,
    "messages": [
      {{"role": "user", "content": "Why is steel blown with air?"}}
    ]
  }}'"""


def python(model: str, gate: Gate) -> str:
    """The same with the official client, which finds the authority by SSL_CERT_FILE."""
    return f"""import os

from openai import OpenAI

client = OpenAI(
    base_url="{gate.url}/v1",
    api_key=os.environ["BESSEMER_API_KEY"],
)
stream = client.chat.completions.create(
    model="{model}",
    messages=[{{"role": "user", "content": "Why is steel blown with air?"}}],
    stream=True,
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="")
"""


def javascript(model: str, gate: Gate) -> str:
    """The same with the official client for Node.js, which finds the authority by NODE_EXTRA_CA_CERTS."""
    trust = '// node finds the authority by: export NODE_EXTRA_CA_CERTS="$SSL_CERT_FILE"\n' if gate.ca else ""
    return f"""{trust}import OpenAI from "openai";

const client = new OpenAI({{
  baseURL: "{gate.url}/v1",
  apiKey: process.env.BESSEMER_API_KEY,
}});
const stream = await client.chat.completions.create({{
  model: "{model}",
  messages: [{{ role: "user", content: "Why is steel blown with air?" }}],
  stream: true,
}});
for await (const chunk of stream) {{
  process.stdout.write(chunk.choices[0]?.delta?.content ?? "");
}}
"""


def invoice_code(project: str, *, since: str, until: str) -> Tabs:
    window = f"--since {since} --until {until}"
    return (
        ("CLI", f"bessemer invoice -n {project} {window}\nbessemer invoice -n {project} -o json {window}"),
        ("kubectl", f'kubectl get --raw \\\n  "/apis/{API_VERSION}/projects/{project}/invoice"'),
    )


def check_command(project: str, *, since: str, until: str) -> str:
    """Two lines by which anybody can derive the total again."""
    return (
        f"bessemer invoice -n {project} \\\n  --since {since} \\\n  --until {until} \\\n"
        "  --export rows.json\npython tests/oracle/invoice.py rows.json"
    )
