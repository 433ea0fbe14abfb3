"""What is PostgreSQL's own: writers of several processes, a server that goes and comes back, plans, tables."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Table

from bessemer.core.clock import FakeClock, SystemClock
from bessemer.core.errors import Expired, Invalid, NotFound, Taken, Unavailable
from bessemer.core.ports import CONTROLLER, Bookmark, Scope
from bessemer.core.resource import Change, Key
from bessemer.store import (
    Store,
    hardware,
    ledger,
    links,
    migrations,
    open_store,
    periods,
    postgres,
    rows,
    schema,
    schema_versions,
    tail,
)
from bessemer.store.compaction import History
from bessemer.store.reader import NEWER
from bessemer.store.session import Unsettled
from tests.store.conftest import KEY, KINDS
from tests.store.faults import at_commits
from tests.store.invariants import check
from tests.store.make import ALICE, PROJECT, body, claim, inventory
from tests.store.server import Server

pytestmark = pytest.mark.real
ROOT = Path(__file__).resolve().parents[2]
THINGS = Scope(kind="Thing")


def opened(url: str, **options: Any) -> Store:
    return open_store(url, clock=SystemClock(), kinds=KINDS, seal_key=KEY, **options)


@pytest.fixture
def pair(database: str) -> Iterator[tuple[Store, Store]]:
    """Two stores of one database, as two processes have them."""
    here, there = opened(database), opened(database)
    yield here, there
    here.close()
    there.close()


async def seen(watch: AsyncIterator[Change | Bookmark], count: int) -> list[int]:
    """The revisions of the next changes."""
    found: list[int] = []
    while len(found) < count:
        event = await asyncio.wait_for(anext(watch), 60)
        if isinstance(event, Change):
            found.append(event.revision)
    return found


async def looked(store: Store) -> None:
    """The thread that looks for who watches has its connection, and looks there from now on: one that is being made
    is ended by nobody who ends all that there are."""
    feed: Any = store._feed
    await asyncio.sleep(0)  # whoever has just begun to watch has it begin
    since = time.monotonic()
    os.eventfd_write(feed._poke, 1)
    async with asyncio.timeout(60):
        while feed.heard_at < since:
            await asyncio.sleep(0.01)


# --- several processes ------------------------------------------------------------------------------------------


async def test_what_another_process_writes_reaches_who_watches_here(
    pair: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By NOTIFY: nobody comes to look by himself while this lasts."""
    monkeypatch.setattr(tail, "POLL_SECONDS", 3600.0)
    here, there = pair
    watch = here.objects.watch(THINGS, since=0)
    first = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0.05)
    await there.objects.create(body("Thing", "a"), ALICE)
    assert (await asyncio.wait_for(first, 60)).revision == 1
    await asyncio.gather(
        *(store.objects.create(body("Thing", f"b{n}"), ALICE) for n in range(20) for store in [pair[n % 2]])
    )
    assert await seen(watch, 20) == list(range(2, 22))
    assert (await here.objects.list(THINGS)).revision == 21


async def test_without_notify_it_takes_a_second(pair: tuple[Store, Store], database: str) -> None:
    here, there = pair
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("ALTER TABLE counters DISABLE TRIGGER counters_tell")
        try:
            watch = here.objects.watch(THINGS, since=0)
            first = asyncio.ensure_future(anext(watch))
            await asyncio.sleep(0.05)
            await there.objects.create(body("Thing", "a"), ALICE)
            assert (await asyncio.wait_for(first, 60)).revision == 1
        finally:
            connection.execute("ALTER TABLE counters ENABLE TRIGGER counters_tell")


def newer(connection: psycopg.Connection[Any], table: str, last: int) -> list[int]:
    found = connection.execute(f"SELECT number FROM {table} WHERE number > {last} ORDER BY number")  # type: ignore[arg-type]
    return [row[0] for row in found]


