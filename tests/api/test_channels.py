"""Watches of the same are told by a channel: each its own, every change once, in order, whenever it joins or leaves."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from bessemer.api import listener
from bessemer.api.bells import Bells
from bessemer.api.channels import BATCH_BYTES_MAX, FAN, STEP_BYTES, Batch, Channels, Show, same
from bessemer.api.context import Credentials, Identity, Limits
from bessemer.api.flow import FANS, Flows, Work
from bessemer.api.judged import Judged
from bessemer.api.listener import Outlet, chunk
from bessemer.api.reading import Reading
from bessemer.core.clock import FakeClock, settle
from bessemer.core.errors import Unavailable
from bessemer.core.ports import CONTROLLER, Bookmark, Scope
from bessemer.core.resource import Change, Key
from bessemer.store.feed import QUEUE_MAX
from tests.api.test_lists import LAB, MERGE, TABLE, labelled
from tests.api.world import BASE, PATIENCE_SECONDS, Events, Served, World, instance, served, world

OTHER = f"{BASE}/namespaces/other--lab/instances"
EVERYWHERE = f"{BASE}/instances"


async def told(events: Events, last: str) -> list[tuple[str, str, int]]:
    """(type, name, revision) of what is told, up to the change that adds or removes ``last``."""
    found = []
    while not found or found[-1][1] != last:
        event = await events.next()
        assert event is not None
        assert event["type"] != "ERROR", event
        metadata = event["object"]["metadata"]
        if event["type"] != "BOOKMARK":
            found.append((event["type"], metadata["name"], int(metadata["resourceVersion"])))
    return found


async def history(w: World, scope: Scope, since: int) -> list[tuple[str, str, int]]:
    """What the store says happened: the same, of a scope."""
    found = []
    async for event in w.store.objects.watch(scope, since=since, level=True):
        if isinstance(event, Bookmark):
            return found
        found.append((event.type, event.key.name, event.revision))
    return found


async def seen(events: Events) -> str:
    """The name of what the next event is about; "" where it says that the stream has ended."""
    event = await events.next()
    if event["type"] == "ERROR":
        assert event["object"]["reason"] == "Expired"
        return ""
    about = event["object"].get("rows", [event])[0]["object"]
    return str(about["metadata"]["name"])


def channels(w: World) -> int:
    return len(w.api.state.channels)


async def test_who_watches_the_same_shares_a_channel(w: World) -> None:
    ann, mia = await w.login("ann"), await w.login("mia")
    path = f"{LAB}?watch=1&resourceVersion={w.store.revision}"
    async with AsyncExitStack() as stack:
        watches = [await stack.enter_async_context(w.watch(path, token=token)) for token in (ann, mia) * 20]
        await settle()
        assert channels(w) == 1
        assert w.store.metrics.watchers < 40
        await w.create(LAB, instance("vm"))
        first, *others = [await told(watch, "vm") for watch in watches]
        assert all(other == first for other in others)
        assert [watch.handed for watch in watches] == [1] * 40
    await settle()
    assert (channels(w), len(w.api.state.bells)) == (0, 0)


async def test_each_is_told_what_it_may_see_and_nothing_else(w: World) -> None:
    """Forty watches of two tenants, an administrator, a selector and a single object, of one storm of writes."""
    ann, eve = await w.login("ann"), await w.login("eve")
    since = w.store.revision
    go_on = f"watch=1&resourceVersion={since}"
    asked = [
        (f"{EVERYWHERE}?{go_on}", ann, Scope(kind="Instance", namespace="acme--lab")),
        (f"{EVERYWHERE}?{go_on}", eve, Scope(kind="Instance", namespace="other--lab")),
        (f"{EVERYWHERE}?{go_on}", "", Scope(kind="Instance")),
        (f"{LAB}?{go_on}", ann, Scope(kind="Instance", namespace="acme--lab")),
        (f"{OTHER}?{go_on}", eve, Scope(kind="Instance", namespace="other--lab")),
        (f"{EVERYWHERE}?{go_on}&labelSelector=tier%3Dweb", "", Scope(kind="Instance", labels={"tier": "web"})),
        (f"{EVERYWHERE}?{go_on}&labelSelector=tier%3Dweb", eve, Scope(kind="Instance", name="end-other")),
        (f"{EVERYWHERE}?{go_on}&fieldSelector=metadata.name%3Dend-acme", "", Scope(kind="Instance", name="end-acme")),
    ]
    async with AsyncExitStack() as stack:
        watches = [
            [await stack.enter_async_context(w.watch(path, token=token)) for _ in range(5)] for path, token, _ in asked
        ]
        await settle()
        assert channels(w) == len(asked)
        for number in range(20):
            await w.create(LAB, labelled(f"acme-{number}", tier="web"))
            await w.create(OTHER, labelled(f"other-{number}", tier="db"))
        await w.create(LAB, labelled("end-acme", tier="web"))
        await w.create(OTHER, labelled("end-other", tier="web"))
        for same_watches, (_, _, scope) in zip(watches, asked, strict=True):
            expected = await history(w, scope, since)
            for one in same_watches:
                assert await told(one, expected[-1][1]) == expected
                assert one.handed > 0, "by a channel"
        await settle()
        assert all(one.lines.empty() for same_watches in watches for one in same_watches)


@pytest.mark.parametrize("what", ["table", "secret"])
async def test_what_is_put_together_for_each_goes_through_no_channel(w: World, what: str) -> None:
    path = "/api/v1/namespaces/acme--lab/secrets" if what == "secret" else LAB
    headers = TABLE if what == "table" else {}
    async with w.watch(f"{path}?watch=1", headers=headers) as one, w.watch(f"{path}?watch=1", headers=headers) as two:
        await settle()
        body = {"metadata": {"name": "s"}, "data": {"k": "dg=="}} if what == "secret" else instance("vm")
        await w.create(path, body)
        events = [await watch.next() for watch in (one, two)]
        assert channels(w) == one.handed == two.handed == 0
        if what == "table":
            assert all(event["object"]["columnDefinitions"] for event in events)
        else:
            assert [event["object"]["data"] for event in events] == [{"k": "dg=="}] * 2


async def test_older_versions_and_metadata_have_channels_of_their_own(w: World) -> None:
    partial = {"accept": "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"}
    async with (
        w.watch(f"{LAB}?watch=1") as whole,
        w.watch(f"{LAB}?watch=1", headers=partial) as bare,
        w.watch("/api/v1/namespaces?watch=1") as namespaces,
        w.watch(f"{BASE}/projects?watch=1") as projects,
    ):
        await settle()
        assert channels(w) == 4
        await w.create(LAB, instance("vm"))
        await w.create(f"{BASE}/projects", {"metadata": {"name": "acme--more"}, "spec": {}})
        kinds = []
        for watch, name in ((whole, "vm"), (bare, "vm"), (namespaces, "acme--more"), (projects, "acme--more")):
            while (event := await watch.next())["object"]["metadata"]["name"] != name:
                continue
            kinds.append((event["object"]["kind"], "spec" in event["object"], watch.handed > 0))
    assert kinds == [
        ("Instance", True, True),
        ("PartialObjectMetadata", False, True),
        ("Namespace", True, True),
        ("Project", True, True),
    ]


async def test_who_reads_slowly_leaves_the_channel_and_misses_nothing(w: World) -> None:
    """Also where so much comes meanwhile that the store's queue is dropped; the others are told at once."""
    since = w.store.revision
    path = f"{LAB}?watch=1&resourceVersion={since}"
    async with w.watch(path) as slow, w.watch(path) as quick:
        await settle()
        await w.create(LAB, instance("first"))
        assert await told(slow, "first") == await told(quick, "first")
        slow.ready = False
        count = QUEUE_MAX + 100
        made = orjson.loads((await w.store.objects.get(Key("Instance", "acme--lab", "first"))).body)
        for number in range(count):
            made["metadata"]["labels"] = {"n": f"n{number}"}
            made["metadata"].pop("resourceVersion", None)
            await w.store.objects.replace(made, CONTROLLER)
        await w.create(LAB, instance("last"))
        seen = await told(quick, "last")
        assert len(seen) == count + 1
        assert slow.lines.empty()
        slow.ready = True
        assert await told(slow, "last") == seen
        before = slow.handed
        await settle()
        await w.create(LAB, instance("again"))
        assert await told(slow, "again") == await told(quick, "again")
        assert slow.handed == before + 1, "it has joined again"
        assert channels(w) == 1


