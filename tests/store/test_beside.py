"""A replica of schema 0006 goes on while its database is taken on: what it wrote meanwhile is right in the end.

What it said to the server was saved, statement by statement, from a store of that release over the database of that
schema in ``data/``; here it is said again, in parts between which the new release does its work."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence

import psycopg
import pytest

from bessemer.core.clock import FakeClock
from bessemer.core.resource import Key
from bessemer.store import Guard, Store, schema_versions, tables
from bessemer.store.check import check_store
from tests.store.conftest import KEY, KINDS
from tests.store.invariants import check
from tests.store.make import ALICE, PROJECT, read
from tests.store.server import Server
from tests.store.test_older import DATA, blocking, everything, opened, saved

pytestmark = pytest.mark.real
HEAD = int(schema_versions.HEAD)
ENDS = "DELETE FROM leases WHERE name LIKE 'writer/%' AND note LIKE '0006 %'"
BEFORE = {"blocks": 1, "follows": 0, "silent": 0, "instance-i1-0": 1}
BESIDE = {"blocks": 0, "silent": 1, "before-blocks": 1, "late-blocks": 1, "late-follows": 0}
FILLED = {"late-blocks": 0, "late-follows": 1, "last-blocks": 1}
CLAIMS = {"instance-i1-0": 1, "instance-i3-0": 1}


class Replica:
    """One of schema 0006. Its four parts: it comes, it goes on beside the new release, it goes on after its rows were
    filled in, and it comes too late."""

    def __init__(self, url: str) -> None:
        words = re.split(r"^-- (\w+)\n", (DATA / "0006.writes.sql").read_text(), flags=re.MULTILINE)
        self._parts = dict(zip(words[1::2], words[2::2], strict=True))
        self.connection = psycopg.connect(url, autocommit=True)

    def says(self, part: str) -> None:
        self.connection.execute(self._parts[part])  # type: ignore[arg-type]

    def falls_silent(self) -> None:
        """It is three minutes since it wrote."""
        self.connection.execute("UPDATE leases SET expires_at = expires_at - 181 WHERE note LIKE '0006 %'")

    def carried(self) -> int:
        ((found,),) = self.connection.execute("SELECT value FROM counters WHERE name = 'carries'").fetchall()
        return int(found)


@pytest.fixture
def url(server: Server) -> str:
    return saved(server, "0006")


@pytest.fixture
def old(url: str) -> Iterator[Replica]:
    found = Replica(url)
    found.says("before")
    yield found
    found.connection.close()


@pytest.fixture
def new(url: str, old: Replica) -> Iterator[Store]:
    store = opened(url)
    yield store
    store.close()


async def judge(url: str) -> None:
    """What the check of this release finds, and what is found with nothing of it."""
    found = check_store(url, clock=FakeClock(1_750_000_200), kinds=KINDS, guard=Guard.of(KEY))
    assert [words async for tally in found for words in tally.wrong] == []
    check(url)


async def test_what_an_older_replica_writes_is_right_once_it_is_gone(url: str, old: Replica, new: Store) -> None:
    assert old.carried() == 6
    old.says("beside")
    await new.tidy()
    assert blocking(url) == CLAIMS | BESIDE
    old.says("filled")
    await new.tidy()
    assert old.carried() == 6, "it is waited for"
    old.falls_silent()
    await new.tidy()
    assert old.carried() == HEAD
    assert blocking(url) == CLAIMS | BESIDE | FILLED
    with pytest.raises(psycopg.DatabaseError, match="no longer carries writers like this: 0006"):
        old.says("refused")
    await judge(url)
    await _in_the_foreground(new)


async def _in_the_foreground(store: Store) -> None:
    """The owner waits for those that block it, and for nobody else."""
    waits = [name for name, blocks in (BESIDE | FILLED).items() if blocks]
    for name in BESIDE | FILLED:
        await hold(store, name, ["example.com/hold"])
    left = read(await store.objects.delete(Key("Thing", PROJECT, "a"), ALICE, policy="Foreground"))
    assert left["metadata"]["finalizers"] == ["foregroundDeletion"]
    for name in waits:
        assert "a" in [item.key.name for item in await everything(store, "Thing")], name
        await hold(store, name, [])
    rest = sorted(name for name, blocks in (BESIDE | FILLED).items() if not blocks)
    assert [item.key.name for item in await everything(store, "Thing")] == rest


async def hold(store: Store, name: str, finalizers: Sequence[str]) -> None:
    document = read(await store.objects.get(Key("Thing", PROJECT, name)))
    document["metadata"]["finalizers"] = list(finalizers)
    await store.objects.replace(document, ALICE)


async def test_what_is_written_last_of_all_is_filled_in_with_the_contraction(
    url: str, old: Replica, new: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The older replica writes once more and ends, after all was filled in and before it is looked for."""
    old.says("beside")
    contract = tables.Tables.contract

    def later(self: tables.Tables, *given: object, **named: object) -> bool:
        monkeypatch.setattr(tables.Tables, "contract", contract)
        old.says("filled")
        old.connection.execute(ENDS)
        return contract(self, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(tables.Tables, "contract", later)
    await new.tidy()
    assert old.carried() == HEAD
    assert blocking(url) == CLAIMS | BESIDE | FILLED
    await judge(url)


# --- the trigger that takes back what was filled in -------------------------------------------------------------

GUARDS = (
    "SELECT count(*) FROM pg_proc WHERE proname = 'forget_blocks' "
    "UNION ALL SELECT count(*) FROM pg_trigger WHERE tgname = 'objects_blocks'"
)


@pytest.fixture
def lister(url: str) -> Iterator[psycopg.Connection]:
    """Somebody who pages through a list for long."""
    with psycopg.connect(url) as found:
        yield found


async def test_whoever_reads_for_long_keeps_nothing_from_being_contracted(
    url: str, old: Replica, new: Store, lister: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What guards is dropped when nobody is in the way, and does nothing until then."""
    monkeypatch.setattr(tables, "LOCK_MS", 60_000)
    old.says("beside")
    old.falls_silent()
    lister.execute("SELECT count(*) FROM objects")
    began = time.monotonic()
    await new.tidy()
    assert time.monotonic() - began < 20, "nor is anybody held up by it"
    assert old.carried() == HEAD
    assert old.connection.execute(GUARDS).fetchall() == [(1,), (1,)]
    await hold(new, "before-blocks", ["example.com/hold"])
    assert blocking(url) == CLAIMS | BESIDE, "what is known stays so"
    lister.rollback()
    await new.tidy()
    assert old.connection.execute(GUARDS).fetchall() == [(0,), (0,)]
    await judge(url)


async def test_a_newer_release_keeps_what_it_guards(
    url: str, old: Replica, new: Store, lister: psycopg.Connection
) -> None:
    old.falls_silent()
    lister.execute("SELECT count(*) FROM objects")
    await new.tidy()
    old.connection.execute("UPDATE alembic_version SET version_num = '9999'")
    lister.rollback()
    await new.tidy()
    assert old.connection.execute(GUARDS).fetchall() == [(1,), (1,)]


@pytest.mark.parametrize("killed", [False, True])
async def test_a_start_needs_no_lock_for_what_is_there(
    url: str, old: Replica, new: Store, lister: psycopg.Connection, killed: bool
) -> None:
    if killed:
        old.connection.execute("UPDATE alembic_version SET version_num = '0006'")
    lister.execute("SELECT count(*) FROM objects")
    began = time.monotonic()
    opened(url).close()
    assert time.monotonic() - began < 20
    assert old.carried() == 6


async def test_what_was_expanded_without_a_guard_is_filled_in_anew(url: str, old: Replica, new: Store) -> None:
    """As a build did that had none: what the older replica changed after that had filled it in is not known."""
    old.connection.execute("DROP FUNCTION forget_blocks() CASCADE")
    old.says("beside")
    await new.tidy()
    old.says("filled")
    assert blocking(url) != CLAIMS | BESIDE | FILLED
    again = opened(url)
    again.close()
    assert old.connection.execute(GUARDS).fetchall() == [(1,), (1,)]
    old.falls_silent()
    await new.tidy()
    assert old.carried() == HEAD
    assert blocking(url) == CLAIMS | BESIDE | FILLED
    await judge(url)
