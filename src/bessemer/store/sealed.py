"""`ports.Sealed`: secrets by object and field, ChaCha20-Poly1305 under the key that was handed in.

Invariants: a secret stands in no body and no change; its row goes with its object; a ciphertext cannot be moved to
another object or field, since both are bound into it.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from sqlalchemy import bindparam, delete, insert, select, update

from bessemer.core.errors import NotFound, Unavailable
from bessemer.store.reader import Reader
from bessemer.store.rows import exists
from bessemer.store.schema import of, sealed
from bessemer.store.transaction import Tx
from bessemer.store.writer import Committer

_THIS = (of(sealed.c.uid), of(sealed.c.field))
_READ = select(sealed.c.ciphertext).where(*_THIS)
_INSERT = insert(sealed)
_UPDATE = update(sealed).values(ciphertext=bindparam("ciphertext")).where(*_THIS)
_CLEAR = delete(sealed).where(_THIS[0])
_NONCE_BYTES = 12


class Seal(Protocol):
    """What makes ciphertexts that `SealedTable` opens."""

    def __call__(self, uid: str, field: str, *, secret: bytes) -> bytes: ...


def cipher(key: bytes) -> ChaCha20Poly1305:
    """What seals under ``key``. Raises ValueError below 32 bytes."""
    if len(key) < 32:
        raise ValueError("the key that seals has at least 32 bytes")
    return ChaCha20Poly1305(hashlib.sha256(b"bessemer seal v1" + key).digest())


def sealing(cipher: ChaCha20Poly1305) -> Seal:
    """Under one key."""

    def seal(uid: str, field: str, *, secret: bytes) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + cipher.encrypt(nonce, secret, _bound(uid, field))

    return seal


def reseal(tx: Tx, uid: str, *, values: Mapping[str, bytes], seal: Seal) -> None:
    """Let these be the object's sealed values, and no others, in the transaction that writes the object."""
    tx.run(_CLEAR, of_uid=uid)
    for field, secret in values.items():
        tx.run(_INSERT, uid=uid, field=field, ciphertext=seal(uid, field, secret=secret))


class SealedTable:
    """Implements `ports.Sealed`."""

    def __init__(self, committer: Committer, reader: Reader, *, cipher: ChaCha20Poly1305) -> None:
        self._committer = committer
        self._reader = reader
        self._cipher = cipher

    async def put(self, uid: str, field: str, secret: bytes) -> None:
        """Keep a secret for an object that exists. Raises NotFound."""
        ciphertext = sealing(self._cipher)(uid, field, secret=secret)

        def write(tx: Tx) -> None:
            if not exists(tx, uid):
                raise NotFound("the object that the secret is for does not exist")
            if not tx.run(_UPDATE, of_uid=uid, of_field=field, ciphertext=ciphertext):
                tx.run(_INSERT, uid=uid, field=field, ciphertext=ciphertext)

        await self._committer.submit(write)

    async def get(self, uid: str, field: str) -> bytes | None:
        """The secret, or None. Raises Unavailable where it cannot be opened with this key."""
        rows = await self._reader.ask(_READ, of_uid=uid, of_field=field)
        if not rows:
            return None
        ((kept,),) = rows
        nonce, ciphertext = kept[:_NONCE_BYTES], kept[_NONCE_BYTES:]
        try:
            return self._cipher.decrypt(nonce, ciphertext, _bound(uid, field))
        except InvalidTag as error:
            raise Unavailable("a sealed value cannot be opened", internal=f"{field} of {uid}") from error


def _bound(uid: str, field: str) -> bytes:
    return f"{uid}\0{field}".encode()