async def test_whose_connection_has_broken_is_told_nothing_more(w: World) -> None:
    """Also where the server does not say that the client has gone, as it does not while another request waits."""
    async with w.watch(f"{LAB}?watch=1&resourceVersion={w.store.revision}") as events:
        await settle()
        assert channels(w) == 1
        events.closed, events.ready = True, False
        await w.create(LAB, instance("vm"))
        await settle()
        assert channels(w) == 0
        events.ready = True
        assert await events.next() is None


@pytest.mark.parametrize("seed", range(3))
async def test_whoever_joins_leaves_and_comes_back_in_a_storm_is_told_every_change_once(w: World, seed: int) -> None:
    """Forty watches that begin whenever they like, with what there is or from a revision, and are slow now and then."""
    draw = random.Random(seed)
    start, over = w.store.revision, asyncio.Event()

    async def storm() -> None:
        for number in range(150):
            path = draw.choice((LAB, OTHER))
            await w.create(path, instance(f"i{number}"))
            if draw.random() < 0.3:
                await asyncio.sleep(0)
        await w.create(LAB, instance("last"))
        over.set()

    async def watched() -> None:
        for _ in range(draw.randrange(120)):
            await asyncio.sleep(0)
        anew, path = draw.random() < 0.4, draw.choice((LAB, EVERYWHERE))
        since = draw.randrange(start, w.store.revision + 1)
        async with w.watch(f"{path}?watch=1{'' if anew else f'&resourceVersion={since}'}") as events:
            while not over.is_set():
                events.ready = draw.random() < 0.7
                for _ in range(draw.randrange(1, 12)):
                    await asyncio.sleep(0)
            events.ready = True
            seen = await told(events, "last")
        scope = Scope(kind="Instance", namespace="acme--lab" if path == LAB else None)
        if anew:
            assert sorted(seen, key=lambda one: one[2]) == await history(w, scope, start)
            later = [revision for _, _, revision in seen]
            assert len(set(later)) == len(later)
        else:
            assert seen == await history(w, scope, since)

    async with asyncio.TaskGroup() as group:
        group.create_task(storm())
        for _ in range(40):
            group.create_task(watched())
    assert (channels(w), len(w.api.state.bells)) == (0, 0)


