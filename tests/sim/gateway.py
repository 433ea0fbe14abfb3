"""The gateway of the simulated cloud as far as money goes: the real spool on its disk, the real settler over the wire.

What a crash leaves is the spool's files, with at its end whatever was half written. Everything else is lost, and read
anew from there. Answers of the api may be lost on the way: then a batch that is stored already is sent again.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from bessemer.core.clock import Clock
from bessemer.core.errors import Unavailable
from bessemer.core.values import UsageBatch, UsageRecord
from bessemer.gateway import Settler, Spool
from tests.sim.wire import Wire

SETTLE_SECONDS = 30.0
"""Sixty times the product's, so that a day of it fits into its minute; the settler waits no longer after a failure."""

SEGMENT_BYTES = 300_000
"""Room for few records past the spool's own reserve, so that a day fills some segments."""


class Gateway:
    """One gateway process, or what it left."""

    def __init__(self, folder: Path, wire: Wire, *, clock: Clock) -> None:
        self._folder = folder
        self._wire = wire
        self._clock = clock
        self._spool: Spool | None = None
        self._task: asyncio.Task[None] | None = None
        self.metered: list[UsageRecord] = []
        """Whatever was answered to somebody: all of it must be settled, once."""
        self.starts = 0
        self.answers_lost = 0
        """How many answers of the api do not arrive from now on."""

    @property
    def up(self) -> bool:
        return self._spool is not None

    @property
    def waiting(self) -> int:
        """How many records are not settled; 0 while it is away."""
        return self._spool.waiting if self._spool is not None else 0

    def tasks(self) -> list[asyncio.Task[None]]:
        """What must not end by itself."""
        return [self._task] if self._task is not None else []

    def start(self) -> None:
        """Read what an earlier one left, and settle it."""
        self._spool = Spool(self._folder, segment_bytes=SEGMENT_BYTES)
        self.starts += 1
        settler = Settler(
            self._spool, self._send, clock=self._clock, gateway_uid="gateway", every_seconds=SETTLE_SECONDS
        )
        self._task = asyncio.create_task(settler.run())

    def meter(self, record: UsageRecord) -> None:
        """A request was answered, and is about to be told so."""
        assert self._spool is not None
        self._spool.reserve()
        self._spool.append(record)
        self._spool.release()
        self.metered.append(record)

    async def die(self, *, torn: bytes = b"") -> None:
        """It is gone. ``torn`` is what it had written of a record that nobody was told of."""
        if self._spool is None or self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        place = self._end_of(self._spool)
        self._spool.close()
        self._spool = self._task = None
        if torn and place is not None:
            path, end = place
            with path.open("r+b") as file:
                os.pwrite(file.fileno(), torn, end)

    @staticmethod
    def _end_of(spool: Spool) -> tuple[Path, int] | None:
        segments: Any = spool._segments
        return (segments[-1].path, segments[-1].end) if segments else None

    async def _send(self, batch: UsageBatch) -> int:
        stored: int = await self._wire.ask("", lambda store: store.ledger.settle(batch))
        if self.answers_lost:
            self.answers_lost -= 1
            raise Unavailable("the answer was lost")
        return stored
