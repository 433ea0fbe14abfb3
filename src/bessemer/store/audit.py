"""`ports.Audit`: who did what and what it changed, each row chained to the one before by SHA-256.

Rows of allowed writes stand in the write's own transaction. Status written by agents and controllers is observation,
not an act, and has no row. The last row of a group is handed on with its transaction, so that the chain costs no read.
`Trail.sign` signs the last row and tells that outside (`heads`); `TrailView.verify` finds what was changed, inserted,
taken out, cut off or computed anew, and says where.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import fields
from functools import partial
from typing import Any

import structlog
from sqlalchemy import bindparam, delete, insert, select

from bessemer.core import trail
from bessemer.core.clock import Clock
from bessemer.core.errors import Conflict
from bessemer.core.ports import AuditFilter, AuditRow, Writer
from bessemer.core.resource import Key
from bessemer.core.trail import Fault, Head, Verifier
from bessemer.store import heads, rules
from bessemer.store.difference import NOTHING
from bessemer.store.heads import HeadTable, Signing
from bessemer.store.known import Look
from bessemer.store.reader import Reader
from bessemer.store.schema import audit, counters, filled, of
from bessemer.store.transaction import COUNTER, SET_COUNTER, Tx
from bessemer.store.writer import Committer

log = structlog.get_logger(__name__)

_NAMES = tuple(field.name for field in fields(AuditRow))
_COLUMNS = tuple(audit.c[name] for name in _NAMES)
_HEAD = select(audit.c.id, audit.c.digest).order_by(audit.c.id.desc()).limit(1)
LOOK = Look(_HEAD, {})
"""What `append` asks."""
_ONE = select(audit.c.digest).where(of(audit.c.id))
_APPEND = insert(audit)
_ROWS = select(*_COLUMNS).where(audit.c.id > bindparam("after")).order_by(audit.c.id).limit(bindparam("count"))
_NEWEST = (
    select(*_COLUMNS).where(audit.c.id < bindparam("before")).order_by(audit.c.id.desc()).limit(bindparam("count"))
)
_NEWEST_OF = _NEWEST.where(of(audit.c.tenant), filled(audit.c.tenant))
_OLDEST = select(*_COLUMNS).order_by(audit.c.id).limit(1)
_FIRST = select(audit.c.id).where(audit.c.id > bindparam("floor")).order_by(audit.c.id).limit(1)
_DROP = delete(audit).where(audit.c.id > bindparam("floor"), audit.c.id <= bindparam("until"))
_SET_OUT = insert(counters)
_SLICE = 500
_DROP_AT_ONCE = 1000
_LOOKED_AT_MAX = 20_000
_LAST_ID = 1 << 62
BASE = "audit_base"
"""The counter up to which rows may be dropped: the triggers of `schema_versions` look at it."""
FLOOR = "audit_floor"
"""The counter up to which none was left when `BASE` was moved: what stands there now is not the trail's, and stays."""


