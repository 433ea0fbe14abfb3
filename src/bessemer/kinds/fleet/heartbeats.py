"""`Heartbeats`: wakes a Host when its agent falls silent, and when it is heard again.

A heartbeat changes no object, so no feed tells of one that did not come. One look every few seconds at the leases that
have run out, or will before the next, stands for a timer of each host: most are renewed long before, and are not read.
(All of 10,000 take the event loop 40 ms, for which every request would wait.) It decides nothing: it wakes a name, and
Host judges by the lease itself, as it does at each resync. main starts one beside each loop.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from bessemer.core.clock import Clock
from bessemer.core.errors import BessemerError
from bessemer.core.ports import HEARTBEATS, Leases
from bessemer.core.resource import Key

LOOK_SECONDS = 5.0
PAST_LEASE_SECONDS = 0.5

log = structlog.get_logger(__name__)


def lease_of(host: str) -> str:
    """The name of the lease that a host's heartbeat renews."""
    return f"{HEARTBEATS}{host}"


class Heartbeats:
    """Looks at the leases of hosts. ``wake`` is the loop's."""

    def __init__(self, leases: Leases, clock: Clock, *, wake: Callable[[Key], None]) -> None:
        self._leases = leases
        self._clock = clock
        self._wake = wake
        self._silent: frozenset[str] = frozenset()

    async def run(self) -> None:
        """Look, for ever; what the store refuses is asked again."""
        while True:
            pause = LOOK_SECONDS
            try:
                pause = await self._look()
            except BessemerError as error:
                log.warning("leases cannot be read", error=str(error), internal=error.internal)
            await self._clock.sleep(pause)

    async def _look(self) -> float:
        """Wake who changed; the seconds until the next look."""
        ending, now = await self._leases.ending(HEARTBEATS, LOOK_SECONDS), self._clock.now()
        left = {lease.name.removeprefix(HEARTBEATS): lease.expires_at - now for lease in ending}
        silent = frozenset(name for name, seconds in left.items() if seconds <= 0)
        for name in sorted(silent ^ self._silent):
            self._wake(Key("Host", "", name))
        self._silent = silent
        first = min((seconds for seconds in left.values() if seconds > 0), default=LOOK_SECONDS)
        return min(LOOK_SECONDS, first + PAST_LEASE_SECONDS)
