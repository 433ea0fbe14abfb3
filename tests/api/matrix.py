"""The matrix of rights as requests find it: who is let in where, kind by kind and verb by verb.

Nothing here reads a row of rights: each cell is what the api answered to a request, made as that person. ``python -m
tests.api.matrix`` writes what it found into docs/matrix.md, where people read it; a test holds the page against the
answers, so that a row which gives more or less than before is a change on that page. Run it from the root of the
checkout with ``src`` on the path.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson
import structlog

from bessemer.api.ca import Peer
from bessemer.api.routes import ROUTES
from bessemer.api.shown import Resources, Shown
from bessemer.core.ports import CONTROLLER, Scope
from bessemer.core.resource import Key
from bessemer.kinds import KINDS
from tests.api.world import ADMIN, BASE, PASSWORD, World, _scope, hashed, named, tenant, world
from tests.kinds import pages

PAGE = Path(__file__).parents[2] / "docs" / "matrix.md"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
MERGE = "application/merge-patch+json"
REFUSED = frozenset([401, 403, 404, 405])

BOUND: Mapping[str, tuple[str, str, Mapping[str, str]]] = {
    "operator": ("ops", "operator", {}),
    "auditor": ("audit", "auditor", {}),
    "billing": ("bill", "billing-reader", {}),
    "t.auditor": ("acme--audit", "auditor", {}),
    "t.billing": ("acme--bill", "billing-reader", {}),
    "p.member": ("acme--some", "member", {"project": "acme--lab"}),
    "p.reader": ("acme--few", "reader", {"project": "acme--lab"}),
}
"""Who holds a role by a binding: its name, the role, and the scope."""

MEMBERS = {"t.admin": "tenant-admin", "t.member": "member", "t.reader": "reader"}
ASKERS = ("admin", "operator", "auditor", "billing", *MEMBERS, "t.auditor", "t.billing", "p.member", "p.reader", "new")
TABLES: Mapping[str, Sequence[str]] = {
    "platform": ("admin", "operator", "auditor", "billing", "t.admin", "t.member", "t.reader", "new"),
    "own": ASKERS,
    "beside": tuple(asker for asker in ASKERS if asker[:2] in ("t.", "p.")),
    "other": ASKERS,
}
"""By place: who is asked about what is there."""

OWN = frozenset(kind.name for kind in KINDS)
"""Kinds that are stored: the others are views of these, or of the schema."""

PLACES = {"own": "acme--lab", "beside": "acme--den", "other": "other--lab"}


@dataclass(frozen=True, slots=True)
class Thing:
    """An object to ask about. ``place`` is own, beside, other, or platform."""

    shown: Shown
    place: str
    namespace: str
    name: str

    @property
    def collection(self) -> str:
        within = f"/namespaces/{self.namespace}" if self.namespace else ""
        return f"{self.shown.base}{within}/{self.shown.plural}"

    @property
    def path(self) -> str:
        return f"{self.collection}/{self.name}"


@dataclass
class Found:
    """Letters by row, place and asker: r is get, list and watch, c create, u update and patch, s status, d delete."""

    cells: dict[tuple[str, str, str], str] = field(default_factory=dict)

    def rows(self, place: str) -> list[str]:
        return list(dict.fromkeys(row for row, at, _ in self.cells if at == place))


@dataclass
class Matrix:
    """Asks, in a world that it furnishes."""

    w: World
    how: dict[str, dict[str, Any]] = field(default_factory=dict)
    things: list[Thing] = field(default_factory=list)

    async def furnish(self) -> None:
        """People of each role, and an object of each kind in each place."""
        w = self.w
        await w.create(f"{BASE}/projects", named("acme--den"))
        for plan in ("standard", "research"):
            await w.create(f"{BASE}/priceplans", named(plan))
        people = {role: asker.replace("_", "-") for asker, role in MEMBERS.items()}
        acme = tenant("acme", **{asker.replace(".", "-"): role for role, asker in people.items()})
        await w.call("PATCH", f"{BASE}/tenants/acme", {"spec": acme["spec"]}, media=MERGE)
        await w.call("PATCH", f"{BASE}/tenants/other", {"spec": {"pricePlan": "research"}}, media=MERGE)
        for asker, (name, role, scope) in BOUND.items():
            subjects = [{"kind": "User", "name": asker.replace(".", "-")}]
            await w.create(f"{BASE}/rolebindings", named(name, role=role, subjects=subjects, scope=dict(scope)))
        self.how = {"admin": {"peer": ADMIN}}
        for asker in ASKERS[1:]:
            self.how[asker] = {"token": await self._person(asker.replace(".", "-"))}
        for shown in Resources(KINDS).all:
            if shown.view is None and shown.older is None and shown.kind in OWN:
                self.things += [thing async for thing in self._made(shown)]

    async def _person(self, name: str) -> str:
        if name != "new":
            await self.w.create(f"{BASE}/users", named(name))
            made = await self.w.store.objects.get(Key("User", "", name))
            await self.w.store.sealed.put(made.uid, "password", hashed(PASSWORD))
        return await self.w.login(name)

    async def _made(self, shown: Shown) -> Any:
        if shown.namespaced:
            for place, project in PLACES.items():
                yield Thing(shown, place, project, await self._in_project(shown, project))
        elif shown.kind in ("Tenant", "Project"):
            for place, project in PLACES.items():
                name = project if shown.kind == "Project" else project.partition("--")[0]
                if shown.kind == "Project" or place != "beside":
                    yield Thing(shown, place, "", name)
        elif shown.kind == "PricePlan":
            yield Thing(shown, "own", "", "standard")
            yield Thing(shown, "other", "", "research")
        elif shown.kind in ("Role", "RoleBinding"):
            for place, name in (("own", "acme--there"), ("other", "other--there"), ("platform", "there")):
                yield Thing(shown, place, "", await self._store(shown, "", name))
        else:
            page = await self.w.store.objects.list(Scope(kind=shown.kind))
            names = [stored.key.name for stored in page.items]
            yield Thing(shown, "platform", "", names[0] if names else await self._store(shown, "", "there"))

    async def _in_project(self, shown: Shown, project: str) -> str:
        if shown.kind == "Claim":
            if not await self._there("Host"):
                await self.w.host("h1")
            await self._store(Resources(KINDS).of_kind("Instance"), project, "there")
            return (await self.w.claim("there", "h1", project)).key.name
        if shown.kind == "Event":
            uid = (await self.w.store.objects.get(Key("Instance", project, "there"))).uid
            await self.w.store.events.emit(Key("Instance", project, "there"), uid, "Booting", "the guest boots")
            page = await self.w.store.objects.list(Scope(kind="Event", namespace=project))
            return page.items[0].key.name
        return await self._store(shown, project, "there")

    async def _there(self, kind: str) -> bool:
        return bool((await self.w.store.objects.list(Scope(kind=kind))).items)

    async def _store(self, shown: Shown | None, namespace: str, name: str) -> str:
        assert shown is not None
        page = await self.w.store.objects.list(Scope(kind=shown.kind, namespace=namespace, name=name))
        if not page.items:
            metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
            body = {"apiVersion": shown.api_version, "kind": shown.kind, "metadata": metadata}
            await self.w.store.objects.create(said(shown, body), CONTROLLER)
        return name

    # --- asking -----------------------------------------------------------------------------------------------------

    async def ask(self) -> Found:
        """Everything of everybody whom a table is about."""
        found = Found()
        for asker in ASKERS:
            await self._lists(asker)
        for thing in self.things:
            stored = (await self.w.call("GET", thing.path)).json
            askers = TABLES[thing.place]
            for asker in askers:
                letters = await self._letters(thing, asker, stored=stored)
                found.cells[thing.shown.kind, thing.place, asker] = letters
            for part, method in parts_of(thing.shown.plural):
                for asker in askers:
                    path, options = f"{thing.path}/{part}", self.how[asker]
                    code = await self._code(method, path, {} if method == "POST" else None, options)
                    row = f"{thing.shown.kind}/{part}"
                    found.cells[row, thing.place, asker] = "x" if code not in REFUSED else ""
        return found

    async def ask_otherwise(self) -> dict[str, Found]:
        """The same objects in what else they are served as: views of them, and older versions. By api version and
        kind; a row is named as that of the kind behind it."""
        answers: dict[str, Found] = {}
        for shown in Resources(KINDS).all:
            if shown.view is None and shown.older is None:
                continue
            found = answers[f"{shown.api_version} {shown.kind}"] = Found()
            for thing in [replace(thing, shown=shown) for thing in self.things if thing.shown.stored == shown.stored]:
                stored = (await self.w.call("GET", thing.path)).json
                for asker in TABLES[thing.place]:
                    letters = await self._letters(thing, asker, stored=stored)
                    found.cells[shown.stored, thing.place, asker] = letters
        return answers

    async def definitions(self) -> dict[str, set[str]]:
        """Whoever reads what kinds there are, and what of it: for each asker the verbs that were not refused."""
        path, how = f"{DEFINITIONS}/instances.bessemer.dev", self.how
        there = (await self.w.call("GET", path)).json
        tried = {"get": ("GET", path, None), "list": ("GET", DEFINITIONS, None), "create": ("POST", DEFINITIONS, there)}
        tried |= {"update": ("PUT", path, there), "delete": ("DELETE", path, None)}
        return {
            asker: {verb for verb, asked in tried.items() if await self._code(*asked, how[asker]) not in REFUSED}
            for asker in ASKERS
        }

    async def _letters(self, thing: Thing, asker: str, *, stored: Any) -> str:
        how = self.how[asker]
        get = await self._code("GET", thing.path, None, how) == 200
        told = await self.w.call("GET", thing.collection, **how)
        listed = told.code == 200 and thing.name in [item["metadata"]["name"] for item in told.json["items"]]
        watched = thing.name in await watched_names(self.w, thing.collection, **how)
        assert get == listed == watched, (thing, asker, get, listed, watched)
        label = {"metadata": {"labels": {"x": "y"}}}
        meta = {**stored["metadata"], "labels": {"x": "y"}}
        fresh = said(thing.shown, {**stored, "metadata": {"name": new_name(thing)}})
        query = "?dryRun=All"
        put = await self._code("PUT", thing.path + query, {**stored, "metadata": meta}, how)
        patched = await self._code("PATCH", thing.path + query, label, how)
        assert (put in REFUSED) == (patched in REFUSED), (thing, asker, put, patched)
        verbs = {
            "r": 200 if get else 404,
            "c": await self._code("POST", thing.collection + query, fresh, how),
            "u": put,
            "s": await self._code("PATCH", f"{thing.path}/status{query}", {"status": {}}, how),
            "d": await self._code("DELETE", thing.path + query, None, how),
        }
        assert get or not {verb for verb in "ud" if verbs[verb] not in REFUSED}, (thing, asker, verbs)
        assert verbs["u"] == 404 or get, (thing, asker, "the answer says that it is there")
        if thing.shown.view is None or thing.shown.view.collected:
            assert await self._collected(thing, how) == (verbs["d"] not in REFUSED), (thing, asker, verbs)
        return "".join(letter for letter, code in verbs.items() if code not in REFUSED)

    async def _collected(self, thing: Thing, how: Mapping[str, Any]) -> bool:
        """Whether it would go with its collection."""
        path = f"{thing.collection}?dryRun=All&fieldSelector=metadata.name%3D{thing.name}"
        told = await self.w.call("DELETE", path, **how)
        return told.code == 200 and [item["metadata"]["name"] for item in told.json["items"]] == [thing.name]

    async def _lists(self, asker: str) -> None:
        """Over all projects exactly what is shown in each."""
        how = self.how[asker]
        for shown in {thing.shown.kind: thing.shown for thing in self.things if thing.namespace}.values():
            told = await self.w.call("GET", f"{shown.base}/{shown.plural}", **how)
            seen = {(i["metadata"]["namespace"], i["metadata"]["name"]) for i in told.json.get("items", ())}
            each = set()
            for thing in self.things:
                if thing.shown.kind == shown.kind and await self._code("GET", thing.path, None, how) == 200:
                    each.add((thing.namespace, thing.name))
            ours = {(thing.namespace, thing.name) for thing in self.things if thing.shown.kind == shown.kind}
            assert seen & ours == each, (asker, shown.kind)
            assert {namespace for namespace, _ in seen} <= {namespace for namespace, _ in each}, (asker, shown.kind)

    async def _code(self, method: str, path: str, body: Any, how: Mapping[str, Any]) -> int:
        if method == "WS":
            return await dialled(self.w, path, how)
        media = MERGE if method == "PATCH" else "application/json"
        return (await self.w.call(method, path, body, media=media, **how)).code


@functools.cache
def spec_of(kind: str) -> Mapping[str, Any]:
    """Of something that grants nothing which anybody here lacks."""
    if kind == "Role":
        return {"rules": []}
    if kind == "RoleBinding":
        return {"role": "reader", "subjects": []}
    return {} if kind in ("Tenant", "User") else pages.specs().get(kind, {"user": "x", "purpose": "cli"})


def said(shown: Shown, body: Mapping[str, Any]) -> dict[str, Any]:
    """The body with a spec, where its kind has one."""
    return {**body, "spec": spec_of(shown.kind)} if "spec" in shown.source.resource.model_fields else dict(body)


def new_name(thing: Thing) -> str:
    whose, sign, _ = thing.name.partition("--")
    return f"{whose}--fresh" if sign and not thing.namespace else "fresh"


def parts_of(plural: str) -> Iterator[tuple[str, str]]:
    """Subresources of a kind and their methods, out of the routes."""
    for rule in ROUTES:
        if rule.plural == plural and rule.permission != "vouched":
            yield rule.path.rpartition("/")[2], rule.method


async def watched_names(w: World, path: str, *, peer: Peer | None = None, token: str = "") -> set[str]:
    """What a watch begins with; it is left once that was told."""
    events = [orjson.loads(line) for line in (await watched_bytes(w, path, peer=peer, token=token)).splitlines()]
    return {event["object"]["metadata"]["name"] for event in events if event.get("type") == "ADDED"}


async def watched_bytes(w: World, path: str, query: str = "", *, peer: Peer | None = ADMIN, token: str = "") -> bytes:
    """The lines that a watch begins with, or what refuses it."""
    begun = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    headers = {"authorization": f"Bearer {token}"} if token else {}
    parts, over = list[bytes](), asyncio.Event()

    async def receive() -> dict[str, Any]:
        await over.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        body = message.get("body", b"")
        parts.append(body)
        if any(orjson.loads(line).get("type") in ("BOOKMARK", "ERROR") for line in body.splitlines()):
            over.set()

    asked = f"{path}?{query}&{begun}" if query else f"{path}?{begun}"
    await w.api(_scope("GET", asked, headers, None if token else peer), receive, send)
    return b"".join(parts)


async def dialled(w: World, path: str, how: Mapping[str, Any]) -> int:
    if "peer" in how:
        return (await w.dial(path, peer=how["peer"])).code
    return (await w.dial(path, peer=None, token=how["token"])).code


# --- the page ---------------------------------------------------------------------------------------------------------


def table(found: Found, name: str) -> Iterator[str]:
    """A line for each row, and one for all parts of a kind that are answered alike; of another tenant's things, where
    most are, one for all."""
    askers = TABLES[name]
    yield f"| | {' | '.join(askers)} |"
    yield f"|---|{'---|' * len(askers)}"
    alike: dict[tuple[str, str], list[str]] = {}
    for row in found.rows(name):
        cells = " | ".join(found.cells[row, name, asker] or "·" for asker in askers)
        kind, part, _ = row.partition("/")
        of = "" if name == "other" else f"{kind}{part}"
        alike.setdefault((of if part else row if of else of, cells), []).append(row)
    for (_, cells), rows in alike.items():
        yield f"| {', '.join(rows)} | {cells} |"


def filled(text: str, found: Found) -> str:
    """The page with its tables as they should be. Raises ValueError where a mark is missing."""
    for name in TABLES:
        begin, end = f"<!-- {name}: python -m tests.api.matrix -->\n", f"<!-- /{name} -->"
        start = text.index(begin) + len(begin)
        text = text[:start] + "\n".join(table(found, name)) + "\n" + text[text.index(end, start) :]
    return text


@asynccontextmanager
async def furnished() -> AsyncIterator[Matrix]:
    """A matrix in a world of its own."""
    async with world() as w:
        matrix = Matrix(w)
        await matrix.furnish()
        yield matrix


async def answers() -> Found:
    async with furnished() as matrix:
        return await matrix.ask()


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    told = asyncio.run(answers())
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), told), encoding="utf-8")
