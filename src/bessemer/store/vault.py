"""What seals and opens values: ChaCha20-Poly1305 under the key that was handed in.

Invariants: a ciphertext cannot be moved to another object or field, since both are bound into it. `Vault.seal` waits
for nothing, so that it can run within a transaction; whoever is about to write awaits `Vault.ready` before. It knows no
table: see `sealed`.
"""

from __future__ import annotations

import hashlib
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from bessemer.core.errors import Unavailable

_NONCE_BYTES = 12


class Vault:
    """Seals under ``key``. Raises ValueError below 32 bytes."""

    def __init__(self, key: bytes) -> None:
        if len(key) < 32:
            raise ValueError("the key that seals has at least 32 bytes")
        self._cipher = ChaCha20Poly1305(hashlib.sha256(b"bessemer seal v1" + key).digest())

    async def ready(self) -> None:
        """Have at hand what `seal` needs. Raises Unavailable."""

    def seal(self, secret: bytes, *, uid: str, field: str) -> bytes:
        """The ciphertext of a value of an object."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, secret, _bound(uid, field))

    async def open(self, ciphertext: bytes, *, uid: str, field: str) -> bytes:
        """The value. Raises Unavailable where it cannot be opened with this key."""
        nonce, rest = ciphertext[:_NONCE_BYTES], ciphertext[_NONCE_BYTES:]
        try:
            return self._cipher.decrypt(nonce, rest, _bound(uid, field))
        except InvalidTag as error:
            raise Unavailable("a sealed value cannot be opened", internal=f"{field} of {uid}") from error


def _bound(uid: str, field: str) -> bytes:
    return f"{uid}\0{field}".encode()