async def test_nothing_is_told_from_the_moment_on_at_which_rights_are_in_doubt(w: World) -> None:
    """Both changes are in the store before anybody is judged again; of many watches none is told the second."""
    mia, ann = await w.login("mia"), await w.login("ann")
    for round_ in range(5):
        roles = [{"user": "ann", "role": "tenant-admin"}, {"user": "mia", "role": "member"}]
        await w.call("PATCH", f"{BASE}/tenants/acme", {"spec": {"members": roles}}, media=MERGE)
        path = f"{LAB}?watch=1&resourceVersion={w.store.revision}"
        async with AsyncExitStack() as stack:
            watches = [
                await stack.enter_async_context(w.watch(path, token=mia, headers=TABLE if number % 8 == 7 else {}))
                for number in range(40)
            ]
            mine = await stack.enter_async_context(w.watch(path, token=ann))
            await settle()
            await w.create(LAB, instance(f"seen-{round_}"))
            for watch in (*watches, mine):
                assert await seen(watch) == f"seen-{round_}"
            tenant = orjson.loads((await w.store.objects.get(Key("Tenant", "", "acme"))).body)
            tenant["spec"]["members"] = roles[:1]
            made = orjson.loads((await w.store.objects.get(Key("Instance", "acme--lab", f"seen-{round_}"))).body)
            del made["metadata"]["uid"], made["metadata"]["resourceVersion"]
            before, secret = [
                {**made, "metadata": {**made["metadata"], "name": f"{name}-{round_}"}} for name in ("before", "secret")
            ]
            revision = w.store.revision
            leads = [w.store.objects.create(before, CONTROLLER)] if round_ % 2 else []
            await asyncio.gather(
                *leads, w.store.objects.replace(tenant, CONTROLLER), w.store.objects.create(secret, CONTROLLER)
            )
            assert w.store.revision == revision + 2 + len(leads)
            expected = [f"before-{round_}", f"secret-{round_}"][-1 - len(leads) :]
            assert [name for _, name in await mine.names(len(expected))] == expected
            for watch in watches:
                if leads and (told_before := await seen(watch)):
                    assert told_before == f"before-{round_}"
                    assert await seen(watch) == ""
                elif not leads:
                    assert await seen(watch) == ""
                assert await watch.next() is None
        await settle()
        assert (channels(w), len(w.api.state.bells)) == (0, 0)


