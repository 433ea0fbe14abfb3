"""Turns: whose request runs next when more is asked than one process can do, so that one tenant's storm is its own.

A request belongs to a flow: the tenant that it is about, where its asker is of that tenant, else the asker's own. Flows
of one lane share its seats by start-time fair queuing (Goyal, Vin and Cheng, SIGCOMM 1996): the next free seat goes to
the flow that was served least, by the time its requests took. A flow that is alone has all seats, for batches are
cheaper. While several ask, each has few, so that a newcomer finds little before it on the one processor that all share,
and its first request begins at once: what a flow took while it was alone fills nobody else's seats.

A seat paces the beginning of work. A watch, a log and a socket give it on once they are open; whoever else holds one
for long (a slow upload, a slow reader of a list) has to where others wait. Both are counted as lingering. These, and
those that wait, are bounded for each flow: past that a request is refused with 429 and the seconds to wait. It decides
nothing about rights, nor about sign-ins (`api.limit`).
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from bessemer.api.context import Credentials, Identity
from bessemer.api.limit import network
from bessemer.core.clock import Clock
from bessemer.core.errors import TooMany
from bessemer.core.pace import Pace

SEAT_SECONDS = 0.25
"""How long a request may hold its seat."""

WAIT_SECONDS = 15.0
CROWD_SECONDS = 10.0
"""For how long a flow that asked counts as one that asks."""

ARRIVALS_ALONE, ARRIVALS_SHARED, ARRIVAL_SECONDS = 64, 4, 0.001
"""Requests that are looked at in one turn of the loop, while one tenant asks and while several do, and what each takes
at most; more where turns are long."""

STREAMS = 16
"""Streams that are told of changes in one turn of the loop."""

FANS = 4
"""Steps of channels, likewise: each tells some readers (`channels.FAN`)."""

REFUSAL_SECONDS = 1.0
"""Until a refusal is told: whoever asks again at once costs little of what all share."""

GATEWAY = "system:gateway"
OURS = frozenset({GATEWAY, "system:portal"})
"""Names of certificates that wait at no door."""

Work = Callable[[], Coroutine[Any, Any, None]]

FLOWS_MAX = 10_000
RETRY_SECONDS_MAX = 30
_REFUSED = "refused"
_WEIGHT = 0.125
"""Of the last request in what the next one of its flow is expected to take."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of a lane. ``alone`` and ``shared`` are seats, of which one flow has ``each`` where several ask; ``waiting`` and
    ``lingering`` are requests of one flow."""

    alone: int
    shared: int
    each: int
    waiting: int
    lingering: int


@dataclass(slots=True, eq=False)
class _Flow:
    name: str
    tag: float = 0.0
    """Seconds that it was served, on the lane's virtual clock."""
    expected: float = 0.001
    """Seconds that a request of it takes."""
    queue: deque[_Waiter] = field(default_factory=deque)
    lined: bool = False
    """Whether it stands in the lane's line."""
    holding: int = 0
    lingering: int = 0

    @property
    def idle(self) -> bool:
        return not (self.queue or self.holding or self.lingering)


@dataclass(slots=True, eq=False)
class _Waiter:
    turn: asyncio.Future[Turn]
    since: float


class Turn:
    """One request's. Call `leave` once it is answered."""

    __slots__ = ("_lane", "began", "charged", "flow", "seated")

    def __init__(self, lane: Lane, flow: _Flow, *, began: float) -> None:
        self._lane = lane
        self.flow = flow
        self.began = began
        self.charged = flow.expected
        self.seated = True

    def linger(self) -> None:
        """What follows takes long and asks little, as a watch does: the seat is another's from here on."""
        self._lane.lingers(self)

    def leave(self) -> None:
        """The request is over."""
        self._lane.ended(self)


class _Seats:
    """Those of a lane: all for a flow that is alone, few for each where several ask."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self.held: dict[Turn, None] = {}
        self._taken = 0
        """Seats, of each flow no more than it may have where several ask."""
        self._last = ""
        self._crowded_until = -math.inf

    def asked(self, name: str, now: float) -> None:
        """A flow has asked: it is not alone where the last one was another."""
        if name != self._last:
            self._crowded_until = now + CROWD_SECONDS if self._last else -math.inf
            self._last = name

    def crowded(self, now: float) -> bool:
        """Whether several flows ask."""
        return now < self._crowded_until

    def room(self, now: float) -> bool:
        """Whether there is a seat."""
        return self._taken < self._bounds.shared if self.crowded(now) else len(self.held) < self._bounds.alone

    def may(self, flow: _Flow, now: float) -> bool:
        """Whether the flow may have it; else it waits for the end of a request of its own, out of line."""
        return flow.holding < self._bounds.each or not self.crowded(now)

    def take(self, turn: Turn) -> None:
        """It is the turn's."""
        self._taken += turn.flow.holding < self._bounds.each
        turn.flow.holding += 1
        self.held[turn] = None

    def give(self, turn: Turn) -> None:
        """It is nobody's again."""
        del self.held[turn]
        turn.flow.holding -= 1
        self._taken -= turn.flow.holding < self._bounds.each


