"""Watches: no gap, no doubling, in order, whatever the watcher's pace and whenever it began."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bessemer.core.clock import FakeClock, settle
from bessemer.core.errors import Expired
from bessemer.core.ports import CONTROLLER, Bookmark, Scope
from bessemer.core.resource import Change, Key
from bessemer.store import Store
from bessemer.store.compaction import History
from bessemer.store.feed import QUEUE_MAX
from tests.store.make import ALICE, PROJECT, body, claim, inventory

THINGS = Scope(kind="Thing")


async def some(watch: AsyncIterator[Change | Bookmark], count: int) -> list[tuple[str, str]]:
    """The next events as (type, name)."""
    found = []
    for _ in range(count):
        event = await asyncio.wait_for(anext(watch), 60)
        found.append(("BOOKMARK", str(event.revision)) if isinstance(event, Bookmark) else (event.type, event.key.name))
    return found


async def idle(watch: AsyncIterator[Change | Bookmark]) -> asyncio.Task[Any]:
    """A task that waits for the next event; it has none yet."""
    task = asyncio.ensure_future(anext(watch))
    await settle()
    assert not task.done()
    return task


async def put(store: Store, name: str, size: int = 1, **metadata: Any) -> None:
    said = body("Thing", name, spec={"size": size}, **metadata)
    if size == 1:
        await store.objects.create(said, ALICE)
    else:
        await store.objects.replace(said, ALICE)


async def test_first_what_there_is_then_what_happens(store: Store) -> None:
    await put(store, "a")
    await put(store, "b")
    watch = store.objects.watch(THINGS)
    assert await some(watch, 3) == [("ADDED", "a"), ("ADDED", "b"), ("BOOKMARK", "2")]
    await put(store, "a", 2)
    await store.objects.delete(Key("Thing", PROJECT, "b"), ALICE)
    assert await some(watch, 2) == [("MODIFIED", "a"), ("DELETED", "b")]
    await watch.aclose()
    assert store.metrics.watchers == 0


async def test_history_and_present_meet_without_gap_or_doubling(store: Store) -> None:
    for size in range(1, 6):
        await put(store, "a", size)
    watch = store.objects.watch(THINGS, since=2)
    assert [event.revision for event in [await anext(watch)]] == [3]
    await put(store, "a", 9)
    revisions = [(await asyncio.wait_for(anext(watch), 60)).revision for _ in range(3)]
    assert revisions == [4, 5, 6]
    waiting = await idle(watch)
    await put(store, "b")
    assert (await waiting).revision == 7
    await watch.aclose()


async def test_writes_while_the_first_list_runs_are_neither_lost_nor_doubled(store: Store) -> None:
    for i in range(450):
        await put(store, f"t{i:03}")
    watch = store.objects.watch(THINGS)
    seen: dict[str, int] = {}
    writes = asyncio.gather(*(put(store, f"t{i:03}", 2) for i in range(450)))
    revisions: list[int] = []
    while len(seen) < 450 or any(revision <= 450 for revision in seen.values()):
        event = await asyncio.wait_for(anext(watch), 60)
        if isinstance(event, Change):
            assert event.revision > seen.get(event.key.name, 0)
            seen[event.key.name] = event.revision
            if event.type == "MODIFIED":
                revisions.append(event.revision)
    await writes
    assert revisions == sorted(set(revisions))
    await watch.aclose()


async def test_a_slow_watcher_reads_history_and_loses_nothing(store: Store) -> None:
    """And says that it will, before it has."""
    revisions, lagged = list[int](), list[int]()
    watch = store.objects.watch(THINGS, since=0, lagged=lambda: lagged.append(len(revisions)))
    waiting = await idle(watch)
    count = QUEUE_MAX + 700
    await asyncio.gather(*(put(store, f"t{i:05}") for i in range(count)))
    revisions.append((await waiting).revision)
    assert lagged == []
    while len(revisions) < count:
        event = await asyncio.wait_for(anext(watch), 60)
        if isinstance(event, Change):
            revisions.append(event.revision)
    assert revisions == list(range(1, count + 1))
    assert store.metrics.watcher_overflows == 1
    assert lagged == [1]
    await watch.aclose()


async def test_scopes_see_their_own(store: Store) -> None:
    one = store.objects.watch(Scope(kind="Thing", namespace=PROJECT, name="b"), since=0)
    two = store.objects.watch(Scope(kind="Thing", namespaces=frozenset({"x--y"})), since=0)
    three = store.objects.watch(Scope(kind="Thing", names=frozenset({"a"})), since=0)
    four = store.objects.watch(Scope(kind="Thing", places={PROJECT: frozenset({"b"}), "x--y": None}), since=0)
    tasks = [await idle(watch) for watch in (one, two, three, four)]
    await store.objects.create(body("Guarded", "b"), ALICE)
    await put(store, "a")
    await put(store, "b")
    await put(store, "c", namespace="x--y")
    assert [(await task).key.name for task in tasks] == ["b", "c", "a", "b"]
    assert (await anext(four)).key.name == "c"  # type: ignore[union-attr]
    for watch in (one, two, three, four):
        await watch.aclose()


async def test_an_agent_sees_the_claims_of_its_host(store: Store) -> None:
    for host in ("h1", "h2"):
        await store.capacity.declare(host, inventory())
    watch = store.objects.watch(Scope(kind="Claim", host="h1"))
    assert await some(watch, 1) == [("BOOKMARK", "0")]
    await store.capacity.take([claim("a", host="h2"), claim("b", host="h1"), claim("c", host="h1")], CONTROLLER)
    assert await some(watch, 2) == [("ADDED", "instance-b-0"), ("ADDED", "instance-c-0")]
    await watch.aclose()
    again = store.objects.watch(Scope(kind="Claim", host="h1"), since=0)
    assert await some(again, 2) == [("ADDED", "instance-b-0"), ("ADDED", "instance-c-0")]
    await again.aclose()


@pytest.mark.parametrize("live", [True, False])
async def test_a_selector_sees_objects_enter_and_leave(store: Store, live: bool) -> None:
    watch = store.objects.watch(Scope(kind="Thing", labels={"app": "x"}), since=0)
    waiting = await idle(watch) if live else None
    await put(store, "a")
    await put(store, "a", 2, labels={"app": "x"})
    await put(store, "a", 3, labels={"app": "x", "more": "1"})
    await put(store, "a", 4)
    await put(store, "a", 5, labels={"app": "x"})
    await store.objects.delete(Key("Thing", PROJECT, "a"), ALICE)
    first = [("ADDED", "a")]
    if waiting is not None:
        assert (await waiting).type == "ADDED"
    else:
        assert await some(watch, 1) == first
    rest = [kind for kind, _ in await some(watch, 4)]
    assert rest == ["MODIFIED", "DELETED", "ADDED", "DELETED"]
    await watch.aclose()


async def test_a_quiet_watch_is_told_how_far_it_has_come(store: Store) -> None:
    watch = store.objects.watch(Scope(kind="Host"), since=0)
    waiting = await idle(watch)
    await put(store, "a")
    await settle()
    assert not waiting.done()
    await store.tidy()
    assert await waiting == Bookmark(1)
    await watch.aclose()


async def test_a_watch_can_say_whenever_nothing_is_left_to_tell(store: Store) -> None:
    """Whether it comes from history or as it happens, and once for all that waited; of other kinds it says nothing."""
    for size in (1, 2):
        await put(store, "a", size)
    watch = store.objects.watch(THINGS, since=1, level=True)
    assert await some(watch, 2) == [("MODIFIED", "a"), ("BOOKMARK", "2")]
    await asyncio.gather(put(store, "b"), put(store, "c"))
    assert await some(watch, 3) == [("ADDED", "b"), ("ADDED", "c"), ("BOOKMARK", "4")]
    waiting = await idle(watch)
    await store.objects.create(body("Guarded", "x"), ALICE)
    await settle()
    assert not waiting.done()
    await put(store, "d")
    assert (await waiting).revision == 6
    assert await some(watch, 1) == [("BOOKMARK", "6")]
    await watch.aclose()
    ahead = store.objects.watch(THINGS, since=6, level=True)
    assert await some(ahead, 1) == [("BOOKMARK", "6")]
    await ahead.aclose()


async def test_history_ends_at_the_floor(store: Store, clock: FakeClock) -> None:
    for i in range(30):
        await put(store, f"t{i}")
    object.__setattr__(store, "history", History(revisions=10))
    await store.tidy()
    assert store.metrics.compacted == 20
    with pytest.raises(Expired):
        await anext(store.objects.watch(THINGS, since=19))
    watch = store.objects.watch(THINGS, since=20)
    assert (await anext(watch)).revision == 21
    await watch.aclose()
    await clock.advance(100_000)
    await store.tidy()
    assert store.metrics.compacted == 30
    watch = store.objects.watch(THINGS, since=30)
    waiting = await idle(watch)
    await put(store, "new")
    assert (await waiting).revision == 31
    await watch.aclose()


async def test_a_revision_of_the_future_is_expired(store: Store) -> None:
    with pytest.raises(Expired):
        await anext(store.objects.watch(THINGS, since=1))


async def test_a_thousand_watchers_hear_of_one_change(store: Store) -> None:
    watches = [store.objects.watch(THINGS, since=0) for _ in range(1000)]
    tasks = [asyncio.ensure_future(anext(watch)) for watch in watches]
    await settle()
    await put(store, "a")
    assert {event.revision for event in await asyncio.gather(*tasks)} == {1}
    for watch in watches:
        await watch.aclose()
