"""Requests for an endpoint that sleeps: held until a replica answers, while the controller is told to start one.

Who is held was let in like anybody: its key may use the endpoint, and what it may cost is held. They are bounded in
number and bytes, of one tenant to a part of those; past that, and when the time is over that the endpoint says, it is
503 with Retry-After. A client that leaves is held no more, nor is anybody once the endpoint is gone. Once a replica is
there, of it or of one that stands in for it, all go on, and queue for its slots as others do.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from bessemer.core.clock import Clock
from bessemer.gateway import errors
from bessemer.gateway.errors import Refused
from bessemer.gateway.reply import Call
from bessemer.gateway.request import bearer
from bessemer.gateway.route import Pool
from bessemer.gateway.tables import KeyEntry

if TYPE_CHECKING:
    from bessemer.gateway.asking import Asking
    from bessemer.gateway.exchange import Exchange

HELD_MAX = 256
"""Of one endpoint."""
BYTES_MAX = 64 << 20
"""Bodies of all that are held."""
SHARE_BYTES_MAX = BYTES_MAX // 4
"""Those of one tenant: nobody's sleepers shut out another's."""
HEADER = b"x-bessemer-waking: %.3f\r\n"


Stands = Callable[[Call, KeyEntry], "bool | asyncio.Future[bool]"]


def _nobody() -> None:
    """Nobody hears that somebody waits: they wait until a replica comes for another reason."""


def _always(_call: Call, _key: KeyEntry) -> bool:
    """No key is ever taken back."""
    return True


class Waking:
    """Those of one gateway. ``rouse`` tells whoever can start a replica that one is waited for, ``stands`` whether a
    key is still one: it may be an hour since that was asked. Of a person that may have to be asked about (a future);
    either may raise Refused."""

    def __init__(self, clock: Clock, rouse: Callable[[], None] = _nobody, *, stands: Stands = _always) -> None:
        self._clock = clock
        self.rouse = rouse
        self._stands = stands
        self._held: dict[Pool, dict[Held, None]] = {}
        self._bytes = 0
        self._tenants: Counter[str] = Counter()

    def hold(self, asking: Asking, exchange: Exchange) -> bool:
        """Hold a request for which nobody is there; whether it is held."""
        pool = exchange.endpoint.pool
        if not pool.gauge.wake_seconds or pool.replicas:
            return False
        size, held = len(exchange.wanted.body), self._held.setdefault(pool, {})
        now = self._clock.monotonic()
        since = exchange.held_since or now
        late = since + pool.gauge.wake_seconds
        room = self._bytes + size <= BYTES_MAX and self._tenants[_tenant(exchange)] + size <= SHARE_BYTES_MAX
        if len(held) >= HELD_MAX or not room or now >= late:
            if not held:
                del self._held[pool]
            return False
        exchange.held_since = since
        held[Held(self, asking, exchange=exchange)] = None
        pool.gauge.held += 1
        self._count(exchange, size)
        exchange.call.deadline = min(late, exchange.until)
        if len(held) == 1:
            self.rouse()
        return True

    def arrived(self, pool: Pool) -> None:
        """A replica is there: all that wait for one go on, once what is being done is done, and so do those for whom it
        may stand in."""
        if self._held:
            asyncio.get_running_loop().call_soon(self._go_on, pool)

    def _go_on(self, pool: Pool) -> None:
        if not pool.replicas:
            return  # it has gone again
        over = [held for other, there in self._held.items() if other is not pool for held in there if held.may(pool)]
        for held in (*self._held.get(pool, ()), *over):
            self.let_go(held)
            try:
                stands = self._stands(held.exchange.call, held.exchange.key)
            except Refused as refused:
                held.exchange.refuse(refused)
            else:
                self._judged(held, stands)

    def _judged(self, held: Held, stands: bool | asyncio.Future[bool]) -> None:
        if isinstance(stands, asyncio.Future):
            stands.add_done_callback(held.heard)
        elif stands:
            held.go_on(self._clock.monotonic())
        else:
            held.refuse()

    def let_go(self, held: Held) -> None:
        """It is held no more."""
        pool = held.exchange.endpoint.pool
        there = self._held.get(pool, {})
        if held not in there:
            return
        del there[held]
        pool.gauge.held -= 1
        self._count(held.exchange, -len(held.exchange.wanted.body))
        if not there:
            del self._held[pool]

    def left(self, pool: Pool) -> None:
        """Its endpoint is gone: nobody is waited for there any more, and what was held for that is free."""
        for held in list(self._held.get(pool, ())):
            self.let_go(held)
            held.exchange.refuse(errors.no_model(held.exchange.wanted.model))

    def _count(self, exchange: Exchange, size: int) -> None:
        tenant = _tenant(exchange)
        self._bytes += size
        self._tenants[tenant] += size
        if not self._tenants[tenant]:
            del self._tenants[tenant]


class Held:
    """One request that waits for a first replica."""

    __slots__ = ("_asking", "_waking", "exchange")

    def __init__(self, waking: Waking, asking: Asking, *, exchange: Exchange) -> None:
        self._waking = waking
        self._asking = asking
        self.exchange = exchange
        exchange.call.work = self

    def go_on(self, now: float) -> None:
        """Somebody is there."""
        exchange = self.exchange
        exchange.headers += HEADER % (now - exchange.held_since)
        if exchange.endpoint.pool.replicas or not self._over(now, slow(exchange)):
            self._asking.go_on()

    def may(self, pool: Pool) -> bool:
        """Whether whoever is there may stand in."""
        chain = self.exchange.chain
        return chain is not None and chain.reaches(pool)

    def _over(self, now: float, refused: Refused) -> bool:
        """Ask those who stand in, from the first; whether any of them has somebody."""
        exchange = self.exchange
        chain = exchange.chain.afresh(now) if exchange.chain is not None else None
        if chain is None:
            return False
        exchange.chain = chain
        self._asking.elsewhere(refused, now)
        return True

    def refuse(self) -> None:
        """Who asked is nobody any more."""
        self.exchange.refuse(errors.wrong_key(bearer(self.exchange.call.headers.get(b"authorization"))))

    def heard(self, stands: asyncio.Future[bool]) -> None:
        """The api has said who asks. The client may have gone meanwhile, or want it no more."""
        error = None if stands.cancelled() else stands.exception()
        if self.exchange.call.work is not self:
            return
        if isinstance(error, Refused):
            self.exchange.refuse(error)
        elif error is None and not stands.cancelled():
            self._waking._judged(self, stands.result())
        else:
            self.exchange.refuse(errors.bearer_unknown())

    def gone(self) -> None:
        """The client has left."""
        self._waking.let_go(self)
        self.exchange.end()

    def late(self) -> None:
        """No replica came in time."""
        exchange = self.exchange
        self._waking.let_go(self)
        now = self._waking._clock.monotonic()
        if now >= exchange.until:
            exchange.refuse(errors.deadline_passed())
        elif not self._over(now, slow(exchange)):
            exchange.refuse(slow(exchange))

    def flow(self, paused: bool) -> None:
        """Nothing is written yet."""


def _tenant(exchange: Exchange) -> str:
    return exchange.key.project.partition("--")[0]


def slow(exchange: Exchange) -> Refused:
    """It wakes, and not in time."""
    return errors.still_waking(exchange.endpoint.name, exchange.endpoint.pool.gauge.wake_seconds)
