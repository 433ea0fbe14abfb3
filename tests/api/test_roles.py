"""Every role asks for everything, with what the description allows and what it forbids, in its own tenant, in the next
project and in another tenant: never our fault, never a word that is another tenant's, never an object that the matrix
does not let its asker read.

What is another tenant's bears a mark, in names, annotations, specs and messages. What somebody may read is taken from
docs/matrix.md, where people have looked at it.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any
from urllib.parse import unquote, urlencode

import orjson
import pytest
import schemathesis
from hypothesis import given
from hypothesis import strategies as st
from schemathesis import GenerationMode

from bessemer.api.openapi import document
from bessemer.api.routes import ROUTES, Rule
from bessemer.api.shown import Resources, Shown
from bessemer.core.ports import CONTROLLER, Scope
from bessemer.core.resource import VERSION
from bessemer.kinds import KINDS
from tests.api.matrix import ASKERS, PAGE, Matrix, watched_bytes
from tests.api.test_openapi import BODIES, MEDIAS, QUERIES, TABLE, as_bytes, check, examples, operations
from tests.api.world import World, world
from tests.store.server import empty, running

THEIRS, BESIDE = "canary7f3a91", "canarydenb2c4"
"""What stands in everything of another tenant, and of the tenant's other project."""

LAB, DEN, OTHER = "acme--lab", "acme--den", "other--lab"
PLATFORM = ("admin", "auditor", "billing")
"""Whose role is of everything: they are let read what is marked, kind by kind."""

NAMES = ("there", THEIRS, BESIDE, "none", "acme", "other", LAB, DEN, OTHER, "standard", "research", "other--there")
SHAPES = (
    "application/json",
    TABLE,
    "application/yaml",
    "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
)
QUIET = ("/login", "/audit/trim")
"""Of these one ends the asker's own session, and the other waits for an archive."""


@dataclass
class Stage:
    """A world in which everybody is, and what is asked there."""

    w: World
    matrix: Matrix


@dataclass(frozen=True, eq=False)
class Place:
    """One operation of the description."""

    shown: Shown
    operation: Any

    @property
    def name(self) -> str:
        return f"{self.operation.method} {self.operation.path}"


@functools.cache
def described() -> tuple[Place, ...]:
    """Every operation, in every version."""
    found = []
    for group in Resources(KINDS).groups().values():
        by_path = {f"{one.base}/{one.plural}": one for one in group}
        for result in schemathesis.openapi.from_dict(document(group, "test")).get_all_operations():
            operation = result.ok()
            plain = operation.path.removesuffix("/{name}").replace("/namespaces/{namespace}", "")
            found.append(Place(by_path[plain], operation))
    return tuple(found)


UNDESCRIBED = tuple(
    rule for rule in ROUTES if rule.method != "WS" and "{plural}" not in rule.path and rule.path not in QUIET
)


# --- the marks --------------------------------------------------------------------------------------------------------


async def mark(matrix: Matrix) -> None:
    """Let everything that is another tenant's, or in the next project, say so."""
    w = matrix.w
    for shown in Resources(KINDS).all:
        if shown.namespaced and shown.view is None and shown.kind not in ("Claim", "Event", "CustomResourceDefinition"):
            for namespace, word in ((OTHER, THEIRS), (DEN, BESIDE)):
                await matrix._store(shown, namespace, word)
    for namespace, word in ((OTHER, THEIRS), (DEN, BESIDE)):
        await w.claim(word, "h1", namespace)
    for kind in KINDS:
        for item in (await w.store.objects.list(Scope(kind=kind.name))).items:
            body = orjson.loads(item.body)
            word = _word(kind.name, item.key.namespace, item.key.name)
            if word and kind.name != "Claim":
                metadata = body["metadata"]
                metadata["annotations"] = {**metadata.get("annotations", {}), "mark": word}
                metadata["labels"] = {**metadata.get("labels", {}), "mark": word}
                if (
                    "displayName"
                    in kind.resource.model_fields["spec"].annotation.model_json_schema().get("properties", {})
                    if "spec" in kind.resource.model_fields
                    else False
                ):
                    body["spec"]["displayName"] = word
                await w.store.objects.replace(body, CONTROLLER)


def _word(kind: str, namespace: str, name: str) -> str:
    if namespace == OTHER or place_of(kind, namespace, name) == "other":
        return THEIRS
    return BESIDE if namespace == DEN else ""


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
def readable() -> Mapping[tuple[str, str, str], bool]:
    """By (kind, place, asker), out of the page."""
    found: dict[tuple[str, str, str], bool] = {}
    for part in PAGE.read_text(encoding="utf-8").split("<!-- ")[1:]:
        place, _, text = part.partition(": python -m tests.api.matrix -->\n")
        if not text or place.startswith("/"):
            continue
        head, _, *rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.strip().splitlines()]
        for row in rows:
            for asker, letters in zip(head[1:], row[1:], strict=True):
                found[row[0], place, asker] = "r" in letters
    return found