async def test_rights_that_stay_cost_no_change(w: World) -> None:
    """What others' rights are changes: everybody is judged again, and goes on."""
    mia = await w.login("mia")
    path = f"{LAB}?watch=1&resourceVersion={w.store.revision}"
    async with w.watch(path, token=mia) as one, w.watch(path, token=mia) as two:
        await settle()
        for number in range(5):
            await asyncio.gather(
                w.create(f"{BASE}/tenants", {"metadata": {"name": f"t{number}"}, "spec": {}}),
                w.create(LAB, instance(f"vm-{number}")),
            )
        assert await one.names(5) == await two.names(5) == [("ADDED", f"vm-{number}") for number in range(5)]
        await settle()
        await w.create(LAB, instance("last"))
        await told(one, "last")
        await told(two, "last")
        assert (one.handed, two.handed, channels(w)) == (6, 6, 1), "nobody has left the channel"


async def test_a_channel_that_fails_tells_each_of_its_readers(w: World) -> None:
    path = f"{LAB}?watch=1&resourceVersion={w.store.revision}"
    async with w.watch(path) as one, w.watch(path) as two:
        await settle()
        for watcher in list(w.store.objects._feed.everybody()):
            if watcher.scope.kind == "Instance":
                watcher.ended = True
                watcher.wake()
        for watch in (one, two):
            event = await watch.next()
            assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
            assert await watch.next() is None
    assert channels(w) == 0


async def test_a_store_that_cannot_be_read_for_now_ends_no_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither one by itself nor a channel's; nothing is lost."""
    clock, failures = FakeClock(), ["each", "each", "the channel", "each"]
    async with world(clock) as w:
        watch = w.store.objects.watch

        async def failing(scope: Scope, **options: Any) -> AsyncIterator[Change | Bookmark]:
            if scope.kind == "Instance" and failures:
                failures.pop()
                raise Unavailable("for now")
            async for event in watch(scope, **options):
                if scope.kind == "Instance" and failures:
                    failures.pop()
                    raise Unavailable("for now")
                yield event

        monkeypatch.setattr(w.store.objects, "watch", failing)
        path = f"{LAB}?watch=1&resourceVersion={w.store.revision}"
        async with w.watch(path) as one, w.watch(path) as two:
            for _ in range(5):
                await settle()
                await clock.advance(1)
            await w.create(LAB, instance("vm"))
            assert await told(one, "vm") == await told(two, "vm")
            failures += ["of one by itself", "of the channel"]
            await w.create(LAB, instance("more"))
            for _ in range(5):
                await settle()
                await clock.advance(1)
            assert await told(one, "more") == await told(two, "more")
            assert not failures


