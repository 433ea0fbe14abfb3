"""Each invariant is broken by hand in the database, and the check of its name finds it; on both databases."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import func, literal_column, select

from bessemer.core.asking import Allocation
from bessemer.core.beside import CompanionUse, PciPlace
from bessemer.core.clock import FakeClock
from bessemer.core.errors import Conflict, Invalid, Unavailable
from bessemer.core.hosts import Device, Inventory, NumaNode
from bessemer.core.sealing import KeyRing
from bessemer.core.units import GIB
from bessemer.store import Guard, Store, check_accounts, links, open_store, postgres
from bessemer.store.check import CHECKS, check_store
from bessemer.store.heads import Signing
from bessemer.store.schema import audit
from bessemer.store.snapshot import looking
from bessemer.store.tally import NAMED_MAX, Tally
from tests.store.conftest import KEY, KINDS
from tests.store.invariants import connect
from tests.store.lived import SECRET, live
from tests.store.make import ALICE, SYSTEM, agent, body, claim
from tests.store.server import Server


class Hands:
    """Somebody at the database itself, whom no trigger holds."""

    def __init__(self, place: str) -> None:
        self._connection = connect(place)
        self._lite = isinstance(self._connection, sqlite3.Connection)

    def __enter__(self) -> Hands:
        if self._lite:
            self._triggers = self.run("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")
            for name, _ in self._triggers:
                self.run(f"DROP TRIGGER {name}")
        else:
            self.run("SET session_replication_role = replica")
        return self

    def __exit__(self, *_: object) -> None:
        for _name, sql in self._triggers if self._lite else ():
            self.run(sql)
        self._connection.close()

    def run(self, sql: str, *values: Any) -> list[Any]:
        found = self._connection.execute(sql if self._lite else sql.replace("?", "%s"), values)  # type: ignore[arg-type]
        return found.fetchall() if found.description else []

    def body(self, kind: str, name: str, change: Callable[[dict[str, Any]], object], *, logged: bool = True) -> None:
        """Change a body, and with it what history says of it."""
        ((raw, revision),) = self.run("SELECT body, revision FROM objects WHERE kind = ? AND name = ?", kind, name)
        document = json.loads(raw)
        change(document)
        fresh = json.dumps(document).encode()
        self.run("UPDATE objects SET body = ? WHERE kind = ? AND name = ?", fresh, kind, name)
        if logged:
            self.run("UPDATE changes SET body = ? WHERE revision = ?", fresh, revision)

    def undo_trigger(self, lite: str, of_server: str) -> None:
        """It is there by name, and refuses nothing: of a server a function does what it would."""
        if self._lite:
            self._triggers = [
                (name, text.partition(" BEGIN ")[0] + " BEGIN SELECT 1; END" if name == lite else text)
                for name, text in self._triggers
            ]
        else:
            emptied = "RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$"
            self.run(f"CREATE OR REPLACE FUNCTION {of_server}() {emptied}")

    def move_trigger(self, lite: str, of_server: str, table: str, to: str) -> None:
        """It is there by name, of another table."""
        if self._lite:
            self._triggers = [
                (name, text.replace(f" ON {table}", f" ON {to}") if name == lite else text)
                for name, text in self._triggers
            ]
        else:
            self.run(f"DROP TRIGGER {of_server} ON {table}")
            self.run(f"CREATE TRIGGER {of_server} BEFORE UPDATE ON {to} EXECUTE FUNCTION refuse_change()")

    def ask_trigger_less(self, lite: str, of_server: str) -> None:
        """It is there by name, of that table, and is asked about fewer rows."""
        if self._lite:
            self._triggers = [
                (name, text.replace("WHEN old.id >", "WHEN old.id > 9 +") if name == lite else text)
                for name, text in self._triggers
            ]
        else:
            self.run(f"DROP TRIGGER {of_server} ON leases")
            asked = "BEFORE INSERT ON leases FOR EACH ROW WHEN (NEW.name = 'writer/x')"
            self.run(f"CREATE TRIGGER {of_server} {asked} EXECUTE FUNCTION refuse_older()")

    def put_index_aside(self, name: str, on: str) -> None:
        """Of a server another schema has one of that name, of a table of the same name; of a file nobody has."""
        self.run(f"DROP INDEX {name}")
        if not self._lite:
            self.run("CREATE SCHEMA aside CREATE TABLE objects (uid TEXT)")
            self.run(f"CREATE UNIQUE INDEX {name} ON aside.{on}")

    def spoil_index(self, name: str, on: str) -> None:
        """It is there by name: of a server as one whose making was stopped, of a file as another."""
        if self._lite:
            self.run(f"DROP INDEX {name}")
            self.run(f"CREATE INDEX {name} ON {on}")
        else:
            self.run("UPDATE pg_index SET indisvalid = false WHERE indexrelid = ?::regclass", name)

    def drop_trigger(self, lite: str, of_server: str) -> None:
        if self._lite:
            self._triggers = [one for one in self._triggers if one[0] != lite]
        else:
            self.run(f"DROP TRIGGER {of_server}")


@dataclass(frozen=True)
class Break:
    """What somebody does, which checks find it, and words of the first."""

    do: Callable[[Hands], object]
    checks: str
    words: str


def sql(*statements: str) -> Callable[[Hands], object]:
    return lambda hands: [hands.run(statement) for statement in statements]


def edit(kind: str, name: str, change: Callable[[dict[str, Any]], object], **how: bool) -> Callable[[Hands], object]:
    return lambda hands: hands.body(kind, name, change, **how)


def own(uid: str) -> Callable[[Hands], object]:
    """The object ``owned`` is another's."""

    def change(hands: Hands) -> None:
        hands.body("Thing", "owned", lambda it: it["metadata"]["ownerReferences"][0].update(uid=uid))
        hands.run("UPDATE dependents SET owner = ? WHERE uid = (SELECT uid FROM objects WHERE name = 'owned')", uid)

    return change


