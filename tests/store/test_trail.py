"""The trail is found to be what it was, or where it is not: each way to tamper, on both databases.

Whoever tampers here has all of the database, and neither the key that signs nor the file of heads.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from bessemer.core.clock import FakeClock
from bessemer.core.errors import Conflict, Malformed, Unavailable
from bessemer.core.ports import CONTROLLER, AuditFilter, AuditRow, Writer
from bessemer.core.resource import Key
from bessemer.core.trail import Fault, FileVerifier, Head, Signer, head_of
from bessemer.store import Guard, Store, audit, open_store
from bessemer.store.difference import BYTES_MAX
from bessemer.store.heads import Signing
from bessemer.store.reader import Reader
from tests.oracle import trail as oracle
from tests.store.conftest import KEY, KINDS
from tests.store.invariants import connect
from tests.store.make import ALICE, PROJECT, body, claim, inventory

SIGN_KEY = bytes(range(32, 64))
PUBLIC = Signer(SIGN_KEY).public
NAMES = [*AuditRow.__dataclass_fields__]
COLUMNS = ", ".join(f'"{name}"' for name in NAMES)
BOTH = (("audit", COLUMNS), ("audit_heads", "kind, id, digest, at, key, signature"))


def _quoted(value: Any) -> str:
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)


@dataclass
class Town:
    """A store with a dozen rows in its trail, of which 4, 8 and 12 are signed."""

    store: Store
    place: str
    heads: Path
    clock: FakeClock

    async def act(self, times: int = 4) -> None:
        await self.clock.advance(1)
        names = [f"t{self.clock.now():.0f}-{number}" for number in range(times)]
        await asyncio.gather(*(self.store.objects.create(body("Thing", name), ALICE) for name in names))
        await self.store.audit.sign()

    def sql(self, *statements: str) -> None:
        """By hand, past the triggers."""
        connection = connect(self.place)
        past = ["SET session_replication_role = replica"]
        if isinstance(connection, sqlite3.Connection):
            past = [f"DROP TRIGGER IF EXISTS audit_no_{act}" for act in ("update", "delete")]
        for statement in (*past, *statements):
            connection.execute(statement)  # type: ignore[arg-type]
        connection.close()

    def rows(self) -> list[dict[str, Any]]:
        return [dict(zip(NAMES, row, strict=True)) for row in self.tables()[0]]

    def tables(self) -> list[list[tuple[Any, ...]]]:
        """Rows and heads."""
        connection = connect(self.place)
        found = [connection.execute(f"SELECT {columns} FROM {name} ORDER BY id").fetchall() for name, columns in BOTH]  # type: ignore[arg-type]
        connection.close()
        return found

    def bring_back(self, kept: list[list[tuple[Any, ...]]]) -> None:
        statements = [f"DELETE FROM {name}" for name, _ in BOTH]
        for (name, columns), rows in zip(BOTH, kept, strict=True):
            values = ", ".join(f"({', '.join(map(_quoted, row))})" for row in rows)
            statements.append(f"INSERT INTO {name} ({columns}) VALUES {values}")
        self.sql(*statements)

    def compute_anew(self, since: int) -> None:
        """Make the digests of row ``since`` and of what follows fit what stands there."""
        digest, statements = "", []
        for row in self.rows():
            if row["id"] < since:
                digest = row["digest"]
                continue
            digest = oracle.row_digest(digest, {**row, "allowed": bool(row["allowed"])})
            statements.append(f"UPDATE audit SET digest = '{digest}' WHERE id = {row['id']}")
        self.sql(*statements)

    async def lines(self, after: int = 0) -> list[bytes]:
        parts = [part async for part in self.store.audit.export(after=after)]
        return b"".join(parts).splitlines()


def opened(place: str, clock: FakeClock, signing: Signing) -> Store:
    return open_store(place, clock=clock, kinds=KINDS, guard=replace(Guard.of(KEY), signing=signing))


@pytest.fixture
async def town(place: str, tmp_path: Path) -> AsyncIterator[Town]:
    clock, heads = FakeClock(), tmp_path / "outside" / "heads.jsonl"
    made = Town(opened(place, clock, Signing(SIGN_KEY, heads)), place, heads, clock)
    for _ in range(3):
        await made.act()
    yield made
    made.store.close()


def judged(lines: list[bytes], *, key: str = PUBLIC, heads: list[Head] | None = None) -> Fault | None:
    check = FileVerifier([key] if key else [], heads=heads or [])
    for line in lines:
        if fault := check.line(line):
            return fault
    return check.end()


# --- an honest trail ------------------------------------------------------------------------------------------------


async def test_a_trail_that_nobody_touched_is_sound(town: Town) -> None:
    assert await town.store.audit.verify() is None
    lines = await town.lines()
    assert judged(lines) is None
    assert oracle.check(lines, key=PUBLIC) is None
    heads = [json.loads(line)["head"] for line in lines if b'"head"' in line]
    assert [head["id"] for head in heads] == [4, 8, 12]
    assert [json.loads(line)["head"]["id"] for line in town.heads.read_bytes().splitlines()] == [4, 8, 12]
    assert town.heads.stat().st_mode & 0o077 == 0


async def test_an_export_ends_with_a_head_of_its_last_row(town: Town) -> None:
    await town.store.audit.note(Writer("user", "ä\u2028", "r", "::1"), 'lög"in', key=Key("User", "", "ä"))
    lines = await town.lines(after=9)
    assert json.loads(lines[0])["after"] == 9
    assert json.loads(lines[-1])["head"]["id"] == 13
    assert judged(lines) is None
    assert oracle.check(lines, key=PUBLIC) is None
    with pytest.raises(Conflict, match="no row 99"):
        await town.lines(after=99)


async def test_nothing_new_is_not_signed_again(town: Town) -> None:
    before = town.heads.read_bytes()
    await town.store.audit.sign()
    assert town.heads.read_bytes() == before


# --- tampering, found and located -----------------------------------------------------------------------------------

REST = ", ".join(f'"{name}"' for name in NAMES[1:])


def renumber(*pairs: tuple[int, int]) -> list[str]:
    return [f"UPDATE audit SET id = {new} WHERE id = {old}" for old, new in pairs]


def another(number: int) -> str:
    """A copy of the first row, under another number."""
    return f"INSERT INTO audit (id, {REST}) SELECT {number}, {REST} FROM audit WHERE id = 1"


TAMPERS: dict[str, tuple[list[str], int]] = {
    "who": (["UPDATE audit SET writer = 'user:mallory' WHERE id = 3"], 3),
    "allowed": (["UPDATE audit SET allowed = 0 WHERE id = 5"], 5),
    "what it changed": (["UPDATE audit SET change = '{}' WHERE id = 6"], 6),
    "said to be old": (["UPDATE audit SET change = '' WHERE id = 6"], 6),
    "when": (["UPDATE audit SET at = at + 1 WHERE id = 12"], 12),
    "whose": (["UPDATE audit SET tenant = 'other' WHERE id = 7"], 7),
    "shown to nobody": (["UPDATE audit SET tenant = '' WHERE id = 7"], 7),
    "digest": (["UPDATE audit SET digest = (SELECT digest FROM audit WHERE id = 1) WHERE id = 2"], 2),
    "removed": (["DELETE FROM audit WHERE id = 4"], 5),
    "the first removed": (["DELETE FROM audit WHERE id <= 3"], 4),
    "removed and closed up": (["DELETE FROM audit WHERE id = 4", *renumber(*((n + 1, n) for n in range(4, 12)))], 4),
    "inserted": ([*renumber(*((n, n + 1) for n in range(12, 5, -1))), another(6)], 6),
    "inserted before the first": ([another(-1)], -1),
    "appended": ([another(13)], 13),
    "swapped": (renumber((6, 99), (7, 6), (99, 7)), 6),
    "the tail cut": (["DELETE FROM audit WHERE id > 9"], 10),
    "the tail cut at a head": (["DELETE FROM audit WHERE id > 8"], 9),
    "all cut": (["DELETE FROM audit"], 1),
    "the tail and its heads cut": (["DELETE FROM audit WHERE id > 9", "DELETE FROM audit_heads WHERE id > 9"], 10),
    "a head changed": (["UPDATE audit_heads SET digest = 'ab' WHERE id = 8"], 8),
    "a head moved": (["UPDATE audit_heads SET id = 9 WHERE id = 8"], 9),
}


UNSEEN = ("inserted", "inserted before the first", "appended")
"""By an export: it has no rows before the first, and one that has a new last row begins with signing that."""


async def test_each_tamper_is_found_where_it_is(town: Town) -> None:
    kept = town.tables()
    for how, (statements, row) in TAMPERS.items():
        town.sql(*statements)
        fault = await town.store.audit.verify()
        assert fault is not None, how
        assert fault.row == row, how
        if how not in UNSEEN:
            lines = await town.lines()
            assert judged(lines) == fault, how
            assert oracle.check(lines, key=PUBLIC) is not None, how
        town.bring_back(kept)
    assert await town.store.audit.verify() is None


@pytest.mark.parametrize("heads", ["kept", "dropped", "signed by another"])
async def test_a_chain_that_is_computed_anew_is_found_by_its_heads(town: Town, heads: str) -> None:
    kept = town.tables()
    for since, sound in ((1, 0), (6, 4)):
        town.sql(f"UPDATE audit SET writer = 'user:nobody' WHERE id = {since}")
        town.compute_anew(since)
        if heads != "kept":
            town.sql("DELETE FROM audit_heads")
        if heads == "signed by another":
            forged = Signer(bytes(32)).sign(Head(id=12, digest=town.rows()[-1]["digest"], at=1.0))
            values = ", ".join(_quoted(getattr(forged, name)) for name in BOTH[1][1].split(", "))
            town.sql(f"INSERT INTO audit_heads ({BOTH[1][1]}) VALUES ({values})")
        fault = await town.store.audit.verify()
        assert fault is not None
        assert (fault.row, fault.sound) == (sound + 1, sound), "the rows after the last head that fits"
        if sound:
            break
        town.bring_back(kept)
    await town.act()
    again = await town.store.audit.verify()
    assert again is not None, "what is signed afterwards makes nothing good"
    assert again.row == sound + 1


async def test_a_cut_tail_is_found_after_new_rows_have_its_numbers(town: Town) -> None:
    town.sql("DELETE FROM audit WHERE id > 6", "DELETE FROM audit_heads WHERE id > 6")
    await town.act(times=8)
    fault = await town.store.audit.verify()
    assert fault is not None
    assert (fault.row, fault.sound) == (5, 4)


async def test_heads_that_somebody_kept_convict_a_whole_installation(town: Town) -> None:
    """Also where table and file of heads were made anew, by whoever has the key: an auditor's own copy does not fit."""
    kept = [head_of(json.loads(line)["head"]) for line in town.heads.read_bytes().splitlines()]
    town.heads.unlink()
    town.sql("DELETE FROM audit_heads", "DELETE FROM audit WHERE id > 2")
    fresh = open_again(town)
    await fresh.act(times=12)
    lines = await fresh.lines()
    assert judged(lines) is None
    fault = judged(lines, heads=kept)
    assert fault is not None
    assert fault.row == 1
    fresh.store.close()


