"""What one issuer says of itself and its keys, as this process last read it.

An unknown key's name leads to one more reading for everybody together, at most every `ASK_SECONDS`: a flood of made-up
names asks the issuer no more than that. A key that the issuer lists no longer counts until the next reading, at most
`READ_SECONDS`; where the issuer cannot be read, what was known counts for `KEEP_SECONDS`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from bessemer.core.clock import Clock
from bessemer.core.errors import DriverError
from bessemer.drivers.oidc.protocol import Issuers, Metadata, Reach, failed
from bessemer.drivers.oidc.verify import IssuerKey, keys_of

ASK_SECONDS = 10.0
READ_SECONDS = 3600.0
KEEP_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Known:
    """One reading of an issuer. ``epoch`` grows when a key that was there is there no more."""

    metadata: Metadata
    keys: tuple[IssuerKey, ...]
    read_at: float
    epoch: int = 0


class Keyring:
    """The keys of one issuer. ``read_at`` and the bounds are on the monotonic clock."""

    def __init__(self, issuers: Issuers, reach: Reach, *, clock: Clock) -> None:
        self.reach = reach
        self._issuers = issuers
        self._clock = clock
        self._known: Known | None = None
        self._asked_at = float("-inf")
        self._error = failed("the issuer was not read yet")
        self._lock = asyncio.Lock()

    @property
    def epoch(self) -> int:
        """What was verified under another epoch must be verified again."""
        return self._known.epoch if self._known else 0

    async def known(self) -> Known:
        """What is known of the issuer, read where nothing is. Raises DriverError."""
        if self._known is None or self._age(self._known) > KEEP_SECONDS:
            await self.read()
        if self._known is None or self._age(self._known) > KEEP_SECONDS:
            raise self._error
        return self._known

    async def newer(self, than: Known) -> Known:
        """Another reading, where there may be one by now; else the same."""
        if self._known is than:
            await self.read()
        return self._known or than

    async def refresh(self) -> None:
        """Read again what is old, and tell nobody where that fails: what was known counts for a while."""
        if self._known is None or self._age(self._known) >= READ_SECONDS:
            await self.read()

    async def read(self) -> None:
        """Ask the issuer, unless somebody has just done so."""
        before = self._known
        async with self._lock:
            if self._known is not before or self._clock.monotonic() - self._asked_at < ASK_SECONDS:
                return
            self._asked_at = self._clock.monotonic()
            try:
                metadata = await self._issuers.metadata(self.reach)
                keys = keys_of(await self._issuers.keys(self.reach, metadata))
            except DriverError as error:
                self._error = error
                return
            self._known = Known(metadata, keys, self._clock.monotonic(), self._next(metadata, keys))

    def _next(self, metadata: Metadata, keys: tuple[IssuerKey, ...]) -> int:
        if self._known is None:
            return 1
        there = {one.thumbprint for one in keys}
        gone = any(one.thumbprint not in there for one in self._known.keys)
        fewer = not set(self._known.metadata.algorithms) <= set(metadata.algorithms)
        return self._known.epoch + (gone or fewer)

    def _age(self, known: Known) -> float:
        return self._clock.monotonic() - known.read_at
