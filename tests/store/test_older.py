"""What schema 0002 kept is brought up to the present one with everything in it: the trail fits, secrets open.

A file and a database that the release with that schema wrote, saved as SQL."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import psycopg
import pytest

from bessemer.core.clock import FakeClock
from bessemer.core.resource import Key
from bessemer.store import Store, open_store
from tests.store.conftest import KEY, KINDS
from tests.store.invariants import check
from tests.store.make import ALICE, PROJECT, body
from tests.store.server import Server

DATA = Path(__file__).parent / "data"
SHAPE = {
    "columns": "SELECT table_name, column_name, ordinal_position, data_type, collation_name, is_nullable, "
    "column_default FROM information_schema.columns WHERE table_schema = 'public'",
    "indexes": "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'",
    "triggers": "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal",
    "functions": "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace",
    "counters": "SELECT name FROM counters",
}


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.real)])
def older(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A file or a database of schema 0002."""
    if request.param == "sqlite":
        connection = sqlite3.connect(tmp_path / "store.db")
        connection.executescript((DATA / "0002.sql").read_text())
        connection.close()
        return str(tmp_path / "store.db")
    server: Server = request.getfixturevalue("server")
    url = server.database("older")
    with psycopg.connect(url, autocommit=True) as database:
        database.execute((DATA / "0002.postgresql.sql").read_text())  # type: ignore[arg-type]
    return url


def opened(place: str) -> Store:
    return open_store(place, clock=FakeClock(1_750_000_100), kinds=KINDS, seal_key=KEY)


async def test_trail_and_secrets_come_along(older: str) -> None:
    store = opened(older)
    try:
        rows = await store.audit.rows()
        assert [(row.verb, row.allowed, row.change, row.tenant) for row in rows] == [
            ("create", True, "", ""),
            ("create", True, "", ""),
            ("update", True, "", ""),
            ("delete", False, "", ""),
            ("login", True, "", ""),
        ]
        assert await store.audit.verify() is None
        thing = await store.objects.get(Key("Thing", PROJECT, "a"))
        assert await store.sealed.get(thing.uid, "password") == b"correct horse"
        keys = await store.sealed.keys()
        assert (keys.left, keys.values) == (2, {"": 2})
        await store.objects.replace(body("Thing", "a", spec={"size": 3}), ALICE)
        await store.tidy()
        keys = await store.sealed.keys()
        assert (keys.left, keys.values) == (0, {keys.current: 2})
        assert await store.sealed.get(thing.uid, "token") == b"battery staple"
        assert [row.tenant for row in await store.audit.rows()][-1] == "acme"
        assert await store.audit.verify() is None
        assert await store.audit.trim(3, digest=rows[2].digest, writer=ALICE) == 3
        assert await store.audit.verify() is None
    finally:
        store.close()
    check(older)
    store = opened(older)
    assert await store.audit.verify() is None
    store.close()


@pytest.mark.real
def test_a_database_that_was_brought_up_is_as_a_new_one(server: Server) -> None:
    older, fresh = server.database("older"), server.database("fresh")
    with psycopg.connect(older, autocommit=True) as database:
        database.execute((DATA / "0002.postgresql.sql").read_text())  # type: ignore[arg-type]

    def shape(url: str) -> dict[str, list[Any]]:
        opened(url).close()
        with psycopg.connect(url) as database:
            return {what: sorted(database.execute(sql).fetchall()) for what, sql in SHAPE.items()}  # type: ignore[arg-type]

    brought, new = shape(older), shape(fresh)
    for what in SHAPE:
        assert brought[what] == new[what], what
