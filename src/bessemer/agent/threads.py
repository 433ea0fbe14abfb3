"""Keeps hardware threads that a Claim owns from whatever else this agent runs.

Who owns which is read off the Claims that stand here, each time: also those that are on their way out, until nothing is
left of them. It holds before a Claim is begun, so that what owns threads finds nobody there, and is looked over from
time to time, for what began while it changed may have begun in the wrong place.
"""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from bessemer.agent.intent import Intents
from bessemer.core.clock import Clock
from bessemer.core.cpus import parse_cpus
from bessemer.core.errors import DriverError
from bessemer.drivers.threads.protocol import Threads

LOOK_SECONDS = 10.0
"""Between two looks, while anybody owns threads."""

log = structlog.get_logger(__name__)


class ThreadKeeper:
    """What is anybody's own on one host. Without ``threads`` it does nothing: a host that cannot keep any apart."""

    def __init__(self, threads: Threads | None, intents: Intents) -> None:
        self._threads = threads
        self._intents = intents
        self._held: Mapping[str, str] | None = None
        self._refused = False

    async def hold(self) -> None:
        """Let what the Claims say hold, if it is not what holds. A kernel that refuses is tried again at the next
        look: meanwhile what runs is better than what does not."""
        if self._threads is None or (owned := self._owned()) == self._held:
            return
        try:
            await self._threads.keep(owned)
            self._refused = False
        except DriverError as error:
            log.error("threads are not kept apart", reason=error.reason, error=str(error), internal=error.internal)
            self._refused = True
        self._held = owned

    async def run(self, clock: Clock) -> None:
        """Look again and again, for ever; at nothing where nobody owns any."""
        while True:
            await self.hold()
            await clock.sleep(LOOK_SECONDS)
            if self._held or self._refused:
                self._held = None

    def _owned(self) -> Mapping[str, str]:
        found: dict[str, str] = {}
        for uid, intent in self._intents.by_uid.items():
            parts = intent.claim["spec"].get("allocations") or ()
            cpus = ",".join(part["cpus"] for part in parts if part.get("cpus"))
            if cpus and _sound(cpus):
                found[uid] = cpus
        return found


def _sound(cpus: str) -> bool:
    try:
        return bool(parse_cpus(cpus))
    except ValueError:
        log.error("a claim names threads that there cannot be", cpus=cpus[:64])
        return False
