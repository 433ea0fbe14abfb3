"""What each earlier schema kept is brought up to the present one with everything in it: the trail fits, secrets open.

Files and databases that the releases with those schemas wrote, saved as SQL. (Of 0001 there are only files:
`test_schema`.)"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import psycopg
import pytest

from bessemer.core.clock import FakeClock
from bessemer.core.errors import QuotaExceeded
from bessemer.core.ports import CONTROLLER, Scope, Stored
from bessemer.core.resource import Key
from bessemer.store import Store, open_store
from tests.store.conftest import KEY, KINDS
from tests.store.invariants import check
from tests.store.make import ALICE, PROJECT, body, claim
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


VERSIONS = ("0002", "0003", "0004")
PLACES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.real)]


def saved(server: Server, version: str) -> str:
    """A database of that schema."""
    url = server.database("older")
    with psycopg.connect(url, autocommit=True) as database:
        database.execute((DATA / f"{version}.postgresql.sql").read_text())  # type: ignore[arg-type]
    return url


@pytest.fixture(params=PLACES)
def older(request: pytest.FixtureRequest, version: str, tmp_path: Path) -> str:
    """A file or a database of schema ``version``."""
    if request.param == "sqlite":
        connection = sqlite3.connect(tmp_path / "store.db")
        connection.executescript((DATA / f"{version}.sql").read_text())
        connection.close()
        return str(tmp_path / "store.db")
    return saved(request.getfixturevalue("server"), version)


def opened(place: str) -> Store:
    return open_store(place, clock=FakeClock(1_750_000_100), kinds=KINDS, seal_key=KEY)


@pytest.mark.parametrize("version", ["0002"])
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


@pytest.mark.parametrize("version", ["0003", "0004"])
async def test_what_was_held_and_counted_comes_along(older: str) -> None:
    """Two Instances, one of them with a Claim of two devices, under quotas; a thing with secrets."""
    store = opened(older)
    try:
        names = [item.key.name for kind in ("Thing", "Instance") for item in await everything(store, kind)]
        assert names == ["a", "i1", "i2"]
        uses = {use.meter: (use.used, use.limit) for use in await store.capacity.use("tenant/acme")}
        expected = {"instances": (2, 5), "claims": (1, None), "devices/H100": (2, None), "milli_cores": (3000, None)}
        assert expected.items() <= uses.items()
        assert [(row.kind, row.devices) for row in await store.ledger.entries()] == [("open", 2)]
        thing = await store.objects.get(Key("Thing", PROJECT, "a"))
        assert await store.sealed.get(thing.uid, "token") == b"battery staple"
        for name in ("i3", "i4", "i5"):
            await store.objects.create(body("Instance", name), ALICE)
        with pytest.raises(QuotaExceeded):
            await store.objects.create(body("Instance", "i6"), ALICE)
        await store.capacity.take([claim("i2", devices=("gpu-2",), cores=1000)], CONTROLLER)
        await store.tidy()
        assert await store.audit.verify() is None
    finally:
        store.close()
    check(older)


async def everything(store: Store, kind: str) -> list[Stored]:
    return list((await store.objects.list(Scope(kind=kind))).items)


@pytest.mark.real
@pytest.mark.parametrize("version", VERSIONS)
def test_a_database_that_was_brought_up_is_as_a_new_one(server: Server, version: str) -> None:
    older, fresh = saved(server, version), server.database("fresh")

    def shape(url: str) -> dict[str, list[Any]]:
        opened(url).close()
        with psycopg.connect(url) as database:
            return {what: sorted(database.execute(sql).fetchall()) for what, sql in SHAPE.items()}  # type: ignore[arg-type]

    brought, new = shape(older), shape(fresh)
    for what in SHAPE:
        assert brought[what] == new[what], what
