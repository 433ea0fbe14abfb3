"""How often somebody may try: a bucket of attempts per key, refilled over time, in bounded memory; and sign-ins by it.

An account is never closed to everybody, for else a stranger could lock its owner out: attempts are bounded for an
address, and for an address at an account. Where many fail, whoever from, all wait a little longer.
"""

from __future__ import annotations

import hashlib
import ipaddress
import math
from collections import OrderedDict

from bessemer.core.clock import Clock
from bessemer.core.errors import TooMany

KEYS_MAX = 10_000
ACCOUNTS_OF_SOURCE = 4
"""How many times as much an address may try at all accounts together as at one: people share addresses."""
FAILURES_FREE = 50.0
SLOWER_SECONDS = 0.02
SLOWEST_SECONDS = 2.0
_NETWORK_BITS = 64


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


class SignIns:
    """``burst`` attempts of an address at an account at once, then one per ``seconds``."""

    def __init__(self, clock: Clock, *, burst: int, seconds: float) -> None:
        self._clock = clock
        self._sources = Limiter(clock, burst=burst * ACCOUNTS_OF_SOURCE, seconds=seconds / 2)
        self._pairs = Limiter(clock, burst=burst, seconds=seconds)
        self._failures = 0.0
        self._failed_at = 0.0

    async def admit(self, source: str, account: str = "") -> None:
        """Count an attempt, and wait as long as everybody must. Raises TooMany. Whether there is such an account is not
        looked at, so that nobody learns it here."""
        place = network(source)
        self._sources.take(place)
        if account:
            self._pairs.take(f"{place} {hashlib.sha256(account.encode()).hexdigest()}")
        await self._clock.sleep(self.delay)

    def failed(self) -> None:
        """Somebody, somewhere, was wrong."""
        self._failures = self._level() + 1.0
        self._failed_at = self._clock.monotonic()

    @property
    def delay(self) -> float:
        """The seconds that each attempt waits now, right or wrong."""
        return min(max(0.0, self._level() - FAILURES_FREE) * SLOWER_SECONDS, SLOWEST_SECONDS)

    def _level(self) -> float:
        """Failures that are not forgotten yet: one is in each second."""
        return max(0.0, self._failures - (self._clock.monotonic() - self._failed_at))


def network(source: str) -> str:
    """What counts as one address: of IPv6 the network, of which everybody has 2^64 addresses; but one of IPv4 that came
    over an IPv6 socket is itself."""
    try:
        address = ipaddress.ip_address(source)
    except ValueError:
        return source
    if address.version == 4:
        return source
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address), _NETWORK_BITS), strict=False))
