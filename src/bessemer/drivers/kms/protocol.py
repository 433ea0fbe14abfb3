"""What a key management system is asked: three calls, and no key leaves it.

Invariants: ids are stable and tell nothing of their keys; a key that was current once unwraps until it is removed
there; ``context`` is bound into what is wrapped. A call that cannot be answered now raises Unavailable, within seconds:
the caller goes on with what is unwrapped already, and asks again. It knows neither values nor where they are kept.
"""

from __future__ import annotations

from typing import Protocol


class Kms(Protocol):
    """`core.ports.Wrapping`, as drivers implement it."""

    async def current(self) -> str:
        """The id of the key that wraps now. It changes when the key is rotated there. Raises Unavailable."""
        ...

    async def ahead(self) -> frozenset[str]:
        """Ids of keys that are about to take over: others wrap with them already, and what they wrapped stays. Raises
        Unavailable."""
        ...

    async def wrap(self, key: bytes, *, context: bytes) -> tuple[str, bytes]:
        """(id of the key that wrapped, the wrapped ``key``). Raises Unavailable."""
        ...

    async def unwrap(self, wrapped: bytes, *, name: str, context: bytes) -> bytes:
        """The inverse, by the key called ``name``. Raises Unavailable, with the reason."""
        ...
