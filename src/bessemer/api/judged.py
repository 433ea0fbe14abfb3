"""Whether who reads a stream may go on reading: judged when it opens, whenever what that hangs on changes, and for
people now and then, since a session ends by the clock alone.

Invariant: from the moment on at which a change of rights is known until it is judged, the stream is doubtful; what
comes meanwhile is not told. A stream that nothing happens to has no task here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from bessemer.api.bells import Bell, Bells
from bessemer.api.context import Identity
from bessemer.api.state import Call, again_in_time, group


class Judged:
    """Of one stream. ``holds`` says whether somebody may read on; ``ended`` is called once that is not so (None), or
    could not be judged (why). Call `close` at its end."""

    def __init__(
        self,
        call: Call,
        holds: Callable[[Identity], bool],
        *,
        bells: Bells,
        ended: Callable[[BaseException | None], None],
    ) -> None:
        self._call = call
        self._holds = holds
        self._bells = bells
        self._ended = ended
        self._turns: Sequence[asyncio.Event] = ()
        self._rung: list[Bell] = []
        self._task: asyncio.Future[None] | None = None
        self._allowed = True
        self.judge()

    @property
    def doubtful(self) -> bool:
        """Whether something has changed that is not judged yet, or was not allowed."""
        if self._task is not None:
            return True
        for turn in self._turns:  # noqa: SIM110 - asked of each reader, for each change
            if turn.is_set():
                return True
        return False

    async def sure(self) -> bool:
        """Wait for a judgement that began after the call, where there is doubt; whether the stream may go on. What
        changes while that is made is not waited for: somebody's rights change all the time, perhaps."""
        if self._task is not None and self._allowed:
            await asyncio.wait([self._task])
        if self.doubtful and self._allowed:
            await asyncio.wait([self.judge()])
        return self._allowed

    def judge(self) -> asyncio.Future[None]:
        """Begin to, unless it is being judged; many that have the same reason take turns."""
        if self._task is None:
            follow = self._call.state.flows.follow
            self._task = asyncio.ensure_future(follow(self._judge, tenant=group(self._call)))
            self._task.add_done_callback(self._judged)
        return self._task

    async def close(self) -> None:
        """Ask no more; a judgement that ends in this very turn of the loop asks for none after it."""
        self._allowed = False
        self._silence()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _judge(self) -> None:
        self._silence()
        self._turns = self._call.turns()
        who = await again_in_time(self._call)
        self._allowed = who is not None and self._holds(who)

    def _judged(self, task: asyncio.Future[None]) -> None:
        if task.cancelled():
            return
        if task.exception() or not self._allowed:
            self._allowed = False  # and doubtful for good
            self._ended(task.exception())
            return
        self._task = None
        self._rung = [self._bells.when(turn, self.judge) for turn in self._turns]
        if self._call.who.kind == "user":
            seconds = self._call.state.context.limits.bookmark_seconds
            self._rung.append(self._bells.after(seconds, self.judge))

    def _silence(self) -> None:
        for bell in self._rung:
            bell.silence()
        self._rung = []
