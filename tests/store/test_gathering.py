"""Gets from a PostgreSQL server that go together: who gets what, what each sees, and how they fail."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import psycopg
import pytest

from bessemer.core.clock import FakeClock
from bessemer.core.errors import Invalid, NotFound, Unavailable
from bessemer.core.ports import Stored
from bessemer.core.resource import Key
from bessemer.kinds import KINDS
from bessemer.store import Store, gathering, links, open_store, postgres, rows, schema, store_kinds
from bessemer.store.gathering import MOST, PLANS, Gathering
from tests.failover.proxy import Wire, proxied
from tests.store.make import ALICE, PROJECT, body
from tests.store.server import Server
from tests.store.test_links import connections, until
from tests.store.test_postgres import cut, fill, opened

pytestmark = pytest.mark.real


def key(name: str) -> Key:
    return Key("Thing", PROJECT, name)


def gathered(store: Store) -> Gathering:
    found: Any = store._reader._gathering
    return found


@pytest.fixture
async def store(database: str) -> AsyncIterator[Store]:
    """With things t0 to t9."""
    found = await asyncio.to_thread(opened, database)
    await asyncio.gather(*(found.objects.create(body("Thing", f"t{n}"), ALICE) for n in range(10)))
    yield found
    found.close()


class Batches:
    """What was asked together; while ``open`` is not set, an answer that has come is kept back."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[Sequence[Key]] = []
        self.open = asyncio.Event()
        self.open.set()
        self._ask = gathering._ask
        monkeypatch.setattr(gathering, "_ask", self)

    async def __call__(self, link: links.Link, keys: Sequence[Key]) -> Mapping[Any, Any]:
        self.asked.append(keys)
        found = await self._ask(link, keys)
        await self.open.wait()
        return found


@pytest.fixture
async def batches(monkeypatch: pytest.MonkeyPatch) -> Batches:
    return Batches(monkeypatch)


async def outcomes(store: Store, *names: str) -> list[Any]:
    """Of gets that are asked at once: each one's object or error."""
    return await asyncio.gather(*(store.objects.get(key(name)) for name in names), return_exceptions=True)


# --- who gets what ----------------------------------------------------------------------------------------------


async def test_who_asks_at_once_goes_together_and_each_gets_its_own(store: Store, batches: Batches) -> None:
    names = ["t3", "none", "t7", "t3", *(f"t{n}" for n in range(10))]
    found = await outcomes(store, *names)
    assert [each.key.name if isinstance(each, Stored) else type(each) for each in found] == [
        NotFound if name == "none" else name for name in names
    ]
    (batch,) = batches.asked
    assert sorted(batch) == sorted({key(name) for name in names}), "an object that two ask for is read once"


async def test_who_asks_while_a_batch_is_under_way_goes_with_the_next(store: Store, batches: Batches) -> None:
    batches.open.clear()
    asking = [asyncio.ensure_future(store.objects.get(key(f"t{n}"))) for n in range(3)]
    await until(lambda: len(batches.asked) == 1)
    asking += [asyncio.ensure_future(store.objects.get(key(f"t{n}"))) for n in range(3, 10)]
    await asyncio.sleep(0.05)
    assert len(batches.asked) == 1, "one is under way at a time"
    batches.open.set()
    assert [each.key.name for each in await asyncio.gather(*asking)] == [f"t{n}" for n in range(10)]
    assert [len(batch) for batch in batches.asked] == [3, 7]


async def test_a_batch_is_bounded(store: Store, batches: Batches) -> None:
    found = await outcomes(store, *(f"t{n}" for n in range(2 * MOST + 5)))
    assert [isinstance(each, Stored) for each in found] == [n < 10 for n in range(2 * MOST + 5)]
    assert [len(batch) for batch in batches.asked] == [MOST, MOST, 5]


async def test_what_is_as_large_as_a_file_holds_up_nobody(database: str, batches: Batches) -> None:
    kinds = store_kinds(KINDS)
    assert [name for name, facts in kinds.items() if facts.files] == ["ConfigMap"]
    store = await asyncio.to_thread(open_store, database, clock=FakeClock(), kinds=kinds, seal_key=bytes(32))
    try:
        for name in ("c1", "c2"):
            await store.objects.create(body("ConfigMap", name), ALICE)
        found = await asyncio.gather(
            *(store.objects.get(Key(kind, PROJECT, name)) for kind, name in (("ConfigMap", "c1"), ("ConfigMap", "c2"))),
            *(store.objects.get(Key(kind, PROJECT, "c3")) for kind in ("ConfigMap", "Secret")),
            return_exceptions=True,
        )
        assert [type(each) for each in found] == [Stored, Stored, NotFound, NotFound]
        assert batches.asked == [[Key("Secret", PROJECT, "c3")]]
    finally:
        store.close()


