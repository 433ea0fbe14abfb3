"""An informer as client-go has it, that notes what it was told, and the judge of what all of them were told.

It lists, watches from the list's revision, goes on from the last revision it has seen where the connection ends, and
lists again where the server says that history is gone (410). Each unbroken stretch of what it saw is a `Stretch`.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson

GONE = 410
PAUSE_SECONDS = 0.1

Log = Mapping[int, tuple[str, str]]
"""Revision → (type of the change, name)."""


@dataclass(slots=True)
class Stretch:
    """What was seen from a list of revision ``since`` on: (revision, type, name) in the order of seeing; complete up to
    ``until``."""

    since: int
    listed: dict[str, int]
    seen: list[tuple[int, str, str]] = field(default_factory=list)
    until: int = 0

    def faults(self, log: Log) -> list[str]:
        """What is missing, doubled or out of order beside the log of changes."""
        revisions = [revision for revision, _, _ in self.seen]
        found = [f"{b} after {a}" for a, b in itertools.pairwise(revisions) if b <= a]
        due = {r: change for r, change in log.items() if self.since < r <= self.until}
        told = {revision: (kind, name) for revision, kind, name in self.seen}
        found += [f"missed {r} {change}" for r, change in due.items() if r not in told]
        found += [
            f"{r} was told as {told[r]} and is {change}" for r, change in due.items() if told.get(r, change) != change
        ]
        return found

    def holds(self) -> dict[str, int]:
        """Name → revision, as whoever follows believes it to be."""
        believed = dict(self.listed)
        for revision, kind, name in self.seen:
            if kind == "DELETED":
                believed.pop(name, None)
            else:
                believed[name] = revision
        return believed


def _awake() -> asyncio.Event:
    reading = asyncio.Event()
    reading.set()
    return reading


@dataclass(slots=True)
class Informer:
    """One follower of a collection, which goes to the next of ``urls`` whenever it connects anew. ``reading`` unset, it
    reads nothing for a while and connects to nobody, as a client that is busy."""

    session: aiohttp.ClientSession
    urls: Sequence[str]
    turn: int = 0
    stretches: list[Stretch] = field(default_factory=list)
    reading: asyncio.Event = field(default_factory=_awake)
    lists: int = 0
    restarts: int = 0

    @property
    def _next(self) -> str:
        self.turn += 1
        return self.urls[self.turn % len(self.urls)]

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            try:
                await self._list()
                while await self.reading.wait() and await self._watch():
                    self.restarts += 1
            except (aiohttp.ClientError, TimeoutError, OSError):
                await asyncio.sleep(PAUSE_SECONDS)

    async def _list(self) -> None:
        async with self.session.get(self._next) as answer:
            answer.raise_for_status()
            body = orjson.loads(await answer.read())
        since = int(body["metadata"]["resourceVersion"])
        listed = {item["metadata"]["name"]: int(item["metadata"]["resourceVersion"]) for item in body["items"]}
        self.stretches.append(Stretch(since, listed, until=since))
        self.lists += 1

    async def _watch(self) -> bool:
        """Whether to go on from where this one ended; else there has to be a list."""
        stretch = self.stretches[-1]
        asked = {"watch": "1", "resourceVersion": str(stretch.until), "allowWatchBookmarks": "true"}
        try:
            async with self.session.get(self._next, params=asked, timeout=aiohttp.ClientTimeout(total=None)) as answer:
                if answer.status == GONE:
                    return False
                answer.raise_for_status()
                async for line in answer.content:
                    await self.reading.wait()
                    if not self._take(stretch, orjson.loads(line)):
                        return False
        except (aiohttp.ClientError, TimeoutError, OSError):
            await asyncio.sleep(PAUSE_SECONDS)
        return True

    def _take(self, stretch: Stretch, event: dict[str, Any]) -> bool:
        if event["type"] == "ERROR":
            assert event["object"]["code"] == GONE, event
            return False
        metadata = event["object"]["metadata"]
        stretch.until = int(metadata["resourceVersion"])
        if event["type"] != "BOOKMARK":
            stretch.seen.append((stretch.until, event["type"], metadata["name"]))
        return True


def judged(informers: Sequence[Informer], log: Log, *, there: Mapping[str, int], at: int) -> list[str]:
    """The faults of all of them; at the end each has reached the revision ``at``, and believes what is there."""
    found = []
    for number, informer in enumerate(informers):
        for stretch in informer.stretches:
            found += [f"informer {number}: {fault}" for fault in stretch.faults(log)]
        last = informer.stretches[-1]
        if last.until < at:
            found.append(f"informer {number} stalls at {last.until} of {at}")
        elif (believed := last.holds()) != there:
            found.append(f"informer {number} believes {sorted(believed.items() ^ there.items())[:4]}")
    return found
