"""What was archived of the trail may go; nothing else does, and the chain goes on."""

from __future__ import annotations

import json

import pytest

from bessemer.core.errors import Conflict
from bessemer.store import audit
from bessemer.store.reader import Reader
from tests.oracle import trail as oracle
from tests.store.invariants import connect
from tests.store.make import ALICE
from tests.store.trail import COLUMNS, PUBLIC, Town, judged, open_again, quoted
from tests.store.trail import town as town  # noqa: PLC0414


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
    rows = town.rows()
    await town.store.audit.trim(8, digest=rows[7]["digest"], writer=ALICE)
    town.sql(f"INSERT INTO audit ({COLUMNS}) VALUES ({', '.join(map(quoted, kept))})")
    await town.store.tidy()
    fault = await town.store.audit.verify()
    assert fault is not None
    assert fault.row == 3, "housekeeping has not swept it away"
    for after in (0, 10):
        assert judged(await town.lines(after)) == fault, "whatever part of the trail is asked for"
    by_hand(town, "DELETE FROM audit WHERE id = 3")
    assert await town.store.audit.verify() is None, "which is what the page says to do"


def by_hand(town: Town, statement: str) -> None:
    """By somebody who may write, with the triggers as they are."""
    connection = connect(town.place)
    connection.execute(statement)  # type: ignore[arg-type]
    connection.commit()
    connection.close()


@pytest.mark.parametrize("number", [-7, 0, 3, 8])
async def test_a_row_that_is_put_before_the_base_keeps_nothing_else_from_going(town: Town, number: int) -> None:
    """It stays, and is named, however often the trail is trimmed; only where it has the base's own number it goes."""
    rows = town.rows()
    await town.store.audit.trim(8, digest=rows[7]["digest"], writer=ALICE)
    names = COLUMNS.partition(", ")[2]
    by_hand(town, f"INSERT INTO audit (id, {names}) SELECT {number}, {names} FROM audit WHERE id = 9")
    for through in (10, 12):
        await town.store.audit.trim(through, digest=rows[through - 1]["digest"], writer=ALICE)
        await town.store.tidy()
        left = [row["id"] for row in town.rows()]
        if number < 8:
            assert left[:2] == [number, through + 1]
            fault = await town.store.audit.verify()
            assert fault is not None
            assert fault.row == number
    by_hand(town, f"DELETE FROM audit WHERE id = {number}")
    assert await town.store.audit.verify() is None
    assert judged(await town.lines()) is None


async def test_of_two_trims_the_second_drops_what_the_first_has_left(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a row that was put there before both is still not theirs."""
    rows = town.rows()
    await town.store.audit.trim(4, digest=rows[3]["digest"], writer=ALICE)
    names = COLUMNS.partition(", ")[2]
    by_hand(town, f"INSERT INTO audit (id, {names}) SELECT 2, {names} FROM audit WHERE id = 9")
    with monkeypatch.context() as stopped:
        stopped.setattr("bessemer.store.audit._drop_some", lambda _: 0)
        await town.store.audit.trim(8, digest=rows[7]["digest"], writer=ALICE)
    await town.store.audit.trim(10, digest=rows[9]["digest"], writer=ALICE)
    assert [row["id"] for row in town.rows()][:2] == [2, 11]
    fault = await town.store.audit.verify()
    assert fault is not None
    assert fault.row == 2


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