def foreign_owner(hands: Hands) -> None:
    ((uid,),) = hands.run("SELECT uid FROM objects WHERE name = 'elsewhere'")
    own(uid)(hands)


CLAIM = "(SELECT uid FROM objects WHERE name = 'instance-a-0')"
OWNER = "(SELECT uid FROM objects WHERE name = 'owner')"
OWNED = "(SELECT uid FROM objects WHERE name = 'owned')"
AUDIT = "audit"
BREAKS = {
    "no trigger": Break(
        lambda h: h.drop_trigger("ledger_no_update", "ledger_final ON ledger"), "schema", "trigger ledger_"
    ),
    "function replaced": Break(lambda h: h.undo_trigger("ledger_no_update", "refuse_change"), "schema", "is another"),
    "trigger elsewhere": Break(
        lambda h: h.move_trigger("ledger_no_update", "ledger_final", "ledger", "leases"), "schema", "trigger ledger_"
    ),
    "invalid index": Break(
        lambda h: h.spoil_index("objects_uid", "objects (uid)"), "schema", "index objects_uid is not there"
    ),
    "index of another schema": Break(
        lambda h: h.put_index_aside("objects_uid", "objects (uid)"), "schema", "index objects_uid is not there"
    ),
    "trigger that is asked less": Break(
        lambda h: h.ask_trigger_less("audit_no_delete", "leases_older"), "schema", "is another"
    ),
    "index of other columns": Break(
        sql("DROP INDEX ledger_workload", "CREATE INDEX ledger_workload ON ledger (id, workload_uid)"),
        "schema",
        "index ledger_workload is not there",
    ),
    "index of other rows": Break(
        sql("DROP INDEX changes_host", "CREATE INDEX changes_host ON changes (kind, host, revision) WHERE host <> 'x'"),
        "schema",
        "index changes_host is not there",
    ),
    "no index": Break(sql("DROP INDEX objects_uid"), "schema", "index objects_uid is not there"),
    "body is no JSON": Break(
        lambda h: h.run("UPDATE objects SET body = ? WHERE name = 'elsewhere'", b"{"),
        "bodies changes",
        "no object in JSON",
    ),
    "body of another revision": Break(
        edit("Thing", "owned", lambda it: it["metadata"].update(resourceVersion="1")),
        "bodies changes",
        "owned: body and row differ in revision",
    ),
    "body of another uid": Break(
        edit("Thing", "elsewhere", lambda it: it["metadata"].update(uid="x")), "bodies changes", "differ in uid"
    ),
    "row of another host": Break(
        sql("UPDATE objects SET host = 'h9' WHERE name = 'instance-b-0'"), "bodies", "differ in host"
    ),
    "no claim's spec": Break(
        edit("Claim", "instance-b-0", lambda it: it["spec"].pop("workload")),
        "bodies nodes quota intervals",
        "not the shape of its kind",
    ),
    "two of one uid": Break(
        sql("DROP INDEX objects_uid", f"UPDATE objects SET uid = {OWNER} WHERE name = 'elsewhere'"),
        "schema bodies names owners",
        "2 objects",
    ),
    "label that no body says": Break(
        sql("INSERT INTO labels VALUES ('Thing', 'a', 'b', 'acme--lab', 'owned')"),
        "labels",
        "Thing a b acme--lab owned: no body says so",
    ),
    "label that is not found": Break(
        sql("DELETE FROM labels WHERE label = 'tier'"), "labels", "tier=silver is not found"
    ),
    "owner that no body says": Break(
        sql(f"UPDATE dependents SET owner = 'x' WHERE owner = {OWNER} AND uid = {OWNED}"), "owners", "no body says so"
    ),
    "owner that nothing follows": Break(sql("DELETE FROM dependents"), "owners", "owned: would not go with its owner"),
    "owner that would wait": Break(sql("UPDATE dependents SET blocks = 1"), "blocking", "owner would wait for it"),
    "deletion that nobody sees to": Break(
        edit(
            "Thing",
            "owned",
            lambda it: it["metadata"].update(deletionTimestamp="2026-01-01T00:00:00Z", finalizers=["orphan"]),
        ),
        "blocking",
        "owned: would wait for its dependents for ever",
    ),
    "owner in another project": Break(foreign_owner, "owners", "is in another project"),
    "owner that is gone": Break(own("gone"), "owned", "owned: its owner owner is gone"),
    "no project": Break(
        sql("DELETE FROM objects WHERE name = 'acme--other'", "DELETE FROM changes WHERE name = 'acme--other'"),
        "projects quota history",
        "elsewhere: its project is not there",
    ),
    "another tenant pays": Break(
        edit("Claim", "instance-b-0", lambda it: it["spec"].update(tenant="beta")), "projects quota", "is paid by beta"
    ),
    "change is missing": Break(sql("DELETE FROM changes WHERE revision = 4"), "history", "revision 4 is missing"),
    "counter is behind": Break(
        sql("UPDATE counters SET value = 6 WHERE name = 'revision'"), "bodies history", "counter says 6"
    ),
    "no counter": Break(sql("DELETE FROM counters WHERE name = 'audit_base'"), "history", "counter audit_base"),
    "before history": Break(
        sql("UPDATE counters SET value = 3 WHERE name = 'floor'"), "history", "revision 1 is before history"
    ),
    "another body": Break(
        edit("Thing", "owned", lambda it: it["spec"].update(size=9), logged=False), "changes", "or has another body"
    ),
    "deleted, and there": Break(
        sql("UPDATE changes SET type = 2 WHERE name = 'owned'"), "changes", "was deleted at revision"
    ),
    "gone without a change": Break(
        sql(
            "DELETE FROM objects WHERE name = 'owned'",
            "DELETE FROM dependents WHERE uid NOT IN (SELECT uid FROM objects)",
        ),
        "changes",
        "and is not there",
    ),
    "device of nobody": Break(
        sql("UPDATE devices SET claim = '' WHERE device = 'gpu-1'"), "devices", "h1/gpu-1: names nobody, taken by Claim"
    ),
    "device of who is gone": Break(
        sql("UPDATE devices SET claim = 'x' WHERE device = 'gpu-3'"), "devices", "Claim x which is gone"
    ),
    "device of two": Break(
        edit("Claim", "instance-b-0", lambda it: it["spec"].update(devices=["gpu-0"])),
        "devices quota",
        "h1/gpu-0 is another Claim's, too",
    ),
    "part of nobody": Break(
        sql("UPDATE shares SET claim = 'x' WHERE milli = 250"), "shares", "Claim x which is gone has"
    ),
    "part that no row says": Break(
        sql("DELETE FROM shares WHERE milli = 250"), "shares", "250 thousandths, and no row"
    ),
    "parts that do not go together": Break(
        sql("UPDATE shares SET device = 'gpu-5' WHERE milli = 250"),
        "shares",
        "is shared by thousandths and cut at once",
    ),
    "instance elsewhere": Break(
        sql("UPDATE shares SET start = 7 WHERE profile <> ''"), "shares", "gpu-5: has not those slices free"
    ),
    "no device": Break(sql("DELETE FROM devices WHERE device = 'gpu-0'"), "devices quota", "and is not there"),
    "node counts otherwise": Break(sql("UPDATE numa SET milli_cores_used = 1"), "nodes", "h1 node 0: 1 milli-cores"),
    "no node": Break(sql("DELETE FROM numa"), "nodes", "Claims stand there, and it is not there"),
    "thread of two": Break(
        edit("Claim", "instance-g-0", lambda it: it["spec"]["allocations"][0].update(cpus="0")),
        "threads",
        "node 0 of h2: threads 0 are Claim acme--lab/instance-f-0's, too",
    ),
    "thread of another node": Break(
        edit("Claim", "instance-g-0", lambda it: it["spec"]["allocations"][0].update(cpus="9")),
        "threads",
        "threads 9 are not on it",
    ),
    "no threads": Break(
        edit("Claim", "instance-g-0", lambda it: it["spec"]["allocations"][0].update(cpus="5-2")),
        "threads",
        "5-2 are no hardware threads",
    ),
    "thread that takes nothing": Break(
        edit("Claim", "instance-g-0", lambda it: it["spec"]["allocations"][0].update(milliCores=500)),
        "threads nodes quota",
        "1 threads of its own, and 500 milli-cores taken",
    ),
    "pages that are not there": Break(
        edit("Host", "h2", lambda it: it["status"]["report"]["numa"][0]["hugepages"].update({str(GIB): 1})),
        "hugepages",
        "h2 node 0: 2147483648 bytes in pages of 1073741824, and it has 1073741824",
    ),
    "pages that do not fit": Break(
        edit("Claim", "instance-f-0", lambda it: it["spec"]["allocations"][0].update(memoryBytes=GIB + 1)),
        "hugepages quota",
        "do not lie in pages of 1073741824",
    ),
    "functions of what is whole": Break(
        edit("Claim", "instance-g-0", lambda it: it["spec"]["companions"][0].update(functions=0)),
        "companions",
        "2 functions of it are others'",
    ),
    "more functions than there are": Break(
        edit("Claim", "instance-g-0", lambda it: it["spec"]["companions"][0].update(functions=3)),
        "companions",
        "h2/nic-0: 5 functions taken, and it has 4",
    ),
    "companion in a row": Break(
        sql("UPDATE devices SET claim = 'x' WHERE device = 'nic-0'"), "devices companions", "names Claim x which is"
    ),
    "companion of another kind": Break(
        edit("Claim", "instance-g-0", lambda it: it["spec"]["companions"][0].update(kind="disk")),
        "companions",
        "h2/nic-0: is a nic, and taken as a disk",
    ),
    "tree of another": Break(
        edit("Claim", "instance-f-0", lambda it: it["spec"]["tree"][0].update(device="nic-9")),
        "companions",
        "its tree shows nic-9, which it has not",
    ),
    "capacity of no host": Break(sql("INSERT INTO hosts VALUES ('h9', 1)"), "hosts", "host h9: has capacity"),
    "claims without capacity": Break(sql("DELETE FROM hosts"), "hosts", "h1, which has no capacity"),
    "counts too much": Break(
        sql("UPDATE quota SET used = 7 WHERE scope = 'tenant/acme' AND meter = 'claims'"),
        "quota",
        "tenant/acme claims: 7 counted, 6 stand",
    ),
    "counts nothing": Break(
        sql("DELETE FROM quota WHERE scope = 'project/acme--lab' AND meter = 'milli_cores'"),
        "quota",
        "nothing counted, 6000 stand",
    ),
    "another bound": Break(
        sql("UPDATE quota SET bound = 99 WHERE meter = 'instances' AND scope = 'tenant/acme'"),
        "bounds",
        "bound 99, said 5",
    ),
    "no bound": Break(
        sql("DELETE FROM quota WHERE scope = 'tenant/acme' AND meter = 'instances'"),
        "bounds quota",
        "no bound holds, said 5",
    ),
    "counted for nobody": Break(
        sql("INSERT INTO quota VALUES ('tenant/gone', 'claims', 0, NULL)"), "bounds", "for one that is gone"
    ),
    "no limit": Break(sql("DELETE FROM bounds"), "limits", "tenant/acme concurrent: no bound holds, said 3"),
    "another limit": Break(sql("UPDATE bounds SET bound = 4"), "limits", "tenant/acme concurrent: bound 4, said 3"),
    "held by who never said so": Break(
        sql("INSERT INTO levels VALUES ('acme--lab', 'g', 'tenant/acme', 'concurrent', 1)"),
        "limits",
        "held by g, who has not said so",
    ),
    "no wall": Break(sql("DELETE FROM walls WHERE what = 'site'"), "walls", "site east is said, and does not hold"),
    "wall of nobody": Break(
        sql("INSERT INTO walls VALUES ('state', 'Suspended', 'acme')"),
        "walls",
        "state Suspended holds, and is not said",
    ),
    "no interval": Break(
        sql(f"DELETE FROM ledger WHERE claim_uid = {CLAIM}"), "intervals", "no interval of it is open"
    ),
    "closed, and stands": Break(
        sql(f"UPDATE ledger SET kind = 'close', state = NULL WHERE claim_uid = {CLAIM} AND kind = 'state'"),
        "intervals",
        "no interval of it is open",
    ),
    "gone, and open": Break(
        sql("DELETE FROM ledger WHERE kind = 'close'"), "intervals", "is gone, and its interval open"
    ),
    "opened twice": Break(
        sql("DROP INDEX ledger_once", f"UPDATE ledger SET kind = 'open' WHERE claim_uid = {CLAIM}"),
        "schema intervals",
        "opened a second time",
    ),
    "time turns around": Break(
        sql(f"UPDATE ledger SET at = 1 WHERE claim_uid = {CLAIM} AND kind = 'state'"), "intervals", "its time is before"
    ),
    "a state twice": Break(
        sql(f"UPDATE ledger SET state = 'deploying' WHERE claim_uid = {CLAIM}"), "intervals", "deploying a second time"
    ),
    "no open": Break(
        sql(f"DELETE FROM ledger WHERE claim_uid = {CLAIM} AND kind = 'open'"), "intervals", "state before open"
    ),
    "interval of another": Break(
        sql(f"UPDATE ledger SET project_uid = 'x' WHERE claim_uid = {CLAIM} AND kind = 'state'"),
        "intervals",
        "of another tenant or project",
    ),
    "corrects nothing": Break(
        sql("UPDATE ledger SET corrects = 999 WHERE kind = 'correction'"), "corrections", "corrects row 999"
    ),
    "value of nobody": Break(
        sql("UPDATE sealed SET uid = 'gone' WHERE field = 'token'"),
        "sealed secrets",
        "token of uid gone: the object is gone",
    ),
    "value is damaged": Break(
        lambda h: h.run("UPDATE sealed SET ciphertext = ? WHERE field = 'token'", b"bsv2" + bytes(60)),
        "secrets",
        "token of Host h1: a sealed value cannot be opened",
    ),
    "no data key": Break(sql("DELETE FROM data_keys"), "secrets", "its data key is gone"),
    "row of the trail is changed": Break(
        sql("UPDATE audit SET verb = 'read' WHERE id = 3"), AUDIT, "row 3 does not fit"
    ),
    "row of the trail is gone": Break(sql("DELETE FROM audit WHERE id = 5"), AUDIT, "row 5 before row 6 was taken out"),
    "the trail is cut": Break(sql("DELETE FROM audit WHERE id > 9"), AUDIT, "its end was cut off"),
    "head of a stranger": Break(
        sql("UPDATE audit_heads SET signature = key"), AUDIT, "signed by nobody who is trusted"
    ),
}


