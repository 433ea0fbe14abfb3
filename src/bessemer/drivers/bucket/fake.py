"""Buckets in memory: they know their keys, refuse, hang, and forget nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from bessemer.core.errors import DriverError
from bessemer.drivers.bucket.protocol import NOT_FOUND, REFUSED, UNREACHED
from bessemer.drivers.fetch.protocol import S3Place

PAGE = 1000


class FakeBucket:
    """One of them. ``away`` says that nobody answers, ``hangs`` that nobody does for ever; ``puts`` are the names of
    all that was ever put, again, too."""

    def __init__(self, access: str = "") -> None:
        self.access = access
        self.objects: dict[str, bytes] = {}
        self.expiring: dict[str, int] = {}
        self.puts: list[str] = []
        self.away = self.hangs = False
        self.expires = True
        self.page = PAGE


class FakeBuckets:
    """All that there are, by `S3Place.audience`. Its `open` is a `protocol.Open`."""

    def __init__(self) -> None:
        self.known: dict[str, FakeBucket] = {}

    def make(self, place: S3Place, access: str) -> FakeBucket:
        """One that lets in whoever has that key."""
        return self.known.setdefault(place.audience, FakeBucket(access))

    def open(self, place: S3Place, secrets: Mapping[str, str]) -> _Opened:
        """As somebody."""
        return _Opened(self, place.audience, access=secrets.get("accessKey", ""))


class _Opened:
    """Implements `protocol.Bucket`."""

    def __init__(self, buckets: FakeBuckets, audience: str, *, access: str) -> None:
        self._buckets, self._audience, self._access = buckets, audience, access

    async def put(self, key: str, data: bytes) -> None:
        bucket = await self._let_in()
        bucket.puts.append(key)
        bucket.objects[key] = data

    async def listed(self, prefix: str, *, after: str = "") -> list[str]:
        bucket = await self._let_in()
        return sorted(key for key in bucket.objects if key.startswith(prefix) and key > after)[: bucket.page]

    async def remove(self, key: str) -> None:
        (await self._let_in()).objects.pop(key, None)

    async def expire(self, prefix: str, *, days: int) -> bool:
        bucket = await self._let_in()
        if bucket.expires:
            bucket.expiring[prefix] = days
        return bucket.expires

    async def _let_in(self) -> FakeBucket:
        bucket = self._buckets.known.get(self._audience)
        if bucket is None:
            raise DriverError(NOT_FOUND, f"there is no bucket {self._audience}")
        while bucket.hangs:  # noqa: ASYNC110 - whoever asks has to bound it
            await asyncio.sleep(0.01)
        if bucket.away:
            raise DriverError(UNREACHED, f"{self._audience} cannot be reached")
        if self._access != bucket.access:
            raise DriverError(REFUSED, f"{self._audience} does not let these keys in")
        return bucket