def may_read(asker: str, kind: str, namespace: str, name: str) -> bool:
    if kind == "CustomResourceDefinition":
        return True
    kind = {"Namespace": "Project"}.get(kind, kind)
    place = place_of(kind, namespace, name)
    # The platform's roles stand in the tables of tenants for all of these; of the platform's kinds nobody has more by a
    # role in a tenant than whoever has none.
    said = (readable().get(cell) for cell in ((kind, place, asker), (kind, "own", asker), (kind, "platform", "new")))
    return next(one for one in said if one is not None)


# --- one answer -------------------------------------------------------------------------------------------------------


def hold(asker: str, body: bytes, *, shown: Shown | None, asked: str) -> None:
    """Whether an answer has nothing that is not its asker's to know."""
    if asker not in PLATFORM:
        said = asked.encode(errors="replace")
        assert THEIRS.encode() not in body or THEIRS.encode() in said, (asker, asked, body[:2000])
        own = asker.startswith("t.")
        assert own or BESIDE.encode() not in body or BESIDE.encode() in said, (asker, asked, body[:2000])
    for found in objects(body) if shown is not None else ():
        metadata = found.get("metadata") or {}
        assert shown is not None
        where = (shown.stored, metadata.get("namespace") or "", metadata.get("name") or "")
        assert may_read(asker, *where), (asker, asked, where)


def objects(body: bytes) -> Iterator[dict[str, Any]]:
    """Those of an answer in JSON, of whatever shape, and of a stream."""
    for line in body.splitlines():
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError:
            return
        value = value.get("object", value) if isinstance(value, dict) and "type" in value else value
        if not isinstance(value, dict) or value.get("kind") == "Status":
            continue
        many = value.get("items") if "items" in value else [row["object"] for row in value.get("rows", ())]
        for one in many if many is not None and ("items" in value or "rows" in value) else [value]:
            if (one.get("metadata") or {}).get("name"):
                yield one


def gathered(strategy: Any, count: int) -> list[Any]:
    """Examples of a strategy. They are drawn apart from the asking, since what is answered depends on the world, and
    each strategy by itself, since those of schemathesis remember."""
    found: list[Any] = []

    @examples(count)
    @given(strategy)
    def gather(one: Any) -> None:
        found.append(one)

    gather()
    return found


@functools.cache
def requests(count: int, step: int) -> Sequence[tuple[Place, Any, bool]]:
    """Of each operation (or of every so manieth) some that its description allows, and some that it forbids."""
    loose = {*operations(GenerationMode.NEGATIVE)}
    found = []
    for place in described()[::step]:
        modes = [GenerationMode.POSITIVE]
        modes += [GenerationMode.NEGATIVE] if (place.operation.method, place.operation.path) in loose else []
        for mode in modes:
            cases = gathered(place.operation.as_strategy(generation_mode=mode), count)
            found += [(place, case, mode is GenerationMode.POSITIVE) for case in cases]
    return found


@functools.cache
def bodies(count: int) -> Sequence[tuple[dict[str, str], bytes, str]]:
    """What is said to the routes that are not described."""
    return gathered(st.tuples(QUERIES, BODIES, MEDIAS), count)


async def ask_described(stage: Stage, asker: str, place: Place, case: Any, *, aimed: bool, chance: Random) -> None:
    """One request, and what the collection then shows to them."""
    how, name, namespace = stage.matrix.how[asker], chance.choice(NAMES), chance.choice((LAB, DEN, OTHER))
    path = place.operation.path.format(namespace=namespace, name=name)
    if not aimed and chance.random() < 0.5:
        path = unquote(case.formatted_path)
    query = {key: str(value) for key, value in (case.query or {}).items() if key != "watch"}
    if place.operation.method.upper() == "DELETE" or chance.random() < 0.5:
        query["dryRun"] = "All"
    asked = f"{path}?{urlencode(query, errors='replace')}"
    body = b"" if case.body is schemathesis.core.NOT_SET else as_bytes(_aimed(case.body, name, case.method))
    headers = {"accept": chance.choice(SHAPES)}
    reply = await stage.w.call(case.method, asked, body, media=case.media_type or "", headers=headers, **how)
    words = f"{case.method} {asked} {body!r}"
    check_any(reply, words)
    # What is in the body of a write comes back in its answer.
    hold(asker, reply.body, shown=place.shown, asked=words)
    await look(stage, asker, place.shown, namespace=namespace, chance=chance)


def _aimed(body: Any, name: str, method: str) -> Any:
    """An object of that name, where it is one."""
    if not isinstance(body, dict) or method.upper() == "PATCH":
        return body
    return {**body, "metadata": {"name": name}} if method.upper() == "POST" else body


SELECTED = (
    "",
    f"labelSelector=mark%3D{THEIRS}",
    "labelSelector=mark",
    f"labelSelector=mark+in+({THEIRS},{BESIDE})",
    f"fieldSelector=metadata.name%3D{THEIRS}",
    f"fieldSelector=metadata.namespace%3D{OTHER}",
    f"fieldSelector=metadata.namespace!%3D{LAB}",
    "limit=1",
)


