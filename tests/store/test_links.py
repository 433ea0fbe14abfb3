"""A PostgreSQL server at the other end of a wire: crashes, cuts, copies that are brought back, clocks of others."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from bessemer.core.clock import SystemClock
from bessemer.core.errors import BessemerError, Expired, Invalid, Unavailable
from bessemer.core.ports import Scope
from bessemer.core.resource import Key
from bessemer.store import Store, apart, beside, leases, links, open_store, postgres, schema_versions, tail
from bessemer.store.apart import Apart
from bessemer.store.session import Undone
from bessemer.store.transaction import COUNTER
from tests.failover.proxy import Wire, proxied
from tests.store.conftest import KEY, KINDS
from tests.store.make import ALICE, PROJECT, body
from tests.store.server import Server
from tests.store.test_postgres import THINGS, cut, looked, opened, seen

pytestmark = pytest.mark.real


@pytest.fixture
def watch() -> Iterator[links.Watch]:
    found = links.Watch()
    yield found
    found.close()


def connections(database: str, where: str = "true") -> int:
    """How many of ours the server has."""
    with psycopg.connect(database) as connection:
        asked = f"SELECT count(*) FROM pg_stat_activity WHERE application_name = 'bessemer' AND {where}"
        (count,) = connection.execute(asked).fetchone() or (0,)  # type: ignore[arg-type]
    return int(count)


async def until(holds: Any, seconds: float = 60.0) -> float:
    """Wait until it holds; how long that took."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < seconds
        await asyncio.sleep(0.02)
    return time.monotonic() - began


# --- what became of a commit ------------------------------------------------------------------------------------


async def test_another_transaction_is_not_taken_for_one_that_a_crash_undid(
    server: Server, database: str, watch: links.Watch
) -> None:
    """After a crash the server gives numbers of transactions anew that nobody had time to write down."""
    opened(database).close()
    lost = postgres.Session(database, texts=postgres.Texts(), watch=watch)
    try:
        lost.begin()
        server.stop(signal.SIGQUIT)
        server.start()
        other = opened(database)
        try:
            for number in range(20):
                await other.objects.create(body("Thing", f"t{number}"), ALICE)
            with pytest.raises(Undone):
                lost.commit()
            assert lost.links == 2, "the server was asked once, and has said so"
        finally:
            other.close()
    finally:
        lost.close()


def test_what_the_database_prefers_does_not_change_how_we_write(server: Server, watch: links.Watch) -> None:
    url = server.database("serializable")
    opened(url).close()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER DATABASE serializable SET default_transaction_isolation = 'serializable'")
    session = postgres.Session(url, texts=postgres.Texts(), watch=watch)
    try:
        session.begin()
        assert session._link.say(b"SHOW transaction_isolation").get_value(0, 0) == b"read committed"
    finally:
        session.close()


def test_marks_of_processes_that_are_gone_for_a_day_are_forgotten(database: str) -> None:
    """One that ends in order takes its own along."""
    with psycopg.connect(database, autocommit=True) as connection:
        opened(database).close()
        assert connection.execute("SELECT count(*) FROM leases WHERE name LIKE 'writer/%'").fetchone() == (0,)
        connection.execute(
            "INSERT INTO leases SELECT 'writer/' || name, name, 1, at, 86400, %s "
            "FROM (VALUES ('dead', 1), ('living', 9e9)) AS marks (name, at)",
            [beside.said()],
        )
        opened(database).close()
        found = connection.execute("SELECT name FROM leases WHERE name LIKE 'writer/%%'").fetchall()
        assert found == [("writer/living",)]


