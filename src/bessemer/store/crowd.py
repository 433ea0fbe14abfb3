"""How many of a kind a project holds, where that is bounded: what costs nothing would else be made without end.

The bound is looked at where writers stand in line, so it holds. Of Events the oldest gives way, as they are told and
not kept; everything else is refused.
"""

from __future__ import annotations

from sqlalchemy import func, select

from bessemer.core.errors import Forbidden
from bessemer.core.resource import Key
from bessemer.store.kinds import EVENT
from bessemer.store.known import Look
from bessemer.store.rows import ROWS, Row, remove
from bessemer.store.schema import objects, of
from bessemer.store.transaction import Tx

_HERE = (of(objects.c.kind), of(objects.c.namespace))
_COUNT = select(func.count()).select_from(objects).where(*_HERE)
_OLDEST = ROWS.where(*_HERE).order_by(objects.c.revision).limit(1)


def look(key: Key) -> Look:
    """What `make_room` asks where there is room."""
    return Look(_COUNT, _here(key))


def _here(key: Key) -> dict[str, str]:
    return {"of_kind": key.kind, "of_namespace": key.namespace}


def make_room(tx: Tx, key: Key, *, most: int) -> int:
    """For one object more; answers how many there will be with it. Raises Forbidden where the project holds ``most`` of
    the kind."""
    here = _here(key)
    count: int = tx.look(_COUNT, **here)[0][0]
    if count < most:
        return count + 1
    if key.kind != EVENT:
        raise Forbidden(
            f"project {key.namespace} holds {most} of {key.kind}, which is as many as may be; delete some first"
        )
    remove(tx, Row.of(tx.one(_OLDEST, **here)))
    return count


def filled(tx: Tx, key: Key, *, count: int) -> None:
    """It has been made, and that is how many there are."""
    tx.known.set(_COUNT, _here(key), rows=[(count,)])
