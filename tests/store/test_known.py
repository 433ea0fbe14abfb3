"""What a transaction knows without asking, and which writes that were put off a question may meet."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import bindparam, func, insert, select, update

from bessemer.core.errors import Conflict, Unavailable
from bessemer.store import Store
from bessemer.store.folding import FoldingSession
from bessemer.store.known import CARRIED_BYTES_MAX, CARRIED_MAX, Known, Later, touch
from bessemer.store.rows import LOAD, find, save
from bessemer.store.schema import dependents, of, quota
from bessemer.store.transaction import Tx
from tests.store.make import ALICE, body, read

OWNED = insert(dependents)
OF_OWNER = select(func.count()).select_from(dependents).where(of(dependents.c.owner))
OF_UID = select(dependents.c.owner).where(of(dependents.c.uid))
EVERY = select(dependents.c.owner)
DISOWN = dependents.delete().where(of(dependents.c.uid))
PLACE = (of(quota.c.scope), of(quota.c.meter))
USED = select(quota.c.used).where(*PLACE)
OF_SCOPE = select(quota.c.meter, quota.c.used).where(of(quota.c.scope))
USE = update(quota).values(used=bindparam("used")).where(*PLACE)


def test_a_question_about_other_rows_meets_nothing_that_was_put_off() -> None:
    later = Later()
    later.add(OWNED, {"owner": "one", "uid": "a", "blocks": 0})
    assert later.met(OF_OWNER, {"of_owner": "one"})
    assert not later.met(OF_OWNER, {"of_owner": "other"})
    assert later.met(OF_UID, {"of_uid": "a"})
    assert not later.met(OF_UID, {"of_uid": "b"})
    assert later.met(EVERY, {}), "it asks for every row"


def test_a_write_that_does_not_say_whose_row_it_is_is_met_by_all() -> None:
    later = Later()
    later.add(DISOWN, {"of_uid": "a"})
    assert later.met(OF_OWNER, {"of_owner": "one"}), "whose owner it was is not known"
    assert not later.met(OF_UID, {"of_uid": "b"})


def test_what_is_cut_off_is_not_met_any_more_and_what_comes_after_it_is() -> None:
    later = Later()
    later.add(OWNED, {"owner": "one", "uid": "a", "blocks": 0})
    later.add(OWNED, {"owner": "other", "uid": "b", "blocks": 0})
    assert later.met(OF_OWNER, {"of_owner": "other"})
    later.cut(1)
    assert not later.met(OF_OWNER, {"of_owner": "other"})
    later.add(OWNED, {"owner": "third", "uid": "c", "blocks": 0})
    assert later.met(OF_OWNER, {"of_owner": "third"})
    assert later.met(OF_OWNER, {"of_owner": "one"})


def test_a_row_that_is_written_is_known_no_more_and_others_are() -> None:
    known = Known()
    one, other = {"of_scope": "s", "of_meter": "m"}, {"of_scope": "s", "of_meter": "n"}
    known.set(USED, one, rows=[(1,)])
    known.set(USED, other, rows=[(2,)])
    known.set(OF_SCOPE, {"of_scope": "s"}, rows=[("m", 1), ("n", 2)])
    known.set(OF_SCOPE, {"of_scope": "t"}, rows=[])
    mark = known.mark()
    known.forget(USE, {**one, "used": 3})
    assert known.get(USED, one) is None
    assert known.get(USED, other) == [(2,)]
    assert known.get(OF_SCOPE, {"of_scope": "s"}) is None
    assert known.get(OF_SCOPE, {"of_scope": "t"}) == []
    known.back(mark)
    assert known.get(USED, one) == [(1,)]
    assert known.get(OF_SCOPE, {"of_scope": "s"}) == [("m", 1), ("n", 2)]


def test_the_row_of_a_statement_is_its_primary_key() -> None:
    assert touch(USE).row({"of_scope": "s", "of_meter": "m", "used": 1}) == ("s", "m")
    assert touch(OF_SCOPE).row({"of_scope": "s"}) == ()


# --- from one transaction to the next -------------------------------------------------------------------------------


@pytest.fixture
def asked(file_store: Store, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The objects that are asked for by those who write."""
    names: list[str] = []
    execute = FoldingSession.execute

    def heard(session: FoldingSession, statement: Any, values: Mapping[str, Any]) -> Any:
        if statement is LOAD:
            names.append(values["of_name"])
        return execute(session, statement, values)

    monkeypatch.setattr(FoldingSession, "execute", heard)
    return names


