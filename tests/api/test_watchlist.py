"""Watches that begin with what there is, and say where that ends: of one snapshot, in pages, then live.

What clients ask since client-go 1.35: ``sendInitialEvents=true`` in place of a list and a watch.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from bessemer.api import beginnings
from bessemer.api.context import Limits
from bessemer.api.state import OPENINGS_EACH, OPENINGS_MAX, Places
from bessemer.core.clock import FakeClock, settle
from bessemer.core.ports import NOBODY, Asker, Page, Scope
from tests.api.test_lists import LAB, MERGE, TABLE, labelled
from tests.api.world import ADMIN, BASE, Events, World, _scope, instance, world

INITIAL = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
PARTIAL = {"accept": "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"}


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beginnings, "OPENING_PAGE", 3)


async def beginning(events: Events) -> tuple[list[Any], Any]:
    """The objects that there are, and the bookmark that ends them."""
    found = []
    while (event := await events.next())["type"] == "ADDED":
        found.append(event["object"])
    assert event["type"] == "BOOKMARK", event
    return found, event["object"]


def name(value: Any) -> str:
    return str(value["metadata"]["name"])


async def test_the_end_of_what_there_is_is_marked(w: World) -> None:
    made = [await w.create(LAB, instance(n)) for n in ("a", "b")]
    async with w.watch(f"{LAB}?{INITIAL}") as events:
        found, end = await beginning(events)
        assert found == made
        assert end == {
            "apiVersion": "bessemer.dev/v1alpha1",
            "kind": "Instance",
            "metadata": {
                "annotations": {"k8s.io/initial-events-end": "true"},
                "creationTimestamp": None,
                "resourceVersion": str(w.store.revision),
            },
        }
        await w.create(LAB, instance("c"))
        assert await events.names(1) == [("ADDED", "c")]


async def test_where_there_is_nothing_that_is_told_too(w: World) -> None:
    async with w.watch(f"{LAB}?{INITIAL}&labelSelector=no") as events:
        assert (await beginning(events))[0] == []


@pytest.mark.usefixtures("small_pages")
async def test_nothing_is_missed_or_doubled_while_it_begins(w: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two pages objects are made, changed and renamed out of the selection, before and behind the place."""
    for number in range(8):
        await w.create(LAB, labelled(f"i{number}", tier="web"))
    began = w.store.revision
    real, pages = w.store.objects.list, []

    async def listed(scope: Scope, *, limit: int = 0, after: str = "", asker: Asker = NOBODY) -> Page:
        page = await real(scope, limit=limit, after=after, asker=asker)
        if limit == 3:
            pages.append(len(page.items))
            number = len(pages)
            await w.create(LAB, labelled(f"i{number}-new", tier="web"))
            await w.call("PATCH", f"{LAB}/i{8 - number}", {"spec": {"running": False}}, media=MERGE)
            await w.call("PATCH", f"{LAB}/i{number}", {"metadata": {"labels": {"tier": "db"}}}, media=MERGE)
        return page

    monkeypatch.setattr(w.store.objects, "list", listed)
    async with w.watch(f"{LAB}?{INITIAL}&labelSelector=tier%3Dweb") as events:
        found, end = await beginning(events)
        assert (pages, end["metadata"]["resourceVersion"]) == ([3, 3, 2], str(began))
        assert [name(one) for one in found] == [f"i{number}" for number in range(8)]
        assert all(int(one["metadata"]["resourceVersion"]) <= began for one in found)
        later = [
            change
            for number in (1, 2, 3)
            for change in (("ADDED", f"i{number}-new"), ("MODIFIED", f"i{8 - number}"), ("DELETED", f"i{number}"))
        ]
        assert await events.names(9) == later


