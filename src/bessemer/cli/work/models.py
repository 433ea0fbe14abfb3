"""What the command line does for models: sources in words, the way in with a bar, and what came."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import orjson

from bessemer.cli.progress import bar
from bessemer.cli.work.waiting import standing
from bessemer.client import Client, an_object
from bessemer.core.errors import AlreadyExists, Invalid
from bessemer.core.resource import Key
from bessemer.core.units import show_bytes
from bessemer.kinds.inference.sources import ModelSource

LOOK_SECONDS = 0.5

_WHEEL = re.compile(r"([^/=]{1,100})==([^/=]{1,50})/(.{1,300})")
_FORMS = "hub:ORG/NAME[@REVISION], s3://BUCKET/PREFIX, https://…, wheel:NAME==VERSION/MEMBER, or a path"


def source_of(text: str, *, files: Sequence[str]) -> dict[str, Any]:
    """``spec.source``. Raises Invalid for what is none."""
    picked = {"files": list(files)} if files else {}
    scheme, _, rest = text.partition(":")
    if scheme == "hub":
        repository, _, revision = rest.partition("@")
        return {"hub": {"repository": repository, **({"revision": revision} if revision else {}), **picked}}
    if scheme == "s3":
        url = urlsplit(text)
        return {"s3": {"bucket": url.netloc, "prefix": url.path.lstrip("/"), **picked}}
    if scheme in ("http", "https"):
        return {"http": {"url": text}}
    if scheme == "wheel":
        found = _WHEEL.fullmatch(rest)
        if found is None:
            raise Invalid("a wheel is wheel:NAME==VERSION/MEMBER")
        return {"wheel": {"package": found[1], "version": found[2], "member": found[3]}}
    if "/" not in text and not os.path.exists(text):
        raise Invalid(f"{text[:80]!r} is no source: {_FORMS}")
    return {"path": {"path": os.path.abspath(text), **picked}}


def name_of(text: str) -> str:
    """A name for what comes from there."""
    last = text.partition("@")[0].rstrip("/").replace(":", "/").rpartition("/")[2]
    plain = re.sub(r"[^a-z0-9]", "-", last.lower().removesuffix(".gguf").removesuffix(".safetensors"))
    name = re.sub(r"-{2,}", "-", plain).strip("-")[:63].strip("-")
    if not name:
        raise Invalid("of this source no name can be made: give one with --name")
    return name


def key_of(name: str, project: str) -> Key:
    """The platform's, or that of a project."""
    return Key("ProjectModel", project, name) if project else Key("Model", "", name)


async def create(client: Client, key: Key, *, spec: Mapping[str, Any]) -> None:
    """Raises Invalid, also where there is one of that name."""
    try:
        await client.create(an_object(key, spec))
    except AlreadyExists:
        raise Invalid(f"there is a model {key.name} already: choose another --name, or look at it") from None


async def read(client: Client, key: Key) -> dict[str, Any]:
    """The object. Raises NotFound."""
    body: dict[str, Any] = orjson.loads((await client.get(key)).body)
    return body


async def accept(client: Client, key: Key, *, licence: str) -> dict[str, str]:
    """What the server wrote down. Raises Invalid where nothing says which terms."""
    body = await read(client, key)
    terms = licence or body["spec"].get("licence", "")
    if not terms:
        raise Invalid("the model names no licence: say which terms with --licence")
    body["spec"]["accepted"] = {"licence": terms}
    written: dict[str, Any] = orjson.loads((await client.replace(body)).body)
    said: dict[str, str] = written["spec"]["accepted"]
    return said


async def brought(client: Client, key: Key, *, timeout: float) -> dict[str, Any]:
    """The object once it is ready, with a bar meanwhile. Raises Invalid with what keeps it where it is stuck, failed,
    or the time is up; it goes on in any case."""
    end, where = time.monotonic() + timeout, f" -n {key.namespace}" if key.namespace else ""
    with bar(f"fetching {key.name}") as tell:
        while True:
            body = await read(client, key)
            found = standing(key, body)
            if found.verdict == "ready":
                return body
            if found.verdict == "stuck" or time.monotonic() > end:
                raise Invalid(f"{found.line()}; it stays: bessemer model show {key.name}{where}")
            tell(body.get("status", {}).get("progressPercent", 0) / 100)
            await asyncio.sleep(LOOK_SECONDS)


def described(body: Mapping[str, Any]) -> str:
    """In lines."""
    spec, status = body["spec"], body.get("status", {})
    facts = status.get("facts", {})
    adapter = facts.get("adapter")
    lines = {
        "Name": body["metadata"]["name"],
        "Source": str(ModelSource.model_validate(spec["source"])),
        "Commit": status.get("revision", ""),
        "Phase": ": ".join(word for word in (status.get("phase", "Pending"), status.get("message", "")) if word),
        "Digest": status.get("digest", ""),
        "Size": show_bytes(status.get("sizeBytes", 0)),
        "Shared": "with the tenant's other projects" if spec.get("shared") else "",
        "Counted": show_bytes(status["heldBytes"]) if status.get("heldBytes") else "",
        "Licence": spec.get("licence", ""),
        "Accepted": "{licence}, by {by} at {at}".format(**spec["accepted"]) if spec.get("accepted") else "",
        "Format": " ".join(word for word in (facts.get("format", ""), facts.get("quantisation", "")) if word),
        "Architecture": facts.get("architecture", ""),
        "Parameters": f"{facts['parameters']:,}" if facts.get("parameters") else "",
        "Layers": facts.get("layers") or "",
        "Heads": f"{facts['heads']} ({facts['kvHeads']} of keys, {facts['headDim']} wide)"
        if facts.get("heads")
        else "",
        "Context": f"{facts['contextTokens']:,} tokens" if facts.get("contextTokens") else "",
        "Vocabulary": f"{facts['vocabulary']:,} tokens" if facts.get("vocabulary") else "",
        "Template": ("yes" if facts.get("chatTemplate") else "no") if facts else "",
        "Adapter": f"of rank {adapter['rank']}, made for {adapter['base'] or 'nobody says what'}" if adapter else "",
        "Files": ", ".join(f"{f['path']} ({show_bytes(f['sizeBytes'])})" for f in status.get("files", ())),
    }
    wide = max(map(len, lines)) + 2
    return "\n".join(f"{name:<{wide}}{said}" for name, said in lines.items() if said)
