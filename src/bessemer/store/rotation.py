"""Following a new key-encryption key: data keys are wrapped anew, a few at a time, while everything goes on.

Level, not edge: what is to be done is what is under another key than the current one, so a process that was killed, and
another beside it, go on where it stands; nothing says that a rotation is under way. Each write holds only where the row
is still as it was read. With ``values`` every value is sealed anew, too, under data keys that are younger than the
round: what somebody knows who had the old key and a copy of the database opens nothing that is here afterwards. Values
of releases before data keys are brought under one in any case.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from typing import Any

import structlog
from sqlalchemy import and_, bindparam, delete, insert, literal_column, or_, select, update
from sqlalchemy.sql.elements import ColumnElement

from bessemer.core.clock import Clock
from bessemer.core.errors import Unavailable
from bessemer.core.ports import SealedKeys
from bessemer.store.reader import Reader
from bessemer.store.schema import data_keys, of, sealed
from bessemer.store.transaction import Tx
from bessemer.store.vault import MAGIC, DataKey, Find, Vault, data_key_of
from bessemer.store.writer import Committer

log = structlog.get_logger(__name__)

BATCH = 20
"""So few that the event loop, in which they are opened, has its turn."""
HEADS = 500
"""Values that are counted between two turns for others."""
UNUSED_SECONDS = 86_400
"""A data key is dropped once nothing is under it and it seals no more anywhere."""

_HEAD: ColumnElement[bytes] = literal_column("substr(ciphertext, 1, 20)")
_KEYS = select(data_keys.c.id, data_keys.c.kek)
_DUE = (
    select(data_keys.c.id, data_keys.c.kek, data_keys.c.wrapped)
    .where(data_keys.c.kek != bindparam("current"), data_keys.c.id > bindparam("after"))
    .order_by(data_keys.c.id)
    .limit(bindparam("count"))
)
_REWRAP = (
    update(data_keys)
    .values(kek=bindparam("kek"), wrapped=bindparam("wrapped"))
    .where(of(data_keys.c.id), of(data_keys.c.kek))
)
_AFTER = or_(
    sealed.c.uid > bindparam("after_uid"),
    and_(sealed.c.uid == bindparam("after_uid"), sealed.c.field > bindparam("after_field")),
)
_ORDER = (sealed.c.uid, sealed.c.field)
_ROWS = select(*_ORDER, sealed.c.ciphertext).where(_AFTER).order_by(*_ORDER).limit(bindparam("count"))
_HEADED: tuple[ColumnElement[Any], ...] = (*_ORDER, _HEAD)
_HEADS = select(*_HEADED).where(_AFTER).order_by(*_ORDER).limit(bindparam("count"))
_RESEAL = (
    update(sealed)
    .values(ciphertext=bindparam("ciphertext"))
    .where(of(sealed.c.uid), of(sealed.c.field), of(sealed.c.ciphertext))
)
_KEY = select(data_keys.c.id).where(of(data_keys.c.id))
_KEEP_KEY = insert(data_keys)
_UNUSED = select(data_keys.c.id).where(data_keys.c.made < bindparam("before"))
_UNDER = select(sealed.c.uid).where(bindparam("head") == _HEAD).limit(1)
_DROP = delete(data_keys).where(of(data_keys.c.id))


class Rotation:
    """Of one store. Rounds of several processes may meet."""

    def __init__(self, committer: Committer, reader: Reader, *, vault: Vault, clock: Clock, find: Find) -> None:
        self._committer = committer
        self._reader = reader
        self._vault = vault
        self._clock = clock
        self._find = find
        self._prune_at = 0.0
        self._direct = True
        """Whether nobody has looked yet for values of a release before data keys."""

    async def state(self) -> SealedKeys:
        """How much is under which key. Raises Unavailable."""
        current = await self._vault.wrapping.current()
        keks = dict(await self._reader.ask(_KEYS))
        values: Counter[str] = Counter()
        for name, count in (await self._under()).items():
            values[keks.get(name, "lost") if name else ""] += count
        return SealedKeys(current=current, data_keys=Counter(keks.values()), values=values)

    async def _under(self) -> Counter[str]:
        """How many values are under each data key ("" for none), a few rows at a time: of a file, they are read in the
        event loop. What moves meanwhile counts where it was met."""
        found: Counter[str] = Counter()
        place = ("", "")
        while rows := await self._reader.ask(_HEADS, after_uid=place[0], after_field=place[1], count=HEADS):
            place = (rows[-1][0], rows[-1][1])
            found.update(data_key_of(bytes(head)) for _, _, head in rows)
            await asyncio.sleep(0)
        return found

    async def tidy(self) -> None:
        """One round, of what needs no asking. What cannot be done now is told, and tried again in the next."""
        try:
            await self.round(values=False, prune=self._clock.monotonic() >= self._prune_at)
        except Unavailable as error:
            log.warning("sealed values do not follow their key yet", error=error.message)

    async def round(self, *, values: bool, prune: bool = True) -> None:
        """All that is to be done now, batch after batch. Raises Unavailable, where the rest waits for somebody."""
        self._vault.forget()
        trouble = await self._rewrap(await self._vault.wrapping.current())
        if values or prune or self._direct:
            trouble = await self._reseal(values=values) or trouble
        if prune:
            await self._prune()
        if trouble is not None:
            raise trouble

    async def _rewrap(self, current: str) -> Unavailable | None:
        """Each data key that is under another key; one whose key is gone does not keep the others from it. What another
        machine has brought under the next key already stays there."""
        after, trouble, ahead = "", None, await self._vault.wrapping.ahead()
        while due := await self._reader.ask(_DUE, current=current, after=after, count=BATCH):
            after = due[-1][0]
            fresh: list[tuple[DataKey, str]] = []
            for row in due:
                if row[1] in ahead:
                    continue
                try:
                    fresh.append((await self._vault.rewrapped(DataKey(*row)), row[1]))
                except Unavailable as error:
                    trouble = error
            if fresh:
                await self._committer.submit(lambda tx, fresh=fresh: _rewrap(tx, fresh))  # type: ignore[misc]
        return trouble

    async def _reseal(self, *, values: bool) -> Unavailable | None:
        """Values of older releases; with ``values`` all that are there now, each once."""
        since = int(self._clock.now())
        old = {row[0] for row in await self._reader.ask(_UNUSED, before=since + 1)} if values else set()
        if values:
            await self._vault.turn()
        place, trouble = ("", ""), None
        while rows := await self._reader.ask(_ROWS, after_uid=place[0], after_field=place[1], count=BATCH):
            await asyncio.sleep(0)  # of a file, rows are read in the event loop
            place = (rows[-1][0], rows[-1][1])
            opened = []
            for uid, field, ciphertext in rows:
                if (name := data_key_of(ciphertext)) and name not in old:
                    continue
                try:
                    secret = await self._vault.open(ciphertext, self._find, uid=uid, field=field)
                    opened.append((uid, field, ciphertext, secret))
                except Unavailable as error:
                    trouble = error
            if opened:
                await self._vault.ready()
                await self._committer.submit(lambda tx, opened=opened: self._seal(tx, opened))  # type: ignore[misc]
        self._direct = False  # what cannot be opened is looked at again with the next prune, or when asked
        return trouble

    def _seal(self, tx: Tx, opened: Iterable[tuple[str, str, bytes, bytes]]) -> None:
        for uid, field, before, secret in opened:
            fresh, under = self._vault.seal(secret, uid=uid, field=field)
            keep_key(tx, under)
            tx.run(_RESEAL, of_uid=uid, of_field=field, of_ciphertext=before, ciphertext=fresh)

    async def _prune(self) -> None:
        """Drop data keys that nothing is under, which takes a look at each value: once a day, or when asked."""
        self._prune_at = self._clock.monotonic() + UNUSED_SECONDS
        used = await self._under()
        before = int(self._clock.now()) - UNUSED_SECONDS
        for (name,) in await self._reader.ask(_UNUSED, before=before):
            if name not in used:
                await self._committer.submit(lambda tx, name=name: _drop(tx, name), apart=True)  # type: ignore[misc]


def keep_key(tx: Tx, key: DataKey) -> None:
    """Keep a data key that values are about to be under, once."""
    if tx.one(_KEY, of_id=key.name) is None:
        tx.run(_KEEP_KEY, id=key.name, kek=key.kek, wrapped=key.wrapped, made=int(tx.now))


def _rewrap(tx: Tx, fresh: Iterable[tuple[DataKey, str]]) -> None:
    for kept, before in fresh:
        tx.run(_REWRAP, of_id=kept.name, of_kek=before, kek=kept.kek, wrapped=kept.wrapped)


def _drop(tx: Tx, name: str) -> None:
    """Unless a value has come under it meanwhile."""
    if tx.one(_UNDER, head=MAGIC + bytes.fromhex(name)) is None:
        tx.run(_DROP, of_id=name)