async def test_it_begins_as_tables_and_as_metadata(w: World) -> None:
    await w.create(LAB, instance("a"))
    annotations = {"k8s.io/initial-events-end": "true"}
    async with w.watch(f"{LAB}?{INITIAL}", headers=TABLE) as events:
        first, last = await events.next(), await events.next()
        assert (first["type"], first["object"]["rows"][0]["cells"][0]) == ("ADDED", "a")
        assert (last["type"], last["object"]["kind"]) == ("BOOKMARK", "Table")
        [row] = last["object"]["rows"]
        assert (
            len(row["cells"]) == len(last["object"]["columnDefinitions"]) == len(first["object"]["columnDefinitions"])
        )
        assert row["object"]["metadata"]["annotations"] == annotations
        revision = str(w.store.revision)
        assert (last["object"]["metadata"], row["object"]["metadata"]["resourceVersion"]) == (
            {"resourceVersion": revision},
            revision,
        )
    async with w.watch(f"{LAB}?{INITIAL}", headers=PARTIAL) as events:
        [found], end = await beginning(events)
        assert (found["kind"], end["kind"], end["apiVersion"]) == (*["PartialObjectMetadata"] * 2, "meta.k8s.io/v1")
        assert ("spec" in found, end["metadata"]["annotations"]) == (False, annotations)
    async with w.watch(f"/api/v1/namespaces?{INITIAL}") as events:
        found, end = await beginning(events)
        assert ({one["kind"] for one in found}, end["kind"], end["apiVersion"]) == ({"Namespace"}, "Namespace", "v1")


async def test_selectors_are_those_of_the_list(w: World) -> None:
    await w.create(LAB, labelled("a", tier="web"))
    await w.create(LAB, labelled("b", tier="db"))
    for selector, expected in (
        ("labelSelector=tier%3Dweb", ["a"]),
        ("labelSelector=tier in (db,x)", ["b"]),
        ("fieldSelector=metadata.name%3Db", ["b"]),
        ("fieldSelector=metadata.name!%3Db", ["a"]),
    ):
        async with w.watch(f"{LAB}?{INITIAL}&{selector}") as events:
            assert [name(one) for one in (await beginning(events))[0]] == expected


async def test_from_a_revision_that_was_seen(w: World) -> None:
    made = await w.create(LAB, instance("a"))
    await w.create(LAB, instance("b"))
    async with w.watch(f"{LAB}?{INITIAL}&resourceVersion={made['metadata']['resourceVersion']}") as events:
        found, end = await beginning(events)
        assert ([name(one) for one in found], end["metadata"]["resourceVersion"]) == (["a", "b"], str(w.store.revision))


async def test_a_revision_ahead_is_told_in_the_stream(w: World) -> None:
    await w.create(LAB, instance("a"))
    async with w.watch(f"{LAB}?{INITIAL}&resourceVersion=999999999") as events:
        event = await events.next()
        assert (event["type"], event["object"]["code"]) == ("ERROR", 504)
        assert event["object"]["details"] == {
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            "retryAfterSeconds": 1,
        }
        assert await events.next() is None


async def test_without_what_there_is_a_watch_begins_now(w: World) -> None:
    made = await w.create(LAB, instance("a"))
    now = "watch=1&sendInitialEvents=false&resourceVersionMatch=NotOlderThan"
    for revision in ("", "&resourceVersion=0"):
        async with w.watch(f"{LAB}?{now}{revision}") as events:
            await settle()
            await w.call("PATCH", f"{LAB}/a", {"metadata": {"labels": {"n": f"n{len(revision)}"}}}, media=MERGE)
            assert await events.names(1) == [("MODIFIED", "a")]
    async with w.watch(f"{LAB}?{now}&resourceVersion={made['metadata']['resourceVersion']}") as events:
        assert await events.names(2) == [("MODIFIED", "a")] * 2


async def test_without_bookmarks_none_is_sent(w: World) -> None:
    await w.create(LAB, instance("a"))
    async with w.watch(f"{LAB}?{INITIAL.replace('Bookmarks=true', 'Bookmarks=false')}") as events:
        assert await events.names(1) == [("ADDED", "a")]
        await w.create(LAB, instance("b"))
        assert (await events.next())["type"] == "ADDED"


