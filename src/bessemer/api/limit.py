"""How often a stranger may try: a bucket of attempts per key, refilled over time, in bounded memory."""

from __future__ import annotations

import math
from collections import OrderedDict

from bessemer.core.clock import Clock
from bessemer.core.errors import TooMany

KEYS_MAX = 10_000


class Limiter:
    """``burst`` attempts at once, then one per ``seconds``. The keys least lately seen are forgotten first."""

    def __init__(self, clock: Clock, *, burst: int, seconds: float) -> None:
        self._clock = clock
        self._burst = burst
        self._seconds = seconds
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def take(self, key: str) -> None:
        """Count one attempt. Raises TooMany with the seconds to wait."""
        now = self._clock.monotonic()
        full_at = max(now, self._full_at.get(key, now)) + self._seconds
        wait = full_at - now - self._burst * self._seconds
        if wait > 0:
            raise TooMany("too many attempts: wait a little", retry_after_seconds=math.ceil(wait))
        self._full_at[key] = full_at
        self._full_at.move_to_end(key)
        while len(self._full_at) > KEYS_MAX:
            self._full_at.popitem(last=False)
