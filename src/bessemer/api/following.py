"""One kind, followed for as long as the process lives, whatever the store answers: it feeds what is kept in memory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

from bessemer.core.clock import Clock
from bessemer.core.errors import BessemerError, Expired
from bessemer.core.ports import Bookmark, Objects, Scope
from bessemer.core.resource import Change

log = structlog.get_logger(__name__)

RETRY_SECONDS = 1.0


async def follow(
    objects: Objects,
    kind: str,
    *,
    clock: Clock,
    hear: Callable[[Change | Bookmark], None],
    begin: Callable[[], Awaitable[int | None]],
    since: int | None = None,
) -> None:
    """Tell ``hear`` every change after ``since`` until cancelled. ``begin`` is asked first where that is None, and
    again where history is gone, for a new list does not tell what was deleted meanwhile: it forgets what has to be, and
    answers the revision to go on from, or None to be told what there is."""
    while True:
        try:
            if since is None:
                since = await begin()
            async for event in objects.watch(Scope(kind=kind), since=since):
                since = event.revision
                hear(event)
        except Expired:
            since = None
        except BessemerError as error:
            log.warning("a watch failed; it begins again", kind=kind, error=error.message, internal=error.internal)
            await clock.sleep(RETRY_SECONDS)
