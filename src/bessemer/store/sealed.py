"""`ports.Sealed`: secrets by object and field, sealed by the vault that was handed in.

Invariants: a secret stands in no body and no change; its row goes with its object. Whoever writes an object and its
secret at once calls `keep` in the object's own transaction, after `Vault.ready`.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import bindparam, delete, insert, select, update

from bessemer.core.errors import NotFound
from bessemer.store.reader import Reader
from bessemer.store.rows import exists
from bessemer.store.schema import of, sealed
from bessemer.store.transaction import Tx
from bessemer.store.vault import Vault
from bessemer.store.writer import Committer

_THIS = (of(sealed.c.uid), of(sealed.c.field))
_READ = select(sealed.c.ciphertext).where(*_THIS)
_INSERT = insert(sealed)
_UPDATE = update(sealed).values(ciphertext=bindparam("ciphertext")).where(*_THIS)
_CLEAR = delete(sealed).where(_THIS[0])


class SealedTable:
    """Implements `ports.Sealed`."""

    def __init__(self, committer: Committer, reader: Reader, *, vault: Vault) -> None:
        self._committer = committer
        self._reader = reader
        self._vault = vault

    async def put(self, uid: str, field: str, secret: bytes) -> None:
        """Keep a secret for an object that exists. Raises NotFound, Unavailable."""
        await self._vault.ready()
        await self._committer.submit(lambda tx: keep(tx, self._vault, uid=uid, field=field, secret=secret))

    async def get(self, uid: str, field: str) -> bytes | None:
        """The secret, or None. Raises Unavailable where it cannot be opened."""
        rows = await self._reader.ask(_READ, of_uid=uid, of_field=field)
        return await self._vault.open(rows[0][0], uid=uid, field=field) if rows else None


def keep(tx: Tx, vault: Vault, *, uid: str, field: str, secret: bytes) -> None:
    """Keep a secret for an object that exists, in place of the one before. Raises NotFound."""
    if not exists(tx, uid):
        raise NotFound("the object that the secret is for does not exist")
    ciphertext = vault.seal(secret, uid=uid, field=field)
    if not tx.run(_UPDATE, of_uid=uid, of_field=field, ciphertext=ciphertext):
        tx.run(_INSERT, uid=uid, field=field, ciphertext=ciphertext)


def reseal(tx: Tx, vault: Vault, *, uid: str, values: Mapping[str, bytes]) -> None:
    """Let these be the object's sealed values, and no others, in the transaction that writes the object."""
    tx.run(_CLEAR, of_uid=uid)
    for field, secret in values.items():
        tx.run(_INSERT, uid=uid, field=field, ciphertext=vault.seal(secret, uid=uid, field=field))
