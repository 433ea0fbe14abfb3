"""Kinds that are followed for as long as the process lives, whatever the store answers: they feed what is kept in
memory, and here is known how old that may be.

It is as new as the database where no kind's watch has failed, or fallen behind what waits for it, since it told all
there was, and the store's feed has heard how far the database is. Where that was long ago, whoever decides by what is
kept asks `require` first, and does not decide.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

from bessemer.core.clock import Clock
from bessemer.core.errors import BessemerError, Expired, Unavailable
from bessemer.core.ports import Bookmark, Objects, Scope
from bessemer.core.resource import Change

log = structlog.get_logger(__name__)

RETRY_SECONDS = 1.0
STALE_SECONDS = 10.0
"""What others withdrew longer ago than this is not allowed here any more."""

AGAIN_SECONDS = 5


class Following:
    """Of one store. ``unheard`` answers for how many seconds its feed has not heard how far the database is."""

    def __init__(self, objects: Objects, clock: Clock, *, unheard: Callable[[], float] = lambda: 0.0) -> None:
        self._objects = objects
        self._clock = clock
        self._unheard = unheard
        # Since when each of those that are behind is. Who has told nothing yet is not: nothing old is kept of theirs.
        self._behind: dict[object, float] = {}

    async def follow(
        self,
        kind: str,
        *,
        hear: Callable[[Change | Bookmark], None],
        begin: Callable[[], Awaitable[int | None]],
        since: int | None = None,
    ) -> None:
        """Tell ``hear`` every change after ``since`` until cancelled. ``begin`` is asked first where that is None, and
        again where history is gone, for a new list does not tell what was deleted meanwhile: it forgets what has to be,
        and answers the revision to go on from, or None to be told what there is."""
        mine = object()

        def heard(event: Change | Bookmark) -> None:
            nonlocal since
            since = event.revision
            hear(event)
            if isinstance(event, Bookmark):
                self._behind.pop(mine, None)

        def lost() -> None:
            self._behind.setdefault(mine, self._clock.monotonic())

        while True:
            try:
                if since is None:
                    since = await begin()
                async for event in self._objects.watch(Scope(kind=kind), since=since, level=True, lagged=lost):
                    heard(event)
            except Expired:
                lost()
                since = None
            except BessemerError as error:
                lost()
                log.warning("a watch failed; it begins again", kind=kind, error=error.message, internal=error.internal)
                await self._clock.sleep(RETRY_SECONDS)

    @property
    def seconds(self) -> float:
        """How old what is kept may be."""
        unheard = self._unheard()
        if not self._behind:
            return unheard
        return max(unheard, self._clock.monotonic() - min(self._behind.values()))

    @property
    def current(self) -> bool:
        """Whether it may be decided by."""
        return self.seconds <= STALE_SECONDS

    def require(self) -> None:
        """Raises Unavailable where it may not."""
        if not self.current:
            raise Unavailable(
                "this server has not heard from its database for a while, and does not decide by what it knew",
                retry_after_seconds=AGAIN_SECONDS,
            )
