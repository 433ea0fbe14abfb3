"""What each earlier schema kept is brought up to the present one with everything in it: the trail fits, secrets open.

Files and databases that the releases with those schemas wrote, saved as SQL: every migration has those of the schema
before it. From 0003 on they hold two Instances, one of them with a Claim of two devices, under quotas, and a thing with
secrets; from 0005 on that thing has three dependents besides, of which one blocks it."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import psycopg
import pytest

from bessemer.core.clock import FakeClock
from bessemer.core.errors import QuotaExceeded
from bessemer.core.ports import CONTROLLER, Scope, Stored
from bessemer.core.resource import Key
from bessemer.store import Guard, Store, migrations, open_store
from bessemer.store.check import check_store
from tests.store.conftest import KEY, KINDS
from tests.store.invariants import check, connect
from tests.store.make import ALICE, PROJECT, body, claim, read
from tests.store.server import Server
from tests.store.test_schema import shape

DATA = Path(__file__).parent / "data"
SHAPE = {
    "columns": "SELECT table_name, column_name, ordinal_position, data_type, collation_name, is_nullable, "
    "column_default FROM information_schema.columns WHERE table_schema = 'public'",
    "indexes": "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'",
    "triggers": "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal",
    "functions": "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace",
    "counters": "SELECT name FROM counters",
}
FINAL = (
    "SELECT kind, namespace, name, uid, revision, body FROM objects ORDER BY uid",
    "SELECT revision, type, name, body FROM changes ORDER BY revision",
    "SELECT id, writer, verb, key, allowed, digest FROM audit ORDER BY id",
    "SELECT id, at, kind, workload_name, claim_uid, output_tokens FROM ledger ORDER BY id",
    "SELECT uid, field FROM sealed ORDER BY uid, field",
    "SELECT host, device, claim FROM devices ORDER BY host, device",
)
"""What no upgrade changes."""
SAVED_SO = {
    "0001": ["host h1: has capacity, and there is no such Host"],
    "0002": ["Thing acme--lab/a: its project is not there"],
}
"""What was wrong with what was saved, and is said of it."""
VERSIONS = tuple(script.revision for script in migrations.after(None) or ())[:-1]
"""Every schema but the present one."""
OF_SERVERS = VERSIONS[1:]
"""The first was of files alone: servers came with the second."""
PLACES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.real)]


def since(version: str) -> list[str]:
    return [one for one in VERSIONS if one >= version]


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


@pytest.mark.parametrize("version", since("0003"))
async def test_what_was_held_and_counted_comes_along(older: str) -> None:
    """Two Instances, one of them with a Claim of two devices, under quotas; a thing with secrets."""
    store = opened(older)
    try:
        names = [item.key.name for kind in ("Thing", "Instance") for item in await everything(store, kind)]
        assert {"a", "i1", "i2"} <= set(names)
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


@pytest.mark.parametrize("version", since("0005"))
async def test_who_blocks_its_owner_is_read_out_of_bodies(older: str) -> None:
    """A thing with four dependents, of which one blocks it, and an Instance whose Claim does."""
    store = opened(older)
    try:
        await store.tidy()
        assert blocking(older) == {"blocks": 1, "follows": 0, "silent": 0, "instance-i1-0": 1}
        for name in ("blocks", "follows"):
            await hold(store, name)
        left = read(await store.objects.delete(Key("Thing", PROJECT, "a"), ALICE, policy="Foreground"))
        assert left["metadata"]["finalizers"] == ["foregroundDeletion"]
        assert [item.key.name for item in await everything(store, "Thing")] == ["a", "blocks", "follows"]
        await hold(store, "blocks", None)
        assert [item.key.name for item in await everything(store, "Thing")] == ["follows"]
    finally:
        store.close()
    check(older)


@pytest.mark.parametrize("version", ["0006"])
@pytest.mark.parametrize("text", [r"C:\u0000", "\\\0", "\0\\", r"\\u0000"])
def test_whatever_stands_in_a_body_does_not_keep_it_from_being_read(older: str, text: str) -> None:
    mark = "%s" if older.startswith("postgresql") else "?"
    with connect(older) as database:
        ((kept,),) = database.execute("SELECT body FROM objects WHERE name = 'blocks'").fetchall()
        document = json.loads(bytes(kept))
        document["metadata"]["annotations"] = {"example.com/last": text}
        changed = json.dumps(document).encode()
        database.execute(f"UPDATE objects SET body = {mark} WHERE name = 'blocks'", [changed])
        database.commit()
    opened(older).close()
    with connect(older) as database:
        found = "SELECT d.blocks FROM dependents d JOIN objects o ON o.uid = d.uid WHERE o.name = 'blocks'"
        assert database.execute(found).fetchall() == [(1,)]


def blocking(place: str) -> dict[str, int]:
    """Name of a dependent → whether it blocks its owner, as far as that is known (2: not yet)."""
    with connect(place) as database:
        asked = "SELECT o.name, d.blocks FROM dependents d JOIN objects o ON o.uid = d.uid WHERE o.kind <> 'Event'"
        return dict(database.execute(asked).fetchall())


async def hold(store: Store, name: str, by: str | None = "example.com/hold") -> None:
    document = read(await store.objects.get(Key("Thing", PROJECT, name)))
    document["metadata"]["finalizers"] = [by] if by else []
    await store.objects.replace(document, ALICE)


async def everything(store: Store, kind: str) -> list[Stored]:
    return list((await store.objects.list(Scope(kind=kind))).items)


def test_each_schema_is_here() -> None:
    """What comes next is not forgotten: of each but the present one a file is kept, and a database."""
    kept = {path.name for path in DATA.glob("0*.sql")}
    assert {f"{version}.sql" for version in VERSIONS} <= kept
    assert {f"{version}.postgresql.sql" for version in OF_SERVERS} <= kept


PLACED = [
    pytest.param(version, place, id=f"{place}-{version}", marks=[pytest.mark.real] if place == "postgresql" else [])
    for place, versions in (("sqlite", VERSIONS), ("postgresql", OF_SERVERS))
    for version in versions
]


@pytest.mark.parametrize(("version", "older"), PLACED, indirect=["older"])
async def test_everything_comes_along(older: str, version: str, request: pytest.FixtureRequest) -> None:
    """The tables are as in a new file or database, no row of what is final is lost or changed, counters are right, and
    every check finds all well."""

    def final() -> list[list[tuple[Any, ...]]]:
        with connect(older) as database:
            return [database.execute(sql).fetchall() for sql in FINAL]  # type: ignore[call-overload, misc]

    before = final()
    assert all(before[:3])
    store = opened(older)
    try:
        assert final() == before
        await store.tidy()
    finally:
        store.close()
    check(older)
    found = check_store(older, clock=FakeClock(1_750_000_200), kinds=KINDS, guard=Guard.of(KEY))
    wrong = [words async for tally in found for words in tally.wrong]
    assert wrong == SAVED_SO.get(version, [])
    assert made(older) == request.getfixturevalue("made_" + ("there" if older.startswith("postgresql:") else "here"))


@pytest.fixture(scope="module")
def made_here(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a new file is made of."""
    path = tmp_path_factory.mktemp("new") / "store.db"
    opened(str(path)).close()
    return made(str(path))


@pytest.fixture(scope="module")
def made_there(server: Server) -> dict[str, Any]:
    """What a new database is made of."""
    url = server.database("fresh")
    opened(url).close()
    return made(url)


def made(place: str) -> dict[str, Any]:
    """Its tables, and all that is beside them."""
    if not place.startswith("postgresql:"):
        return dict(shape(Path(place)))
    with psycopg.connect(place) as database:
        return {what: sorted(database.execute(sql).fetchall()) for what, sql in SHAPE.items()}  # type: ignore[arg-type]
