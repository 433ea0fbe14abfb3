"""One endpoint's own place for what is asked and answered there.

Entries are written in batches, each an object of its own: ``PREFIX/PROJECT/ENDPOINT/YYYY/MM/DD/HH/NAME-N.jsonl.gz``.
What fails is tried again, less and less often, and told. What is older than is wanted goes: the place is asked to see
to it, and whoever writes there looks, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from random import random
from typing import Any

import structlog

from bessemer.core.clock import Clock
from bessemer.core.errors import BessemerError, DriverError
from bessemer.core.loads import EndpointLog
from bessemer.core.resource import Key, tenant_of
from bessemer.drivers.bucket.protocol import UNREACHED, Bucket, Open
from bessemer.drivers.fetch.protocol import S3Place
from bessemer.gateway import retention
from bessemer.gateway.entry import Entry, Room
from bessemer.gateway.outbox import BATCH_BYTES, Outbox, Written

FLUSH_SECONDS = 30.0
"""After the first of it came, what waits is written; sooner where it is a whole batch."""
RETRY_SECONDS, RETRY_SECONDS_MAX = 5.0, 300.0
SWEEP_SECONDS, SWEEP_SOON_SECONDS = 3600.0, 60.0
"""Between two looks for what is too old, and where the last one did not come to an end."""
NO_KEYS, KEYS_OF_ANOTHER, RETENTION_FAILS, API_AWAY = "NoKeys", "KeysOfAnother", "RetentionFails", "ApiAway"
DAYS = 30
"""For which entries are kept where the Endpoint does not say: the default of its kind."""

_DAY = 86400.0
_log = structlog.get_logger("gateway.prompts")

Fetch = Callable[[Key], Awaitable[tuple[Mapping[str, str], str]]]
"""Keys of an endpoint's place, empty where there are none, and for which place (`S3Place.audience`) they are."""


@dataclass(frozen=True, slots=True)
class Means:
    """What the places of a process share. ``name`` tells its objects from those of others; ``chance`` gives a number
    from 0 to less than 1."""

    open: Open
    fetch: Fetch
    clock: Clock
    name: str
    room: Room
    tally: Written = field(default_factory=Written)
    chance: Callable[[], float] = random


@dataclass(frozen=True, slots=True)
class Wish:
    """What an Endpoint says of it. ``mark`` is another one whenever its keys are."""

    place: S3Place
    days: int
    sample: float
    include: str
    mark: str

    @classmethod
    def read(cls, said: Mapping[str, Any], mark: str) -> Wish:
        """Of ``spec.logging``."""
        s3 = said["s3"]
        place = S3Place(
            bucket=s3["bucket"],
            prefix=s3.get("prefix", "").strip("/"),
            region=s3.get("region", "us-east-1"),
            endpoint=s3.get("endpoint", ""),
        )
        return cls(place, said.get("retentionDays", DAYS), said.get("sample", 1.0), said.get("include", "both"), mark)


