"""What a transaction knows without asking, and which writes that were put off a question may meet."""

from __future__ import annotations

from sqlalchemy import bindparam, func, insert, select, update

from bessemer.store.known import Known, Later, touch
from bessemer.store.schema import dependents, of, quota

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