def open_again(town: Town, key: bytes = SIGN_KEY) -> Town:
    town.store.close()
    return Town(opened(town.place, town.clock, Signing(key, town.heads)), town.place, town.heads, town.clock)


# --- files ----------------------------------------------------------------------------------------------------------


def without(lines: list[bytes], *gone: int) -> list[bytes]:
    return [line for number, line in enumerate(lines) if number not in gone]


def shorter(line: bytes) -> bytes:
    return line.replace(b'"digest":"', b'"digest":"0') if b"head" in line else line


FILES: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "a row changed": lambda lines: [line.replace(b"alice", b"mally") for line in lines],
    "a row left out": lambda lines: without(lines, 3),
    "two swapped": lambda lines: [lines[0], lines[2], lines[1], *lines[3:]],
    "the digests of heads": lambda lines: [*map(shorter, lines)],
    "a head late": lambda lines: [*without(lines, 5), lines[5]],
}


async def test_a_file_that_was_touched_is_refused(town: Town) -> None:
    lines = await town.lines()
    for how, touch in FILES.items():
        assert judged(touch(lines)) is not None, how
        assert oracle.check(touch(lines), key=PUBLIC) is not None, how


async def test_a_file_whose_end_is_missing_does_not_end_with_a_head(town: Town) -> None:
    check = FileVerifier([PUBLIC])
    for line in (await town.lines())[:-2]:
        assert check.line(line) is None
    assert check.end() is None
    assert (check.checks.last, check.checks.sound) == (11, 8), "so whoever checks it can say how much is vouched for"


