"""Keys that wrap other keys, in memory: ChaCha20-Poly1305 under keys that are known by an id which follows from them.

Invariants: what was wrapped in one context opens in no other; the first key wraps, all of them unwrap. It is what key
files amount to (`drivers.kms.local`), and what opens values of before data keys. It keeps and awaits nothing.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from bessemer.core.errors import Unavailable

KEY_BYTES_MIN = 32
NONCE_BYTES = 12
ID_LENGTH = 16


def key_id(key: bytes) -> str:
    """What a key is called: it tells nothing of the key."""
    return hashlib.sha256(b"bessemer key id v1" + key).hexdigest()[:ID_LENGTH]


def encrypt(key: bytes, secret: bytes, *, context: bytes) -> bytes:
    """Under a key of 32 bytes that sealed fewer than 2**32 others: a random nonce, then the ciphertext."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + ChaCha20Poly1305(key).encrypt(nonce, secret, context)


def decrypt(key: bytes, sealed: bytes, *, context: bytes) -> bytes:
    """The inverse. Raises InvalidTag, ValueError."""
    return ChaCha20Poly1305(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], context)


class KeyRing:
    """Implements `ports.Wrapping`. Raises ValueError for no key, and for one below 32 bytes."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys or any(len(key) < KEY_BYTES_MIN for key in keys):
            raise ValueError(f"a key that seals has at least {KEY_BYTES_MIN} bytes")
        self._keys = {key_id(key): key for key in reversed(keys)}
        self._current = key_id(keys[0])

    @property
    def ids(self) -> frozenset[str]:
        return frozenset(self._keys)

    async def current(self) -> str:
        """The id of the key that wraps."""
        return self._current

    async def ahead(self) -> frozenset[str]:
        """Nobody is ahead of the one who has the keys."""
        return frozenset()

    async def wrap(self, key: bytes, *, context: bytes) -> tuple[str, bytes]:
        """(id, wrapped) under the current key."""
        return self._current, encrypt(_wrapping(self._keys[self._current]), key, context=context)

    async def unwrap(self, wrapped: bytes, *, name: str, context: bytes) -> bytes:
        """Raises Unavailable where the key is not here, or did not wrap this."""
        if name not in self._keys:
            raise Unavailable(f"the key-encryption key {name} is not here: bring its file back")
        try:
            return decrypt(_wrapping(self._keys[name]), wrapped, context=context)
        except (InvalidTag, ValueError) as error:
            raise Unavailable(f"a data key does not open with the key-encryption key {name}") from error

    def open_direct(self, sealed: bytes, context: bytes) -> bytes:
        """A value that a release before data keys sealed under one of these. Raises Unavailable."""
        for key in self._keys.values():
            try:
                return decrypt(hashlib.sha256(b"bessemer seal v1" + key).digest(), sealed, context=context)
            except (InvalidTag, ValueError):
                continue
        raise Unavailable("a sealed value cannot be opened with any key that is here")


def _wrapping(key: bytes) -> bytes:
    """What wraps is not what sealed values directly, though one file holds both."""
    return hashlib.sha256(b"bessemer wrap v1" + key).digest()