# --- a wire that is cut -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("wire", [Wire.DROP, Wire.CLOSED])
async def test_nobody_waits_for_ever_on_a_wire_that_is_cut(
    server: Server, database: str, monkeypatch: pytest.MonkeyPatch, wire: Wire
) -> None:
    async with proxied(server.folder) as proxy:
        store = await asyncio.to_thread(opened, proxy.url())
        try:
            await store.objects.create(body("Thing", "a"), ALICE)
            following = store.objects.watch(THINGS, since=1)
            coming = asyncio.ensure_future(anext(following))
            await store.objects.list(THINGS)
            monkeypatch.setattr(links, "ANSWER_SECONDS", 0.8)
            proxy.cut(wire)
            reading = asyncio.ensure_future(store.objects.get(Key("Thing", PROJECT, "a")))
            writing = asyncio.ensure_future(store.objects.create(body("Thing", "b"), ALICE))
            await asyncio.sleep(0.3)
            proxy.cut(Wire.OPEN)
            ended = await asyncio.wait_for(asyncio.gather(reading, writing, return_exceptions=True), 60)
            monkeypatch.undo()  # from here on it is well, and has its time
            assert all(isinstance(one, Unavailable) or not isinstance(one, Exception) for one in ended)
            written = not isinstance(ended[1], Exception)
            if not written:
                await store.objects.create(body("Thing", "b"), ALICE)
            assert (await asyncio.wait_for(coming, 60)).revision == 2
        finally:
            await asyncio.to_thread(store.close)  # its last words go over the proxy, which is in this loop


async def test_a_connection_says_how_long_the_kernel_waits(database: str) -> None:
    store = opened(database)
    try:
        session: Any = store._committer._session
        asked = {option.keyword: option.val for option in session._link.wire.info}
        wanted = (b"tcp_user_timeout", b"keepalives_idle", b"target_session_attrs")
        assert [asked[name] for name in wanted] == [b"8000", b"5", b"read-write"]
    finally:
        store.close()


# --- a database that has gone back ------------------------------------------------------------------------------