async def test_what_was_acknowledged_is_seen_also_where_an_older_answer_is_under_way(
    store: Store, batches: Batches
) -> None:
    before = await store.objects.get(key("t1"))
    batches.open.clear()
    older = asyncio.ensure_future(store.objects.get(key("t1")))
    await until(lambda: len(batches.asked) == 2)
    written = await store.objects.replace(body("Thing", "t1", spec={"size": 2}, uid=before.uid), ALICE)
    newer = asyncio.ensure_future(store.objects.get(key("t1")))
    await asyncio.sleep(0.05)
    batches.open.set()
    assert (await newer).revision == written.revision > before.revision
    assert (await older).revision in (before.revision, written.revision)


async def test_text_that_no_database_takes_fails_alone(store: Store, batches: Batches) -> None:
    found = await outcomes(store, "t1", "t\0", "t\ud800", "t2")
    assert [type(each) for each in found] == [Stored, Invalid, UnicodeEncodeError, Stored]
    assert [len(batch) for batch in batches.asked] == [2]
    awkward = ['"', "{}", "t1,t2", "\\", "ä€😀", "", "NULL"]
    assert {type(each) for each in await outcomes(store, *awkward)} == {NotFound}


async def test_who_is_cancelled_harms_nobody(store: Store, batches: Batches) -> None:
    batches.open.clear()
    asking = [asyncio.ensure_future(store.objects.get(key(name))) for name in ("t1", "t1", "t2")]
    await until(lambda: len(batches.asked) == 1)
    asking += [asyncio.ensure_future(store.objects.get(key(name))) for name in ("t3", "t3", "t4")]
    await asyncio.sleep(0)
    for place in (0, 2, 3, 5):
        asking[place].cancel()
    await asyncio.wait([asking[place] for place in (0, 2, 3, 5)], timeout=20)
    assert all(asking[place].cancelled() for place in (0, 2, 3, 5)), "and it waits for nothing"
    batches.open.set()
    assert [(await asking[place]).key.name for place in (1, 4)] == ["t1", "t3"]
    await until(lambda: gathered(store)._waiting == 0)


async def test_as_many_wait_as_are_taken_on(store: Store, batches: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "PENDING_MAX", 4)
    found = await outcomes(store, *(f"t{n}" for n in range(6)))
    assert [type(each) for each in found] == [Stored] * 4 + [Unavailable] * 2
    assert {type(each) for each in await outcomes(store, *(f"t{n}" for n in range(4)))} == {Stored}


# --- how they fail ----------------------------------------------------------------------------------------------


async def test_a_connection_that_broke_while_idle_is_made_anew_for_the_whole_batch(
    store: Store, database: str, batches: Batches
) -> None:
    await outcomes(store, "t1")
    cut(database)
    assert {type(each) for each in await outcomes(store, *(f"t{n}" for n in range(10)))} == {Stored}
    assert [len(batch) for batch in batches.asked] == [1, 10, 10]


async def test_a_statement_that_takes_too_long_fails_for_all_of_its_batch_and_behind(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "_READ_MS", 2_000)
    monkeypatch.setattr(links, "ANSWER_SECONDS", 60.0)
    url = server.database("locked")
    store = await asyncio.to_thread(opened, url)
    try:
        await store.objects.create(body("Thing", "t1"), ALICE)
        had = connections(url)
        with psycopg.connect(url) as holder:
            holder.execute("LOCK TABLE objects IN ACCESS EXCLUSIVE MODE")
            first = asyncio.ensure_future(outcomes(store, "t1", "t1", "t2"))
            await asyncio.sleep(0.1)
            behind = asyncio.ensure_future(outcomes(store, "t1", "t3"))
            began = time.monotonic()
            assert [type(each) for each in (*await first, *await behind)] == [Unavailable] * 5
            assert time.monotonic() - began < 20
        assert (await store.objects.get(key("t1"))).revision == 1
        await until(lambda: connections(url) <= had + 1)  # one that is let go of ends in the server's own time
    finally:
        store.close()


