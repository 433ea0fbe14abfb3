"""A new release comes while replicas of this one write: nobody's write fails, nothing is lost, counters are exact."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from bessemer.core.clock import SystemClock
from bessemer.core.errors import Unavailable
from bessemer.core.resource import Key
from bessemer.store import Store, beside, links, open_store, schema_versions, tables
from tests.store import next as newer
from tests.store.conftest import KEY, KINDS
from tests.store.invariants import check
from tests.store.make import ALICE, PROJECT, body
from tests.store.server import Server
from tests.store.test_older import saved

pytestmark = pytest.mark.real
ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
NOW, NEXT = int(schema_versions.HEAD), int(newer.HEAD)


def opened(url: str) -> Store:
    return open_store(url, clock=SystemClock(), kinds=KINDS, seal_key=KEY)


class Process:
    """A replica that writes. ``said`` is what was acknowledged to it."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=ROOT,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.said: list[list[str]] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as said:
            for line in said:
                if line.endswith(b"\n") and line.strip():  # a log's line may end apart from its words
                    self.said.append(line.decode().split())

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        self.process.send_signal(how)
        assert self.process.stderr is not None
        self.process.stderr.read()
        self.process.wait(20)
        self._thread.join()
        self.process.stderr.close()


class Town:
    """A database, and the replicas of two releases that write to it."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self._folder = folder
        self.processes: list[Process] = []

    def old(self, run: str) -> Process:
        return self._started("tests.store.crash_writer", self.url, run)

    def new(self) -> Process:
        return self._started("tests.store.next", self.url, str(self._folder / "new"))

    def check(self) -> dict[str, list[str]]:
        """What each check of the new release finds wrong."""
        done = subprocess.run(
            [sys.executable, "-m", "tests.store.next", self.url, str(self._folder / "check"), "check"],
            cwd=ROOT,
            env=ENVIRONMENT,
            capture_output=True,
            timeout=180,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        found: dict[str, list[str]] = json.loads(done.stdout)
        return found

    def _started(self, *arguments: str) -> Process:
        self.processes.append(Process(*arguments))
        return self.processes[-1]

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            return connection.execute(sql).fetchall()  # type: ignore[arg-type]

    def counter(self, name: str) -> int | None:
        found = self.ask(f"SELECT value FROM counters WHERE name = '{name}'")
        return found[0][0] if found else None

    def fall_silent(self) -> None:
        """It is three minutes since any of the old release wrote."""
        with psycopg.connect(self.url) as connection:
            connection.execute(tables.IN_LINE)  # what one of them has sent is behind it by now
            connection.execute(
                "UPDATE leases SET expires_at = expires_at - 181 WHERE name LIKE 'writer/%%' AND note LIKE %s",
                [f"{NOW:04} %"],
            )

    def everyone_writes(self, *processes: Process, more: int = 30) -> None:
        """Each of them is acknowledged some more writes."""
        counts = [len(one.said) + more for one in processes]
        until(lambda: all(len(one.said) >= count for one, count in zip(processes, counts, strict=True)))
        assert all(one.process.poll() is None for one in processes)


def until(holds: Callable[[], bool], *, seconds: float = 60) -> None:
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.05)


@pytest.fixture
def town(server: Server, tmp_path: Path) -> Iterator[Town]:
    found = Town(server.database("expanding"), tmp_path)
    yield found
    for one in found.processes:
        if one.process.poll() is None:
            one.end()


def last_words(processes: list[Process]) -> dict[str, list[str]]:
    """Name → what of it was acknowledged last; each thing is of one process."""
    return {words[1]: words for one in processes for words in one.said}


async def test_a_new_release_comes_while_the_old_one_writes(town: Town) -> None:
    here = opened(town.url)  # of the old release, too
    await asyncio.gather(*(here.objects.create(body("Thing", f"before-{n}"), ALICE) for n in range(250)))
    first = town.old("first")
    town.everyone_writes(first)
    new = town.new()
    town.everyone_writes(first, new)
    assert town.ask("SELECT version_num FROM alembic_version") == [(newer.HEAD,)]
    again = opened(town.url)  # a replica of the old release that restarts
    await again.objects.create(body("Thing", "again"), ALICE)
    again.close()
    until(lambda: town.ask("SELECT count(*) FROM objects WHERE shade IS NULL") == [(0,)])
    tenant = await here.objects.get(Key("Tenant", "", "acme"))
    assert b'"things":1000000' in tenant.body
    await here.objects.replace(
        body("Tenant", "acme", namespace="", spec={"quota": {"things": newer.BOUND, "instances": 3}}), ALICE
    )
    assert (town.counter("carries"), town.counter("meter/things")) == (NOW, 0), "they are waited for"
    assert town.ask("SELECT 1 FROM quota WHERE meter = 'things' AND bound IS NOT NULL") == []
    found = town.check()
    unsaid = [words for words in found["bounds"] if "said" in words]  # besides, the project is no object here
    assert (unsaid, found["quota"], found["schema"]) == ([], [], []), "of what waits nothing holds yet"
    town.everyone_writes(first, new)
    first.process.send_signal(signal.SIGSTOP)
    town.fall_silent()
    until(lambda: town.counter("carries") == NEXT)
    until(lambda: town.counter("meter/things") == 1)
    with pytest.raises(beside.Outdated, match=rf"no longer carries this one \(.*, schema {schema_versions.HEAD}\)"):
        await here.objects.create(body("Thing", "late"), ALICE)
    here.close()
    first.end(signal.SIGCONT)
    assert first.process.returncode not in (0, None), "what it had begun was ended, and what it sends is refused"
    town.everyone_writes(new)
    new.end()
    _judge(town)
    with pytest.raises(Unavailable, match=rf"newer release \(schema {newer.HEAD}\).*start a release that is as new"):
        opened(town.url)


def _judge(town: Town) -> None:
    """Nothing that was acknowledged is missing, and what is counted is what stands."""
    standing = dict(town.ask("SELECT name, revision FROM objects WHERE kind = 'Thing'"))
    gone = {name for (name,) in town.ask("SELECT name FROM changes WHERE kind = 'Thing' AND type = 2")}
    for name, (verb, _, revision, *_) in last_words(town.processes).items():
        if verb == "put":
            assert standing.get(name, 0) >= int(revision) or name in gone
        elif verb == "gone":
            assert name not in standing
    assert "late" not in standing
    assert "again" in standing
    assert sum(name.startswith("before-") for name in standing) == 250
    ((things,),) = town.ask("SELECT count(*) FROM objects WHERE kind = 'Thing'")
    assert town.ask("SELECT scope, used, bound FROM quota WHERE meter = 'things' ORDER BY scope") == [
        (f"project/{PROJECT}", things, None),
        ("tenant/acme", things, newer.BOUND),
    ]
    assert town.ask("SELECT bound FROM quota WHERE meter = 'instances' AND scope = 'tenant/acme'") == [(3,)]
    nulls = "SELECT is_nullable FROM information_schema.columns WHERE table_name = 'objects' AND column_name = 'shade'"
    assert town.ask(nulls) == [("NO",)]
    town.ask("DELETE FROM quota WHERE meter = 'things' RETURNING 1")
    check(town.url)


# --- one at a time ----------------------------------------------------------------------------------------------


@pytest.fixture
def table(server: Server) -> Iterator[tuple[str, tables.Tables]]:
    """A database of schema 0004, and a connection to its tables."""
    url = saved(server, "0004")
    watch = links.Watch()
    link = links.Link(url, watch=watch)
    yield url, tables.Tables(link)
    link.close()
    watch.close()


def test_a_start_that_is_killed_at_any_statement_is_taken_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    script, said = tables.Tables.script, list[str]()
    monkeypatch.setattr(tables.Tables, "script", lambda self, sql: (said.append(sql), script(self, sql)))
    opened(saved(server, "0004")).close()
    assert len(said) > 5
    for number in range(len(said)):
        url, left = saved(server, "0004"), iter(range(number))

        def fail(self: tables.Tables, sql: str, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise psycopg.OperationalError("killed")
            script(self, sql)

        monkeypatch.setattr(tables.Tables, "script", fail)
        with pytest.raises(Unavailable):
            opened(url)
        monkeypatch.setattr(tables.Tables, "script", script)
        opened(url).close()
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT value FROM counters WHERE name = 'carries'").fetchone() == (NOW,)
            assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == (schema_versions.HEAD,)


@pytest.mark.parametrize("stop", ["pg_cancel_backend", "pg_terminate_backend"])
def test_an_index_whose_making_was_stopped_is_made_by_the_next_start(server: Server, stop: str) -> None:
    """Somebody writes to the table for long, so it waits, and is there already: with no row, and used by nobody."""
    url, failed = saved(server, "0004"), list[Exception]()
    index = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('ledger_tenant')"
    making = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' "
        "AND query LIKE 'CREATE INDEX CONCURRENTLY ledger_tenant%'"
    )

    def start() -> None:
        try:
            opened(url).close()
        except Unavailable as error:
            failed.append(error)

    with psycopg.connect(url, autocommit=True) as hand:
        with psycopg.connect(url) as writer:
            writer.execute("LOCK TABLE ledger IN ROW EXCLUSIVE MODE")
            starting = threading.Thread(target=start)
            starting.start()
            until(lambda: bool(hand.execute(making).fetchall()), seconds=20)
            hand.execute(f"SELECT {stop}(pid) FROM ({making}) AS makers")  # type: ignore[arg-type]
            starting.join(20)
            assert len(failed) == 1
        assert hand.execute(index).fetchall() == [(False,)]
        opened(url).close()
        assert hand.execute(index).fetchall() == [(True,)]
        assert hand.execute("SELECT value FROM counters WHERE name = 'carries'").fetchone() == (NOW,)
        assert hand.execute("SELECT version_num FROM alembic_version").fetchone() == (schema_versions.HEAD,)


def refused(found: tables.Tables, change: str) -> None:
    with pytest.raises(Unavailable, match="somebody has held one for long"):
        found.grow(change)


def test_a_lock_that_is_not_had_stalls_nobody(
    table: tuple[str, tables.Tables], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody reads a table for long; who writes to it meanwhile waits for no more than half a second, and as long as
    the machine takes besides: at one time of several that is little."""
    url, found = table
    monkeypatch.setattr(tables, "TRIES", 3)
    monkeypatch.setattr(tables, "PAUSE_SECONDS", 0.05)
    change = "ALTER TABLE hosts ADD COLUMN IF NOT EXISTS note TEXT"
    with psycopg.connect(url) as reader, psycopg.connect(url, autocommit=True) as writer, found.alone():
        reader.execute("SELECT count(*) FROM hosts")
        waiting = threading.Thread(target=refused, args=(found, change))
        waiting.start()
        took = list[float]()
        while waiting.is_alive():
            began = time.monotonic()
            writer.execute("UPDATE hosts SET schedulable = schedulable")
            took.append(time.monotonic() - began)
            time.sleep(0.01)
        waiting.join()
        waits = [seconds for seconds in took if seconds > 0.1]
        assert waits, "it was in the way"
        assert min(waits) < 2 * tables.LOCK_MS / 1000
        assert max(waits) < 20
        reader.rollback()
        found.grow(change)
        assert found.contract([], carries=NOW)


