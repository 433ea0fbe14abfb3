"""How often somebody may try: a bucket of attempts per key, refilled over time, in bounded memory; and sign-ins by it.

An account is never closed to everybody, for else a stranger could lock its owner out: attempts are bounded for an
address, and for an address at an account. Where many fail at one account, whoever from, each attempt at it waits the
longer, but from where it was signed in to before: nobody else's failures concern that. Where many fail at all, all wait
a little. Nothing is shared with other replicas: behind a balancer that spreads one address over N of them, it has N
times the attempts.
"""

from __future__ import annotations

import hashlib
import ipaddress
import math
from collections import OrderedDict
from contextlib import suppress

from bessemer.core.clock import Clock
from bessemer.core.errors import TooMany

KEYS_MAX = 10_000
ACCOUNTS_OF_SOURCE = 4
"""How many times as much an address may try at all accounts together as at one: people share addresses."""
FAILURES_FREE = 50.0
SLOWER_SECONDS = 0.02
SLOWEST_SECONDS = 2.0
ACCOUNT_FAILURES_FREE = 40.0
"""At one account, from wherever; one is forgotten in the time in which an address may try once more."""

ACCOUNT_SLOWER_SECONDS = 0.1
ACCOUNT_SLOWEST_SECONDS = 5.0
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
        self._full_at[key] = self.check(key)
        self._full_at.move_to_end(key)
        while len(self._full_at) > KEYS_MAX:
            self._full_at.popitem(last=False)

    def check(self, key: str) -> float:
        """When the bucket would be full again after one attempt more, which is not counted. Raises TooMany."""
        now = self._clock.monotonic()
        full_at = max(now, self._full_at.get(key, now)) + self._seconds
        wait = full_at - now - self._burst * self._seconds
        if wait > 0:
            raise TooMany("too many attempts: wait a little", retry_after_seconds=math.ceil(wait))
        return full_at


class Failures:
    """How many there were, of which one is forgotten in each ``seconds``; per key, the least lately seen go first."""

    def __init__(self, clock: Clock, *, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def add(self, key: str) -> None:
        """One more."""
        self._levels[key] = (self.level(key) + 1.0, self._clock.monotonic())
        self._levels.move_to_end(key)
        while len(self._levels) > KEYS_MAX:
            self._levels.popitem(last=False)

    def level(self, key: str) -> float:
        """Those that are not forgotten yet."""
        failures, at = self._levels.get(key, (0.0, 0.0))
        return max(0.0, failures - (self._clock.monotonic() - at) / self._seconds)


class SignIns:
    """``burst`` attempts of an address at an account at once, then one per ``seconds``."""

    def __init__(self, clock: Clock, *, burst: int, seconds: float) -> None:
        self._clock = clock
        self._sources = Limiter(clock, burst=burst * ACCOUNTS_OF_SOURCE, seconds=seconds / 2)
        self._pairs = Limiter(clock, burst=burst, seconds=seconds)
        self._proofs = Limiter(clock, burst=burst, seconds=seconds)
        self._all = Failures(clock, seconds=1.0)
        self._accounts = Failures(clock, seconds=seconds)
        # Addresses at accounts, by whose sign-ins others' failures there are no business of theirs.
        self._known: OrderedDict[str, None] = OrderedDict()

    async def admit(self, source: str, account: str = "") -> None:
        """Count an attempt, and wait as long as one must. Raises TooMany. Whether there is such an account is not
        looked at, so that nobody learns it here."""
        self._sources.take(network(source))
        if account:
            self._pairs.take(_pair(source, account))
        await self._clock.sleep(max(self.delay, self.delay_at(source, account)))

    def failed(self, account: str = "") -> None:
        """Somebody, somewhere, was wrong."""
        self._all.add("")
        if account:
            self._accounts.add(_digest(account))

    def succeeded(self, source: str, account: str) -> None:
        """Somebody has shown that they are who they say."""
        pair = _pair(source, account)
        self._known[pair] = None
        self._known.move_to_end(pair)
        while len(self._known) > KEYS_MAX:
            self._known.popitem(last=False)

    def may_prove(self, source: str, subject: str) -> None:
        """Something that is no password is shown for a subject. Only what was wrong counts (`disproved`): thousands of
        hosts may join from one address. Raises TooMany."""
        self._proofs.check(_pair(source, subject))

    def disproved(self, source: str, subject: str) -> None:
        """It was wrong."""
        with suppress(TooMany):  # of some at once that were let in
            self._proofs.take(_pair(source, subject))

    @property
    def delay(self) -> float:
        """The seconds that each attempt waits now, right or wrong."""
        return min(max(0.0, self._all.level("") - FAILURES_FREE) * SLOWER_SECONDS, SLOWEST_SECONDS)

    def delay_at(self, source: str, account: str) -> float:
        """The seconds that an attempt at an account waits now, from there."""
        if not account or _pair(source, account) in self._known:
            return 0.0
        over = max(0.0, self._accounts.level(_digest(account)) - ACCOUNT_FAILURES_FREE)
        return min(over * ACCOUNT_SLOWER_SECONDS, ACCOUNT_SLOWEST_SECONDS)


class Bearers:
    """How often an address may show a bearer that is worth nothing: ``burst`` at once, then one per ``seconds``; past
    that a bearer from there is not looked at. One that was good from there before is, whatever others do behind the
    same address; one that is new there finds its turn within ``seconds`` of the last failure that was let in."""

    def __init__(self, clock: Clock, *, burst: int, seconds: float) -> None:
        self._failures = Limiter(clock, burst=burst, seconds=seconds)
        self._good: OrderedDict[str, None] = OrderedDict()

    def admit(self, source: str, bearer: str) -> None:
        """Before it is looked at. Raises TooMany."""
        if _pair(source, bearer) not in self._good:
            self._failures.check(network(source))

    def good(self, source: str, bearer: str) -> None:
        """It was somebody's."""
        pair = _pair(source, bearer)
        self._good[pair] = None
        self._good.move_to_end(pair)
        while len(self._good) > KEYS_MAX:
            self._good.popitem(last=False)

    def worthless(self, source: str, bearer: str) -> None:
        """It was nobody's, or is not any more."""
        self._good.pop(_pair(source, bearer), None)
        with suppress(TooMany):  # of some at once that were let in
            self._failures.take(network(source))


def _digest(account: str) -> str:
    """A key of bounded length; names may be passwords that were typed into the wrong field."""
    return hashlib.sha256(account.encode(errors="replace")).hexdigest()


def _pair(source: str, account: str) -> str:
    return f"{network(source)} {_digest(account)}"


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
