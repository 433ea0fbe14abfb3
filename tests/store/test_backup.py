"""A store packed, while it is written, and unpacked at an empty place of either kind; copied; compared."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from contextlib import closing
from glob import glob
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Table

from bessemer.core.clock import FakeClock
from bessemer.core.errors import Conflict, Expired, Invalid, Malformed, Unavailable
from bessemer.core.parcel import Packing
from bessemer.core.parcel import Unpacking as Parts
from bessemer.core.ports import UNDER, Bookmark, Fence, Scope
from bessemer.core.resource import Key
from bessemer.core.strongbox import Secret, Writer, read
from bessemer.store import Store, StoreKind, backup, dump, open_store
from bessemer.store.copy import copy_store
from bessemer.store.dump import Coding, sums
from bessemer.store.loading import ASIDE, loading, require_empty
from bessemer.store.schema import METADATA, objects
from bessemer.store.schema_versions import HEAD
from bessemer.store.snapshot import Snapshot, looking
from tests.store import conftest
from tests.store.conftest import KEY
from tests.store.invariants import check as invariants
from tests.store.lived import SECRET, live, usage
from tests.store.make import ALICE, PROJECT, SYSTEM, body, claim
from tests.store.server import Server
from tests.store.test_check import Hands, look

KINDS = {**conftest.KINDS, "Session": StoreKind(namespaced=False)}
BOX = Secret(bytes(32), passphrase=False)
SHORT = ["sqlite-sqlite"]
BOTH = [*SHORT, *(pytest.param(road, marks=pytest.mark.real) for road in ("sqlite-postgresql", "postgresql-sqlite"))]
TWO_DATABASES = pytest.param("postgresql-postgresql", marks=pytest.mark.real)
LONG = [
    *SHORT,
    *(
        pytest.param(road, marks=[pytest.mark.real, pytest.mark.long])
        for road in ("sqlite-postgresql", "postgresql-sqlite", "postgresql-postgresql")
    ),
]
"""Databases are made for each test, which takes its time: in full in the long tier."""


@pytest.fixture(params=LONG)
def road(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """Where a store is, and where it is to be."""
    source, target = request.param.split("-")
    places = []
    for kind, name in ((source, "one"), (target, "two")):
        server: Server | None = request.getfixturevalue("server") if kind == "postgresql" else None
        places.append(server.database(name) if server is not None else str(tmp_path / f"{name}.db"))
    return places[0], places[1]


def opened(place: str) -> Store:
    return open_store(place, clock=FakeClock(1_750_000_500), kinds=KINDS, seal_key=KEY)


async def lived_in(place: str) -> None:
    with closing(opened(place)) as store:
        await live(store)


def packed(place: str) -> bytes:
    out = io.BytesIO()
    packing = Packing(Writer(out, BOX), backup.facts())
    backup.pack(packing, place, clock=FakeClock(), told=lambda done, of: None)
    packing.end(backup.facts())
    return out.getvalue()


RESTORED_AT = 1_750_000_400


def unpacked(file: bytes, place: str, *, at: float = RESTORED_AT) -> None:
    with loading(place) as loader:
        into = backup.Unpacking(loader)
        parts = Parts(read(io.BytesIO(file), lambda _: BOX, name="f"), name="f")
        for name, content in parts.parts():
            into.table(name.removeprefix(backup.TABLE), content)
        into.end(clock=FakeClock(at), keep=("installation",), kinds=KINDS, once=("token",))


async def told(place: str) -> dict[str, Any]:
    """What those who ask it hear of a store."""
    with closing(opened(place)) as store:
        things = {kind: (await store.objects.list(Scope(kind=kind))).items for kind in KINDS}
        owner = await store.objects.get(Key("Thing", PROJECT, "owner"))
        return {
            "objects": {item.key: item for items in things.values() for item in items},
            "secret": await store.sealed.get(owner.uid, "password"),
            "ledger": [*await store.ledger.entries()],
            "audit": [*await store.audit.rows()],
            "sound": await store.audit.verify() is None,
            "use": [*await store.capacity.use("tenant/acme"), *await store.capacity.use(f"project/{PROJECT}")],
            "devices": [*await store.capacity.devices()],
        }


@pytest.mark.parametrize("road", BOTH, indirect=True)
async def test_what_is_restored_is_what_was_packed(road: tuple[str, str]) -> None:
    source, target = road
    await lived_in(source)
    unpacked(packed(source), target)
    before, after = await told(source), await told(target)
    assert after["secret"] == SECRET
    *rows, last = after.pop("audit")
    assert rows == before.pop("audit")
    assert (last.verb, last.writer) == ("restore", "system:store")
    assert after == before
    assert {name: tally.wrong for name, tally in (await look(target)).items() if not tally.ok} == {}
    invariants(target)


async def test_a_restored_store_goes_on(road: tuple[str, str]) -> None:
    source, target = road
    await lived_in(source)
    unpacked(packed(source), target)
    with closing(opened(target)) as store:
        assert await store.ledger.settle(usage(2)) == 2
        made = await store.objects.create(body("Thing", "fresh"), ALICE)
        assert made.revision > backup.REVISIONS_ON
        await store.capacity.take([claim("later", devices=("gpu-3",))], SYSTEM)
        await store.sealed.put(made.uid, "f", b"new")
        await store.audit.sign()
        assert await store.audit.verify() is None
        with pytest.raises(Conflict):
            await store.capacity.take([claim("other", devices=("gpu-0",))], SYSTEM)
    assert [name for name, tally in (await look(target)).items() if not tally.ok] == []
    invariants(target)


async def test_history_is_known_to_have_broken(road: tuple[str, str]) -> None:
    """Whoever watched before the backup, and in the time that is lost, hears that it is to list again."""
    source, target = road
    await lived_in(source)
    file = packed(source)
    with closing(opened(source)) as store:
        held = store.revision
        for number in range(3):
            await store.objects.create(body("Thing", f"lost{number}"), ALICE)
        lost = store.revision
    unpacked(file, target)
    with closing(opened(target)) as store:
        for since in (1, held, lost):
            with pytest.raises(Expired):
                await anext(aiter(store.objects.watch(Scope(kind="Thing"), since=since)))
        page = await store.objects.list(Scope(kind="Thing"))
        assert page.revision == RESTORED_AT * 1_000_000
        watch = aiter(store.objects.watch(Scope(kind="Thing"), since=page.revision))
        waiting = asyncio.ensure_future(anext(watch))
        made = await store.objects.create(body("Thing", "fresh"), ALICE)
        change = await waiting
        assert not isinstance(change, Bookmark)
        assert (change.uid, change.revision) == (made.uid, page.revision + 1)


async def test_who_led_in_the_lost_time_is_refused(road: tuple[str, str]) -> None:
    source, target = road
    await lived_in(source)
    with closing(opened(source)) as store:
        lease = await store.leases.acquire("loop/Thing", "controller", 6.0)
        assert lease is not None
        await store.leases.acquire("installation", "ours", 1e9, note="marks")
    unpacked(packed(source), target)
    with closing(opened(target)) as store:
        names = [held.name for held in await store.leases.held("")]
        assert [name for name in names if not name.startswith("writer/")] == ["host/h1", "installation"]
        for _ in range(2):  # before and after another has it
            for later in range(3):  # who came after the backup had other numbers
                UNDER.set(Fence("loop/Thing", lease.fence + later))
                with pytest.raises(Conflict, match="another's by now"):
                    await store.objects.create(body("Thing", "late"), ALICE)
            UNDER.set(None)
            assert await store.leases.acquire("loop/Thing", "another", 6.0) is not None


async def test_what_one_restore_gave_is_not_given_after_another_of_the_same_file(
    road: tuple[str, str], tmp_path: Path
) -> None:
    """Nor is a fence: who held a lease after the first is refused after the second, and whoever watched lists again."""
    source, target = road
    await lived_in(source)
    file = packed(source)
    with closing(opened(source)) as store:
        held = store.revision
    unpacked(file, str(tmp_path / "first.db"))
    with closing(opened(str(tmp_path / "first.db"))) as store:
        for number in range(3):
            await store.objects.create(body("Thing", f"lost{number}"), ALICE)
        seen = store.revision
        lease = await store.leases.acquire("loop/Thing", "controller", 6.0)
        assert lease is not None
    unpacked(file, target, at=RESTORED_AT + 60)
    with closing(opened(target)) as store:
        assert store.revision - held >= backup.REVISIONS_ON
        for since in (seen - 2, seen, seen + 9):
            with pytest.raises(Expired):
                await anext(aiter(store.objects.watch(Scope(kind="Thing"), since=since)))
        fresh = await store.leases.acquire("loop/Thing", "another", 6.0)
        assert fresh is not None
        assert lease.fence < fresh.fence < 2**53
        UNDER.set(Fence("loop/Thing", lease.fence))
        with pytest.raises(Conflict, match="another's by now"):
            await store.objects.create(body("Thing", "late"), ALICE)
        UNDER.set(None)


@pytest.mark.parametrize("road", BOTH, indirect=True)
async def test_who_was_signed_in_is_not_and_what_was_good_once_is_spent(road: tuple[str, str]) -> None:
    """Somebody may have been signed out in the time that is lost; who watches hears that sessions went."""
    source, target = road
    await lived_in(source)
    with closing(opened(source)) as store:
        made = [await store.objects.create(body("Session", name, namespace=""), SYSTEM) for name in ("s1", "s2")]
        await store.sealed.put(made[0].uid, "id-token", b"words")
        host = (await store.objects.list(Scope(kind="Host"))).items[0]
        await store.sealed.put(host.uid, "other", b"stays")
    unpacked(packed(source), target)
    with closing(opened(target)) as store:
        assert (await store.objects.list(Scope(kind="Session"))).items == []
        assert await store.sealed.get(made[0].uid, "id-token") is None
        assert [await store.sealed.get(host.uid, field) for field in ("token", "other")] == [None, b"stays"]
        assert [(row.verb, row.key) for row in [*await store.audit.rows()][-3:]] == [
            ("restore", f"Store {await _revision(source)}"),
            ("delete", "Session s1"),
            ("delete", "Session s2"),
        ]
        watch = aiter(store.objects.watch(Scope(kind="Session"), since=RESTORED_AT * 1_000_000))
        for revision in (1, 2):
            change = await anext(watch)
            assert not isinstance(change, Bookmark)
            assert (change.type, change.revision) == ("DELETED", RESTORED_AT * 1_000_000 + revision)
        await store.objects.create(body("Thing", "fresh"), ALICE)
        assert await store.audit.verify() is None
    assert {name: tally.wrong for name, tally in (await look(target)).items() if not tally.ok} == {}
    invariants(target)


async def _revision(place: str) -> int:
    with closing(opened(place)) as store:
        return store.revision


async def test_a_restore_moves_on_where_the_clock_is_wrong(tmp_path: Path) -> None:
    source, target = (str(tmp_path / name) for name in ("one.db", "two.db"))
    await lived_in(source)
    with closing(opened(source)) as store:
        held = store.revision
    unpacked(packed(source), target, at=60)
    with closing(opened(target)) as store:
        assert store.revision == held + backup.REVISIONS_ON


async def test_a_backup_of_a_store_that_is_written_is_of_one_commit(
    place: str, tmp_path: Path, by_the_tests_clock: None
) -> None:
    with closing(open_store(place, clock=FakeClock(), kinds=KINDS, seal_key=KEY)) as store:
        await live(store)

        async def write() -> None:
            for number in range(8):
                key = (await store.capacity.take([claim(f"n{number}", devices=("gpu-3",))], SYSTEM))[0].key
                thing = await store.objects.create(body("Thing", f"n{number}", labels={"n": str(number)}), ALICE)
                await store.sealed.put(thing.uid, "f", b"value")
                await store.capacity.release(key, SYSTEM, fenced=True)

        async def back_up() -> list[bytes]:
            return [await asyncio.to_thread(packed, place) for _ in range(2)]

        _, files = await asyncio.gather(write(), back_up())
    for number, file in enumerate(files):
        target = str(tmp_path / f"{number}.db")
        unpacked(file, target)
        assert {name: tally.wrong for name, tally in (await look(target)).items() if not tally.ok} == {}


async def test_nothing_is_left_of_a_restore_that_failed(road: tuple[str, str], tmp_path: Path) -> None:
    source, target = road
    await lived_in(source)
    file = packed(source)
    with pytest.raises(Invalid, match=r"frame \d+: the file was cut off"):
        unpacked(file[: len(file) // 2], target)
    require_empty(target)
    assert glob(f"{tmp_path}/*{ASIDE}*") == []
    unpacked(file, target)
    with pytest.raises(Conflict, match="already"):
        unpacked(file, target)
    with pytest.raises(Conflict, match="already"):
        require_empty(target)


async def test_a_backup_of_another_schema_is_refused_with_its_release(tmp_path: Path) -> None:
    with pytest.raises(Conflict, match=r"release 0.1 \(schema 0002\)"):
        backup.require_known({"release": "0.1", "schema": "0002"})
    backup.require_known(backup.facts())


def test_rows_that_somebody_made_up_are_refused(tmp_path: Path) -> None:
    coding = Coding(objects)
    for wrong in (b"", b"[1]\n", b"{}\n", b"nothing", b"[" * 9):
        with pytest.raises(Malformed):
            [*coding.decode(b"x" + wrong)]
    with loading(str(tmp_path / "store.db")) as loader:
        into = backup.Unpacking(loader)
        with pytest.raises(Invalid, match="lacks answered, audit"):
            into.end(clock=FakeClock(), keep=(), kinds=KINDS, once=())
        with pytest.raises(Invalid, match="not known"):
            into.table("sqlite_master", [])
        with pytest.raises(Invalid, match="not known"):
            into.table("changes", [])


# --- copies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("road", BOTH, indirect=True)
async def test_a_copy_is_the_same_store(road: tuple[str, str]) -> None:
    source, target = road
    await lived_in(source)
    with closing(opened(source)) as store:  # what opening moves is moved by now
        held = store.revision
    steps: list[str] = []
    rows = copy_store(source, target, clock=FakeClock(), told=lambda percent, words: steps.append(words))
    assert rows["objects"] > 5
    assert steps[-1] == "comparing"
    with looking(source, clock=FakeClock()) as one, looking(target, clock=FakeClock()) as two:
        assert sums(one, METADATA.sorted_tables) == sums(two, METADATA.sorted_tables)
    assert await told(source) == await told(target)
    assert [name for name, tally in (await look(target)).items() if not tally.ok] == []
    with closing(opened(target)) as store:  # history came along: who watched goes on
        watch = aiter(store.objects.watch(Scope(kind="Thing"), since=held - 1))
        change = await anext(watch)
        assert not isinstance(change, Bookmark)
        assert change.revision == held
        await store.ledger.settle(usage(2))
        await store.objects.create(body("Thing", "fresh"), ALICE)
    assert [name for name, tally in (await look(target)).items() if not tally.ok] == []


@pytest.mark.parametrize("copied", [True, False])
@pytest.mark.parametrize("road", [*SHORT, BOTH[-1], TWO_DATABASES], indirect=True)
async def test_what_is_new_carries_no_older_writers_than_its_own(road: tuple[str, str], copied: bool) -> None:
    """Whatever the database carried that it came from: its tables are of this schema, and nobody fills them later."""
    source, target = road
    await lived_in(source)
    with Hands(source) as hands:
        hands.run("UPDATE counters SET value = 4 WHERE name = 'carries'")
        hands.run("UPDATE dependents SET blocks = 2")
    if copied:
        copy_store(source, target, clock=FakeClock(), told=lambda percent, words: None)
    else:
        unpacked(packed(source), target)
    with Hands(target) as hands:
        assert hands.run("SELECT value FROM counters WHERE name = 'carries'") == [(int(HEAD),)]
        assert hands.run("SELECT DISTINCT blocks FROM dependents") == [(0,)]
    assert [name for name, tally in (await look(target)).items() if not tally.ok] == []


async def test_a_store_that_is_served_is_not_copied(road: tuple[str, str]) -> None:
    source, target = road
    await lived_in(source)
    with closing(opened(source)), pytest.raises(Conflict, match="being served"):
        copy_store(source, target, clock=FakeClock(), told=lambda percent, words: None)
    require_empty(target)


async def test_nobody_writes_while_it_is_copied(road: tuple[str, str]) -> None:
    source, target = road
    await lived_in(source)
    refused: list[Exception] = []

    def write(percent: float, words: str) -> None:
        if refused:
            return
        try:
            _write_at_once(source)
        except (Unavailable, psycopg.errors.LockNotAvailable) as error:
            refused.append(error)

    copy_store(source, target, clock=FakeClock(), told=write)
    assert len(refused) == 1


def _write_at_once(place: str) -> None:
    if not place.startswith("postgresql:"):
        opened(place).close()
        return
    with psycopg.connect(place) as connection:
        connection.execute("SET lock_timeout = 50")
        connection.execute("UPDATE counters SET value = value + 1 WHERE name = 'revision'")


async def test_a_place_that_is_not_empty_or_another_schema_is_refused(road: tuple[str, str]) -> None:
    source, target = road
    await lived_in(source)

    def copy() -> None:
        copy_store(source, target, clock=FakeClock(), told=lambda percent, words: None)

    for version, words in (("0001", "schema 0001.*start the control plane once"), ("9999", "take a newer release")):
        with Hands(source) as hands:
            ((was,),) = hands.run("SELECT version_num FROM alembic_version")
            hands.run("UPDATE alembic_version SET version_num = ?", version)
        with pytest.raises(Conflict, match=words):
            copy()
        with Hands(source) as hands:
            hands.run("UPDATE alembic_version SET version_num = ?", was)
    require_empty(target)
    await lived_in(target)
    before = await told(target)
    with pytest.raises(Conflict, match="already"):
        copy()
    assert await told(target) == before


async def test_what_was_copied_otherwise_is_found(road: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = road
    await lived_in(source)
    whole, losing = dump.rows, iter([True])

    def some(snapshot: Snapshot, table: Table) -> Iterator[Any]:
        found = whole(snapshot, table)
        if table.name == "audit" and next(losing, False):
            next(found)
        return found

    monkeypatch.setattr(dump, "rows", some)
    with pytest.raises(Conflict, match="audit: what was copied is not what was read"):
        copy_store(source, target, clock=FakeClock(), told=lambda percent, words: None)
    require_empty(target)