async def _pinned(store: Store) -> None:
    """Two Claims on a host of their own, with threads, huge pages and functions of one card."""
    node = NumaNode(id=0, cores=2, threads=4, memory_bytes=16 * GIB, hugepages={str(GIB): 4}, siblings=["0,2", "1,3"])
    found = Inventory(numa=[node], devices=[Device(id="nic-0", kind="nic", model="x7", functions=4)])
    await store.objects.create(body("Host", "h2", namespace="", spec={"site": "east"}), SYSTEM)
    said = {"kind": "Host", "metadata": {"name": "h2"}, "status": {"report": found.dump()}}
    await store.objects.replace(said, agent("h2"), part="report")
    await store.capacity.declare("h2", found)
    for name, cpus, size in (("f", "0", GIB), ("g", "1", 0)):
        key, spec, metadata = claim(name)
        part = Allocation(numa_node=0, milli_cores=1000, memory_bytes=2 * size, cpus=cpus, page_bytes=size)
        use = CompanionUse(kind="nic", device="nic-0", functions=2)
        tree = [PciPlace(device="nic-0", kind="nic")]
        update = {"host": "h2", "allocations": [part], "companions": [use], "tree": tree}
        await store.capacity.take([(key, spec.model_copy(update=update), metadata)], SYSTEM)