async def test_what_may_not_be_said_together_is_named(w: World) -> None:
    reply = await w.call("GET", f"{LAB}?watch=1&sendInitialEvents=true&resourceVersionMatch=Exact&continue=x")
    assert reply.code == 422
    assert [(cause["reason"], cause["message"]) for cause in reply.json["details"]["causes"]] == [
        (
            "FieldValueForbidden",
            "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ),
        ("FieldValueNotSupported", 'Unsupported value: "Exact": supported values: "NotOlderThan"'),
        ("FieldValueForbidden", "Forbidden: resourceVersionMatch is forbidden when continue is provided"),
    ]
    assert reply.json["message"].startswith('ListOptions.meta.k8s.io "" is invalid: [resourceVersionMatch: Forbidden: ')


async def test_a_person_begins_with_their_own(w: World) -> None:
    await w.create(LAB, instance("mine"))
    await w.create(f"{BASE}/namespaces/other--lab/instances", instance("theirs"))
    async with w.watch(f"{BASE}/instances?{INITIAL}", token=await w.login("rob")) as events:
        assert [name(one) for one in (await beginning(events))[0]] == ["mine"]


@pytest.mark.usefixtures("small_pages")
async def test_no_bookmark_comes_before_all_was_told() -> None:
    """It would say that what lies behind it was told."""
    clock = FakeClock()
    async with world(clock, limits=Limits(bookmark_seconds=30)) as w:
        for number in range(7):
            await w.create(LAB, instance(f"i{number}"))
        async with slow(w) as reader:
            await reader.take(1)
            await clock.advance(31)
            await settle()
            await reader.take(8)
            await settle()
            assert [line["type"] for line in reader.lines] == ["ADDED"] * 7 + ["BOOKMARK"]


@pytest.mark.usefixtures("small_pages")
async def test_a_page_is_read_once_the_one_before_was_taken(w: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(7):
        await w.create(LAB, instance(f"i{number}"))
    real, pages = w.store.objects.list, []

    async def listed(scope: Scope, *, limit: int = 0, after: str = "", asker: Asker = NOBODY) -> Page:
        pages.append(limit)
        return await real(scope, limit=limit, after=after, asker=asker)

    monkeypatch.setattr(w.store.objects, "list", listed)
    async with slow(w) as reader:
        await settle()
        assert pages == [3]
        await reader.take(1)
        assert pages == [3, 3]


@pytest.mark.usefixtures("small_pages")
async def test_who_does_not_read_what_there_is_begins_again(w: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beginnings, "OPENING_SECONDS", 0.05)
    for number in range(7):
        await w.create(LAB, instance(f"i{number}"))
    async with slow(w) as reader:
        await asyncio.sleep(0.1)
        await reader.take(2)
        assert (reader.lines[-1]["type"], reader.lines[-1]["object"]["reason"]) == ("ERROR", "Expired")
    assert w.api.state.openings.free()


@pytest.mark.usefixtures("small_pages")
async def test_many_that_begin_at_once_take_turns(w: World) -> None:
    for number in range(10):
        await w.create(LAB, instance(f"i{number}"))

    async def one() -> list[str]:
        async with w.watch(f"{LAB}?{INITIAL}") as events:
            return [name(found) for found in (await beginning(events))[0]]

    everybody = await asyncio.gather(*(one() for _ in range(80)))
    assert everybody == [[f"i{number}" for number in range(10)]] * 80


class Slow:
    """A reader who takes one part of the answer at a time."""

    def __init__(self) -> None:
        self.lines: list[Any] = []
        self._may = asyncio.Semaphore(0)
        self.gone = asyncio.Event()

    async def send(self, message: Any) -> None:
        if not message.get("body"):
            return
        await self._may.acquire()
        self.lines += [orjson.loads(line) for line in message.get("body", b"").splitlines()]

    async def take(self, parts: int) -> None:
        for _ in range(parts):
            self._may.release()
        await settle()


@asynccontextmanager
async def slow(w: World) -> AsyncIterator[Slow]:
    reader = Slow()

    async def receive() -> dict[str, Any]:
        await reader.gone.wait()
        return {"type": "http.disconnect"}

    task = asyncio.ensure_future(w.api(_scope("GET", f"{LAB}?{INITIAL}", {}, ADMIN), receive, reader.send))
    try:
        yield reader
    finally:
        reader.gone.set()
        await reader.take(100)
        await task


async def test_one_asker_has_a_few_places_and_keeps_nobody_else_waiting() -> None:
    openings = Places(OPENINGS_MAX, OPENINGS_EACH)
    entered = list[str]()

    async def hold(asker: str) -> None:
        async with openings.place(asker):
            entered.append(asker)
            await asyncio.Event().wait()

    held = [asyncio.ensure_future(hold("greedy")) for _ in range(OPENINGS_MAX + 1)]
    await settle()
    held.append(asyncio.ensure_future(hold("other")))
    await settle()
    assert entered == ["greedy"] * OPENINGS_EACH + ["other"]
    for one in held:
        one.cancel()
    await asyncio.gather(*held, return_exceptions=True)
    assert openings.free()