def test_a_table_that_is_held_is_not_contracted_now(table: tuple[str, tables.Tables]) -> None:
    url, found = table
    with psycopg.connect(url) as reader, found.alone():
        reader.execute("SELECT count(*) FROM hosts")
        assert not found.contract(["ALTER TABLE hosts ALTER COLUMN host SET NOT NULL"], carries=NOW)
        reader.rollback()
        assert found.contract(["ALTER TABLE hosts ALTER COLUMN host SET NOT NULL"], carries=NOW)


async def test_a_writer_of_a_release_that_said_nothing_is_waited_for(server: Server) -> None:
    """As 0004 and those before it write: their rows have no note."""
    url = saved(server, "0004")
    mark = """INSERT INTO leases (name, holder, fence, expires_at, ttl, note)
        VALUES ('writer/old', 'old', 1, extract(epoch FROM clock_timestamp()) + 86400, 86400, '')
        ON CONFLICT (name) DO UPDATE SET fence = excluded.fence, expires_at = excluded.expires_at"""
    with psycopg.connect(url, autocommit=True) as old:
        old.execute(mark)
        store = opened(url)
        try:
            carries = "SELECT value FROM counters WHERE name = 'carries'"
            assert old.execute(carries).fetchone() == (beside.SAYS - 1,)
            old.execute(mark)
            stated = {"instances": 4, "devices": {"*": 3}, "spendMicro": 7}
            await store.objects.replace(body("Tenant", "acme", namespace="", spec={"quota": stated}), ALICE)
            bounds = {use.meter: use.limit for use in await store.capacity.use("tenant/acme") if use.limit is not None}
            assert bounds == {"instances": 4, "devices/*": 3, "spend_micro": 7}, "of what the old one counts, too"
            await store.tidy()
            assert old.execute(carries).fetchone() == (beside.SAYS - 1,)
            old.execute("UPDATE leases SET expires_at = expires_at - 181 WHERE name = 'writer/old'")
            await store.tidy()
            assert old.execute(carries).fetchone() == (NOW,)
            with pytest.raises(psycopg.errors.DatabaseError, match="no longer carries"):
                old.execute(mark)
        finally:
            store.close()


async def test_who_does_nothing_says_that_it_serves(server: Server) -> None:
    """Each round of tidying commits: what is waited for is seen by it."""
    url = server.database("expanding")
    store = opened(url)
    try:
        with psycopg.connect(url, autocommit=True) as connection:
            written = "SELECT fence, note FROM leases WHERE name LIKE 'writer/%'"
            await store.tidy()
            ((before, note),) = connection.execute(written).fetchall()
            await store.tidy()
            ((after, _),) = connection.execute(written).fetchall()
            assert after > before
            assert note == beside.said()
    finally:
        store.close()
    with psycopg.connect(url) as connection:
        assert connection.execute(written).fetchall() == [], "who ends in order is waited for by nobody"
