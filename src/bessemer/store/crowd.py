"""How many of a kind a project holds, where that is bounded: what costs nothing would else be made without end.

The bound is looked at where writers stand in line, so it holds. Of Events the oldest gives way, as they are told and
not kept; everything else is refused.
"""

from __future__ import annotations

from sqlalchemy import func, select

from bessemer.core.errors import Forbidden
from bessemer.core.resource import Key
from bessemer.store.kinds import EVENT
from bessemer.store.rows import ROWS, Row, remove
from bessemer.store.schema import objects, of
from bessemer.store.transaction import Tx

_HERE = (of(objects.c.kind), of(objects.c.namespace))
_COUNT = select(func.count()).select_from(objects).where(*_HERE)
_OLDEST = ROWS.where(*_HERE).order_by(objects.c.revision).limit(1)


def make_room(tx: Tx, key: Key, *, most: int) -> None:
    """For one object more. Raises Forbidden where the project holds ``most`` of the kind."""
    here = {"of_kind": key.kind, "of_namespace": key.namespace}
    if tx.one(_COUNT, **here)[0] < most:
        return
    if key.kind != EVENT:
        raise Forbidden(
            f"project {key.namespace} holds {most} of {key.kind}, which is as many as may be; delete some first"
        )
    remove(tx, Row.of(tx.one(_OLDEST, **here)))
