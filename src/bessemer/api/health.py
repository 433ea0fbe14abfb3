"""Whether this replica can serve: what ``/readyz`` asks, check by check, in Kubernetes' words.

The database is looked at by one short read at a time, whoever asks, and at most once in `FRESH_SECONDS`: these routes
need no sign-in, and nobody loads the database by them. A look that takes longer than `LOOK_SECONDS` is a database that
does not answer; it is left to end by itself, and until then the answer is no, at once.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping

import structlog

from bessemer.core.clock import Clock
from bessemer.core.errors import BessemerError

log = structlog.get_logger(__name__)

FRESH_SECONDS = 1.0
LOOK_SECONDS = 1.0


class Database:
    """Looks by ``look``, which raises where the database does not answer."""

    def __init__(self, look: Callable[[], Awaitable[object]], clock: Clock) -> None:
        self._look = look
        self._clock = clock
        self._looking: asyncio.Task[None] | None = None
        self._began = self._at = -math.inf
        self._well = False

    async def answers(self) -> bool:
        """Whether it does, or did a moment ago."""
        now = self._clock.monotonic()
        if self._looking is None:
            if now < self._at + FRESH_SECONDS:
                return self._well
            self._began = now
            self._looking = asyncio.ensure_future(self._ask())
        elif now >= self._began + LOOK_SECONDS:
            return False
        done, _ = await asyncio.wait([self._looking], timeout=LOOK_SECONDS)
        return bool(done) and self._well

    def close(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()

    async def _ask(self) -> None:
        self._well = False
        try:
            await self._look()
            self._well = True
        except BessemerError as error:
            log.warning("the database does not answer", error=error.message, internal=error.internal)
        finally:
            self._at, self._looking = self._clock.monotonic(), None


def told(checks: Mapping[str, bool]) -> str:
    """A line for each check, as Kubernetes has them; why one fails is in the log, and not a stranger's to know."""
    lines = [f"[+]{name} ok" if well else f"[-]{name} failed: reason withheld" for name, well in checks.items()]
    return "\n".join([*lines, f"readyz check {'passed' if all(checks.values()) else 'failed'}", ""])
