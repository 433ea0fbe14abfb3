"""What gateways hold of what is spent, all together; and what becomes of it where a spool is lost for good.

Invariant: what was held counts on: of a bound as used, within the period in which that is said; of a project's and a
tenant's month of money, which follows the ledger, as a hold of nobody that ends with the month.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import bindparam, delete, insert, select, update

from bessemer.core.bounds import METERS
from bessemer.core.errors import Conflict, NotFound
from bessemer.core.money import HOLD_SECONDS
from bessemer.core.ports import Writer
from bessemer.core.resource import Key
from bessemer.core.spools import ALIVE_SECONDS, Part, SpoolHold
from bessemer.store import audit
from bessemer.store.money import LOST
from bessemer.store.money import METER as MONEY
from bessemer.store.reader import Reader
from bessemer.store.schema import bounds, holds, levels, of, stated
from bessemer.store.transaction import Tx
from bessemer.store.writer import Committer

_MONEY = select(holds.c.holder, holds.c.project, holds.c.until, holds.c.micro, holds.c.tenant).where(
    holds.c.micro > 0, holds.c.number > LOST
)
_LEVELS = (
    select(stated.c.holder, stated.c.project, stated.c.until, levels.c.scope, levels.c.meter, levels.c.amount)
    .select_from(stated.join(levels, (levels.c.project == stated.c.project) & (levels.c.holder == stated.c.holder)))
    .order_by(levels.c.scope, levels.c.meter)
)
_MONEY_OF, _LEVELS_OF = _MONEY.where(of(holds.c.holder)), _LEVELS.where(of(stated.c.holder))
_DROP = tuple(delete(table).where(of(table.c.holder)) for table in (holds, levels, stated))
_KEEP = insert(holds)
_ROW = select(bounds.c.start, bounds.c.used).where(of(bounds.c.scope), of(bounds.c.meter))
_USE = (
    update(bounds)
    .values(start=bindparam("start"), used=bindparam("used"))
    .where(of(bounds.c.scope), of(bounds.c.meter))
)


class SpoolHoldTable:
    """Implements `core.spools.Spools`."""

    def __init__(self, committer: Committer, reader: Reader) -> None:
        self._committer = committer
        self._reader = reader

    async def standing(self) -> Sequence[SpoolHold]:
        """What is held, by gateway and project."""
        return _holds(await self._reader.rows(_MONEY), await self._reader.rows(_LEVELS))

    async def forget(self, holder: str, writer: Writer) -> Sequence[SpoolHold]:
        """Its spool is lost for good. Raises NotFound, Conflict."""
        return await self._committer.submit(lambda tx: _forget(tx, holder, writer=writer))


def _holds(
    money: Iterable[tuple[str, str, int, int, str]], held: Iterable[tuple[str, str, int, str, str, int]]
) -> list[SpoolHold]:
    heard: dict[tuple[str, str], int] = {}
    parts: dict[tuple[str, str], list[Part]] = {}
    for holder, project, until, micro, _ in money:
        heard[holder, project] = until - HOLD_SECONDS
        parts.setdefault((holder, project), []).append(Part(scope=f"project/{project}", meter=MONEY, amount=micro))
    for holder, project, until, scope, meter, amount in held:
        if meter in METERS and METERS[meter].way == "spent":
            heard[holder, project] = max(heard.get((holder, project), 0), until - HOLD_SECONDS)
            parts.setdefault((holder, project), []).append(Part(scope=scope, meter=meter, amount=amount))
    return [
        SpoolHold(holder=holder, project=project, heard_at=heard[holder, project], parts=mine)
        for (holder, project), mine in sorted(parts.items())
    ]


def _forget(tx: Tx, holder: str, *, writer: Writer) -> Sequence[SpoolHold]:
    now = int(tx.server_time)
    money, held = tx.all(_MONEY_OF, of_holder=holder), tx.all(_LEVELS_OF, of_holder=holder)
    found = _holds(money, held)
    if not found:
        raise NotFound(f"no gateway {holder[:63]!r} holds anything")
    silent = now - max(one.heard_at for one in found)
    if silent < ALIVE_SECONDS:
        raise Conflict(f"gateway {holder} was heard of {max(0, silent)} seconds ago: it has its spool")
    for statement in _DROP:
        tx.run(statement, of_holder=holder)
    ends = METERS["micro/month"].end(now)
    assert ends is not None
    for _, project, _, micro, tenant in money:
        # Of nobody: who has the name next begins anew.
        lost = f"lost/{holder}/{now}"
        tx.run(_KEEP, project=project, holder=lost, tenant=tenant, micro=micro, number=LOST, until=ends)
    for one in found:
        for part in one.parts:
            if part.meter in METERS:
                _use(tx, part, now=now)
    audit.append(tx, writer, verb="forget", key=Key("Spool", "", holder), uid="")
    return found


def _use(tx: Tx, part: Part, *, now: int) -> None:
    row = tx.one(_ROW, of_scope=part.scope, of_meter=part.meter)
    if row is None:
        return
    start = METERS[part.meter].start(now)
    used = part.amount + (row[1] if row[0] == start else 0)
    tx.run(_USE, of_scope=part.scope, of_meter=part.meter, start=start, used=used)
