"""What is asked and answered, for tenants who want it, in their own place: the places of one gateway process.

Off for every Endpoint that does not say ``spec.logging``. No request waits for it or fails by it: entries wait in
memory alone, which is bounded, and what finds no room there is dropped and counted. Nothing of them is on this
machine's disk, in a log, or told to the api; a process that is killed loses what it had not written.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import structlog

from bessemer.core.clock import Clock
from bessemer.core.loads import EndpointLog
from bessemer.core.resource import Key
from bessemer.drivers.bucket.protocol import Open
from bessemer.gateway.entry import Room
from bessemer.gateway.logplace import Fetch, LogPlace, Means, Wish
from bessemer.gateway.outbox import Written

KEYS_MARK = "bessemer.dev/logging-keys"
"""The annotation of an Endpoint that says that keys were set for its place, and another one when they change."""
MEMORY_BYTES = 64 << 20
LOOK_SECONDS = 1.0
AT_ONCE_MAX = 4
"""Places of one tenant that are worked for."""
CLOSE_SECONDS = 1.5
"""For which a gateway that ends tries to write what waits."""


_log = structlog.get_logger("gateway.prompts")


class Logbook:
    """Of one process."""

    def __init__(self, open: Open, fetch: Fetch, *, clock: Clock, name: str, most: int = MEMORY_BYTES) -> None:
        self.room = Room(most)
        self.tally = Written()
        self._means = Means(open, fetch, clock, name, self.room, self.tally)
        self._places: dict[str, LogPlace] = {}
        self._leaving: set[LogPlace] = set()

    def follow(self, uid: str, body: Mapping[str, Any]) -> LogPlace | None:
        """An Endpoint as it is now; where what is asked of it goes, if anywhere."""
        metadata, said = body["metadata"], body["spec"].get("logging")
        if said is None:
            self.forget(uid)
            return None
        wish = Wish.read(said, (metadata.get("annotations") or {}).get(KEYS_MARK, ""))
        known = self._places.get(uid)
        if known is not None and known.wish.place == wish.place:
            known.follow(wish)
            return known
        self.forget(uid)
        key = Key("Endpoint", metadata["namespace"], metadata["name"])
        made = self._places[uid] = LogPlace(key, uid, wish=wish, means=self._means)
        return made

    def forget(self, uid: str) -> None:
        """Nothing more is logged of it: what waits goes where it was meant for, or nowhere."""
        place = self._places.pop(uid, None)
        if place is not None:
            place.retired = True
            self._leaving.add(place)

    def said(self) -> list[EndpointLog]:
        """How each stands."""
        return [place.said() for place in self._places.values()]

    async def run(self) -> None:
        """Write what is due, until cancelled."""
        while True:
            self.look()
            await self._means.clock.sleep(LOOK_SECONDS)

    def look(self) -> None:
        """Begin what is due; each place is worked for by itself, so that none waits for another."""
        now = self._means.clock.monotonic()
        places = [*self._places.values(), *self._leaving]
        busy = Counter(place.whose for place in places if place.working is not None)
        for place in places:
            if busy[place.whose] < AT_ONCE_MAX and place.due(now):
                busy[place.whose] += 1
                place.working = asyncio.ensure_future(place.work())
                place.working.add_done_callback(partial(self._worked, place))

    async def close(self) -> None:
        """Write what waits, for a moment; what is left then is lost."""
        for uid in list(self._places):
            self.forget(uid)
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                while self._leaving:
                    self.look()
                    await asyncio.wait(self._working(), return_when=asyncio.FIRST_COMPLETED)
                    await asyncio.sleep(0)
        for task in (left := self._working()):
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        for place in self._leaving:
            place.abandon()
        self._leaving.clear()

    def _working(self) -> list[asyncio.Task[None]]:
        return [place.working for place in self._leaving if place.working is not None]

    def _worked(self, place: LogPlace, work: asyncio.Task[None]) -> None:
        place.working = None
        if not work.cancelled() and (error := work.exception()) is not None:
            # A fault of ours. What was said may be in its words: they are in no log.
            _log.error("a batch of prompts cannot be written", object_uid=place.uid, error=type(error).__name__)
            place.give_up()
        if place.retired and place.tried:
            place.abandon()
            self._leaving.discard(place)
