"""A new file and one that walked through every migration are the same; a newer release's file is refused."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from bessemer.core.clock import FakeClock
from bessemer.core.errors import Unavailable
from bessemer.core.resource import Key
from bessemer.store import open_store
from bessemer.store.migrations import upgrade
from bessemer.store.schema_versions import HEAD, ddl
from tests.store.conftest import KEY, KINDS
from tests.store.invariants import check
from tests.store.make import ALICE, PROJECT, body
from tests.store.test_ledger import batch

DATA = Path(__file__).parent / "data"
ROOT = Path(__file__).parents[2]


def shape(path: Path) -> dict[str, str]:
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    connection.close()
    return {name: re.sub(r"\s+", "", sql).rstrip(";") for name, sql in rows}


def test_migrations_end_where_the_present_schema_stands(tmp_path: Path) -> None:
    fresh, migrated = tmp_path / "fresh.db", tmp_path / "migrated.db"
    connection = sqlite3.connect(fresh)
    connection.executescript(ddl())
    connection.close()
    assert upgrade(migrated, None)
    left, right = shape(fresh), shape(migrated)
    left.pop("alembic_version"), right.pop("alembic_version")
    assert left == right


async def test_a_migrated_file_opens_and_works(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    assert upgrade(path, None)
    store = open_store(path, clock=FakeClock(), kinds=KINDS, seal_key=KEY)
    try:
        assert (await store.objects.create(body("Thing", "a"), ALICE)).revision == 1
    finally:
        store.close()


async def test_a_file_of_the_first_schema_is_brought_up(tmp_path: Path) -> None:
    """Saved by the release that had it: two lives of one tenant, a spool settled under two names of a gateway."""
    path = tmp_path / "store.db"
    connection = sqlite3.connect(path)
    connection.executescript((DATA / "0001.sql").read_text())
    before = connection.execute("SELECT id, at, kind, workload_uid, output_tokens FROM ledger").fetchall()
    connection.close()
    store = open_store(path, clock=FakeClock(1_750_000_200), kinds=KINDS, seal_key=KEY)
    try:
        rows = await store.ledger.entries()
        assert [(r.id, r.at, r.kind, r.workload_uid, r.output_tokens) for r in rows] == before
        tenant = await store.objects.get(Key("Tenant", "", "acme"))
        project = await store.objects.get(Key("Project", "", PROJECT))
        now, nobody = (tenant.uid, project.uid), ("", "")
        owners = {r.id: (r.tenant_uid, r.project_uid) for r in rows}
        assert owners == {1: nobody, 2: nobody, 3: nobody, 4: now, 5: now, 6: nobody, 7: now}
        assert await store.ledger.settle(batch(1, 5)) == 5, "of which four were settled"
        assert [row.requests for row in await store.ledger.entries()][-1] == 1
        assert await store.audit.verify() is None
    finally:
        store.close()
    check(path)
    connection = sqlite3.connect(path)
    for statement in ("UPDATE ledger SET at = 2", "DELETE FROM ledger"):
        with pytest.raises(sqlite3.IntegrityError, match="final"):
            connection.execute(statement)
    connection.close()


def old_file(path: Path) -> dict[str, str]:
    """Saved by the first release, as a running store keeps it: its shape."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.executescript((DATA / "0001.sql").read_text())
    connection.close()
    return shape(path)


@contextmanager
def before_each(act: Callable[[str], None]) -> Iterator[None]:
    """Do something before each statement of an upgrade."""

    def listen(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        act(statement)

    event.listen(Engine, "before_cursor_execute", listen)
    try:
        yield
    finally:
        event.remove(Engine, "before_cursor_execute", listen)


def test_an_upgrade_that_fails_anywhere_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    """Each of its statements in turn is the one that fails, and the next start takes all of them."""
    whole = tmp_path / "whole.db"
    before, said = old_file(whole), list[str]()
    with before_each(said.append):
        assert upgrade(whole, "0001")
    assert len(said) > 20
    for number in range(len(said)):
        path = tmp_path / f"{number}.db"
        old_file(path)
        left = iter(range(number))

        def fail(_statement: str, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise RuntimeError("the disk is full")

        with before_each(fail), pytest.raises(RuntimeError, match="full"):
            upgrade(path, "0001")
        assert shape(path) == before, said[number]
        assert upgrade(path, "0001")
        assert shape(path) == shape(whole)
        open_store(path, clock=FakeClock(), kinds=KINDS, seal_key=KEY).close()  # which counts what was not counted then
        check(path)


KILLED = """
import os, signal, sys
from pathlib import Path
from bessemer.store.migrations import upgrade
from tests.store.test_schema import before_each

def kill(statement):
    if statement.startswith(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

with before_each(kill):
    upgrade(Path(sys.argv[1]), "0001")
"""


@pytest.mark.parametrize("at", ["DROP TABLE ledger_0001", "CREATE TRIGGER ledger_no_delete", "UPDATE alembic_version"])
def test_a_store_whose_upgrade_was_killed_opens(tmp_path: Path, at: str) -> None:
    path = tmp_path / "store.db"
    before = old_file(path)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path), at], cwd=ROOT, env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert shape(path) == before
    open_store(path, clock=FakeClock(1_750_000_200), kinds=KINDS, seal_key=KEY).close()
    check(path)


def test_a_newer_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    open_store(path, clock=FakeClock(), kinds=KINDS, seal_key=KEY).close()
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(Unavailable, match=f"newer release .schema 9999, here {HEAD}"):
        open_store(path, clock=FakeClock(), kinds=KINDS, seal_key=KEY)


def test_one_process_writes_to_a_file(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store.db", clock=FakeClock(), kinds=KINDS, seal_key=KEY)
    with pytest.raises(Unavailable, match="another process"):
        open_store(tmp_path / "store.db", clock=FakeClock(), kinds=KINDS, seal_key=KEY)
    store.close()
    open_store(tmp_path / "store.db", clock=FakeClock(), kinds=KINDS, seal_key=KEY).close()


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    open_store(path, clock=FakeClock(), kinds=KINDS, seal_key=KEY).close()
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("table", ["ledger", "audit"])
def test_final_rows_are_final(tmp_path: Path, table: str) -> None:
    path = tmp_path / "store.db"
    store = open_store(path, clock=FakeClock(), kinds=KINDS, seal_key=KEY)
    store.close()
    connection = sqlite3.connect(path)
    names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    connection.execute(f"INSERT INTO {table} ({','.join(names)}) VALUES ({','.join('1' for _ in names)})")
    for statement in (f"UPDATE {table} SET at = 2", f"DELETE FROM {table}"):
        with pytest.raises(sqlite3.IntegrityError, match="final"):
            connection.execute(statement)
    connection.close()
