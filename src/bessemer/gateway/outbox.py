"""What waits to be written to one place, in memory: entries, and the batch of them that is being written.

A batch keeps its name until the place has said that it has it, so that what is written twice stands there once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from bessemer.gateway.entry import Entry, packed

BATCH_BYTES = 4 << 20
"""Of what entries hold, before it is packed."""


@dataclass(slots=True)
class Written:
    """What was written and dropped, in entries."""

    written: int = 0
    dropped: int = 0


@dataclass(slots=True)
class Batch:
    key: str
    entries: list[Entry]
    data: bytes = b""


class Outbox:
    """Of one place. ``tally`` is of the whole process, ``own`` of the place."""

    def __init__(self, tally: Written) -> None:
        self.own = Written()
        self.bytes = 0
        """Of entries in no batch."""
        self._tally = tally
        self._entries: deque[Entry] = deque()
        self._batch: Batch | None = None
        self._count = 0

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return bool(self._entries) or self._batch is not None

    def add(self, entry: Entry) -> None:
        """One more."""
        self._entries.append(entry)
        self.bytes += entry.held

    def drop(self, entries: Iterable[Entry]) -> None:
        """They are lost."""
        for entry in entries:
            entry.leave()
            self.own.dropped += 1
            self._tally.dropped += 1

    async def batch(self, name: str) -> Batch:
        """What is to be written next: what was not written the last time, or the first that wait. ``name`` is what the
        name of an object begins with."""
        if self._batch is not None:
            return self._batch
        entries: list[Entry] = []
        size = 0
        while self._entries and (not entries or size + self._entries[0].held <= BATCH_BYTES):
            entries.append(self._entries.popleft())
            size += entries[-1].held
        self.bytes -= size
        self._count += 1
        made = self._batch = Batch(f"{name}-{self._count:06}.jsonl.gz", entries)
        made.data = await asyncio.to_thread(packed, entries)
        return made

    def wrote(self, batch: Batch) -> None:
        """It stands in its place."""
        self._batch = None
        for entry in batch.entries:
            entry.leave()
        self.own.written += len(batch.entries)
        self._tally.written += len(batch.entries)

    def give_up(self) -> None:
        """What was being written is none that can be."""
        batch, self._batch = self._batch, None
        self.drop(batch.entries if batch is not None else ())

    def abandon(self) -> None:
        """Nothing waits any more."""
        self.give_up()
        self.drop(self._entries)
        self._entries.clear()
        self.bytes = 0
