"""The ledger of a project or a tenant in a time, read a few rows at a time.

No read lasts longer than a page, and none holds a snapshot: rows are final, so the highest id at the start bounds what
is looked at. Claims that were alive in the time are those that stand, and those that were closed in it or later.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple

from sqlalchemy import Column, Select, bindparam, exists, func, or_, select, text

from bessemer.store.kinds import CLAIM
from bessemer.store.reader import SLICE, Reader
from bessemer.store.schema import ledger, objects, of

_TOP = select(func.coalesce(func.max(ledger.c.id), 0))
# Written out, not parameters: an index of some rows is used where the statement's own text says that it has them all.
_OF_A_CLAIM = text("ledger.claim_uid <> ''")
_AT_AN_END = text("ledger.kind IN ('open', 'close')")

_CLAIM_ROWS = (
    select(ledger)
    .where(
        of(ledger.c.claim_uid),
        _OF_A_CLAIM,
        ledger.c.kind != "correction",
        ledger.c.at < bindparam("end"),
        ledger.c.id <= bindparam("top"),
    )
    .order_by(ledger.c.id)
)
_CLAIM_UID = list(ledger.c).index(ledger.c.claim_uid)
_AT = list(ledger.c).index(ledger.c.at)


class Period(NamedTuple):
    """``[start, end)`` of whoever has the uid."""

    uid: str
    start: int
    end: int


class Periods:
    """Reads by ``owner``: the ledger's column that says whose a row is."""

    def __init__(self, reader: Reader, owner: Column[str]) -> None:
        self._reader = reader
        mine = owner == bindparam("uid")
        opened = exists().where(
            ledger.c.claim_uid == objects.c.uid,
            ledger.c.kind == "open",
            _AT_AN_END,
            mine,
            ledger.c.at < bindparam("end"),
        )
        self._standing = select(objects.c.uid).where(of(objects.c.kind), opened)
        self._corrections, self._closes, tokens = (
            select(ledger)
            .where(
                mine,
                ledger.c.kind == kind,
                ledger.c.at >= bindparam("at"),
                or_(ledger.c.at > bindparam("at"), ledger.c.id > bindparam("id")),
                ledger.c.id <= bindparam("top"),
            )
            .order_by(ledger.c.at, ledger.c.id)
            .limit(SLICE)
            for kind in ("correction", "close", "tokens")
        )
        self._tokens = tokens.where(ledger.c.at < bindparam("end"))

    async def read(self, period: Period) -> AsyncIterator[Any]:
        """Rows as `ports.Ledger.window` orders them."""
        session = self._reader.session
        with session.snapshot():
            top = session.execute(_TOP, {}).fetchone()[0]
            values = {"uid": period.uid, "end": period.end, "of_kind": CLAIM}
            standing = [row[0] for row in session.execute(self._standing, values)]
        bounds = {"uid": period.uid, "top": top}
        corrections = [row async for row in self._pages(self._corrections, bounds, start=0)]
        for row in sorted(corrections, key=lambda row: int(row[0])):  # the clock may have jumped between two of them
            yield row
        for index, claim in enumerate(standing):
            for row in self._claim(claim, top=top, end=period.end):
                yield row
            if index % SLICE == SLICE - 1:
                await asyncio.sleep(0)
        async for close in self._pages(self._closes, bounds, start=period.start):
            for row in self._claim(close[_CLAIM_UID], top=top, end=period.end):
                yield row
        async for row in self._pages(self._tokens, {**bounds, "end": period.end}, start=period.start):
            yield row

    async def _pages(self, statement: Select[Any], bounds: dict[str, Any], *, start: int) -> AsyncIterator[Any]:
        at, number = start, 0
        while True:
            page = self._reader.session.execute(statement, {**bounds, "at": at, "id": number}).fetchall()
            for row in page:
                yield row
            if len(page) < SLICE:
                return
            at, number = page[-1][_AT], page[-1][0]
            await asyncio.sleep(0)

    def _claim(self, uid: str, *, top: int, end: int) -> Iterator[Any]:
        yield from self._reader.session.execute(_CLAIM_ROWS, {"of_claim_uid": uid, "top": top, "end": end}).fetchall()
