"""The ledger of a project in a time, read a few rows at a time.

No read lasts longer than a page. Rows are final, so the highest id at the start bounds what is looked at; which claims
stood then is read in one view, since one that ends meanwhile would be neither among them nor among the closed. Claims
that were alive in the time are those that stand, and those that were closed in it or later and opened before its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from sqlalchemy import BindParameter, Select, bindparam, exists, func, or_, select, text

from bessemer.store.kinds import CLAIM
from bessemer.store.pool import SLICE
from bessemer.store.reader import Reader
from bessemer.store.schema import ledger, objects, of

_OPENING = ledger.alias("opening")
# Written out, not parameters: an index of some rows is used where the statement's own text says that it has them all.
_OF_A_CLAIM = text("ledger.claim_uid <> ''")
_AT_AN_END = text("opening.kind IN ('open', 'close')")

_UID: BindParameter[str] = bindparam("uid")
_END: BindParameter[int] = bindparam("end")
_TOP: BindParameter[int] = bindparam("top")
_MINE = ledger.c.project_uid == _UID
_OPENED = (_OPENING.c.kind == "open", _AT_AN_END)

_LAST = select(func.coalesce(func.max(ledger.c.id), 0))
_NAME = select(ledger.c.project).where(_MINE).limit(1)
_STANDING = select(objects.c.uid).where(
    of(objects.c.kind),
    of(objects.c.namespace),
    exists().where(
        _OPENING.c.claim_uid == objects.c.uid,
        *_OPENED,
        _OPENING.c.project_uid == _UID,
        _OPENING.c.at < _END,
    ),
)
"""Claims are in their project's namespace. One of an earlier project of the name is not of this one."""

_OPENED_AT = (
    select(_OPENING.c.at)
    .where(_OPENING.c.claim_uid == ledger.c.claim_uid, *_OPENED)
    .correlate(ledger)
    .scalar_subquery()
)
_CLAIM_ROWS = (
    select(ledger)
    .where(
        of(ledger.c.claim_uid),
        _OF_A_CLAIM,
        ledger.c.kind != "correction",
        ledger.c.at < _END,
        ledger.c.id <= _TOP,
    )
    .order_by(ledger.c.id)
)


def _page(rows: Select[Any], kind: str) -> Select[Any]:
    """The next of the project's rows of that kind, by time; ``rows`` begin with id and time."""
    at: BindParameter[int] = bindparam("at")
    return (
        rows.where(
            _MINE,
            ledger.c.kind == kind,
            ledger.c.at >= at,
            or_(ledger.c.at > at, ledger.c.id > bindparam("id")),
            ledger.c.id <= _TOP,
        )
        .order_by(ledger.c.at, ledger.c.id)
        .limit(bindparam("most"))
    )


_CORRECTIONS = _page(select(ledger), "correction")
_CLOSES = _page(select(ledger.c.id, ledger.c.at, ledger.c.claim_uid, _OPENED_AT), "close")
_TOKENS = _page(select(ledger), "tokens").where(ledger.c.at < _END)


class Period(NamedTuple):
    """``[start, end)`` of the project that has the uid."""

    uid: str
    start: int
    end: int


class Periods:
    """Reads what `ports.Ledger.window` promises."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def read(self, period: Period) -> AsyncIterator[Any]:
        """Rows as `ports.Ledger.window` orders them."""
        top, standing = await self._stood(period)
        bounds = {"uid": period.uid, "top": top}
        corrections = [row async for row in self._pages(_CORRECTIONS, bounds, start=0)]
        for row in sorted(corrections, key=lambda row: int(row[0])):  # the clock may have jumped between two of them
            yield row
        for index, claim in enumerate(standing):
            for row in await self._claim(claim, top=top, end=period.end):
                yield row
            if index % SLICE == SLICE - 1:
                await asyncio.sleep(0)
        async for _, _, claim, opened in self._pages(_CLOSES, bounds, start=period.start):
            if opened < period.end:
                for row in await self._claim(claim, top=top, end=period.end):
                    yield row
        async for row in self._pages(_TOKENS, {**bounds, "end": period.end}, start=period.start):
            yield row

    async def _stood(self, period: Period) -> tuple[int, list[str]]:
        """The ledger's last row, and the uids of the project's claims that stood when it was that."""
        async with self._reader.view() as view:
            ((top,),) = await view.rows(_LAST)
            named = await view.rows(_NAME, uid=period.uid)
            if not named:
                return int(top), []
            place = {"of_kind": CLAIM, "of_namespace": named[0][0], "uid": period.uid, "end": period.end}
            return int(top), [row[0] for row in await view.rows(_STANDING, **place)]

    async def _pages(self, statement: Select[Any], bounds: dict[str, Any], *, start: int) -> AsyncIterator[Any]:
        at, number = start, 0
        while True:
            page = await self._reader.ask(statement, **bounds, at=at, id=number, most=SLICE)
            for row in page:
                yield row
            if len(page) < SLICE:
                return
            number, at = page[-1][:2]
            await asyncio.sleep(0)

    async def _claim(self, uid: str, *, top: int, end: int) -> list[Any]:
        return await self._reader.ask(_CLAIM_ROWS, of_claim_uid=uid, top=top, end=end)