async def test_a_file_of_another_key_is_trusted_by_nobody_who_knows_better(town: Town) -> None:
    other = open_again(town, bytes(32))
    town.heads.unlink()
    town.sql("DELETE FROM audit_heads")
    lines = await other.lines()
    assert judged(lines, key="") is None
    assert judged(lines) is not None
    other.store.close()


@pytest.mark.parametrize(
    "line", [b"", b"[]", b"{}", b"\xff", b'{"trail": 2, "key": "", "after": 0, "digest": ""}', b"7", b"null"]
)
def test_what_is_no_trail_is_refused(line: bytes) -> None:
    with pytest.raises(Malformed):
        FileVerifier().line(line)


@pytest.mark.parametrize(
    "line", [b"{}", b'{"head": {}}', b'{"head": 3}', b"[1]", b'{"id": "1"}', b'{"head": {"id": "1"}}']
)
def test_what_is_no_row_is_refused(line: bytes) -> None:
    check = FileVerifier()
    check.line(b'{"trail": 1, "key": "", "after": 0, "digest": ""}')
    with pytest.raises(Malformed):
        check.line(line)


# --- retention ------------------------------------------------------------------------------------------------------


async def test_what_was_archived_may_go_and_the_chain_goes_on(town: Town) -> None:
    archive = await town.lines()
    assert await town.store.audit.trim(8, digest=town.rows()[7]["digest"], writer=ALICE) == 8
    assert [row["id"] for row in town.rows()] == [9, 10, 11, 12, 13]
    assert town.rows()[-1]["verb"] == "trim"
    assert await town.store.audit.verify() is None
    rest = await town.lines()
    assert judged(rest) is None
    assert oracle.check(rest, key=PUBLIC) is None
    first, row = json.loads(rest[0]), json.loads(archive[-2])
    assert (first["after"], row["id"]) == (8, 12)
    assert first["digest"] == next(json.loads(x)["digest"] for x in archive if x.startswith(b'{"id":8,'))
    again = open_again(town)
    await again.act()
    assert await again.store.audit.verify() is None
    assert await again.store.audit.trim(8, digest=first["digest"], writer=ALICE) == 0
    assert await again.store.audit.trim(13, digest=again.rows()[4]["digest"], writer=ALICE) == 5
    assert await again.store.audit.verify() is None
    again.store.close()


