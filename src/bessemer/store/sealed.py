"""`ports.Sealed`: secrets by object and field, sealed by the vault that was handed in.

Invariants: a secret stands in no body and no change; its row goes with its object; a data key is kept, wrapped, before
or with the first value that is under it. Whoever writes an object and its secret at once calls `keep` in the object's
own transaction, after `Vault.ready`. What follows a new key-encryption key is `rotation`'s.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import bindparam, delete, insert, select, update

from bessemer.core.clock import Clock
from bessemer.core.errors import NotFound
from bessemer.core.ports import SealedKeys
from bessemer.store.reader import Reader
from bessemer.store.rotation import Rotation, keep_key
from bessemer.store.rows import exists
from bessemer.store.schema import data_keys, of, sealed
from bessemer.store.transaction import Tx
from bessemer.store.vault import DataKey, Vault
from bessemer.store.writer import Committer

_THIS = (of(sealed.c.uid), of(sealed.c.field))
_READ = select(sealed.c.ciphertext).where(*_THIS)
_INSERT = insert(sealed)
_UPDATE = update(sealed).values(ciphertext=bindparam("ciphertext")).where(*_THIS)
_CLEAR = delete(sealed).where(_THIS[0])
_KEY = select(data_keys.c.id, data_keys.c.kek, data_keys.c.wrapped).where(of(data_keys.c.id))


class SealedTable:
    """Implements `ports.Sealed`."""

    def __init__(self, committer: Committer, reader: Reader, *, vault: Vault, clock: Clock) -> None:
        self._committer = committer
        self._reader = reader
        self.vault = vault
        self._rotation = Rotation(committer, reader, vault=vault, clock=clock, find=self._find)

    async def put(self, uid: str, field: str, secret: bytes) -> None:
        """Keep a secret for an object that exists. Raises NotFound, Unavailable."""
        await self.vault.ready()
        await self._committer.submit(lambda tx: keep(tx, self.vault, uid=uid, field=field, secret=secret))

    async def get(self, uid: str, field: str) -> bytes | None:
        """The secret, or None. Raises Unavailable where it cannot be opened."""
        rows = await self._reader.ask(_READ, of_uid=uid, of_field=field)
        return await self.vault.open(rows[0][0], self._find, uid=uid, field=field) if rows else None

    async def keys(self) -> SealedKeys:
        """How much is under which key."""
        return await self._rotation.state()

    async def rotate(self, *, values: bool = False) -> SealedKeys:
        """See `ports.Sealed.rotate`."""
        await self._rotation.round(values=values)
        return await self._rotation.state()

    async def tidy(self) -> None:
        """What is to be done without being asked: follow a new key, and bring values of older releases under one."""
        await self._rotation.tidy()

    async def _find(self, name: str) -> DataKey | None:
        rows = await self._reader.ask(_KEY, of_id=name)
        return DataKey(*rows[0]) if rows else None


def reseal(tx: Tx, vault: Vault, *, uid: str, values: Mapping[str, bytes]) -> None:
    """Let these be the object's sealed values, by field, and no others. Raises NotFound, Unavailable."""
    tx.run(_CLEAR, of_uid=uid)
    for field, secret in values.items():
        keep(tx, vault, uid=uid, field=field, secret=secret)


def keep(tx: Tx, vault: Vault, *, uid: str, field: str, secret: bytes) -> None:
    """Keep a secret for an object that exists, in place of the one before. Raises NotFound, Unavailable."""
    if not exists(tx, uid):
        raise NotFound("the object that the secret is for does not exist")
    ciphertext, under = vault.seal(secret, uid=uid, field=field)
    keep_key(tx, under)
    if not tx.run(_UPDATE, of_uid=uid, of_field=field, ciphertext=ciphertext):
        tx.run(_INSERT, uid=uid, field=field, ciphertext=ciphertext)