async def test_the_order_in_which_a_sequence_loses_rows_loses_none_here(
    pair: tuple[Store, Store], database: str, server: Server
) -> None:
    """One takes a number and dawdles, another takes the next and commits, a reader looks, the first commits."""
    slow, quick, reader = (psycopg.connect(server.url("postgres")) for _ in range(3))
    with slow, quick, reader:
        reader.execute("CREATE TABLE told (number BIGSERIAL PRIMARY KEY)")
        reader.commit()
        slow.execute("INSERT INTO told DEFAULT VALUES")
        quick.execute("INSERT INTO told DEFAULT VALUES")
        quick.commit()
        told = newer(reader, "told", 0)
        slow.commit()
        assert told + newer(reader, "told", told[-1]) == [2], "a sequence: the first is never told"
        reader.execute("DROP TABLE told")

    here, there = pair
    watch = here.objects.watch(THINGS, since=0)
    first = asyncio.ensure_future(anext(watch))
    watch_of_links = links.Watch()
    held = postgres.Session(database, texts=postgres.Texts(), watch=watch_of_links)
    try:
        held._link.say(
            b"SET idle_in_transaction_session_timeout = 0"
        )  # it dawdles for as long as a machine may be busy
        held.begin()
        (number,) = held.execute(_step(), {"of_name": "revision"}).fetchone()
        dawdled = asyncio.ensure_future(there.objects.create(body("Thing", "quick"), ALICE))
        await asyncio.sleep(0.3)
        assert not dawdled.done(), "the next number is given once the one before is committed"
        assert not first.done()
        assert (await here.objects.list(THINGS)).items == []
        held.execute(rows._CHANGE, {**_change(), "revision": number})
        held.commit()
        assert (await dawdled).revision == number + 1
        assert [(await first).revision, *await seen(watch, 1)] == [1, 2]
    finally:
        held.close()
        watch_of_links.close()


def _step() -> Any:
    from bessemer.store import transaction

    return transaction._STEP


def _change() -> dict[str, Any]:
    texts = {
        "kind": "Thing",
        "namespace": PROJECT,
        "name": "slow",
        "uid": "u",
        "host": "",
        "labels": "",
        "labels_before": "",
    }
    return {**texts, "at": 0, "type": 0, "body": b'{"metadata":{"resourceVersion":"1"}}'}


async def test_takers_of_two_processes_race_for_one_device(pair: tuple[Store, Store], database: str) -> None:
    here, there = pair
    await here.capacity.declare("h1", inventory(1))
    wanted = [claim(f"c{number}", devices=("gpu-0",), cores=1) for number in range(64)]
    tries = [pair[number % 2].capacity.take([one], CONTROLLER) for number, one in enumerate(wanted)]
    done = await asyncio.gather(*tries, return_exceptions=True)
    assert len([one for one in done if isinstance(one, Taken)]) == 63
    assert await there.audit.verify() is None
    check(database)


async def test_history_that_was_dropped_meanwhile_is_expired_for_who_was_behind(database: str) -> None:
    here, there = opened(database), opened(database, history=History(revisions=3))
    try:
        watch = here.objects.watch(THINGS, since=0)
        first = asyncio.ensure_future(anext(watch))
        await looked(here)
        feed: Any = here._feed
        connect = feed._connect

        def cut_off() -> None:
            raise Unavailable("the network is gone")

        feed._connect = cut_off
        cut(database)
        for number in range(10):
            await there.objects.create(body("Thing", f"t{number}"), ALICE)
        await there.tidy()
        feed._connect = connect
        with pytest.raises(Expired, match="history does not reach back"):
            await asyncio.wait_for(first, 60)
    finally:
        here.close()
        there.close()


