"""Sends the spool to the api until all of it is stored. A batch that arrives twice is stored once, by its sequence.

A store that was restored has less of a segment than the gateway knows, and refuses what would leave a gap. Then every
segment that is here is sent from its beginning: what is there still is stored once, and whoever heard of a record hears
it once.

An api of an older release refuses a batch with fields that it does not know: it is sent what it does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog
from msgspec.structs import replace

from bessemer.core.clock import Clock
from bessemer.core.errors import BessemerError, Conflict, Invalid
from bessemer.gateway.record import AnyRecord, Batch, older
from bessemer.gateway.spool import Spool

_log = structlog.get_logger("gateway.settle")

Send = Callable[[Batch], Awaitable[int]]
"""Settles a batch; answers the highest sequence stored for the spool."""


BATCH_MAX = 500
KNOWN_MAX = 256
"""Segments: some gigabyte of usage."""


class Settler:
    """Settles within ``every_seconds`` while the api answers, with backoff while it does not; else it sleeps.
    ``settled`` hears of records that are stored, and how many wait less by that: of a spool that an earlier process had
    settled the api knows more than a batch has."""

    def __init__(
        self,
        spool: Spool,
        send: Send,
        *,
        clock: Clock,
        gateway_uid: str,
        every_seconds: float = 0.5,
        settled: Callable[[Sequence[AnyRecord], int], None] = lambda _, __: None,
    ) -> None:
        self._spool = spool
        self._send = send
        self._clock = clock
        self._gateway_uid = gateway_uid
        self._every = every_seconds
        self._settled = settled
        self._told: dict[str, int] = {}
        """Of the last segments: up to where ``settled`` has heard of each, should it be sent again."""

    async def run(self) -> None:
        """Settle until cancelled."""
        failures = 0
        while True:
            more = False
            self._spool.news.clear()
            try:
                more = await self.once()
                failures = 0
            except (BessemerError, OSError) as error:
                failures += 1
                _log.warning("usage is not settled", waiting=self._spool.waiting, error=str(error), failures=failures)
            if more and self._spool.waiting >= BATCH_MAX:
                continue
            # A part of a batch waits for more: each costs a disk's time, a call and a turn of another thread.
            if not failures and not self._spool.owes and not self._spool.waiting:
                await self._spool.news.wait()
            await self._clock.sleep(min(30.0, self._every * 2 ** min(failures, 6)))

    async def once(self) -> bool:
        """Send the oldest batch; whether there was one. Raises what the api refuses with, and OSError of the disk.

        After Conflict the next calls send each segment from its beginning."""
        try:
            pending = self._spool.pending(most=BATCH_MAX)
        finally:
            # After that: what is sent survives the machine, so that a sequence never means two records.
            await asyncio.to_thread(self._spool.sync)
        if pending is None:
            return False
        batch = Batch(
            gateway_uid=self._gateway_uid,
            spool_uid=pending.spool_uid,
            first_sequence=pending.first_sequence,
            records=list(pending.records),
        )
        try:
            sequence = await self._sent(batch)
        except Conflict:
            if batch.first_sequence > 1:
                self._spool.settle(batch.spool_uid, None)
            raise
        waiting = self._spool.waiting
        self._spool.settle(batch.spool_uid, sequence)
        heard = self._told.pop(batch.spool_uid, 0)
        self._told[batch.spool_uid] = max(heard, sequence)
        if len(self._told) > KNOWN_MAX:
            del self._told[next(iter(self._told))]
        told = max(0, min(heard, sequence) + 1 - batch.first_sequence)
        records = batch.records[told : sequence + 1 - batch.first_sequence]
        self._settled(records, waiting - self._spool.waiting - told)
        return True

    async def _sent(self, batch: Batch) -> int:
        try:
            return await self._send(batch)
        except Invalid:
            plain = [older(record) for record in batch.records]
            if plain == batch.records:
                raise
            return await self._send(replace(batch, records=plain))
