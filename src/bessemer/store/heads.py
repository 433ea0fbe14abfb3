"""Signed heads of the trail: in a table, in a file beside the database, and in the log.

Invariants: a head is signed of a row that is committed; the table may lose heads to whoever writes there by hand, the
file has them still. It decides nothing about the chain: see `core.trail.Verifier`.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TypeVar

import orjson
import structlog
from sqlalchemy import bindparam, delete, insert, select

from bessemer.core.errors import Unavailable
from bessemer.core.trail import Head, Signer, head_of, line
from bessemer.store.reader import Reader
from bessemer.store.schema import audit_heads, of
from bessemer.store.transaction import Tx

log = structlog.get_logger(__name__)

T = TypeVar("T")

_NAMES = ("id", "digest", "at", "kind", "key", "signature")
_COLUMNS = tuple(audit_heads.c[name] for name in _NAMES)
_INSERT = insert(audit_heads)
_THIS = select(audit_heads.c.id).where(of(audit_heads.c.kind), of(audit_heads.c.id))
_WITHIN = (
    select(*_COLUMNS)
    .where(audit_heads.c.id > bindparam("after"), audit_heads.c.id <= bindparam("until"))
    .order_by(audit_heads.c.id, audit_heads.c.kind)
)
_LAST = select(*_COLUMNS).where(of(audit_heads.c.kind)).order_by(audit_heads.c.id.desc()).limit(1)
_DROP = delete(audit_heads).where(audit_heads.c.id < bindparam("base"))


@dataclass(frozen=True, slots=True)
class Signing:
    """With which key heads are signed, and in which file they are kept outside the database; None keeps none."""

    key: bytes
    file: Path | None = None


def derived(seal_key: bytes) -> bytes:
    """A signing key for a store that was given none of its own."""
    return hashlib.sha256(b"bessemer audit v1" + seal_key).digest()


class HeadTable:
    """Heads as they are kept. Those of the file are read as they were written, by whomever."""

    def __init__(self, reader: Reader, signing: Signing) -> None:
        self._reader = reader
        self._file = signing.file
        self._lock = threading.Lock()
        """One changes the file at a time: a head that is told while others are left out must not go with them."""
        self.signer = Signer(signing.key)
        self.trusted = frozenset([self.signer.public])

    async def last(self) -> Head | None:
        """The newest of table and file that is signed as it should be. Raises Unavailable."""
        rows = await self._reader.ask(_LAST, of_kind="head")
        told = await on_disk(lambda: max(self.told(), key=_number, default=None))
        return self._newest([*map(_head, rows), *([told] if told else [])])

    async def base(self) -> Head | None:
        """Up to where rows were archived: the newest that is signed as it should be. Raises Unavailable."""
        rows = await self._reader.ask(_LAST, of_kind="base")
        told = await on_disk(lambda: [head for head in self.told() if head.kind == "base"])
        return self._newest([*map(_head, rows), *told])

    def _newest(self, heads: Iterable[Head]) -> Head | None:
        good = (head for head in heads if head.key in self.trusted and head.good())
        return max(good, key=_number, default=None)

    async def within(self, after: int, until: int) -> list[Head]:
        """Those of the table, in order."""
        return [_head(row) for row in await self._reader.ask(_WITHIN, after=after, until=until)]

    async def beside(self, after: int) -> list[Head]:
        """Those of the file of rows after one, in order. Raises Unavailable."""
        return await on_disk(lambda: [head for head in self.told() if head.id > after])

    async def tidy(self) -> None:
        """Leave out of the file what was archived, whoever dropped it: others may trim what this process tells. Raises
        Unavailable."""
        first = await on_disk(lambda: next(self.told(), None))
        rows = await self._reader.ask(_LAST, of_kind="base") if first is not None else ()
        base = self._newest(map(_head, rows))
        if first is not None and base is not None and first.id < base.id:
            await on_disk(partial(self.forget, base))

    def told(self) -> Iterator[Head]:
        """Those of the file, in order. What is no head there is left out: its neighbours say enough. Raises OSError."""
        if self._file is None or not self._file.exists():
            return
        with self._file.open("rb") as lines:
            for said in lines:
                try:
                    yield head_of(orjson.loads(said)["head"])
                except (KeyError, TypeError, ValueError):
                    continue

    def tell(self, head: Head) -> None:
        """Write a head to file and log; on the disk when this returns. Raises OSError."""
        log.info("audit head", **asdict(head))
        if self._file is None:
            return
        with self._lock:
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, line(head))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def forget(self, base: Head) -> None:
        """Let the file begin with ``base``: what was before is in the archive. Raises OSError."""
        if self._file is None:
            return
        with self._lock:
            later = (head for head in self.told() if head.id >= base.id and head != base)
            fresh = self._file.with_suffix(".new")
            fresh.write_bytes(b"".join(map(line, (base, *later))))
            fresh.chmod(0o600)
            fresh.replace(self._file)


async def on_disk(work: Callable[[], T]) -> T:
    """In a thread, for files may be long, and disks slow. Raises Unavailable."""
    try:
        return await asyncio.to_thread(work)
    except OSError as error:
        raise Unavailable(
            "heads of the trail cannot be read or written beside the database", internal=str(error)
        ) from error


def keep(tx: Tx, head: Head) -> None:
    """Keep a head, once."""
    if tx.one(_THIS, of_kind=head.kind, of_id=head.id) is None:
        tx.run(_INSERT, **asdict(head))


def drop(tx: Tx, *, before: int) -> None:
    """Forget those of rows that were archived."""
    tx.run(_DROP, base=before)


def merged(*sources: Iterator[Head]) -> Iterator[Head]:
    """All of them in order of their rows, each once."""
    every = heapq.merge(*sources, key=lambda head: (head.id, head.kind, head.digest))
    return (head for head, _ in groupby(every))


def _number(head: Head) -> int:
    return head.id


def _head(row: tuple[int, str, float, str, str, str]) -> Head:
    return head_of(dict(zip(_NAMES, row, strict=True)))