def writers(url: str, count: int) -> list[subprocess.Popen[bytes]]:
    return [
        subprocess.Popen(
            [sys.executable, "-m", "tests.store.crash_writer", url, f"r{number}"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
            stdout=subprocess.PIPE,
        )
        for number in range(count)
    ]


async def test_a_process_is_killed_and_another_stopped_amid_their_writes(database: str) -> None:
    """What they acknowledged is there; who is silent amid a transaction holds up nobody for long."""
    store = opened(database)
    revisions: list[int] = []

    async def follow() -> None:
        async for event in store.objects.watch(THINGS, since=0):
            if isinstance(event, Change):
                revisions.append(event.revision)

    follower = asyncio.create_task(follow())
    processes = writers(database, 2)
    try:
        heads = [await asyncio.to_thread(read_lines, process, 150) for process in processes]
        processes[0].kill()
        processes[1].send_signal(signal.SIGSTOP)
        await asyncio.wait_for(store.objects.create(body("Thing", "meanwhile"), ALICE), 60)
        processes[1].kill()
        said = [head + tail for head, tail in zip(heads, map(rest, processes), strict=True)]
        assert await store.audit.verify() is None
        expected: dict[str, str] = {}
        for verb, name, _ in (line.split() for lines in said for line in lines):
            expected[name] = verb
        things = [name for name, verb in expected.items() if verb == "put"]
        assert len(things) > 20
        for name in random.Random(1).sample(things, 20):
            await there_or_deleted(store, name)
        await store.objects.create(body("Thing", "last"), ALICE)
        last = (await store.objects.get(Key("Thing", PROJECT, "last"))).revision
        while not revisions or revisions[-1] < last:
            await asyncio.sleep(0.02)
        with psycopg.connect(database) as connection:
            written = connection.execute("SELECT revision FROM changes WHERE kind = 'Thing' ORDER BY revision")
            assert revisions == [row[0] for row in written]
    finally:
        for process in processes:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
        follower.cancel()
        await asyncio.gather(follower, return_exceptions=True)
        store.close()
    check(database)


async def there_or_deleted(store: Store, name: str) -> None:
    try:
        await store.objects.get(Key("Thing", PROJECT, name))
    except NotFound:
        audit = await store.audit.rows(limit=1_000_000)
        assert any(row.verb == "delete" and row.key.endswith(name) for row in audit)


def read_lines(process: subprocess.Popen[bytes], count: int) -> list[str]:
    assert process.stdout is not None
    return [process.stdout.readline().decode() for _ in range(count)]


def rest(process: subprocess.Popen[bytes]) -> list[str]:
    assert process.stdout is not None
    return [line.decode() for line in process.stdout.readlines() if line.endswith(b"\n")]


# --- a server that goes and comes back --------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
async def test_a_restart_of_the_server_loses_nothing_that_was_acknowledged(
    server: Server, database: str, how: signal.Signals
) -> None:
    store = opened(database)
    acknowledged: list[str] = []
    ended = False

    async def write(worker: int) -> None:
        number = 0
        while not ended:
            try:
                await store.objects.create(body("Thing", f"w{worker}-{number}"), ALICE)
                acknowledged.append(f"w{worker}-{number}")
            except Unavailable:
                await asyncio.sleep(0.02)
            number += 1

    revisions: list[int] = []

    async def follow() -> None:
        async for event in store.objects.watch(THINGS, since=0):
            if isinstance(event, Change):
                revisions.append(event.revision)

    tasks = [asyncio.create_task(write(worker)) for worker in range(8)]
    follower = asyncio.create_task(follow())
    try:
        while len(acknowledged) < 50:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(server.stop, how)
        try:
            with pytest.raises(Unavailable):
                await store.objects.get(Key("Thing", PROJECT, acknowledged[0]))
        finally:
            server.start()
        before = len(acknowledged)
        while len(acknowledged) < before + 50:
            await asyncio.sleep(0.01)
        ended = True
        await asyncio.gather(*tasks)
        page = await store.objects.list(THINGS)
        assert {item.key.name for item in page.items} >= set(acknowledged)
        while not revisions or revisions[-1] < page.revision:
            await asyncio.sleep(0.01)
        assert revisions == list(range(1, page.revision + 1))
    finally:
        ended = True
        follower.cancel()
        await asyncio.gather(*tasks, follower, return_exceptions=True)
        store.close()
    check(database)


async def test_connections_that_broke_while_idle_are_made_anew_and_nobody_hears(database: str) -> None:
    store = opened(database)
    try:
        await store.objects.create(body("Thing", "a"), ALICE)
        await store.objects.list(THINGS)
        cut(database)
        assert (await store.objects.get(Key("Thing", PROJECT, "a"))).revision == 1
        assert len((await store.objects.list(THINGS)).items) == 1
        assert (await store.objects.create(body("Thing", "b"), ALICE)).revision == 2
    finally:
        store.close()


def cut(database: str) -> None:
    """End everybody else's connection."""
    with psycopg.connect(database, autocommit=True) as connection:
        others = "datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        connection.execute(f"SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE {others}")  # type: ignore[arg-type]


@pytest.mark.parametrize("committed", [True, False])
async def test_of_a_commit_whose_answer_was_lost_the_server_is_asked(database: str, committed: bool) -> None:
    store = opened(database)
    session: Any = store._committer._session
    closing = session.closing

    def lose(batches: Any) -> Any:
        session.closing = closing
        sent = closing(batches).wait() if committed else None
        cut(database)
        if sent is None:
            return closing(batches)
        sent.error = psycopg.OperationalError("the answer was lost")
        return sent

    session.closing = lose
    try:
        assert (await store.objects.create(body("Thing", "a"), ALICE)).revision == 1, "done once, then or now"
        assert (await store.objects.create(body("Thing", "b"), ALICE)).revision == 2
    finally:
        store.close()


async def test_where_it_does_not_say_the_writer_hears_that_nobody_knows(database: str) -> None:
    store = opened(database)
    session: Any = store._committer._session
    lost = [Unsettled("transaction 7")]
    at_commits(session, lambda: lost.pop() if lost else None, before=False)
    try:
        with pytest.raises(Unavailable, match="whether it was done is not known"):
            await store.objects.create(body("Thing", "a"), ALICE)
        assert (await store.objects.create(body("Thing", "b"), ALICE)).revision == 2
    finally:
        store.close()


def test_a_server_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot be reached or used"):
        opened(f"postgresql://x@/x?host={tmp_path}")


# --- tables and plans -------------------------------------------------------------------------------------------


async def test_rows_of_ledger_and_audit_are_final(database: str) -> None:
    store = opened(database)
    await store.objects.create(body("Thing", "a"), ALICE)
    store.close()
    with psycopg.connect(database, autocommit=True) as connection:
        for table in ("ledger", "audit"):
            for statement in (f"UPDATE {table} SET at = 2", f"DELETE FROM {table}", f"TRUNCATE {table}"):
                with pytest.raises(psycopg.IntegrityError, match="final"):
                    connection.execute(statement)  # type: ignore[arg-type]


def test_two_who_open_an_empty_database_at_once_make_it_once(server: Server) -> None:
    url = server.database("twice")

    async def both() -> None:
        for store in await asyncio.gather(*(asyncio.to_thread(opened, url) for _ in range(3))):
            store.close()

    asyncio.run(both())
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM counters WHERE name = 'revision'").fetchone() == (1,)
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.execute("UPDATE counters SET value = 9999 WHERE name = 'carries'")
    with pytest.raises(Unavailable, match="newer release"):
        opened(url)


_NEXT = """
from alembic import op
revision = "9998"
down_revision = "{}"
def upgrade():
    op.execute("ALTER TABLE hosts ADD COLUMN note TEXT NOT NULL DEFAULT ''")
    op.execute("{}")
"""


def test_an_older_database_is_brought_up_or_left_as_it_was(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.database("older")
    opened(url).close()
    shutil.copytree(migrations.SCRIPTS / "versions", tmp_path / "versions")
    monkeypatch.setattr(migrations, "SCRIPTS", tmp_path)
    head = schema_versions.HEAD
    monkeypatch.setattr(schema_versions, "HEAD", "9998")
    notes = "SELECT count(*) FROM information_schema.columns WHERE table_name = 'hosts' AND column_name = 'note'"
    for last, version, columns in (("SELECT 1 / 0", head, 0), ("SELECT 1", "9998", 1)):
        (tmp_path / "versions" / "v9998_next.py").write_text(_NEXT.format(head, last))
        if columns:
            opened(url).close()
        else:
            with pytest.raises(Exception, match="division by zero"):
                opened(url)
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == (version,)
            assert connection.execute(notes).fetchone() == (columns,)


def test_a_database_of_another_encoding_is_refused(server: Server) -> None:
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE latin TEMPLATE template0 ENCODING LATIN1 LOCALE 'C'")
    with pytest.raises(Invalid, match="UTF8"):
        opened(server.url("latin"))


def test_names_stand_in_the_order_of_their_bytes(database: str) -> None:
    opened(database).close()
    with psycopg.connect(database) as connection:
        kinds = connection.execute(
            "SELECT DISTINCT data_type, collation_name FROM information_schema.columns "
            "WHERE table_schema = 'public' AND table_name <> 'alembic_version'"
        ).fetchall()
    assert set(kinds) == {("bigint", None), ("text", "C"), ("bytea", None), ("double precision", None)}


def fill(connection: psycopg.Connection[Any], table: Table, **values: str) -> None:
    """2,000 rows, numbered ``n``; what is not given is empty, 0 or nothing."""
    plain = {str: "''", int: "0", bytes: "''"}
    columns = [column for column in table.c if column.name != "id"]
    found = (values.get(column.name, plain[column.type.python_type]) for column in columns)
    names = ", ".join(column.name for column in columns)
    connection.execute(
        f"INSERT INTO {table.name} ({names}) SELECT {', '.join(found)} FROM generate_series(0, 1999) AS n"  # type: ignore[arg-type]
    )
    connection.execute(f"ANALYZE {table.name}")  # type: ignore[arg-type]


def test_reads_go_by_index_under_plans_of_any_parameters(database: str) -> None:
    opened(database).close()
    wanted = {
        "a window's closes": (periods._CLOSES, ["ledger_once", "ledger_project"]),
        "a claim's rows": (periods._CLAIM_ROWS, ["ledger_claim"]),
        "a claim's last row": (ledger._LAST, ["ledger_claim"]),
        "a claim's devices": (hardware._HELD, ["devices_claim"]),
        "newer changes": (NEWER, ["changes_pkey"]),
        "one object": (rows.LOAD, ["objects_pkey"]),
    }
    texts = postgres.Texts()
    with psycopg.connect(database, autocommit=True) as connection:
        kinds = "(ARRAY['open', 'close', 'state', 'tokens'])[1 + n / 500]"
        fill(connection, schema.ledger, claim_uid="'c' || n % 500", project_uid="'p' || n % 50", kind=kinds, at="n")
        fill(
            connection,
            schema.devices,
            host="'h' || n % 50",
            device="n",
            claim="CASE n % 9 WHEN 0 THEN 'c' || n ELSE '' END",
        )
        connection.execute("SET plan_cache_mode = force_generic_plan")
        connection.execute("SET enable_seqscan = off")
        connection.execute("SET enable_bitmapscan = off")
        for name, (statement, indexes) in wanted.items():
            text = texts[statement]
            connection.execute(b"PREPARE one AS " + text.sql)
            nothing = ", ".join("NULL" for _ in text.order)
            plan = [row[0] for row in connection.execute(f"EXPLAIN EXECUTE one({nothing})")]  # type: ignore[arg-type]
            connection.execute("DEALLOCATE one")
            used = {line.split(" using ")[1].split()[0] for line in plan if " using " in line}
            assert used == set(indexes), (name, plan)
            assert not any("Seq Scan" in line for line in plan), (name, plan)


def test_a_clock_of_the_tests_is_enough(database: str) -> None:
    """A store may be opened where no loop runs, and never written to."""
    store = open_store(database, clock=FakeClock(), kinds=KINDS, seal_key=KEY)
    assert store.revision == 0
    store.close()
    store.close()
