"""`ports.Audit`: who did what, each row chained to the one before by SHA-256.

Rows of allowed writes stand in the write's own transaction. Status written by agents and controllers is observation,
not an act, and has no row. `Trail.verify` finds the first row that was changed, inserted or taken out.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import bindparam, insert, select

from bessemer.core.ports import AuditRow, Writer
from bessemer.core.resource import Key
from bessemer.store import rules
from bessemer.store.reader import Reader
from bessemer.store.schema import audit
from bessemer.store.transaction import Tx
from bessemer.store.writer import Committer

_HEAD = select(audit.c.id, audit.c.digest).order_by(audit.c.id.desc()).limit(1)
_APPEND = insert(audit)
_ROWS = select(audit).where(audit.c.id > bindparam("after")).order_by(audit.c.id).limit(bindparam("count"))
_SLICE = 500


class Trail:
    """Implements `ports.Audit`."""

    def __init__(self, committer: Committer, reader: Reader) -> None:
        self._committer = committer
        self._reader = reader

    async def deny(self, writer: Writer, verb: str, key: Key, reason: str) -> None:
        """Note an act that was refused."""
        await self._committer.submit(lambda tx: append(tx, writer, verb=verb, key=key, uid="", refused=reason))

    async def note(self, writer: Writer, verb: str, *, key: Key, uid: str = "") -> None:
        """Note an act that writes no object of its own."""
        await self._committer.submit(lambda tx: append(tx, writer, verb=verb, key=key, uid=uid))

    async def rows(self, *, after: int = 0, limit: int = 1000) -> Sequence[AuditRow]:
        """Rows in order."""
        return [_row(row) for row in await self._reader.ask(_ROWS, after=after, count=limit)]

    async def verify(self) -> int | None:
        """The id of the first row that does not fit its chain, or None."""
        last, digest = 0, ""
        while rows := await self.rows(after=last, limit=_SLICE):
            for row in rows:
                if row.id != last + 1 or row.digest != _digest(digest, row):
                    return row.id
                last, digest = row.id, row.digest
            await asyncio.sleep(0)
        return None


def append(tx: Tx, writer: Writer, *, verb: str, key: Key, uid: str, refused: str | None = None) -> None:
    """One row in the transaction of the act itself."""
    head = tx.one(_HEAD)
    last, digest = head if head is not None else (0, "")
    row = AuditRow(
        id=last + 1,
        at=tx.now,
        writer=rules.name(writer),
        verb=verb,
        key=str(key),
        uid=uid,
        allowed=refused is None,
        reason=refused or "",
        request_id=writer.request_id,
        source=writer.source,
        digest="",
    )
    tx.run(_APPEND, **{**_values(row), "allowed": int(row.allowed), "digest": _digest(digest, row)})


def _values(row: AuditRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in AuditRow.__dataclass_fields__}


def _digest(before: str, row: AuditRow) -> str:
    fields = [value for name, value in _values(row).items() if name != "digest"]
    return hashlib.sha256(orjson.dumps([before, *fields])).hexdigest()


def _row(row: Any) -> AuditRow:
    values = dict(zip(AuditRow.__dataclass_fields__, row, strict=True))
    values["allowed"] = bool(values["allowed"])
    return AuditRow(**values)