async def _fill(place: str) -> None:
    store = open_store(place, clock=FakeClock(), kinds=KINDS, seal_key=KEY)
    try:
        await live(store)
        await store.objects.create(body("Project", "acme--other", namespace="", spec={}), SYSTEM)
        await store.objects.create(body("Thing", "elsewhere", namespace="acme--other"), ALICE)
        await _pinned(store)
    finally:
        store.close()


@pytest.fixture(scope="module")
def lived(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A file and a database that were lived in, to be copied: on no disk, which the copies of a database would sync."""
    file = tmp_path_factory.mktemp("lived") / "store.db"
    asyncio.run(_fill(str(file)))
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET fsync = off")
        connection.execute("SELECT pg_reload_conf()")
        url = server.database("lived")
        asyncio.run(_fill(url))
        yield file, url
        connection.execute("ALTER SYSTEM RESET fsync")
        connection.execute("SELECT pg_reload_conf()")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.real)])
def copied(request: pytest.FixtureRequest, server: Server, lived: tuple[Path, str], tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        shutil.copy(lived[0], tmp_path / "store.db")
        yield str(tmp_path / "store.db")
        return
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        name = f"broken_{tmp_path.name[-40:]}".translate(str.maketrans("[]- '", "_____")).lower()
        connection.execute(f"CREATE DATABASE {name} TEMPLATE lived")  # type: ignore[arg-type]
    yield server.url(name)


async def look(place: str, guard: Guard | None = None) -> dict[str, Tally]:
    found = check_store(place, clock=FakeClock(), kinds=KINDS, guard=guard or Guard.of(KEY))
    return {tally.check: tally async for tally in found}


async def test_what_is_whole_is_found_whole(copied: str) -> None:
    found = await look(copied)
    assert {name: tally.wrong for name, tally in found.items() if not tally.ok} == {}
    assert len(found) == len(CHECKS) + 3
    assert [name for name, tally in found.items() if not tally.rows] == []


def _each() -> Iterator[Any]:
    """All of a file; of databases, whose copies take their time, in the long tier."""
    yield from (pytest.param("sqlite", name, id=f"sqlite-{name}") for name in BREAKS)
    marks = [pytest.mark.real, pytest.mark.long]
    yield from (pytest.param("postgresql", name, id=f"postgresql-{name}", marks=marks) for name in BREAKS)


ONE_BY_ONE = {
    "schema": "no trigger",
    "labels": "label that is not found",
    "blocking": "owner that would wait",
    "owners": "owner that no body says",
    "owned": "owner that is gone",
    "history": "no counter",
    "changes": "another body",
    "devices": "device of who is gone",
    "shares": "part that no row says",
    "nodes": "node counts otherwise",
    "threads": "thread of two",
    "hugepages": "pages that are not there",
    "companions": "tree of another",
    "hosts": "capacity of no host",
    "quota": "counts too much",
    "bounds": "another bound",
    "limits": "another limit",
    "walls": "wall of nobody",
    "intervals": "a state twice",
    "corrections": "corrects nothing",
    "secrets": "value is damaged",
    "sealed": "value of nobody",
    "audit": "head of a stranger",
    "projects": "another tenant pays",
    "bodies": "row of another host",
    "names": "two of one uid",
}
"""Check → what breaks it alone, in an order in which none was broken before."""


@pytest.mark.parametrize("copied", [pytest.param("postgresql", marks=pytest.mark.real)], indirect=True)
async def test_one_check_after_the_other_finds_its_own(copied: str) -> None:
    found = await look(copied)
    for check, name in ONE_BY_ONE.items():
        assert found[check].wrong == []
        with Hands(copied) as hands:
            BREAKS[name].do(hands)
        found = await look(copied)
        assert BREAKS[name].words in " ".join(found[check].wrong)


@pytest.mark.parametrize(("copied", "name"), [*_each()], indirect=["copied"])
async def test_what_is_broken_is_named(copied: str, name: str) -> None:
    one = BREAKS[name]
    with Hands(copied) as hands:
        one.do(hands)
    found = await look(copied)
    assert {check for check, tally in found.items() if not tally.ok} == set(one.checks.split())
    assert one.words in " ".join(word for tally in found.values() for word in tally.wrong)
    assert SECRET.decode() not in str([tally.document() for tally in found.values()])


def test_every_check_is_broken_by_one() -> None:
    assert {check for one in BREAKS.values() for check in one.checks.split()} == {
        *("schema", "bodies", "names", "labels", "owners", "blocking", "owned", "projects", "history", "changes"),
        *(
            "devices",
            "shares",
            "nodes",
            "threads",
            "hugepages",
            "companions",
            "hosts",
            "quota",
            "bounds",
            "limits",
            "walls",
            "intervals",
            "corrections",
            "sealed",
            "secrets",
            "audit",
        ),
    }
    assert len(CHECKS) + 3 == 26 == len(ONE_BY_ONE)


async def test_heads_beside_the_database_are_looked_at(lived: tuple[Path, str], tmp_path: Path) -> None:
    """Who holds the database alone can cut the trail and its heads, and not the file."""
    place, heads = str(tmp_path / "store.db"), tmp_path / "heads.jsonl"
    guard = Guard(KeyRing([KEY]), lambda: KeyRing([KEY]), Signing(bytes(32), heads))
    store = open_store(place, clock=FakeClock(), kinds=KINDS, guard=guard)
    await live(store)
    store.close()
    assert all(tally.ok for tally in (await look(place, guard)).values())
    with Hands(place) as hands:
        hands.run("DELETE FROM audit WHERE id > 3")
        hands.run("DELETE FROM audit_heads")
    assert (await look(place, guard))["audit"].count == 1
    heads.unlink()
    assert (await look(place, guard))["audit"].count == 0


async def test_another_key_opens_nothing(copied: str) -> None:
    found = await look(copied, Guard.of(bytes(32)))
    assert {check for check, tally in found.items() if not tally.ok} == {"secrets", "audit"}
    assert found["secrets"].count == 2


async def test_many_faults_are_counted_and_some_named(copied: str) -> None:
    with Hands(copied) as hands:
        for number in range(NAMED_MAX + 5):
            hands.run("INSERT INTO walls VALUES ('site', ?, 'acme')", f"s{number}")
    tally = (await look(copied))["walls"]
    assert (tally.count, len(tally.wrong)) == (NAMED_MAX + 5, NAMED_MAX)
    assert tally.document()["faults"] == NAMED_MAX + 5


async def test_a_store_is_checked_while_it_is_written(place: str, by_the_tests_clock: None) -> None:
    store = open_store(place, clock=FakeClock(), kinds=KINDS, seal_key=KEY)
    try:
        await live(store)

        async def write() -> None:
            for number in range(8):
                await store.objects.create(body("Thing", f"n{number}", labels={"n": str(number)}), ALICE)
                key = (await store.capacity.take([claim(f"n{number}", cores=1, memory=1)], SYSTEM))[0].key
                await store.capacity.release(key, SYSTEM, fenced=True)
                await store.audit.sign()

        async def looks() -> list[Tally]:
            return [tally for _ in range(2) for tally in (await asyncio.to_thread(asyncio.run, look(place))).values()]

        _, found = await asyncio.gather(write(), looks())
        assert [tally.wrong for tally in found if not tally.ok] == []
    finally:
        store.close()


async def test_nothing_is_made_and_nothing_changed(copied: str, server: Server, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="there is no store"):
        await look(str(tmp_path / "none.db"))
    assert not (tmp_path / "none.db").exists()
    with Hands(copied) as hands:
        hands.run("UPDATE alembic_version SET version_num = '0002'")
    with pytest.raises(Conflict, match="schema 0002"):
        await look(copied)
    empty = tmp_path / "empty.db"
    empty.touch()
    with pytest.raises(Invalid, match="holds no store"):
        await look(str(empty))
    with pytest.raises(Invalid, match="holds no store"):
        await look(server.database("none"))
    (tmp_path / "odd.db").write_bytes(b"no database" * 1000)
    with pytest.raises(Unavailable):
        await look(str(tmp_path / "odd.db"))


@pytest.mark.parametrize("copied", [pytest.param("postgresql", marks=pytest.mark.real)], indirect=True)
async def test_a_read_takes_what_it_takes(copied: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a large trail the number of rows alone takes longer than anything that is served may."""
    monkeypatch.setattr(postgres, "_READ_MS", 50)
    monkeypatch.setattr(links, "_LOOK_SECONDS", 0.05)
    run = links.Link.run

    def run_in_a_hurry(*said: Any, **how: Any) -> Any:
        with monkeypatch.context() as patched:  # and nothing but reads: what is said between them has its time
            patched.setattr(links, "ANSWER_SECONDS", 0.1)
            return run(*said, **how)

    monkeypatch.setattr(links.Link, "run", run_in_a_hurry)
    slow = select(func.count(func.pg_sleep(literal_column("0.6")))).select_from(audit).where(audit.c.id < 3)
    monkeypatch.setattr(check_accounts, "_ROWS_OF_TRAIL", slow)
    assert (await look(copied))["audit"].ok


@pytest.mark.parametrize("copied", [pytest.param("postgresql", marks=pytest.mark.real)], indirect=True)
def test_how_far_it_is_is_known_without_reading_all(copied: str) -> None:
    with looking(copied, clock=FakeClock()) as snapshot:
        exact = len(snapshot.all(select(audit.c.id)))
    with Hands(copied) as hands:
        assert exact > 3
        hands.run("ANALYZE audit")
        hands.run("DELETE FROM audit")
    with looking(copied, clock=FakeClock()) as snapshot:
        assert snapshot.about("audit") == exact, "what the server took it for when it looked last"
        assert snapshot.about("objects") >= 0