class Lane:
    """Requests of one sort. ``shed`` is called for each that is refused; ``door`` paces how refusals are told."""

    def __init__(
        self, clock: Clock, bounds: Bounds, *, door: Pace | None = None, shed: Callable[[], None] = lambda: None
    ) -> None:
        self._clock = clock
        self._bounds = bounds
        self._door = door or Pace(clock)
        self._shed = shed
        self._flows: dict[str, _Flow] = {}
        self._line: list[tuple[float, int, _Flow]] = []
        self._pushed = 0
        self._waiting = 0
        self._virtual = 0.0
        self._seats = _Seats(bounds)
        self._sweep: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Requests that have no turn yet."""
        return self._waiting

    @property
    def crowded(self) -> bool:
        """Whether several flows ask."""
        return self._seats.crowded(self._clock.monotonic())

    async def enter(self, name: str) -> Turn:
        """Wait for a turn of the flow. Raises TooMany where it has too many already, or none comes in time."""
        now = self._clock.monotonic()
        self._seats.asked(name, now)
        flow = self._flows.get(name)
        if flow is None:
            flow = self._new(name)
        if flow.lingering >= self._bounds.lingering:
            raise await self._refused(flow, "too many streams and slow requests are open at once: close some")
        if not self._line and not flow.queue and self._seats.room(now) and self._seats.may(flow, now):
            return self._seat(flow, now)
        if len(flow.queue) >= self._bounds.waiting:
            raise await self._refused(flow, "too many requests at once: wait a little")
        return await self._wait(flow, now)

    def ended(self, turn: Turn) -> None:
        """Charge what the request took, and let the next begin."""
        flow = turn.flow
        if turn.seated:
            self._unseat(turn, self._clock.monotonic())
        else:
            flow.lingering -= 1
        if flow.idle and flow.tag <= self._virtual:
            self._flows.pop(flow.name, None)

    def lingers(self, turn: Turn) -> None:
        """Give the seat on, and count the turn as lingering."""
        if turn.seated:
            turn.flow.lingering += 1
            self._unseat(turn, self._clock.monotonic())

    def _new(self, name: str) -> _Flow:
        if len(self._flows) >= FLOWS_MAX:
            self._flows = {n: flow for n, flow in self._flows.items() if not flow.idle}
        flow = self._flows[name] = _Flow(name)
        return flow

    def _seat(self, flow: _Flow, now: float) -> Turn:
        self._virtual = max(self._virtual, flow.tag)
        flow.tag = self._virtual + flow.expected
        turn = Turn(self, flow, began=now)
        self._seats.take(turn)
        return turn

    def _unseat(self, turn: Turn, now: float) -> None:
        flow, took = turn.flow, now - turn.began
        turn.seated = False
        self._seats.give(turn)
        flow.tag += took - turn.charged
        flow.expected += (took - flow.expected) * _WEIGHT
        self._stand(flow, now)
        self._dispatch(now)

    async def _wait(self, flow: _Flow, now: float) -> Turn:
        waiter = _Waiter(asyncio.get_running_loop().create_future(), now)
        flow.queue.append(waiter)
        self._waiting += 1
        self._stand(flow, now)
        self._dispatch(now)
        if self._sweep is None and not waiter.turn.done():
            self._sweep = asyncio.ensure_future(self._sweeps())
        try:
            return await waiter.turn
        except asyncio.CancelledError:  # the client went
            if waiter in flow.queue:
                flow.queue.remove(waiter)
                self._waiting -= 1
            elif waiter.turn.done() and not waiter.turn.cancelled() and waiter.turn.exception() is None:
                waiter.turn.result().leave()
            raise

    def _stand(self, flow: _Flow, now: float) -> None:
        """In line, by what it was served."""
        if flow.queue and not flow.lined and self._seats.may(flow, now):
            flow.lined = True
            self._pushed += 1
            heapq.heappush(self._line, (flow.tag, self._pushed, flow))

    def _dispatch(self, now: float) -> None:
        while self._line and self._seats.room(now):
            tag, _, flow = heapq.heappop(self._line)
            flow.lined = False
            # Else it was charged since it stood in line, or is not alone any more.
            if flow.queue and tag == flow.tag and self._seats.may(flow, now):
                waiter = flow.queue.popleft()
                self._waiting -= 1
                if not waiter.turn.done():  # else its client went in this very turn of the loop
                    waiter.turn.set_result(self._seat(flow, now))
            self._stand(flow, now)

    async def _sweeps(self) -> None:
        """While anybody waits: take seats back from those that hold them for long, and tell who waits in vain."""
        try:
            while self._waiting:
                await self._clock.sleep(SEAT_SECONDS / 2)
                now = self._clock.monotonic()
                for turn in [t for t in self._seats.held if now - t.began >= SEAT_SECONDS]:
                    self.lingers(turn)
                self._give_up(now)
                self._dispatch(now)
        finally:
            self._sweep = None

    def _give_up(self, now: float) -> None:
        for flow in self._flows.values():
            while flow.queue and now - flow.queue[0].since >= WAIT_SECONDS:
                waiter = flow.queue.popleft()
                self._waiting -= 1
                if not waiter.turn.done():
                    self._shed()
                    waiter.turn.set_exception(_too_many(flow, "the server is busy with other requests of yours"))

    async def _refused(self, flow: _Flow, why: str) -> TooMany:
        self._shed()
        error = _too_many(flow, why)
        await self._clock.sleep(REFUSAL_SECONDS)
        await self._door.enter(_REFUSED, flow.name)  # those that were refused together come back together
        return error


def _too_many(flow: _Flow, why: str) -> TooMany:
    wait = math.ceil(len(flow.queue) * flow.expected)
    return TooMany(why, retry_after_seconds=min(max(wait, 1), RETRY_SECONDS_MAX))


TENANTS = Bounds(alone=64, shared=8, each=2, waiting=256, lingering=2048)
AGENTS = Bounds(alone=32, shared=16, each=4, waiting=32, lingering=32)
STRANGERS = Bounds(alone=8, shared=4, each=2, waiting=1024, lingering=64)


class Flows:
    """The lanes of one api, and the doors before them: people by tenant, agents by host, and strangers by network. The
    gateway and the portal are ours and wait for nobody; what the portal asks in a person's name is that person's, and
    waits in their lane. ``flow`` names a person's, by the tenant that a request is about."""

    def __init__(self, clock: Clock, flow: Callable[[Identity, str], str], *, shed: Callable[[str], None]) -> None:
        self._flow = flow
        self._door = Pace(clock, steps=ARRIVALS_ALONE, share=0.5, seconds=ARRIVAL_SECONDS)
        self._known = Pace(clock, steps=ARRIVALS_ALONE, seconds=ARRIVAL_SECONDS)
        """For who shows a certificate of ours: however many strangers come, these do not wait for them."""
        self._familiar = Pace(clock, steps=ARRIVALS_ALONE, seconds=ARRIVAL_SECONDS, apart=True)
        """For who was known a while ago, likewise, and however many hosts there are. Who asks for little does not wait
        behind a storm even once."""
        self._streams = Pace(clock, steps=STREAMS)
        self._fans = Pace(clock, steps=FANS)
        door = self._door
        self._people = Lane(clock, TENANTS, door=door, shed=lambda: shed("people"))
        self._agents = Lane(clock, AGENTS, door=door, shed=lambda: shed("agents"))
        self._strangers = Lane(clock, STRANGERS, door=door, shed=lambda: shed("strangers"))

    async def arrive(self, shown: Credentials, known: Identity | None = None) -> None:
        """Before it is found out who asks, which has its price, also where the answer is to wait: a few in a turn of
        the loop, networks by turns, and within one what is shown. Certificates have a door of their own, by name, and
        who was ``known`` before has another, by flow."""
        steps = ARRIVALS_SHARED if self._people.crowded else ARRIVALS_ALONE
        self._door.steps = self._known.steps = self._familiar.steps = steps
        if shown.authorization and known is not None:
            await self._familiar.enter(self._flow(known, ""), known.name)
        elif shown.peer is None:
            await self._door.enter(network(shown.source), shown.authorization)
        elif shown.peer.name not in OURS:
            await self._known.enter(shown.peer.name)

    async def enter(self, who: Identity | None, *, tenant: str, shown: Credentials) -> Turn | None:
        """A turn for a request about what a tenant owns ("" is nobody's); None for who needs none. Where nobody has to
        be known, the gateway is by what is ``shown``: by what is public it hears whether we are here. The portal is
        not, for what it asks there is a stranger's. Raises TooMany."""
        if who is None:
            ours = shown.peer is not None and shown.peer.name == GATEWAY
            return None if ours else await self._strangers.enter(network(shown.source))
        if who.kind == "user":
            return await self._people.enter(self._flow(who, tenant))
        return await self._agents.enter(who.name) if who.kind == "agent" else None

    async def follow(self, work: Work, *, tenant: str) -> None:
        """Tell somebody of changes for as long as they come, with a few others in one turn of the loop. ``work`` is
        called once it begins, so that one that is cancelled before leaves nothing."""
        await self._streams.run(work(), group=tenant)

    async def fan(self, work: Work, *, tenant: str) -> None:
        """Tell many of the same changes, some readers in a step."""
        await self._fans.run(work(), group=tenant)

    def waiting(self) -> Mapping[str, int]:
        """Lane → requests that have no turn yet."""
        lanes = {"people": self._people, "agents": self._agents, "strangers": self._strangers}
        return {name: lane.waiting for name, lane in lanes.items()}