async def test_what_does_not_fit_is_not_dropped(town: Town) -> None:
    with pytest.raises(Conflict, match="another digest"):
        await town.store.audit.trim(8, digest="ab", writer=ALICE)
    with pytest.raises(Conflict, match="not there"):
        await town.store.audit.trim(99, digest="ab", writer=ALICE)
    town.sql("UPDATE audit SET verb = 'x' WHERE id = 3")
    with pytest.raises(Conflict, match="row 3"):
        await town.store.audit.trim(8, digest=town.rows()[7]["digest"], writer=ALICE)
    assert len(town.rows()) == 12


async def test_rows_that_nobody_archived_are_missed(town: Town) -> None:
    town.sql("UPDATE counters SET value = 5 WHERE name = 'audit_base'", "DELETE FROM audit WHERE id <= 5")
    fault = await town.store.audit.verify()
    assert fault is not None
    assert fault.row == 6


async def test_a_trim_that_was_stopped_goes_on(town: Town) -> None:
    """Killed once the base stood: the next round drops the rows."""
    await town.store.audit.trim(4, digest=town.rows()[3]["digest"], writer=ALICE)
    town.sql("UPDATE counters SET value = 6 WHERE name = 'audit_base'")
    await town.store.tidy()
    assert town.rows()[0]["id"] == 7, "the counter is what is dropped by"
    fault = await town.store.audit.verify()
    assert fault is not None, "the signed base is what is believed"


