"""What each role may be told and may do, as people read it in docs/matrix.md, and answers held against that.

What is another tenant's, and what is in the tenant's other project, bears two marks. Its *name* may be guessed and said
in a request, so an error may say it back. Its *word* stands in annotations, labels and specs, and no request says it:
whoever is told it has been told what is another's.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import orjson
import yaml

from bessemer.api.routes import Rule
from bessemer.api.shown import Resources, Shown
from bessemer.core.ports import CONTROLLER, Scope
from bessemer.kinds import KINDS
from bessemer.kinds.asks import ASKS
from tests.api.matrix import PAGE, TABLES, Matrix
from tests.api.world import World

THEIRS, BESIDE = "canary7f3a91", "canarydenb2c4"
"""Names of what is another tenant's, and of what is in the tenant's other project."""

WORDS: Mapping[str, str] = {THEIRS: "veiled90e1d7", BESIDE: "veiledden4c55"}
"""What else stands in them."""

LAB, DEN, OTHER = "acme--lab", "acme--den", "other--lab"
PLATFORM = ("admin", "auditor", "billing")
"""Whose role is of everything: they are let read what is marked, kind by kind."""

LETTERS = {"GET": "r", "POST": "c", "PUT": "u", "PATCH": "u", "DELETE": "d"}
OPEN = ("public", "signed-in")
"""Routes with these permissions answer each asker with what is theirs."""


# --- the marks --------------------------------------------------------------------------------------------------------


async def mark(matrix: Matrix) -> None:
    """Let everything that is another tenant's, or in the next project, say so."""
    w = matrix.w
    for shown in Resources(KINDS).all:
        if shown.namespaced and shown.view is None and shown.kind not in ("Claim", "Event", "CustomResourceDefinition"):
            for namespace, name in ((OTHER, THEIRS), (DEN, BESIDE)):
                await matrix._store(shown, namespace, name)
    for namespace, name in ((OTHER, THEIRS), (DEN, BESIDE)):
        await w.claim(name, "h1", namespace)
    for kind in KINDS:
        for item in (await w.store.objects.list(Scope(kind=kind.name))).items:
            word = _word(kind.name, item.key.namespace, item.key.name)
            if not word or kind.name == "Claim":
                continue
            body = orjson.loads(item.body)
            metadata = body["metadata"]
            metadata["annotations"] = {**metadata.get("annotations", {}), "mark": word}
            metadata["labels"] = {**metadata.get("labels", {}), "mark": word}
            if kind.name in ("ConfigMap", "Secret"):
                body["data"] = {"mark": word}
            elif "displayName" in _fields(kind.resource.model_fields.get("spec")):
                body["spec"]["displayName"] = word
            await w.store.objects.replace(body, CONTROLLER)


def _fields(part: Any) -> Mapping[str, Any]:
    found: Mapping[str, Any] = part.annotation.model_json_schema().get("properties", {}) if part is not None else {}
    return found


def _word(kind: str, namespace: str, name: str) -> str:
    if namespace == OTHER or place_of(kind, namespace, name) == "other":
        return WORDS[THEIRS]
    return WORDS[BESIDE] if namespace == DEN else ""


# --- the page ---------------------------------------------------------------------------------------------------------


def place_of(kind: str, namespace: str, name: str) -> str:
    """Own, beside, other or platform, as the matrix has it."""
    if namespace or kind in ("Project", "Namespace"):
        project = namespace or name
        return {LAB: "own"}.get(project, "beside" if project.startswith("acme--") else "other")
    if kind == "Tenant":
        return "own" if name == "acme" else "other"
    if kind in ("Role", "RoleBinding"):
        tenant = name.partition("--")[0] if "--" in name else ""
        return {"": "platform", "acme": "own"}.get(tenant, "other")
    if kind == "PricePlan":
        return "own" if name == "standard" else "other"
    return "platform"


@functools.cache
def _cells() -> Mapping[tuple[str, str, str], str]:
    """Letters by (row, place, asker), out of the page."""
    found: dict[tuple[str, str, str], str] = {}
    for part in PAGE.read_text(encoding="utf-8").split("<!-- ")[1:]:
        place, _, text = part.partition(": python -m tests.api.matrix -->\n")
        if not text or place.startswith("/"):
            continue
        head, _, *rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.strip().splitlines()]
        for row in rows:
            # A line may be of several rows that are answered alike.
            for name in row[0].split(", "):
                found.update({(name, place, asker): text for asker, text in zip(head[1:], row[1:], strict=True)})
    return found


