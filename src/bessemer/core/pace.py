"""Work that gives way: of what runs under a pace, a few steps in each turn of the event loop, and the others after.

A step is what a coroutine does between two suspensions. Thirty coroutines that wait for one commit go on in one turn of
the loop, and a request that comes meanwhile waits for all of them: under a pace it waits for a few. Where turns are
long, for others ask much, the steps are as many as make a share of the time, so that nothing starves. Those that wait
go on by turns (`turns`), so that nobody's many keep another's one. One that waits is cancelled as it would be without a
pace. It interrupts no step and knows nothing of what the work is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from functools import partial
from typing import Any, TypeVar

from bessemer.core.clock import Clock
from bessemer.core.turns import Turns

T = TypeVar("T")

_WEIGHT = 0.05
"""Of the last step in what the next one is expected to take."""

_TURN_SECONDS_MAX = 0.1
"""A longer turn of the loop has one culprit and is made up for by nobody."""


class Pace:
    """``steps`` in a turn of the loop, or more where they would come to less than ``share`` of the time. A step takes
    ``seconds``, as far as is known before the first is done. With ``apart`` the first step of a group in a turn is done
    at once, whatever others had, for as many groups as there are steps."""

    def __init__(
        self, clock: Clock, *, steps: int = 4, share: float = 0.25, seconds: float = 0.0002, apart: bool = False
    ) -> None:
        self.clock = clock
        self.steps = steps
        self._apart = apart
        self._had: set[str] = set()
        """Groups that had a step in this turn, where that counts."""
        self._share = share
        self._left = 0
        self._waiting = Turns[asyncio.Future[None]]()
        self._turning = False
        self._turned = 0.0
        self._expected = seconds

    @property
    def waiting(self) -> int:
        """Steps that could be done and are not yet."""
        return len(self._waiting)

    async def enter(self, group: str, member: str = "") -> None:
        """Wait for one step: what the caller does next."""
        if not self.admitted(group):
            await self.place(group, member)

    def run(self, work: Coroutine[Any, Any, T], *, group: str = "", member: str = "") -> Awaitable[T]:
        """Do the work, each step of it by the turns of its group and member; answers and raises what it does."""
        return _Paced(self, work, group=group, member=member)

    def admitted(self, group: str = "") -> bool:
        """Whether a step may be done in this turn of the loop."""
        if not self._turning:
            self._turning, self._left = True, self.steps
            self._turned = self.clock.monotonic()
            asyncio.get_running_loop().call_soon(self._turn)
        if self._left > 0:
            self._left -= 1
        elif not self._apart or group in self._had or group in self._waiting or len(self._had) >= self.steps:
            return False
        if self._apart:
            self._had.add(group)
        return True

    def place(self, group: str, member: str) -> asyncio.Future[None]:
        """In line, where it is not admitted: done once it may begin."""
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(place, group=group, member=member)
        return place

    def took(self, seconds: float) -> None:
        """What a step took."""
        self._expected += (seconds - self._expected) * _WEIGHT

    def _turn(self) -> None:
        """A turn of the loop later: let the next begin."""
        self._had.clear()
        if not self._waiting:
            self._turning = False
            return
        now = self.clock.monotonic()
        took, self._turned = min(now - self._turned, _TURN_SECONDS_MAX), now
        self._left = max(self.steps, int(self._share * took / max(self._expected, 1e-6)))
        while self._waiting and self._left:
            place = self._waiting.take()
            if not place.done():  # else it was cancelled
                place.set_result(None)
                self._left -= 1
        asyncio.get_running_loop().call_soon(self._turn)


class _Paced(Generator[Any, Any, T]):
    """What a task drives in place of the work: it hands on what comes, a step at a time."""

    def __init__(self, pace: Pace, work: Coroutine[Any, Any, T], *, group: str, member: str) -> None:
        self._pace = pace
        self._work = work
        self._group = group
        self._member = member
        self._next: Callable[[], Any] | None = None
        """The step that has no place yet."""

    def __await__(self) -> Generator[Any, Any, T]:
        return self

    def send(self, given: Any) -> Any:
        """The work could go on, or its step has come."""
        if self._next is not None:
            return self._do()
        self._next = partial(self._work.send, given)
        return self._go()

    def throw(self, error: Any, *more: Any) -> Any:
        """What it waited for has failed, or it is cancelled: for that nothing is waited."""
        self._next = partial(self._work.throw, error, *more)
        at_once = isinstance(error, asyncio.CancelledError)
        del error, more  # it comes to hold this frame, and the two would keep all of the work until a full collection
        return self._do() if at_once else self._go()

    def close(self) -> None:
        """It is given up."""
        self._work.close()

    def _go(self) -> Any:
        if self._pace.admitted(self._group):
            return self._do()
        return next(self._pace.place(self._group, self._member).__await__())

    def _do(self) -> Any:
        step, self._next = self._next, None
        assert step is not None
        began = self._pace.clock.monotonic()
        try:
            return step()
        finally:
            del step
            self._pace.took(self._pace.clock.monotonic() - began)
