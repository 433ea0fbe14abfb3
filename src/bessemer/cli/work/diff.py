"""What applying files would change, as a unified diff of YAML: the server computes it, nothing is written."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from bessemer.cli import render
from bessemer.cli.work.declare import Item, Wish, looked_at, refusal, sent, surplus, versioned
from bessemer.client import Client
from bessemer.core.errors import BessemerError, Cause, Invalid

_OURS = ("managedFields", "resourceVersion", "generation", "uid", "creationTimestamp")
"""Of metadata: what the server writes, and no file says."""

_SECRET = ("data", "stringData")
_COLOURS = {"-": "31", "+": "32", "@": "36"}


async def differences(client: Client, items: Sequence[Item], *, wish: Wish) -> list[str]:
    """Each difference as lines; [] where the files say what is there. Raises Invalid for what would be refused."""
    found: list[str] = []
    causes: list[Cause] = []
    looked = await looked_at(client, items)
    coming = {item.key.name for item in looked if item.key.kind == "Project" and item.now is None}
    trial = replace(wish, dry_run=True, force=True)
    for item in looked:
        if item.key.namespace in coming:
            after = versioned(item.body)  # the server cannot judge what lies in a project that is not there
        else:
            try:
                after = orjson.loads((await sent(client, item, wish=trial)).body)
            except BessemerError as error:
                causes += refusal(item, error)
                continue
        found += between(item.now, after, name=_name(item), place=item.manifest.place)
    for key in await surplus(client, items, wish=wish) if wish.prune else ():
        body = orjson.loads((await client.get(key)).body)
        found += between(body, None, name=f"{key.kind.lower()}/{key.namespace or '-'}/{key.name}", place="no file")
    if causes:
        raise Invalid(f"{len(causes)} of what the files say would be refused", causes)
    return found


def _name(item: Item) -> str:
    return f"{item.key.kind.lower()}/{item.key.namespace or '-'}/{item.key.name}"


def between(
    before: Mapping[str, Any] | None, after: Mapping[str, Any] | None, *, name: str, place: str
) -> Iterator[str]:
    """The lines of a unified diff; None is an object that is not there."""
    old, new = masked(before, after)
    one, other = ([] if body is None else render.as_yaml(body).splitlines() for body in (old, new))
    to = place if after is not None else "nothing"
    yield from difflib.unified_diff(one, other, f"live/{name}", to, lineterm="")


def masked(
    before: Mapping[str, Any] | None, after: Mapping[str, Any] | None
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Both as people may see them: without what the server writes, and values of a Secret as stars, which differ where
    the values do."""
    old, new = (None if body is None else _plain(body) for body in (before, after))
    if (old or new or {}).get("kind") != "Secret":
        return old, new
    return _starred(old, new, word="before"), _starred(new, old, word="after")


def _starred(body: dict[str, Any] | None, other: dict[str, Any] | None, *, word: str) -> dict[str, Any] | None:
    if body is None:
        return None
    hidden = {}
    for field in _SECRET:
        values, others = body.get(field), (other or {}).get(field)
        if isinstance(values, dict):
            known = others if isinstance(others, dict) else {}
            hidden[field] = {k: "***" if known.get(k, v) == v else f"*** ({word})" for k, v in values.items()}
    return {**body, **hidden}


def _plain(body: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {name: value for name, value in body["metadata"].items() if name not in _OURS}
    kept = {name: value for name, value in body.items() if name != "status"}
    return {**kept, "metadata": dict(sorted(metadata.items()))}


def coloured(line: str) -> str:
    """As a terminal shows it."""
    code = "1" if line.startswith(("---", "+++")) else _COLOURS.get(line[:1])
    return f"\x1b[{code}m{line}\x1b[0m" if code else line