def letters(asker: str, row: str, place: str) -> str:
    """What they may there; a row is a kind, or a part of one."""
    if row == "CustomResourceDefinition":
        return "r"
    row = {"Namespace": "Project"}.get(row, row)
    if place == "platform":
        # Of the platform's kinds nobody has more by a role in a tenant than whoever has none.
        return _cells()[row, place, asker if asker in TABLES["platform"] else "new"]
    # The platform's roles, and who has none, are the same in each project of a tenant.
    return _cells()[row, place if (row, place, asker) in _cells() else "own", asker]


def may_read(asker: str, kind: str, namespace: str, name: str) -> bool:
    return "r" in letters(asker, kind, place_of(kind, namespace, name))


def may_ask(asker: str, shown: Shown, method: str, *, namespace: str, name: str, status: bool = False) -> bool:
    """Whether a request about one object, its ``status`` or a new one may be answered with anything but a refusal."""
    letter = LETTERS[method.upper()]
    return ("s" if status and letter == "u" else letter) in letters(
        asker, shown.stored, place_of(shown.stored, namespace, name)
    )


def may_use(asker: str, rule: Rule, *, namespace: str, name: str) -> bool:
    """The same of a route that is not described."""
    if rule.permission in OPEN:
        return True
    if rule.permission == "auditor":
        return asker in ("admin", "auditor")
    if rule.permission == "fleet":
        return "r" in letters(asker, "Host", "platform")
    if rule.permission == "planner":
        return any("c" in letters(asker, kind, place_of(kind, namespace, "x")) for kind in ASKS)
    shown = next((one for one in Resources(KINDS).all if rule.plural and one.plural == rule.plural), None)
    if shown is None or rule.permission == "vouched":
        # What vouches for a join is in no request here, and nobody here is a gateway or an agent.
        return rule.permission in ("admin", "content") and asker == "admin"
    place = place_of(shown.kind, namespace if "{namespace}" in rule.path else "", name)
    return "x" in letters(asker, f"{shown.kind}/{rule.path.rpartition('/')[2]}", place)


# --- one answer -------------------------------------------------------------------------------------------------------


def hold(asker: str, body: bytes, *, shown: Shown | None, asked: str, letter: str = "r") -> None:
    """Whether an answer has nothing that is not its asker's to know: what is in it is in the set of which they may
    ``letter``. What they named in the request may come back as a name."""
    if asker not in PLATFORM:
        own = asker.startswith("t.")
        for name in (THEIRS,) if own else (THEIRS, BESIDE):
            assert WORDS[name].encode() not in body, (asker, asked, body[:2000])
            assert name.encode() not in body or name in asked, (asker, asked, body[:2000])
    for found in objects(body) if shown is not None else ():
        metadata = found.get("metadata") or {}
        assert shown is not None
        where = (shown.stored, metadata.get("namespace") or "", metadata.get("name") or "")
        assert letter in letters(asker, where[0], place_of(*where)), (asker, asked, where)


def objects(body: bytes) -> Iterator[dict[str, Any]]:
    """Those of an answer in JSON or YAML, of whatever shape, and of a stream."""
    for told in _values(body):
        value = told.get("object", told) if isinstance(told, dict) and "type" in told else told
        if not isinstance(value, dict) or value.get("kind") == "Status":
            continue
        many = value.get("items") if "items" in value else [row["object"] for row in value.get("rows", ())]
        for one in many if many is not None and ("items" in value or "rows" in value) else [value]:
            if (one.get("metadata") or {}).get("name"):
                yield one


def _values(body: bytes) -> Iterator[Any]:
    if body[:1] not in (b"{", b"["):
        yield yaml.load(body, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        return
    for line in body.splitlines():
        yield orjson.loads(line)


# --- what stays -------------------------------------------------------------------------------------------------------


async def untouchable(w: World, asker: str) -> dict[tuple[str, str, str], bytes]:
    """Every object that they may not change, as it is stored."""
    found = {}
    for kind in KINDS:
        for item in (await w.store.objects.list(Scope(kind=kind.name))).items:
            allowed = letters(asker, kind.name, place_of(kind.name, item.key.namespace, item.key.name))
            if not {*allowed} & {*"cud"}:
                found[kind.name, item.key.namespace, item.key.name] = bytes(item.body)
    return found