async def test_a_server_that_is_paused_is_told_of_in_time_and_nothing_is_left_over(
    server: Server, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with proxied(server.folder) as proxy:
        store = await asyncio.to_thread(opened, f"{proxy.url()}?connect_timeout=2")
        try:
            await store.objects.create(body("Thing", "t1"), ALICE)
            await store.objects.get(key("t1"))
            monkeypatch.setattr(links, "ANSWER_SECONDS", 0.4)
            proxy.cut(Wire.DROP)
            began = time.monotonic()
            first = asyncio.ensure_future(outcomes(store, "t1", "t2"))
            await asyncio.sleep(0.1)
            behind = asyncio.ensure_future(outcomes(store, *(f"t{n}" for n in range(20 * MOST))))
            assert {type(each) for each in (*await first, *await behind)} == {Unavailable}
            assert time.monotonic() - began < 20, "an answer that is overdue, and a connection that is not made"
            assert (gathered(store)._waiting, gathered(store)._link) == (0, None)
            monkeypatch.undo()  # from here on it is well, and has its time
            proxy.cut(Wire.OPEN)
            assert (await store.objects.get(key("t1"))).revision == 1
        finally:
            store.close()


async def test_a_server_that_falls_silent_before_the_first_batch_is_told_of_in_time(
    server: Server, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with proxied(server.folder) as proxy:
        store = await asyncio.to_thread(opened, f"{proxy.url()}?connect_timeout=2")
        line: Any = gathered(store)
        connect = line._connect

        def silent() -> links.Link:
            link: links.Link = connect()
            monkeypatch.setattr(links, "ANSWER_SECONDS", 0.4)
            proxy.cut(Wire.DROP)
            return link

        try:
            await store.objects.create(body("Thing", "t1"), ALICE)
            line._connect = silent
            began = time.monotonic()
            assert {type(each) for each in await asyncio.wait_for(outcomes(store, "t1", "t2"), 60)} == {Unavailable}
            assert time.monotonic() - began < 10, "by what is the bound now, and not by that of before"
            assert links.ANSWER_SECONDS < 1, "it was connected, and fell silent then"
            monkeypatch.undo()  # from here on it is well, and has its time
            line._connect = connect
            proxy.cut(Wire.OPEN)
            assert (await store.objects.get(key("t1"))).revision == 1
        finally:
            store.close()


async def test_where_only_its_own_process_hangs_another_answers(
    store: Store, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.objects.get(key("t1"))
    link = gathered(store)._link
    assert link is not None
    pid = link.wire.backend_pid
    os.kill(pid, signal.SIGSTOP)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(links, "ANSWER_SECONDS", 0.4)
            asking = asyncio.ensure_future(outcomes(store, "t1", "t2"))
            await until(lambda: link.due < math.inf or link.broken)  # who answers instead has the usual time
        assert {type(each) for each in await asyncio.wait_for(asking, 60)} == {Stored}
    finally:
        os.kill(pid, signal.SIGCONT)
    assert link.wire.status != links.ConnStatus.OK


async def test_a_store_that_is_closed_tells_who_waits(database: str, batches: Batches) -> None:
    store = await asyncio.to_thread(opened, database)
    await store.objects.create(body("Thing", "t1"), ALICE)
    await store.objects.get(key("t1"))
    with psycopg.connect(database) as holder:
        holder.execute("LOCK TABLE objects IN ACCESS EXCLUSIVE MODE")
        waiting = asyncio.ensure_future(outcomes(store, "t1", "t2"))
        await until(lambda: len(batches.asked) == 2)
        waits = gathered(store)
        waits.close()
        # Sooner than the server would end the statement.
        assert [type(each) for each in await asyncio.wait_for(waiting, 8)] == [Unavailable] * 2
    store.close()
    assert waits._link is None
    with pytest.raises(Unavailable, match="closed"):
        await store.objects.get(key("t1"))


def test_a_loop_that_ends_leaves_nothing_behind(database: str) -> None:
    """A store may serve one loop after the other."""
    store = opened(database)
    try:
        asyncio.run(store.objects.create(body("Thing", "t1"), ALICE))
        asyncio.run(outcomes(store, "t1"))

        async def leave() -> None:
            left, link = [asyncio.ensure_future(outcomes(store, "t1")) for _ in range(2)], gathered(store)._link
            assert link is not None
            await until(lambda: link.due < math.inf)
            assert not any(asking.done() for asking in left)

        with psycopg.connect(database) as holder:  # nobody is answered before the loop has ended
            holder.execute("LOCK TABLE objects IN ACCESS EXCLUSIVE MODE")
            asyncio.run(leave())
        assert (gathered(store)._waiting, gathered(store)._link) == (0, None)
        assert asyncio.run(outcomes(store, "t1"))[0].revision == 1
    finally:
        store.close()


# --- its plan ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("filled", [True, False])
def test_each_object_is_found_by_its_key_whatever_the_table_holds(database: str, filled: bool) -> None:
    opened(database).close()
    with psycopg.connect(database, autocommit=True) as connection:
        if filled:
            fill(connection, schema.objects, kind="'Thing'", name="'t' || n", uid="'u' || n")
        else:
            connection.execute("VACUUM ANALYZE objects")
        for setting in PLANS:
            connection.execute(setting)  # type: ignore[call-overload]
        connection.execute(b"PREPARE each AS " + postgres.Texts()[rows.LOAD_EACH].sql)
        nothing = ", ".join("NULL" for _ in Key._fields)
        plan = [row[0] for row in connection.execute(f"EXPLAIN EXECUTE each({nothing})")]  # type: ignore[arg-type]
        (used,) = (line for line in plan if " on objects" in line)
        (wanted,) = (line for line in plan if "Index Cond" in line)
        assert "Index Scan using objects_pkey" in used, plan
        assert all(f"({name} = " in wanted for name in Key._fields), plan
