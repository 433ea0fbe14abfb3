"""Every role asks for everything, with what the description allows and what it forbids, in its own tenant, in the next
project and in another tenant: never our fault, never a word that is another tenant's, never an object that the matrix
does not let its asker read, nothing but a refusal where it has no letter for them, and nothing changed there.

What may be told to whom, and how it is seen in an answer, is in `permitted`.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any
from urllib.parse import unquote, urlencode

import pytest
import schemathesis
from hypothesis import given
from hypothesis import strategies as st
from schemathesis import GenerationMode

from bessemer.api.openapi import document
from bessemer.api.routes import ROUTES, Rule
from bessemer.api.shown import Resources, Shown
from bessemer.core.resource import VERSION
from bessemer.kinds import KINDS
from tests.api.matrix import ASKERS, Matrix, Thing, watched_bytes
from tests.api.permitted import (
    BESIDE,
    DEN,
    LAB,
    OTHER,
    THEIRS,
    WORDS,
    hold,
    mark,
    may_ask,
    may_use,
    objects,
    untouchable,
)
from tests.api.test_openapi import BODIES, MEDIAS, QUERIES, TABLE, as_bytes, check, examples, operations
from tests.api.world import World, world
from tests.store.server import empty, running

NAMES = ("there", THEIRS, BESIDE, "none", "acme", "other", LAB, DEN, OTHER, "standard", "research", "other--there")
SHAPES = (
    "application/json",
    TABLE,
    "application/yaml",
    "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
)
QUIET = ("/login", "/audit/trim")
"""Of these one ends the asker's own session, and the other waits for an archive."""


@dataclass(frozen=True, eq=False)
class Place:
    """One operation of the description."""

    shown: Shown
    operation: Any

    @property
    def name(self) -> str:
        return f"{self.operation.method} {self.operation.path}"


REVIEWS = ("placementreviews",)


@functools.cache
def described() -> tuple[Place, ...]:
    """Every operation on objects, in every version. Reviews are no objects: they are among the undescribed."""
    found = []
    for group in Resources(KINDS).groups().values():
        by_path = {f"{one.base}/{one.plural}": one for one in group}
        for result in schemathesis.openapi.from_dict(document(group, "test")).get_all_operations():
            operation = result.ok()
            plain = (
                operation.path.removesuffix("/status").removesuffix("/{name}").replace("/namespaces/{namespace}", "")
            )
            if plain.rpartition("/")[2] not in REVIEWS:
                found.append(Place(by_path[plain], operation))
    return tuple(found)


UNDESCRIBED = tuple(
    rule for rule in ROUTES if rule.method != "WS" and "{plural}" not in rule.path and rule.path not in QUIET
)


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


@dataclass(frozen=True, eq=False)
class Asked:
    """A request as it was drawn; ``allowed`` by the description, or forbidden."""

    place: Place
    case: Any
    allowed: bool


@dataclass
class Stage:
    """A world in which everybody is, and what is asked there."""

    w: World
    matrix: Matrix

    def things(self, kind: str) -> list[Thing]:
        """An object in each place."""
        kind = {"Namespace": "Project"}.get(kind, kind)
        return [thing for thing in self.matrix.things if thing.shown.kind == kind]

    def targets(self, asked: Asked) -> list[Thing | None]:
        return [*self.things(asked.place.shown.stored)] if asked.allowed else []


@functools.cache
def requests(count: int) -> Sequence[Asked]:
    """Of each operation some that its description allows, and some that it forbids."""
    loose = {*operations(GenerationMode.NEGATIVE)}
    found = []
    for place in described():
        modes = [GenerationMode.POSITIVE]
        modes += [GenerationMode.NEGATIVE] if (place.operation.method, place.operation.path) in loose else []
        for mode in modes:
            cases = gathered(place.operation.as_strategy(generation_mode=mode), count)
            found += [Asked(place, case, mode is GenerationMode.POSITIVE) for case in cases]
    return found


@functools.cache
def bodies(count: int) -> Sequence[tuple[dict[str, str], bytes, str]]:
    """What is said to the routes that are not described."""
    return gathered(st.tuples(QUERIES, BODIES, MEDIAS), count)


