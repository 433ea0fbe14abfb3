"""Somebody's bucket: small objects are put there by their own keys, listed by name, and taken away again.

What is put under a name replaces what stood there, so that whoever does not know whether it came may put it again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from bessemer.drivers.fetch.protocol import S3Place

UNREACHED = "PlaceUnreachable"
"""It does not answer, or not as such a place does: later it may."""
REFUSED = "PlaceRefused"
"""It answers, and the keys do not allow that."""
NOT_FOUND = "PlaceNotFound"
"""There is no such bucket."""
INNER = "AddressRefused"
"""Nobody is sent there, for it stands inside and the operator has not named it."""

REASONS = (UNREACHED, REFUSED, NOT_FOUND, INNER)


class Bucket(Protocol):
    """Each call raises DriverError with one of `REASONS`, in bounded time."""

    async def put(self, key: str, data: bytes) -> None:
        """Write an object."""

    async def listed(self, prefix: str, *, after: str = "") -> list[str]:
        """Names of objects that begin so and come behind ``after``, in the order of their bytes: a page, empty where
        there are no more."""

    async def remove(self, key: str) -> None:
        """Take an object away; one that is not there is away."""

    async def expire(self, prefix: str, *, days: int) -> bool:
        """Have the place itself take away what begins so and is as old, beside whatever else it was told by others;
        whether it says now that it will. False where it takes no such word, or the keys do not allow it."""


Open = Callable[[S3Place, Mapping[str, str]], Bucket]
"""A bucket as whoever has these secrets (``accessKey``, ``secretKey``, maybe ``sessionToken``) is let in. Opening one
asks nobody."""