class TrailView:
    """The trail for who only reads it, and verifies what was read."""

    def __init__(self, reader: Reader, *, signing: Signing) -> None:
        self._reader = reader
        self._heads = HeadTable(reader, signing)

    async def rows(self, *, after: int = 0, limit: int = 1000) -> Sequence[AuditRow]:
        """Rows in order."""
        return [_row(row) for row in await self._reader.ask(_ROWS, after=after, count=limit)]

    async def find(self, wanted: AuditFilter, *, before: int = 0, limit: int = 100) -> tuple[Sequence[AuditRow], int]:
        """See `ports.Audit.find`."""
        found: list[AuditRow] = []
        place, looked = before or _LAST_ID, 0
        statement, values = (_NEWEST_OF, {"of_tenant": wanted.tenant}) if wanted.tenant else (_NEWEST, {})
        while looked < _LOOKED_AT_MAX:
            rows = [_row(row) for row in await self._reader.ask(statement, before=place, count=_SLICE, **values)]
            found += (row for row in rows if fits(wanted, row))
            if len(found) >= limit:
                return found[:limit], found[limit - 1].id
            if len(rows) < _SLICE:
                return found, 0
            place = rows[-1].id
            looked += len(rows)
            await asyncio.sleep(0)
        return found, place

    async def verify(self) -> Fault | None:
        """The first place where the trail is not what it was, or None."""
        while True:
            begun, digest = await self._base()
            fault = await self._judged(Verifier(self._heads.trusted, after=begun, digest=digest))
            if fault is None or (await self._base())[0] == begun:
                return fault  # else some was archived meanwhile

    async def _judged(self, check: Verifier) -> Fault | None:
        # Heads first: each that is known by now is of a row that was there before it.
        last = await self._heads.last()
        newest = await self._reader.ask(_HEAD)
        until = max(newest[0][0] if newest else 0, last.id if last is not None else 0)
        async for said in self._everything(check.last, until):
            if fault := _checked(check, said):
                return fault
        return check.end()

    async def _stray(self) -> AuditRow | None:
        """The first of rows that stand before where the trail begins though nobody is dropping them."""
        while True:
            base, digest = await self._base()
            rows = await self._reader.ask(_OLDEST)
            if not rows or rows[0][0] > base or await self._dropping(base, digest):
                return None
            if (await self._base())[0] == base:
                return _row(rows[0])  # else it was another's to drop

    async def _dropping(self, base: int, digest: str) -> bool:
        """Whether rows up to the signed base are just being dropped, here or by another process: the base's own is the
        last to go."""
        counter = await self._reader.ask(COUNTER, of_name=BASE)
        if not base or not counter or counter[0][0] != base:
            return False
        if await _digest(self._reader, base) == digest:
            return True
        oldest = await self._reader.ask(_OLDEST)
        return not oldest or oldest[0][0] > base

    async def _base(self) -> tuple[int, str]:
        """The row before the trail's first and its digest; (0, "") where nothing was archived."""
        base = await self._heads.base()
        return (base.id, base.digest) if base is not None else (0, "")

    async def _everything(self, after: int, until: int) -> AsyncIterator[AuditRow | Head]:
        """What is the trail's, and first of all a row that stands before it begins, for no verifier takes that."""
        if (stray := await self._stray()) is not None:
            yield stray
        async for said in self._sayings(after, until):
            yield said

    async def _sayings(self, after: int, until: int) -> AsyncIterator[AuditRow | Head]:
        """Rows after one and up to another, each followed by its heads; last the heads of rows that are not there."""
        told = iter(await self._heads.beside(after))
        held: Head | None = next(told, None)

        def passed(limit: int) -> Iterator[Head]:
            nonlocal held
            while held is not None and held.id <= limit:
                yield held
                held = next(told, None)

        place = after
        while place < until:
            rows = [_row(row) for row in await self._reader.ask(_ROWS, after=place, count=_SLICE)]
            rows = [row for row in rows if row.id <= until]
            end = rows[-1].id if len(rows) == _SLICE else until
            signed = [*heads.merged(iter(await self._heads.within(place, end)), passed(end))]
            for said in _in_order(rows, signed):
                yield said
            place = end
            await asyncio.sleep(0)


class Trail(TrailView):
    """Implements `ports.Audit`."""

    def __init__(self, committer: Committer, reader: Reader, *, clock: Clock, signing: Signing) -> None:
        super().__init__(reader, signing=signing)
        self._committer = committer
        self._clock = clock
        self._signed: Head | None = None

    async def deny(self, writer: Writer, verb: str, key: Key, reason: str) -> None:
        """Note an act that was refused."""
        await self._committer.submit(lambda tx: refuse(tx, writer, verb=verb, key=key, reason=reason))

    async def note(self, writer: Writer, verb: str, *, key: Key, uid: str = "") -> None:
        """Note an act that writes no object of its own."""
        await self._committer.submit(lambda tx: append(tx, writer, verb=verb, key=key, uid=uid))

    async def sign(self) -> None:
        """Sign the last row where it is not signed yet. Raises Unavailable."""
        rows = await self._reader.ask(_HEAD)
        number, digest = rows[0] if rows else (0, "")
        last = self._signed or await self._heads.last()
        if last is not None and (number < last.id or await _digest(self._reader, last.id) not in ("", last.digest)):
            log.error("the trail is not what was signed of it: run bessemer audit verify", row=last.id)
        if number <= (last.id if last is not None else 0):
            return
        head = self._heads.signer.sign(Head(id=number, digest=digest, at=self._clock.now()))
        await self._committer.submit(lambda tx: heads.keep(tx, head))
        await heads.on_disk(partial(self._heads.tell, head))
        self._signed = head

    async def export(self, *, after: int = 0) -> AsyncIterator[bytes]:
        """See `ports.Audit.export`. Raises Conflict for a row that is not there."""
        await self.sign()
        last = await self._heads.last()
        begun, base = await self._base()
        if after > begun:
            digest = await _digest(self._reader, after)
            if not digest:
                raise Conflict(f"the trail has no row {after}")
        else:
            after, digest = begun, base
        yield trail.opening(self._heads.signer.public, after=after, digest=digest)
        parts: list[bytes] = []
        async for said in self._everything(after, last.id if last else 0):
            parts.append(trail.line(said))
            if len(parts) == _SLICE:
                yield b"".join(parts)
                parts.clear()
        yield b"".join(parts)

    async def trim(self, through: int, *, digest: str, writer: Writer) -> int:
        """See `ports.Audit.trim`. A row that stands before the trail begins keeps nobody from it."""
        begun, before_it = await self._base()
        if through <= begun:
            return 0
        check = Verifier(self._heads.trusted, after=begun, digest=before_it)
        async for said in self._sayings(begun, through):
            if fault := _checked(check, said):
                raise Conflict(f"nothing is dropped: {fault.words}")
        if check.last != through or await _digest(self._reader, through) != digest:
            raise Conflict(f"nothing is dropped: row {through} is not there, or has another digest")
        base = self._heads.signer.sign(Head(id=through, digest=digest, at=self._clock.now(), kind="base"))

        def write(tx: Tx) -> int:
            before: int = max(begun, (tx.one(COUNTER, of_name=BASE) or (0,))[0])
            if before >= through:
                return 0  # another has come first, who archived as much or more
            heads.keep(tx, base)
            if tx.one(_ONE, of_id=before) is None:  # else what was archived before is still being dropped
                _raise_floor(tx, before)
            tx.run(SET_COUNTER, of_name=BASE, value=through)
            append(tx, writer, verb="trim", key=Key("Trail", "", str(through)), uid="")
            return through - before

        went = await self._committer.submit(write)
        if went:
            await heads.on_disk(partial(self._heads.tell, base))
            await self.tidy()
        return went

    async def tidy(self) -> None:
        """Drop what was archived, some at a time; also what an earlier process left."""
        while await self._committer.submit(_drop_some, apart=True):
            pass
        await self._heads.tidy()