async def test_what_was_committed_is_known_to_the_next(file_store: Store, asked: list[str]) -> None:
    stored = await file_store.objects.create(body("Thing", "a"), ALICE)
    asked.clear()
    for size in range(3):
        stored = await file_store.objects.replace(read(stored) | {"spec": {"size": size}}, ALICE)
    assert read(stored)["spec"] == {"size": 2}
    assert not asked


async def test_what_was_not_committed_is_known_to_nobody(file_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    objects, session = file_store.objects, file_store._committer._session
    stored = await objects.create(body("Thing", "a"), ALICE)
    with monkeypatch.context() as broken:
        broken.setattr(session, "commit", lambda *left: (_ for _ in ()).throw(sqlite3.OperationalError("disk I/O")))
        with pytest.raises(Unavailable):
            await objects.replace(read(stored) | {"spec": {"size": 9}}, ALICE)
    written = await objects.replace(read(stored) | {"spec": {"size": 2}}, ALICE)
    assert written.revision == stored.revision + 1
    assert read(written)["spec"] == {"size": 2}


async def test_what_is_refused_by_itself_leaves_nothing_known(file_store: Store) -> None:
    objects = file_store.objects
    first = await objects.create(body("Thing", "a"), ALICE)

    def lost(tx: Tx) -> None:
        save(tx, {**read(first), "spec": {"size": 9}}, before=find(tx, first.key))
        raise Conflict("not this one")

    with pytest.raises(Conflict):
        await file_store._committer.submit(lost)
    written = await objects.replace(read(first) | {"spec": {"size": 2}}, ALICE)
    assert (written.revision, read(written)["spec"]) == (first.revision + 1, {"size": 2})


async def test_what_another_connection_wrote_is_asked_for(file_store: Store, tmp_path: Path, asked: list[str]) -> None:
    objects = file_store.objects
    stored = await objects.create(body("Thing", "a"), ALICE)
    other = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    other.execute("UPDATE objects SET uid = 'another' WHERE name = 'a'")
    other.close()
    asked.clear()
    with pytest.raises(Conflict, match="another object now"):
        await objects.replace(read(stored) | {"spec": {"size": 2}}, ALICE)
    assert asked == ["a"]


def test_little_is_known_to_the_next_and_nothing_that_a_write_would_look_through() -> None:
    known = Known()
    for number in range(17):
        known.set(OF_SCOPE, {"of_scope": f"s{number}"}, rows=[])
        known.set(USED, {"of_scope": f"s{number}", "of_meter": "m"}, rows=[(number,)])
    known.go_on()
    assert known.get(OF_SCOPE, {"of_scope": "s1"}) is None
    assert known.get(USED, {"of_scope": "s1", "of_meter": "m"}) == [(1,)]
    known.set(USED, {"of_scope": "large", "of_meter": "m"}, rows=[(b" " * (CARRIED_BYTES_MAX + 1),)])
    known.go_on()
    assert known.get(USED, {"of_scope": "s1", "of_meter": "m"}) is None
    for number in range(CARRIED_MAX + 1):
        known.set(USED, {"of_scope": f"s{number}", "of_meter": "m"}, rows=[(number,)])
    known.go_on()
    assert known.get(USED, {"of_scope": "s1", "of_meter": "m"}) is None