async def ask_described(stage: Stage, asker: str, asked: Asked, *, target: Thing | None, chance: Random) -> None:
    """One request, about the target where there is one, and what the collection then shows to them."""
    place, case = asked.place, asked.case
    method, template = case.method.upper(), place.operation.path
    name, namespace = chance.choice(NAMES), chance.choice((LAB, DEN, OTHER))
    if target is not None:
        name, namespace = name if method == "POST" else target.name, target.namespace
    path = template.format(namespace=namespace, name=name)
    at = {"namespace": namespace if place.shown.namespaced else "", "name": name}
    if not asked.allowed and chance.random() < 0.5:
        path, at = unquote(case.formatted_path), at | (case.path_parameters or {})
    query = {key: str(value) for key, value in (case.query or {}).items() if key != "watch"}
    # What they make of another's name would be their own, and could not be told from it later.
    if method == "DELETE" or (name in WORDS and namespace != OTHER) or chance.random() < 0.5:
        query["dryRun"] = "All"
    path = f"{path}?{urlencode(query, errors='replace')}"
    body = b"" if case.body is schemathesis.core.NOT_SET else as_bytes(_aimed(case.body, name, method))
    headers, how = {"accept": chance.choice(SHAPES)}, stage.matrix.how[asker]
    reply = await stage.w.call(case.method, path, body, media=case.media_type or "", headers=headers, **how)
    words = f"{case.method} {path} {body!r}"
    check_any(reply, words)
    # What is in the body of a write comes back in its answer, and what a collection's deletion would take.
    hold(asker, reply.body, shown=place.shown, asked=words, letter="d" if method == "DELETE" else "r")
    if "{name}" in template or method == "POST":
        allowed = may_ask(asker, place.shown, method, status=template.endswith("/status"), **at)
        assert reply.code >= 400 or allowed, (asker, words, reply.code)
    await look(stage, asker, place.shown, namespace=namespace, chance=chance)


def _aimed(body: Any, name: str, method: str) -> Any:
    """An object of that name, where it is one."""
    return {**body, "metadata": {"name": name}} if isinstance(body, dict) and method == "POST" else body


SELECTED = (
    "",
    f"labelSelector=mark%3D{WORDS[THEIRS]}",
    "labelSelector=mark",
    f"labelSelector=mark+in+({','.join(WORDS.values())})",
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
    if not (reply.headers.get("content-type", "").startswith("application/yaml") and reply.code < 400):
        check(reply, asked)


async def ask_undescribed(stage: Stage, asker: str, rule: Rule, said: Any, *, name: str, namespace: str) -> None:
    query, body, media = said
    parts = {"name": name, "namespace": namespace, "provider": name, "group": "bessemer.dev", "version": VERSION}
    path = rule.path.format(**parts, digest="sha256:" + "0" * 64)
    asked = f"{path}?{urlencode(query, errors='replace')}"
    reply = await stage.w.call(rule.method, asked, body, media=media, **stage.matrix.how[asker])
    words = f"{rule.method} {asked} {body!r}"
    check_any(reply, words)
    hold(asker, reply.body, shown=None, asked=words)
    allowed = may_use(asker, rule, namespace=namespace, name=name)
    assert reply.code >= 400 or allowed, (asker, words, reply.code, reply.body[:2000])


async def check_role(stage: Stage, asker: str, *, count: int) -> int:
    """All of it, in an order of its own; how many requests."""
    chance, before = Random(asker), await untouchable(stage.w, asker)
    # What is allowed is drawn at some cost, and asked in each place; what is forbidden mostly has a place of its own.
    asked = [(one, target) for one in requests(count) for target in stage.targets(one) or [None]]
    chance.shuffle(asked)
    for one, target in asked:
        await ask_described(stage, asker, one, target=target, chance=chance)
    rest = [(rule, *at) for rule in UNDESCRIBED for at in aims(stage, rule, chance=chance)]
    for rule, name, namespace in rest:
        for said in bodies(count):
            await ask_undescribed(stage, asker, rule, said, name=name, namespace=namespace)
    assert await untouchable(stage.w, asker) == before
    return len(asked) + len(rest) * count


def aims(stage: Stage, rule: Rule, *, chance: Random) -> list[tuple[str, str]]:
    """Names and namespaces to ask it about: of a kind's part in each place, and of anything."""
    kind = next((shown.kind for shown in Resources(KINDS).all if rule.plural and shown.plural == rule.plural), "")
    found = [(thing.name, thing.namespace) for thing in stage.things(kind)] if "{name}" in rule.path else []
    return [*found, (chance.choice(NAMES), chance.choice((LAB, DEN, OTHER)))]


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
    assert {rule.path.rpartition("/")[2] for rule in UNDESCRIBED} >= set(REVIEWS)
    assert await check_role(stage, "t.member", count=2) > len(described()) + len(UNDESCRIBED)


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
        for namespace, mine in ((OTHER, THEIRS), (DEN, BESIDE), (LAB, "")):
            for shape in ("application/json", "application/yaml"):
                path, headers = f"{shown.base}/namespaces/{namespace}/{shown.plural}", {"accept": shape}
                reply = await stage.w.call("GET", path, headers=headers)
                for name, word in WORDS.items():
                    there = {name.encode() in reply.body, word.encode() in reply.body}
                    assert there == {name == mine}, (shown.kind, namespace, shape)
                assert [*objects(reply.body)], (shown.kind, namespace, shape)
    body = (await stage.w.call("GET", f"/api/v1/namespaces/{OTHER}/configmaps")).body
    with pytest.raises(AssertionError):
        hold("t.member", body, shown=None, asked="")
    with pytest.raises(AssertionError):
        hold("t.member", body, shown=None, asked=THEIRS)
    unmarked = body.replace(THEIRS.encode(), b"x").replace(WORDS[THEIRS].encode(), b"x")
    hold("t.member", unmarked, shown=None, asked="")
    with pytest.raises(AssertionError):
        hold("t.member", unmarked, shown=Resources(KINDS).of_kind("ConfigMap"), asked="")