async def look(stage: Stage, asker: str, shown: Shown, *, namespace: str, chance: Random) -> None:
    """Lists and watches of the kind, in a project or over all."""
    how, selector = stage.matrix.how[asker], chance.choice(SELECTED)
    within = f"/namespaces/{namespace}" if shown.namespaced and chance.random() < 0.5 else ""
    path = f"{shown.base}{within}/{shown.plural}"
    reply = await stage.w.call("GET", f"{path}?{selector}", headers={"accept": chance.choice(SHAPES)}, **how)
    check_any(reply, path)
    # Its selector is not in what a list answers: nothing here is an echo.
    hold(asker, reply.body, shown=shown, asked="")
    if chance.random() < 0.5:
        hold(asker, await watched_bytes(stage.w, path, selector, **how), shown=shown, asked="")


def check_any(reply: Any, asked: str) -> None:
    assert not reply.body.startswith(b"[+]ping"), "the replica has lost what it follows, and says that it is not ready"
    if reply.headers.get("content-type", "").startswith("application/yaml") and reply.code < 400:
        return
    check(reply, asked)


async def ask_undescribed(stage: Stage, asker: str, rule: Rule, said: Any, *, chance: Random) -> None:
    query, body, media = said
    name, namespace = chance.choice(NAMES), chance.choice((LAB, DEN, OTHER))
    parts = {"name": name, "namespace": namespace, "provider": name, "group": "bessemer.dev", "version": VERSION}
    path = rule.path.format(**parts, digest="sha256:" + "0" * 64)
    asked = f"{path}?{urlencode(query, errors='replace')}"
    reply = await stage.w.call(rule.method, asked, body, media=media, **stage.matrix.how[asker])
    words = f"{rule.method} {asked} {body!r}"
    check_any(reply, words)
    hold(asker, reply.body, shown=None, asked=words)


async def check_role(stage: Stage, asker: str, *, count: int, step: int = 1) -> int:
    """All of it, in an order of its own; how many requests."""
    chance = Random(asker)
    asked = list(requests(count, step))
    chance.shuffle(asked)
    for place, case, aimed in asked:
        await ask_described(stage, asker, place, case, aimed=aimed, chance=chance)
    for rule in UNDESCRIBED[::step]:
        for said in bodies(count):
            await ask_undescribed(stage, asker, rule, said, chance=chance)
    return len(asked) + len(UNDESCRIBED[::step]) * count


# --- the tests --------------------------------------------------------------------------------------------------------


@contextmanager
def kept(database: str) -> Iterator[str]:
    if database == "sqlite":
        yield ":memory:"
        return
    with running() as server:
        yield server.url()


@pytest.fixture(scope="module")
def places() -> Iterator[Callable[[str], str]]:
    """Where a world is kept: a server is started once, and emptied for each."""
    with kept("postgresql") as url:
        used: list[str] = []

        def place(database: str) -> str:
            if database == "sqlite":
                return ":memory:"
            if used:
                empty(url)
            used.append(url)
            return url

        yield place


async def furnished(w: World) -> Stage:
    matrix = Matrix(w)
    await matrix.furnish()
    await mark(matrix)
    return Stage(w, matrix)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with world() as w:
        yield await furnished(w)


@pytest.fixture
async def kept_stage(request: pytest.FixtureRequest, places: Callable[[str], str]) -> AsyncIterator[Stage]:
    async with world(place=places(request.param)) as w:
        yield await furnished(w)


@pytest.mark.real
async def test_a_member_is_told_what_is_their_own(stage: Stage) -> None:
    assert await check_role(stage, "t.member", count=1, step=9)


@pytest.mark.long
@pytest.mark.parametrize("asker", ASKERS)
@pytest.mark.parametrize("kept_stage", ["sqlite", "postgresql"], indirect=True)
async def test_each_role_is_told_what_is_its_own(
    kept_stage: Stage, asker: str, record_property: Callable[[str, object], None]
) -> None:
    """Each role asks each operation, on both databases: no 5xx, no word of another tenant, no object beyond its own."""
    record_property("requests", await check_role(kept_stage, asker, count=3))


async def test_the_marks_are_where_they_are_looked_for(stage: Stage) -> None:
    """Else the tests here could not fail: an administrator is shown them everywhere, and its own tenant's are not."""
    for shown in Resources(KINDS).all:
        if not shown.namespaced or shown.kind in ("Claim", "Event"):
            continue
        for namespace, word in ((OTHER, THEIRS), (DEN, BESIDE), (LAB, "")):
            reply = await stage.w.call("GET", f"{shown.base}/namespaces/{namespace}/{shown.plural}")
            assert (THEIRS.encode() in reply.body) == (word == THEIRS), (shown.kind, namespace)
            assert (BESIDE.encode() in reply.body) == (word == BESIDE), (shown.kind, namespace)
            assert [*objects(reply.body)], (shown.kind, namespace)
    body = (await stage.w.call("GET", f"/api/v1/namespaces/{OTHER}/configmaps")).body
    with pytest.raises(AssertionError):
        hold("t.member", body, shown=None, asked="")
    with pytest.raises(AssertionError):
        hold("t.member", body.replace(THEIRS.encode(), b"x"), shown=Resources(KINDS).of_kind("ConfigMap"), asked="")