@pytest.mark.parametrize("seconds", [10, 70])
async def test_who_cannot_be_judged_for_a_moment_is_told_nothing_and_not_ended(
    seconds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    async with world(clock) as w:
        token = await w.login("mia")
        authenticator = w.api.state.authenticator
        authenticate, broken = authenticator.authenticate, [False]

        async def failing(credentials: Credentials) -> Identity | None:
            if broken[0]:
                raise Unavailable("for now")
            return await authenticate(credentials)

        monkeypatch.setattr(authenticator, "authenticate", failing)
        async with w.watch(f"{LAB}?watch=1&resourceVersion={w.store.revision}", token=token) as events:
            await settle()
            broken[0] = True
            w.api.state.directory._changed()
            await settle()
            broken[0] = False
            await w.create(LAB, instance("vm"))
            broken[0] = True
            for _ in range(seconds):
                await clock.advance(1)
                await settle()
            broken[0] = False
            if seconds > 60:
                event = await events.next()
                assert (event["type"], event["object"]["code"]) == ("ERROR", 503)
                assert await events.next() is None
                return
            assert events.lines.empty()
            await clock.advance(1)
            assert await events.names(1) == [("ADDED", "vm")]


async def test_a_quiet_channel_is_told_how_far_the_store_has_come() -> None:
    """By the store's own mark, and by time; only who asked for bookmarks hears of it."""
    clock = FakeClock()
    async with world(clock, limits=Limits(bookmark_seconds=30)) as w:
        path = f"{LAB}?watch=1&resourceVersion={w.store.revision}"
        async with w.watch(f"{path}&allowWatchBookmarks=true") as events, w.watch(path) as plain:
            await settle()
            await w.create(LAB, instance("vm"))
            assert (await events.names(1), await plain.names(1)) == ([("ADDED", "vm")],) * 2
            await w.create(f"{BASE}/users", {"metadata": {"name": "more"}, "spec": {}})
            await w.store.tidy()
            event = await events.next()
            assert (event["type"], event["object"]["metadata"]["resourceVersion"]) == (
                "BOOKMARK",
                str(w.store.revision),
            )
            await clock.advance(31)
            assert (await events.next())["type"] == "BOOKMARK"
            await settle()
            assert (events.lines.empty(), plain.lines.empty()) == (True, True)


@pytest.mark.parametrize("headers", [{}, TABLE], ids=["channel", "by itself"])
async def test_a_bookmark_is_never_behind_what_was_told(headers: dict[str, str]) -> None:
    """Also where it is due while the connection takes nothing, and a change waits to be written before it."""
    clock = FakeClock()
    async with world(clock, limits=Limits(bookmark_seconds=30)) as w:
        path = f"{LAB}?watch=1&resourceVersion={w.store.revision}&allowWatchBookmarks=true"
        async with w.watch(path, headers=headers) as events:
            await settle()
            for slow_before in (True, False):
                events.ready = not slow_before
                await clock.advance(31)
                events.ready = False
                await w.create(LAB, instance(f"vm-{slow_before}".lower()))
                await settle()
                await clock.advance(31)
                await settle()
                events.ready = True
                await settle(60)
            await clock.advance(31)
            await settle()
            revisions, bookmarks = list[int](), 0
            while not events.lines.empty():
                event = await events.next()
                about = event["object"]["rows"][0]["object"] if headers else event["object"]
                bookmarks += event["type"] == "BOOKMARK"
                revisions.append(int(about["metadata"]["resourceVersion"]))
            assert revisions == sorted(revisions)
            assert (bookmarks >= 2, len(set(revisions)) >= 3) == (True, True)


async def test_watches_of_everything_take_turns_as_the_requests_of_who_asks_do(
    w: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not beside all agents, nor beside each other."""
    groups: list[tuple[str, str]] = []
    flows = w.api.state.flows

    def note(name: str) -> None:
        run = getattr(flows, name)

        async def noted(work: Work, *, tenant: str) -> None:
            groups.append((name, tenant))
            await run(work, tenant=tenant)

        monkeypatch.setattr(flows, name, noted)

    note("follow")
    note("fan")
    for token, group in ((await w.login("ann"), "acme"), (await w.login("eve"), "other"), ("", "platform:")):
        async with w.watch(f"{EVERYWHERE}?watch=1", token=token):
            await settle()
        assert set(groups) == {("follow", group), ("fan", group)}
        groups.clear()
    agent = await w.host("h1")
    async with w.watch(f"{BASE}/claims?watch=1", peer=agent):
        await settle()
    assert {group for _, group in groups} == {""}


# --- a channel by itself ------------------------------------------------------------------------------------------


class Source:
    """Stands for the store's objects: watches of it are told what is put, and can be counted."""

    def __init__(self) -> None:
        self.queues: list[asyncio.Queue[Change | Bookmark]] = []

    async def watch(
        self, scope: Scope, *, since: int | None = None, level: bool = False
    ) -> AsyncIterator[Change | Bookmark]:
        del scope, since
        assert level
        queue: asyncio.Queue[Change | Bookmark] = asyncio.Queue()
        self.queues.append(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self.queues.remove(queue)

    def put(self, *revisions: int) -> None:
        for queue in self.queues:
            for revision in revisions:
                queue.put_nowait(Change(revision, "ADDED", Key("Thing", "", f"t{revision}"), "u", "", b""))
            queue.put_nowait(Bookmark(revisions[-1]))


class Told:
    """A reader who takes everything, and notes in which turn of the loop."""

    def __init__(self, revision: int, turns: list[int]) -> None:
        self.revision = revision
        self.heard: list[bytes] = []
        self.at: list[int] = []
        self._turns = turns

    def hear(self, batch: Batch) -> None:
        self.heard.append(batch.after(self.revision))
        self.revision = batch.until
        self.at.append(self._turns[0])

    def failed(self, error: BaseException) -> None:
        raise AssertionError from error


def show(name: str = "x") -> Show:
    scope = Scope(kind="Thing", namespace=name)
    return Show(
        scope=scope,
        line=lambda change: b"%d\n" % change.revision,
        bookmark=lambda revision: b"at %d\n" % revision,
        same=same(scope),
        tenant=name,
    )


@asynccontextmanager
async def counted() -> AsyncIterator[list[int]]:
    """The turns of the loop so far."""
    turns = [0]

    async def count() -> None:
        while True:
            turns[0] += 1
            await asyncio.sleep(0)

    task = asyncio.ensure_future(count())
    yield turns
    task.cancel()


def of(source: Source) -> Channels:
    clock = FakeClock()
    return Channels(source, clock, flows=Flows(clock, lambda who, tenant: tenant, shed=lambda lane: None))  # type: ignore[arg-type]


async def test_a_reader_takes_only_what_lies_behind_its_revision() -> None:
    source, turns = Source(), [0]
    made = of(source)
    behind, ahead, far = Told(5, turns), Told(8, turns), Told(20, turns)
    found = [made.join(show(), reader) for reader in (behind, ahead, far)]
    assert found[0] is not None
    assert found[1:] == found[:1] * 2
    await settle()
    source.put(6, 7, 9)
    await settle()
    assert [reader.heard for reader in (behind, ahead, far)] == [[chunk(b"6\n7\n9\n")], [chunk(b"9\n")], []]
    assert [reader.revision for reader in (behind, ahead, far)] == [9, 9, 20]
    assert made.join(show(), Told(8, turns)) is None, "it would miss the ninth"
    late = Told(9, turns)
    assert made.join(show(), late) is found[0]
    source.put(10)
    await settle()
    assert late.heard == [chunk(b"10\n")]
    for reader in (behind, ahead, far, late):
        found[0].leave(reader)
    await settle()
    assert (len(made), source.queues) == (0, [])


async def test_a_thousand_readers_are_told_in_parts_and_keep_no_other_tenant_waiting() -> None:
    source = Source()
    made = of(source)
    async with counted() as turns:
        many, one = [Told(0, turns) for _ in range(1000)], Told(0, turns)
        for reader in many:
            assert made.join(show("many"), reader) is not None
        assert made.join(show("one"), one) is not None
        await settle()
        source.put(1)
        source.put(2)
        while any(len(reader.heard) < 2 for reader in many):
            await asyncio.sleep(0)
        at = [turn for reader in many for turn in reader.at]
        assert max(at.count(turn) for turn in set(at)) <= FAN * FANS
        assert max(one.at) - min(at) < 4 < max(at) - min(at)


@pytest.mark.parametrize(("size", "step"), [(1, FAN), (STEP_BYTES // 4, 3), (3 << 19, 1)])
async def test_a_step_is_bounded_by_what_is_written_too(size: int, step: int) -> None:
    source, made_of = Source(), show()
    made = of(source)
    large = replace(made_of, line=lambda change: b"x" * size)
    async with counted() as turns:
        readers = [Told(0, turns) for _ in range(2 * FAN)]
        for reader in readers:
            assert made.join(large, reader) is not None
        await settle()
        source.put(1)
        await settle(80)
        at = [turn for reader in readers for turn in reader.at]
        assert len(at) == len(readers)
        assert max(at.count(turn) for turn in at) == step


@pytest.mark.parametrize("lead", range(8))
async def test_what_the_same_commit_woke_has_run_before_a_change_is_told(lead: int) -> None:
    """Also where the channel stands in line already, for a change before, and finds this one there."""
    source, known, doubt = Source(), asyncio.Event(), list[bool]()
    made = of(source)

    class Watched(Told):
        def hear(self, batch: Batch) -> None:
            if batch.until == 4:
                doubt.append(known_by[0])
            super().hear(batch)

    known_by = [False]

    async def directory() -> None:
        await known.wait()
        known_by[0] = True

    for reader in [Watched(0, [0]) for _ in range(3 * FANS)]:
        assert made.join(show(str(id(reader))), reader) is not None
    followed = asyncio.ensure_future(directory())
    await settle()
    source.put(1)
    for _ in range(lead):
        await asyncio.sleep(0)
    source.put(2, 4)
    known.set()
    await settle(60)
    assert doubt == [True] * 3 * FANS
    await followed


# --- a place in a channel -----------------------------------------------------------------------------------------


class Doubt:
    """Stands for judgements: made when ``answer`` is set."""

    def __init__(self) -> None:
        self.doubtful = False
        self.answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def sure(self) -> bool:
        return await asyncio.shield(self.answer)


class Place:
    """A reading, with what it wrote, and what it asked for."""

    def __init__(self) -> None:
        self.doubt, self.events = Doubt(), Events()
        self.parted: list[BaseException | None] = []
        self.tasks: list[asyncio.Future[None]] = []
        self.reading = Reading(
            self.events,  # type: ignore[arg-type]
            self.doubt,  # type: ignore[arg-type]
            bookmarks=False,
            go=lambda work: self.tasks.append(asyncio.ensure_future(work())),
            parted=self.parted.append,
        )

    def hear(self, revision: int, size: int = 8) -> None:
        line = b"%d".ljust(size - 1) % revision + b"\n"
        whole = chunk(line)
        self.reading.hear(Batch(lines=[(revision, line)], whole=whole, until=revision, at=0.0, bookmark=b""))

    def wrote(self) -> list[int]:
        found = []
        while not self.events.lines.empty():
            found.append(int(self.events.lines.get_nowait() or b""))
        return found


@pytest.mark.parametrize("allowed", [True, False])
async def test_what_comes_in_doubt_is_held_until_it_is_judged(allowed: bool) -> None:
    place = Place()
    place.hear(1)
    place.doubt.doubtful = True
    place.hear(2)
    await settle()
    place.hear(3)
    place.doubt.doubtful = False
    place.hear(4)  # not before those before it
    assert (place.wrote(), place.reading.revision) == ([1], 1)
    place.doubt.answer.set_result(allowed)
    await asyncio.gather(*place.tasks)
    assert len(place.tasks) == 1
    assert (place.wrote(), place.reading.revision) == (([2, 3, 4], 4) if allowed else ([], 1))
    assert place.parted == []


async def test_who_has_to_hold_too_much_goes_on_by_itself() -> None:
    place = Place()
    place.doubt.doubtful = True
    place.hear(1, size=2 * BATCH_BYTES_MAX)
    await settle()
    assert place.parted == []
    place.hear(2)
    assert place.parted == [None]
    place.doubt.answer.set_result(True)
    await asyncio.gather(*place.tasks)
    assert (place.wrote(), place.reading.revision) == ([], 0)


# --- judgements ---------------------------------------------------------------------------------------------------


class Asked:
    """Stands for a call: each time that it is asked who asks, something changes meanwhile that rights may hang on."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.bells = Bells(self.clock)
        self.times = 0
        flows = Flows(self.clock, lambda who, tenant: tenant, shed=lambda lane: None)
        context = SimpleNamespace(limits=Limits(), clock=self.clock)
        self.state = SimpleNamespace(flows=flows, context=context, bells=self.bells)
        self.about = SimpleNamespace(tenant="acme")
        self.who = Identity("user", "mia")
        self._turn = asyncio.Event()

    def turns(self) -> list[asyncio.Event]:
        self._turn = asyncio.Event()
        return [self._turn]

    async def again(self) -> Identity:
        self.times += 1
        self._turn.set()
        await asyncio.sleep(0)
        return self.who


async def test_rights_that_change_all_the_time_keep_nobody_waiting() -> None:
    """One judgement that began after the call is enough, whatever changes while it is made."""
    asked = Asked()
    judged = Judged(asked, lambda who: True, bells=asked.bells, ended=lambda why: None)  # type: ignore[arg-type]
    for _ in range(5):
        before = asked.times
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await judged.sure()
        assert before < asked.times <= before + 2
        assert judged.doubtful
    await judged.close()


# --- bells --------------------------------------------------------------------------------------------------------


async def test_bells_ring_in_time_and_once_and_not_after_they_are_silenced() -> None:
    clock, rung = FakeClock(), list[str]()
    bells = Bells(clock)
    late = bells.after(30, lambda: rung.append("late"))
    bells.after(10, lambda: rung.append("early"))
    bells.after(20, lambda: rung.append("never")).silence()
    again = bells.after(40, lambda: bells.after(5, lambda: rung.append("again")))
    await clock.advance(9)
    assert rung == []
    await clock.advance(1)
    assert rung == ["early"]
    await clock.advance(25)
    assert rung == ["early", "late"]
    await clock.advance(20)
    assert rung == ["early", "late", "again"]
    late.silence()
    again.silence()


async def test_a_watch_that_ends_while_it_is_judged_leaves_nothing(w: World) -> None:
    mia = await w.login("mia")
    for turns in range(40):
        async with w.watch(f"{LAB}?watch=1&resourceVersion={w.store.revision}", token=mia):
            for _ in range(turns):
                await asyncio.sleep(0)
        await settle()
        assert len(w.api.state.bells) == 0, turns


async def test_a_bell_rings_once_its_event_is_set() -> None:
    event, rung, tasks = asyncio.Event(), list[int](), len(asyncio.all_tasks())
    bells = Bells(FakeClock())
    held = [bells.when(event, lambda number=number: rung.append(number)) for number in range(100)]  # type: ignore[misc]
    assert len(asyncio.all_tasks()) == tasks + 1
    held[7].silence()
    await settle()
    event.set()
    await settle()
    assert sorted(rung) == [number for number in range(100) if number != 7]
    bells.when(asyncio.Event(), lambda: None).silence()
    await settle()
    assert len(asyncio.all_tasks()) == tasks


# --- over a real connection ---------------------------------------------------------------------------------------


@pytest.fixture
async def s(tmp_path: Path) -> AsyncIterator[Served]:
    async with world() as w, served(w, tmp_path) as made:
        yield made


@asynccontextmanager
async def asking(
    s: Served, method: str, path: str, headers: str = ""
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    context = ssl.create_default_context(cadata=s.world.ca.certificate.decode())
    context.load_cert_chain(s.path("c.pem", s.admin.certificate), s.path("k.pem", s.admin.key))
    port = int(s.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, limit=1 << 16)
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        yield reader, writer
    finally:
        writer.transport.abort()


async def parts(reader: asyncio.StreamReader) -> AsyncIterator[Any]:
    """The events of chunks as they come, until the last chunk."""
    rest = b""
    while size := int(await reader.readline(), 16):
        rest += await reader.readexactly(size)
        assert await reader.readexactly(2) == b"\r\n"
        *lines, rest = rest.split(b"\n")
        for line in lines:
            yield orjson.loads(line)


async def test_over_tls_a_slow_reader_is_waited_for_and_told_everything(s: Served) -> None:
    path = f"/api/v1/namespaces/acme--lab/configmaps?watch=1&resourceVersion={s.world.store.revision}"
    async with asyncio.timeout(120), asking(s, "GET", path) as (slow, _), asking(s, "GET", path) as (quick, _):
        names = [f"large-{number}" for number in range(40)]

        async def read(reader: asyncio.StreamReader) -> list[str]:
            found: list[str] = []
            async for event in parts(reader):
                found.append(event["object"]["metadata"]["name"])
                if found[-1] == names[-1]:
                    break
            return found

        reading = asyncio.ensure_future(read(quick))
        for name in names:
            body = {"metadata": {"name": name}, "data": {"k": random.Random(name).randbytes(250_000).hex()}}
            await s.world.create("/api/v1/namespaces/acme--lab/configmaps", body)
        assert await reading == names
        assert await read(slow) == names


async def test_a_stream_ends_as_http_has_it_and_a_head_has_no_body(s: Served) -> None:
    path = f"{LAB}?watch=1&resourceVersion={s.world.store.revision}"
    async with (
        asyncio.timeout(PATIENCE_SECONDS),
        asking(s, "GET", path) as (got, _),
        asking(s, "HEAD", path) as (headed, writer),
    ):
        await s.world.create(LAB, instance("vm"))
        told = parts(got)
        assert (await anext(told))["object"]["metadata"]["name"] == "vm"
        s.world.api.close()
        assert [event async for event in told] == []
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await headed.readline()).startswith(b"HTTP/1.1 200"), "the next answer follows the head"


@pytest.mark.parametrize("headers", ["", "Accept: application/json;as=Table;v=v1;g=meta.k8s.io\r\n"])
async def test_a_watch_with_a_request_behind_it_learns_that_its_connection_is_gone(
    s: Served, headers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    outlets: list[Outlet] = []

    def made(*given: Any, **more: Any) -> Outlet:
        outlets.append(Outlet(*given, **more))
        return outlets[-1]

    monkeypatch.setattr(listener, "Outlet", made)
    path = f"{LAB}?watch=1&resourceVersion={s.world.store.revision}"
    watches = s.world.api.state.metrics.watches.labels("instances")
    async with asyncio.timeout(PATIENCE_SECONDS), asking(s, "GET", path, headers) as (_, writer):
        assert watches._value.get() == 1
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        while not outlets[0]._flow.read_paused:
            await asyncio.sleep(0.001)  # until the server has it
        outlets[0]._transport.abort()
        while watches._value.get() or channels(s.world):
            await asyncio.sleep(0.001)
