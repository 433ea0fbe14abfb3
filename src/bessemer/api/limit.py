"""How often somebody may try: a bucket of attempts per key, refilled over time, in bounded memory; and sign-ins by it.

An account is never closed to everybody, for else a stranger could lock its owner out: attempts are bounded for an
address, and for an address at an account. Where many fail at one account, whoever from, each attempt at it waits the
longer, and addresses that have failed there a few times have few attempts together, each in its turn, which none takes
from another; but not those from where it was signed in to before: nobody else's failures concern them. So an attacker
with many addresses has a few attempts from each and hardly more, while the owner, wherever they are, has as many at the
start, and a turn after that; only who is behind the owner's own address can spend it. Where many fail at all, all wait
a little. Nothing is shared with other replicas: behind a balancer that spreads one address over N of them, it has N
times the attempts.
"""

from __future__ import annotations

import hashlib
import ipaddress
import math
from collections import Counter, OrderedDict
from contextlib import suppress
from functools import lru_cache

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
STRANGE_FREE = 2.0
"""Failures from an address at an account; with more it waits for its turn among all others that have."""

STRANGE_SECONDS = 1200.0
"""In which one of those is forgotten, so that nobody's turn is longer in coming."""
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


class Turns:
    """One attempt per ``seconds`` at an account, by turns of the networks from which it is tried: each waits so long
    for every one of them, but not past ``longest``, and no other takes its turn, however often it asks. One that has
    had none for ``longest`` has one at once. Those whose turn is the longest ago are forgotten first."""

    def __init__(self, clock: Clock, *, seconds: float, longest: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._longest = longest
        self._had: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._networks: Counter[str] = Counter()

    def take(self, account: str, network: str) -> None:
        """Have a turn. Raises TooMany with the seconds to wait."""
        now, mine = self._clock.monotonic(), (account, network)
        while self._had and next(iter(self._had.values())) <= now - self._longest:
            self._forget()
        if mine in self._had:
            wait = self._had[mine] + min(self._networks[account] * self._seconds, self._longest) - now
            if wait > 0:
                raise TooMany("too many attempts: wait a little", retry_after_seconds=math.ceil(wait))
        else:
            self._networks[account] += 1
        self._had[mine] = now
        self._had.move_to_end(mine)
        while len(self._had) > KEYS_MAX:
            self._forget()

    def _forget(self) -> None:
        (account, _), _ = self._had.popitem(last=False)
        self._networks[account] -= 1
        if not self._networks[account]:
            del self._networks[account]


class SignIns:
    """``burst`` attempts of an address at an account at once, then one per ``seconds``."""

    def __init__(self, clock: Clock, *, burst: int, seconds: float) -> None:
        self._clock = clock
        self._sources = Limiter(clock, burst=burst * ACCOUNTS_OF_SOURCE, seconds=seconds / 2)
        self._pairs = Limiter(clock, burst=burst, seconds=seconds)
        self._proofs = Limiter(clock, burst=burst, seconds=seconds)
        self._all = Failures(clock, seconds=1.0)
        self._accounts = Failures(clock, seconds=seconds)
        self._strange = Failures(clock, seconds=STRANGE_SECONDS)
        self._turns = Turns(clock, seconds=ACCOUNT_SLOWEST_SECONDS, longest=STRANGE_SECONDS)
        # Addresses at accounts, by whose sign-ins others' failures there are no business of theirs.
        self._known: OrderedDict[str, None] = OrderedDict()

    async def admit(self, source: str, account: str = "") -> None:
        """Count an attempt, and wait as long as one must. Raises TooMany. Whether there is such an account is not
        looked at, so that nobody learns it here."""
        self._sources.take(network(source))
        if account:
            self._pairs.take(_pair(source, account))
            if self._besieged(source, account) and self._strange.level(_pair(source, account)) > STRANGE_FREE:
                self._turns.take(_digest(account), network(source))
        await self._clock.sleep(max(self.delay, self.delay_at(source, account)))

    def failed(self, source: str, account: str = "") -> None:
        """Somebody was wrong."""
        self._all.add("")
        if account:
            self._accounts.add(_digest(account))
            self._strange.add(_pair(source, account))

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
        return min(self._besieged(source, account) * ACCOUNT_SLOWER_SECONDS, ACCOUNT_SLOWEST_SECONDS)

    def _besieged(self, source: str, account: str) -> float:
        """How many more failures at the account there are than are free, where they concern who tries from there."""
        if not account or _pair(source, account) in self._known:
            return 0.0
        return max(0.0, self._accounts.level(_digest(account)) - ACCOUNT_FAILURES_FREE)


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


@lru_cache(KEYS_MAX)
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