class LogPlace:
    """Of one endpoint. It is an `entry.Keeper`."""

    def __init__(self, key: Key, uid: str, *, wish: Wish, means: Means) -> None:
        self.key, self.uid, self.wish, self._means = key, uid, wish, means
        self.room, self.whose, self.endpoint = means.room, tenant_of(key.namespace) or key.namespace, key.name
        self.retired = self.tried = False
        """Nothing more comes: what waits is tried once; it was."""
        self.working: asyncio.Task[None] | None = None
        above = f"{wish.place.prefix}/" if wish.place.prefix else ""
        self._base = f"{above}{key.namespace}/{key.name}/"
        """What its objects' names begin with: two endpoints that name one prefix are apart."""
        self._outbox = Outbox(means.tally)
        self._bucket: Bucket | None = None
        self._failures = 0
        self._flush_at = self._sweep_at = means.clock.monotonic()
        """The first at once, so that it is known soon whether the place can be written to."""
        self._trouble = self._sweeping = ("", "")
        self._expires = False

    @property
    def answers(self) -> bool:
        """Whether answers are wanted."""
        return self.wish.include != "prompts"

    def entry(self, asked: bytes) -> Entry | None:
        """Of a request that was read; None where it is none of the sample."""
        if self.wish.sample < 1.0 and self._means.chance() >= self.wish.sample:
            return None
        return Entry(self, None if self.wish.include == "answers" else asked, at=self._means.clock.now())

    def add(self, entry: Entry) -> None:
        """See `Keeper.add`."""
        if entry.lost or self.retired:
            self._outbox.drop((entry,))
            return
        if not self._outbox and not self._failures:
            self._flush_at = self._means.clock.monotonic() + FLUSH_SECONDS
        self._outbox.add(entry)

    def follow(self, wish: Wish) -> None:
        """It is said otherwise, of the same place."""
        if wish.mark != self.wish.mark:
            self._bucket, self._failures = None, 0
            self._flush_at = self._sweep_at = self._means.clock.monotonic()
        elif wish.days != self.wish.days:
            self._sweep_at = self._means.clock.monotonic()
        self.wish = wish

    def due(self, now: float) -> bool:
        """Whether there is something to do."""
        if self.working is not None:
            return False
        full = self._outbox.bytes >= BATCH_BYTES and not self._failures
        return self.retired or now >= self._sweep_at or (bool(self._outbox) and (full or now >= self._flush_at))

    async def work(self) -> None:
        """Write what waits, and look for what is too old. It raises nothing: what fails is tried again."""
        last, clock = self.retired, self._means.clock
        trouble = await _tried(self._write, of=self.wish.place)
        if trouble[0]:
            self._failures += 1
            pause = min(RETRY_SECONDS * 2.0 ** (self._failures - 1), RETRY_SECONDS_MAX)
            self._flush_at = clock.monotonic() + pause
            self._sweep_at = max(self._sweep_at, self._flush_at)
        else:
            self._failures = 0
            self._flush_at = clock.monotonic() + FLUSH_SECONDS
            if not last and clock.monotonic() >= self._sweep_at:
                self._sweep_at = clock.monotonic() + RETRY_SECONDS_MAX
                self._sweeping = await _tried(self._sweep, of=self.wish.place)
            trouble = (RETENTION_FAILS if self._sweeping[0] else "", self._sweeping[1])
        self._tell(*trouble)
        self.tried = last

    def give_up(self) -> None:
        """What was being written is none that can be."""
        self._outbox.give_up()

    def abandon(self) -> None:
        """What waits is lost."""
        self._outbox.abandon()

    def said(self) -> EndpointLog:
        """How it stands."""
        own, (reason, message) = self._outbox.own, self._trouble
        return EndpointLog(
            project=self.key.namespace,
            name=self.key.name,
            uid=self.uid,
            written=own.written,
            dropped=own.dropped,
            reason=reason[:64],
            message=message[:300],
            expires=self._expires,
        )

    async def _write(self) -> None:
        """All that waits where nothing more comes, else what is due. Raises BessemerError, TimeoutError."""
        bucket = await self._opened()
        while self._outbox:
            name = f"{self._base}{retention.hour_of(self._means.clock.now())}/{self._means.name}"
            batch = await self._outbox.batch(name)
            await asyncio.wait_for(bucket.put(batch.key, batch.data), retention.CALL_SECONDS)
            self._outbox.wrote(batch)
            if self._outbox.bytes < BATCH_BYTES and not self.retired:
                return

    async def _opened(self) -> Bucket:
        """Raises BessemerError."""
        if self._bucket is None:
            if not self.wish.mark:
                raise DriverError(NO_KEYS, "no keys are set: bessemer endpoint secret NAME --logging")
            keys, of = await self._means.fetch(self.key)
            if not keys or of != self.wish.place.audience:
                raise DriverError(KEYS_OF_ANOTHER, "the keys were set for another bucket: set them again")
            self._bucket = self._means.open(self.wish.place, keys)
        return self._bucket

    async def _sweep(self) -> None:
        """Raises BessemerError, TimeoutError."""
        bucket, clock, days = await self._opened(), self._means.clock, self.wish.days
        self._expires = await asyncio.wait_for(bucket.expire(self._base, days=days), retention.CALL_SECONDS)
        whole = await retention.sweep(bucket, self._base, oldest=clock.now() - days * _DAY)
        self._sweep_at = clock.monotonic() + (SWEEP_SECONDS if whole else SWEEP_SOON_SECONDS)

    def _tell(self, reason: str, message: str) -> None:
        if reason and reason != self._trouble[0]:
            words = "old prompts cannot be removed" if reason == RETENTION_FAILS else "prompts are not logged"
            _log.warning(words, object_uid=self.uid, reason=reason, error=message)
        self._trouble = (reason, message)


async def _tried(work: Callable[[], Awaitable[None]], *, of: S3Place) -> tuple[str, str]:
    """Why it was not done, as (reason, message); nothing where it was."""
    try:
        await work()
    except DriverError as error:
        return error.reason, error.message
    except BessemerError as error:
        return API_AWAY, f"the keys of {of.audience} cannot be asked for: {error.message}"
    except TimeoutError:
        return UNREACHED, f"{of.audience} does not answer in time"
    return "", ""