def go_back(database: str, revision: int) -> None:
    """As a copy of that time would be, brought back."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            f"BEGIN; DELETE FROM changes WHERE revision > {revision};"  # type: ignore[arg-type]
            f"UPDATE counters SET value = {revision} WHERE name = 'revision'; COMMIT"
        )


@pytest.mark.parametrize("others", [0, 1, 5])
async def test_a_database_that_went_back_ends_watches(database: str, others: int) -> None:
    """Also where somebody has given the same numbers again, to something else."""
    store, other = opened(database), opened(database)
    try:
        following = store.objects.watch(THINGS, since=0)
        first = asyncio.ensure_future(anext(following))
        for number in range(4):
            await store.objects.create(body("Thing", f"t{number}"), ALICE)
        assert [(await first).revision, *await seen(following, 3)] == [1, 2, 3, 4]
        await looked(store)
        coming = asyncio.ensure_future(anext(following))
        feed: Any = store._feed
        connect, feed._connect = feed._connect, refuse
        go_back(database, 2)
        cut(database)
        for number in range(others):
            await other.objects.create(body("Thing", f"o{number}"), ALICE)
        feed._connect = connect
        with pytest.raises(Expired, match="gone back to an earlier state"):
            await asyncio.wait_for(coming, 60)
        anew = store.objects.watch(THINGS, since=2 + others)
        next_one = asyncio.ensure_future(anext(anew))
        made = await store.objects.create(body("Thing", "after"), ALICE)
        assert made.revision == (await asyncio.wait_for(next_one, 60)).revision == 3 + others
    finally:
        store.close()
        other.close()


def refuse() -> Any:
    raise Unavailable("the network is gone")


async def test_what_we_wrote_ourselves_first_hides_no_step_back(database: str) -> None:
    """The writer is back before the thread that looks, and its next number is the one that follows ours."""
    store, other = opened(database), opened(database)
    try:
        following = store.objects.watch(THINGS, since=0)
        first = asyncio.ensure_future(anext(following))
        for number in range(3):
            await store.objects.create(body("Thing", f"t{number}"), ALICE)
        assert [(await first).revision, *await seen(following, 2)] == [1, 2, 3]
        await looked(store)
        coming = asyncio.ensure_future(anext(following))
        feed: Any = store._feed
        connect, feed._connect = feed._connect, refuse
        cut(database)  # first: else a look of the thread's might come between
        go_back(database, 2)
        await other.objects.create(body("Thing", "others"), ALICE)
        assert (await store.objects.create(body("Thing", "ours"), ALICE)).revision == 4
        assert not coming.done()
        feed._connect = connect
        with pytest.raises(Expired, match="gone back"):
            await asyncio.wait_for(coming, 60)
    finally:
        store.close()
        other.close()


async def test_a_step_back_while_it_is_looked_for_is_seen_as_far_as_it_went(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(database)
    try:
        following = store.objects.watch(THINGS, since=0)
        first = asyncio.ensure_future(anext(following))
        for number in range(4):
            await store.objects.create(body("Thing", f"t{number}"), ALICE)
        assert [(await first).revision, *await seen(following, 3)] == [1, 2, 3, 4]
        coming = asyncio.ensure_future(anext(following))
        holds = tail._holds

        def between(session: Any, last: Any) -> bool:
            go_back(database, 2)
            return bool(holds(session, last))

        monkeypatch.setattr(tail, "_holds", between)
        cut(database)
        with pytest.raises(Expired, match="gone back"):
            await asyncio.wait_for(coming, 30)
        assert store.revision == 2
        anew = store.objects.watch(THINGS, since=2)
        after = asyncio.ensure_future(anext(anew))
        assert (await store.objects.create(body("Thing", "after"), ALICE)).revision == 3
        assert (await asyncio.wait_for(after, 30)).revision == 3
    finally:
        store.close()


async def test_connections_that_were_only_cut_end_no_watch(database: str) -> None:
    store, other = opened(database), opened(database)
    try:
        following = store.objects.watch(THINGS, since=0)
        first = asyncio.ensure_future(anext(following))
        await store.objects.create(body("Thing", "a"), ALICE)
        assert (await first).revision == 1
        cut(database)
        for number in range(6):
            await (store, other)[number % 2].objects.create(body("Thing", f"b{number}"), ALICE)
        assert await seen(following, 6) == [2, 3, 4, 5, 6, 7]
    finally:
        store.close()
        other.close()


# --- the thread that looks --------------------------------------------------------------------------------------


def test_a_file_of_any_number_is_waited_for() -> None:
    reading, writing = os.pipe()
    high = fcntl.fcntl(reading, fcntl.F_DUPFD, 1_500)
    try:
        os.write(writing, b"x")
        began = time.monotonic()
        tail._wait([high], 60)
        assert time.monotonic() - began < 20
    finally:
        for file in (reading, writing, high):
            os.close(file)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("trouble", [psycopg.ProgrammingError("no such table"), OSError("poll"), ValueError("ours")])
async def test_trouble_of_any_name_does_not_end_what_watchers_hear(database: str, trouble: Exception) -> None:
    here, there = opened(database), opened(database)
    try:
        following = here.objects.watch(THINGS, since=0)
        first = asyncio.ensure_future(anext(following))
        await there.objects.create(body("Thing", "a"), ALICE)
        assert (await first).revision == 1
        feed: Any = here._feed
        read, troubles = feed._read, [trouble]

        def fail(session: Any) -> bool:
            if troubles:
                raise troubles.pop()
            return bool(read(session))

        feed._read = fail
        await there.objects.create(body("Thing", "b"), ALICE)
        assert await asyncio.wait_for(seen(following, 1), 60) == [2]
        assert not troubles
    finally:
        here.close()
        there.close()


def test_what_is_said_during_a_statement_is_heard(database: str, watch: links.Watch) -> None:
    opened(database).close()
    session = postgres.ReadSession(database, texts=postgres.Texts(), watch=watch)
    try:
        session.listen()
        with psycopg.connect(database, autocommit=True) as other:
            other.execute("NOTIFY bessemer")
        assert session.execute(COUNTER, {"of_name": "revision"}).fetchone() == (0,)
        assert session.hear(), "it came with the statement's answer"
        assert not session.hear()
    finally:
        session.close()


# --- whose clock ------------------------------------------------------------------------------------------------


class Wrong(SystemClock):
    """An hour ahead."""

    def now(self) -> float:
        return super().now() + 3600


async def test_leases_go_by_the_databases_clock(database: str) -> None:
    right = opened(database)
    wrong = open_store(database, clock=Wrong(), kinds=KINDS, seal_key=KEY)
    try:
        assert await right.leases.acquire("work", "a", 30) is not None
        assert await wrong.leases.acquire("work", "b", 30) is None, "its clock alone says that the lease has run out"
        (held,) = await wrong.leases.held("work")
        assert 0 < held.expires_at - Wrong().now() < 31, "told in terms of who asks"
        await right.leases.release("work", "a")
        lease = await wrong.leases.acquire("work", "b", 0.2)
        assert lease is not None
        await asyncio.sleep(0.3)
        assert await right.leases.acquire("work", "a", 30) is not None, "it has run out, though not by the wrong clock"
    finally:
        right.close()
        wrong.close()


# --- reads that nobody waits for any more -----------------------------------------------------------------------


async def test_a_list_that_is_cancelled_gives_its_connection_back(database: str) -> None:
    store = opened(database)
    try:
        pool: Any = store._reader.pool
        look, goes_on = pool._open, threading.Event()

        def slow(snapshot: str) -> Any:
            view = look(snapshot)
            goes_on.wait(60)
            return view

        pool._open = slow
        listing = asyncio.ensure_future(store.objects.list(THINGS))
        await asyncio.sleep(0.2)
        listing.cancel()
        await asyncio.sleep(0.05)
        goes_on.set()
        with pytest.raises(asyncio.CancelledError):
            await listing
        await until(lambda: connections(database, "state = 'idle in transaction'") == 0)
    finally:
        store.close()


async def test_who_is_cancelled_before_a_thread_is_free_does_not_wait() -> None:
    turn, goes_on = Apart(1), threading.Event()
    try:
        first = asyncio.ensure_future(turn.do(lambda: goes_on.wait(60)))
        second = asyncio.ensure_future(turn.do(lambda: goes_on.wait(60)))
        await asyncio.sleep(0.05)
        second.cancel()
        done, _ = await asyncio.wait({second}, timeout=20)
        assert done
        assert second.cancelled()
        goes_on.set()
        assert await first
    finally:
        goes_on.set()
        turn.close()


async def test_more_reads_than_can_wait_are_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "PENDING_MAX", 3)
    turn, goes_on = Apart(1), threading.Event()
    try:
        waiting = [asyncio.ensure_future(turn.do(lambda: goes_on.wait(60))) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="more reads wait"):
            await turn.do(lambda: True)
        goes_on.set()
        assert await asyncio.gather(*waiting) == [True] * 3
        assert await turn.do(lambda: 7) == 7
    finally:
        goes_on.set()
        turn.close()


# --- an opening that fails --------------------------------------------------------------------------------------


async def test_no_descriptor_for_a_connection_is_a_fault_of_the_database(
    database: str, watch: links.Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(_: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(os, "dup", none)
        with pytest.raises(psycopg.OperationalError, match="Too many open files"):
            links.Link(database, watch=watch)
    await until(lambda: connections(database) == 0)


async def test_an_opening_that_fails_late_leaves_no_connection(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Any) -> None:
        raise psycopg.OperationalError("server closed the connection")

    with monkeypatch.context() as patched:
        patched.setattr(leases, "reopen", fail)
        with pytest.raises(Unavailable, match="cannot be reached or used"):
            opened(database)
    await until(lambda: connections(database) == 0)


def test_why_tables_cannot_be_made_is_not_hidden(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    url = server.database("unmade")
    monkeypatch.setattr(schema_versions, "ddl_of_database", lambda: "BEGIN; SELECT 1 / 0; COMMIT")
    with pytest.raises(Unavailable) as raised:
        opened(url)
    assert "division by zero" in raised.value.internal


def test_an_address_that_is_none_is_refused_without_showing_it() -> None:
    with pytest.raises(Invalid) as raised:
        opened("postgresql://bessemer@db/bessemer?password=secret&nonsense=1")
    assert "secret" not in f"{raised.value} {raised.value.internal} {raised.value.__cause__}"


# --- text that no database takes --------------------------------------------------------------------------------


async def test_text_with_nul_is_invalid_on_both(store: Store) -> None:
    """Before the database sees it: one of them would keep it."""
    with_nul = "a\0b"
    for wrong in (
        store.objects.create(body("Thing", with_nul), ALICE),
        store.objects.get(Key("Thing", PROJECT, with_nul)),
        store.objects.list(Scope(kind="Thing", namespace=with_nul)),
        store.leases.acquire("work", with_nul, 10),
        store.leases.held(with_nul),
    ):
        with pytest.raises(BessemerError) as raised:
            await wrong
        assert isinstance(raised.value, Invalid)
    made = await store.objects.create(body("Thing", "good", spec={"text": "a\0b"}), ALICE)
    assert b"a\\u0000b" in made.body, "within a body it is escaped, and kept"
    assert made.revision == 1
