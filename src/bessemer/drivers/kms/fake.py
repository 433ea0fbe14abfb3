"""A key management system in memory: it rotates, goes away, and forgets keys when it is told to."""

from __future__ import annotations

import secrets

from bessemer.core.errors import Unavailable
from bessemer.core.sealing import KeyRing, key_id


class FakeKms:
    """Implements `Kms`. ``away`` says why it does not answer, "" while it does; ``calls`` counts what it was asked."""

    def __init__(self) -> None:
        self.away = ""
        self.calls: list[str] = []
        self._keys = [secrets.token_bytes(32)]

    def rotate(self) -> None:
        """A new key wraps from now on."""
        self._keys.insert(0, secrets.token_bytes(32))

    def forget(self, name: str) -> None:
        """A key is gone for good."""
        self._keys = [key for key in self._keys if key_id(key) != name]

    async def current(self) -> str:
        """See `Kms.current`."""
        return await self._asked("current").current()

    async def ahead(self) -> frozenset[str]:
        """See `Kms.ahead`."""
        return await self._asked("ahead").ahead()

    async def wrap(self, key: bytes, *, context: bytes) -> tuple[str, bytes]:
        """See `Kms.wrap`."""
        return await self._asked("wrap").wrap(key, context=context)

    async def unwrap(self, wrapped: bytes, *, name: str, context: bytes) -> bytes:
        """See `Kms.unwrap`."""
        return await self._asked("unwrap").unwrap(wrapped, name=name, context=context)

    def _asked(self, call: str) -> KeyRing:
        self.calls.append(call)
        if self.away:
            raise Unavailable(f"the key management system does not answer: {self.away}")
        return KeyRing(self._keys)