async def test_of_two_who_trim_the_later_one_brings_nothing_back(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    trail, rows = town.store.audit, town.rows()
    digest = audit._digest

    async def late(reader: Reader, number: int) -> str:
        found = await digest(reader, number)
        if number == 4:
            monkeypatch.undo()
            assert await trail.trim(8, digest=rows[7]["digest"], writer=ALICE) == 8
        return found

    monkeypatch.setattr(audit, "_digest", late)
    assert await trail.trim(4, digest=rows[3]["digest"], writer=ALICE) == 0
    assert town.rows()[0]["id"] == 9
    await trail.trim(9, digest=rows[8]["digest"], writer=ALICE)
    assert await trail.verify() is None


async def test_a_trail_that_is_being_trimmed_is_sound(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its base stands, and the rows before that do, too."""
    monkeypatch.setattr("bessemer.store.audit._drop_some", lambda _: 0)
    await town.store.audit.trim(8, digest=town.rows()[7]["digest"], writer=ALICE)
    assert town.rows()[0]["id"] == 1
    assert await town.store.audit.verify() is None
    monkeypatch.undo()
    await town.store.tidy()
    assert town.rows()[0]["id"] == 9
    assert await town.store.audit.verify() is None


async def test_a_row_that_is_put_before_the_base_later_is_found(town: Town) -> None:
    (kept,) = [row for row in town.tables()[0] if row[0] == 3]
    await town.store.audit.trim(8, digest=town.rows()[7]["digest"], writer=ALICE)
    town.sql(f"INSERT INTO audit ({COLUMNS}) VALUES ({', '.join(map(_quoted, kept))})")
    fault = await town.store.audit.verify()
    assert fault is not None
    assert fault.row == 3


async def test_who_drops_nothing_forgets_what_another_has_archived(town: Town) -> None:
    kept = town.heads.read_bytes()
    await town.store.audit.trim(8, digest=town.rows()[7]["digest"], writer=ALICE)
    town.heads.write_bytes(kept)
    again = open_again(town)
    await again.store.tidy()
    told = [json.loads(line)["head"] for line in town.heads.read_bytes().splitlines()]
    assert [(head["id"], head["kind"]) for head in told] == [(8, "base"), (8, "head"), (12, "head"), (13, "head")]
    assert await again.store.audit.verify() is None
    again.store.close()


async def test_rows_are_final_until_they_are_archived(town: Town) -> None:
    connection = connect(town.place)
    for statement in ("DELETE FROM audit WHERE id = 1", "UPDATE audit SET verb = 'x' WHERE id = 1"):
        with pytest.raises(Exception, match="final"):
            connection.execute(statement)  # type: ignore[arg-type]
    connection.close()


# --- what rows say --------------------------------------------------------------------------------------------------


async def changes(store: Store) -> list[Any]:
    return [json.loads(row.change) for row in await store.audit.rows()]


async def test_a_row_says_what_was_before_and_after(store: Store) -> None:
    labels = {"a": "1"}
    await store.objects.create(body("Thing", "a", spec={"size": 1, "gone": [1]}, labels=labels), ALICE)
    await store.objects.replace(body("Thing", "a", spec={"size": 2, "new": {"x": None}}, labels=labels), ALICE)
    await store.objects.replace(body("Thing", "a", spec={"size": 2, "new": {"x": None}}), ALICE)
    await store.objects.delete(Key("Thing", PROJECT, "a"), ALICE)
    assert await changes(store) == [
        {"after": {"metadata": {"labels": {"a": "1"}}, "spec": {"size": 1, "gone": [1]}}},
        {
            "after": {"spec": {"size": 2, "gone": None, "new": {"x": None}}},
            "before": {"spec": {"size": 1, "gone": [1], "new": None}},
        },
        {"after": {"metadata": None}, "before": {"metadata": {"labels": {"a": "1"}}}},
        {"before": {"spec": {"size": 2, "new": {"x": None}}}},
    ]


async def test_a_claim_and_a_status_by_hand_are_told_too(store: Store) -> None:
    await store.capacity.declare("h1", inventory())
    (taken,) = await store.capacity.take([claim("a")], CONTROLLER)
    await store.capacity.amend(taken.key, {"stop": True}, CONTROLLER)
    await store.objects.create(body("Thing", "a"), ALICE)
    thing = body("Thing", "a") | {"status": {"phase": "Ready"}}
    await store.objects.replace(thing, Writer("system", "api"), part="status")
    take, amend, _, status = await changes(store)
    assert take["after"]["spec"]["host"] == "h1"
    assert amend == {"after": {"spec": {"intent": {"stop": True}}}, "before": {"spec": {"intent": {"stop": None}}}}
    assert status == {"after": {"status": {"phase": "Ready"}}, "before": {"status": {"phase": None}}}


async def test_a_long_change_is_cut_to_names_size_and_digest(store: Store) -> None:
    await store.objects.create(body("Thing", "a", spec={"small": 1, "long": "x" * BYTES_MAX}), ALICE)
    ((cut,),) = [change["after"].values() for change in await changes(store)]
    assert cut["fields"] == ["spec.small", "spec.long"]
    assert cut["bytes"] > BYTES_MAX
    assert len(cut["sha256"]) == 64


async def test_the_copy_that_kubectl_keeps_is_left_out(store: Store) -> None:
    copy = {"kubectl.kubernetes.io/last-applied-configuration": '{"password": "hunter2"}', "mine": "1"}
    await store.objects.create(body("Thing", "a", annotations=copy), ALICE)
    ((change,)) = await changes(store)
    assert "hunter2" not in json.dumps(change)
    assert change["after"]["metadata"]["annotations"]["mine"] == "1"


# --- who finds what -------------------------------------------------------------------------------------------------


async def test_rows_are_found_by_who_what_whose_and_when(store: Store, clock: FakeClock) -> None:
    bob = Writer("user", "bob", source="10.0.0.9")
    await store.objects.create(body("Thing", "a"), ALICE)
    await clock.advance(10)
    await store.objects.create(body("Thing", "b", namespace="other--lab"), bob)
    await store.objects.create(body("Tenant", "acme", namespace=""), bob)
    await store.objects.create(body("Project", "other--lab", namespace=""), bob)
    await clock.advance(10)
    await store.audit.deny(bob, "delete", Key("Thing", PROJECT, "a"), "not yours")
    now = clock.now()

    async def ids(**wanted: Any) -> list[int]:
        rows, _ = await store.audit.find(AuditFilter(**wanted))
        return [row.id for row in rows]

    assert await ids() == [5, 4, 3, 2, 1]
    assert await ids(who="bob") == await ids(who="user:bob") == [5, 4, 3, 2]
    assert await ids(verb="delete") == await ids(allowed=False) == [5]
    assert await ids(kind="Thing") == [5, 2, 1]
    assert await ids(kind="Thing", namespace=PROJECT, name="a") == [5, 1]
    assert await ids(tenant="acme") == [5, 3, 1]
    assert await ids(tenant="other") == [4, 2]
    assert await ids(tenant="nobody") == []
    assert await ids(since=now - 10, until=now) == [4, 3, 2]
    rows, more = await store.audit.find(AuditFilter(), limit=2)
    assert [row.id for row in rows] == [5, 4]
    assert [row.id for row in (await store.audit.find(AuditFilter(), before=more))[0]] == [3, 2, 1]


async def test_an_old_release_beside_us_writes_rows_that_fit(town: Town) -> None:
    """It knows neither tenant nor change."""
    last = town.rows()[-1]
    old = {**last, "id": 13, "verb": "update", "change": "", "tenant": "", "allowed": True}
    old["digest"] = oracle.row_digest(last["digest"], old)
    names = [name for name in NAMES if name not in ("tenant", "change")]
    values = ", ".join(repr(int(old[name]) if name == "allowed" else old[name]) for name in names)
    town.sql(f"""INSERT INTO audit ({", ".join(f'"{name}"' for name in names)}) VALUES ({values})""")
    await town.act(times=1)
    assert await town.store.audit.verify() is None


async def test_a_trail_that_grows_while_it_is_judged_is_sound(town: Town) -> None:
    async def grow() -> None:
        for _ in range(10):
            await town.act()

    growing = asyncio.ensure_future(grow())
    while not growing.done():
        assert await town.store.audit.verify() is None
    await growing


async def test_heads_that_cannot_be_written_stop_nothing_else(town: Town) -> None:
    town.heads.unlink()
    town.heads.mkdir()
    with pytest.raises(Unavailable, match="heads of the trail"):
        await town.act()
    await town.store.objects.create(body("Thing", "later"), ALICE)
    town.heads.rmdir()
    await town.store.audit.sign()
    assert await town.store.audit.verify() is None
    assert [json.loads(line)["head"]["id"] for line in town.heads.read_bytes().splitlines()] == [17]


async def test_heads_that_cannot_be_read_are_told_as_that(town: Town) -> None:
    town.heads.unlink()
    town.heads.mkdir()
    again = open_again(town)
    for act in (again.store.audit.sign, again.store.audit.verify, again.store.audit.tidy):
        with pytest.raises(Unavailable, match="heads of the trail"):
            await act()
    again.store.close()