async def _digest(reader: Reader, number: int) -> str:
    """Of a row, or ""."""
    rows = await reader.ask(_ONE, of_id=number)
    return str(rows[0][0]) if rows else ""


def append(tx: Tx, writer: Writer, *, verb: str, key: Key, uid: str, change: str = NOTHING) -> None:
    """One row in the transaction of the act itself. ``change`` is of `difference`."""
    _write(tx, writer, act=(verb, str(key), uid, True, ""), change=change)


def refuse(tx: Tx, writer: Writer, *, verb: str, key: Key, reason: str) -> None:
    """One row of what was not done."""
    _write(tx, writer, act=(verb, str(key), "", False, reason), change=NOTHING)


def fits(wanted: AuditFilter, row: AuditRow) -> bool:
    """Whether a row is one of those."""
    kind, namespace, name = trail.read_key(row.key)
    who = row.writer.partition(":")[2]
    return not (
        (wanted.who and wanted.who not in (row.writer, who))
        or (wanted.verb and wanted.verb != row.verb)
        or (wanted.kind and wanted.kind != kind)
        or (wanted.namespace and wanted.namespace != namespace)
        or (wanted.name and wanted.name != name)
        or (wanted.allowed is not None and wanted.allowed != row.allowed)
        or row.at < wanted.since
        or (wanted.until is not None and row.at >= wanted.until)
    )


def _write(tx: Tx, writer: Writer, *, act: tuple[str, str, str, bool, str], change: str) -> None:
    """Every write comes by here: it makes no value but what is hashed and kept."""
    last, before = tx.trail or _last(tx)
    said = [last + 1, float(tx.now), rules.name(writer), *act, writer.request_id, writer.source]
    digest = trail.digest_of(before, said, change=change)
    values = dict(zip(_NAMES, (*said, digest, trail.tenant_of_key(act[1]), change), strict=True))
    values["allowed"] = int(act[3])
    tx.add(_APPEND, **values)
    tx.trail = (last + 1, digest)


def _last(tx: Tx) -> tuple[int, str]:
    """Number and digest of the last row, (0, "") where there is none."""
    for number, digest in tx.look(_HEAD):
        return number, digest
    return 0, ""


def _drop_some(tx: Tx) -> int:
    base, floor = tx.one(COUNTER, of_name=BASE), (tx.one(COUNTER, of_name=FLOOR) or (0,))[0]
    first = tx.one(_FIRST, floor=floor)
    if not base or not base[0] or first is None or first[0] > base[0]:
        return 0
    if tx.one(_ONE, of_id=base[0]) is None:
        return 0  # the base's own goes last: what stands before it now was put there, and is left to be found
    heads.drop(tx, before=base[0])
    return tx.run(_DROP, floor=floor, until=min(base[0], first[0] + _DROP_AT_ONCE - 1))


def _raise_floor(tx: Tx, floor: int) -> None:
    if not tx.run(SET_COUNTER, of_name=FLOOR, value=floor):
        tx.run(_SET_OUT, name=FLOOR, value=floor)


def _checked(check: Verifier, said: AuditRow | Head) -> Fault | None:
    return check.head(said) if isinstance(said, Head) else check.row(said)


def _in_order(rows: list[AuditRow], signed: list[Head]) -> Iterator[AuditRow | Head]:
    """Heads after their rows."""
    place = 0
    for row in rows:
        while place < len(signed) and signed[place].id < row.id:
            yield signed[place]
            place += 1
        yield row
    yield from signed[place:]


def _row(row: Any) -> AuditRow:
    values = dict(zip(_NAMES, row, strict=True))
    values["allowed"] = bool(values["allowed"])
    return AuditRow(**values)
