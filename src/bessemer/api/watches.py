"""Watches: one JSON object per line, for as long as the client, the server and the asker's rights last.

Each begins by itself (`beginnings`), goes on from the revision that it was told until nothing is left, and is then told
by a channel what all are told who watch the same (`channels`), as long as its connection takes what comes and its
rights are beyond doubt; else it goes on by itself again, from where it stands, until it is level. Sealed kinds, tables,
and connections that can only be written to by uvicorn's way have a road of their own to the end.

A stream ends when the client goes, its time is up, the server stops, or who asks may see something else now. That, and
history that is gone, is told inside the stream (ERROR, 410 Expired), as every client expects: it lists again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from starlette.responses import Response
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from bessemer.api import keeping
from bessemer.api.beginnings import Beginning
from bessemer.api.channels import Show, followed, same
from bessemer.api.context import Identity
from bessemer.api.credentials import narrowed
from bessemer.api.flow import Work
from bessemer.api.following import RETRY_SECONDS
from bessemer.api.judged import Judged
from bessemer.api.lines import Lines, ending
from bessemer.api.listener import Outlet
from bessemer.api.media import Wanted
from bessemer.api.query import ListOptions
from bessemer.api.reading import Reading
from bessemer.api.state import Call, group
from bessemer.core.errors import BessemerError, Expired, Unavailable
from bessemer.core.ports import Bookmark, Scope
from bessemer.core.resource import Change
from bessemer.core.tasks import first_error, until_first

if TYPE_CHECKING:
    from bessemer.api.lists import Selection

_STEP = 16
"""Changes that are told in one step."""

_CHANGED = "what may be seen here has changed: list again"
_HEADERS = [(b"content-type", b"application/json"), (b"cache-control", b"no-cache, private")]


def watch(call: Call, selection: Selection, *, options: ListOptions, wants: Wanted) -> Response:
    """The streaming answer."""
    return _Answer(call, selection, options=options, wants=wants)


class _Answer(Response):
    """Sends by itself: several things may end it, and Starlette's streaming answer knows only one of them."""

    def __init__(self, call: Call, selection: Selection, *, options: ListOptions, wants: Wanted) -> None:
        super().__init__()
        self._call = call
        self._selection = selection
        self._options = options
        self._wants = wants

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        call = self._call
        call.linger()
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        await _send(send, b"")  # it is a stream, whatever comes
        outlet = scope.get("state", {}).get("outlet") if scope["method"] == "GET" else None
        watches = call.state.metrics.watches.labels(call.about.resource.plural)
        told = _Watch(call, self._selection, options=self._options, wants=self._wants, send=send, outlet=outlet)
        watches.inc()
        gone = asyncio.ensure_future(_gone(receive))
        try:
            await until_first([gone, told.over], seconds=float(self._options.seconds) or None)
        finally:
            watches.dec()
            await told.close()
        if failed := first_error([gone, told.over]):
            raise failed
        why = None if told.over.cancelled() else told.over.result()
        with suppress(OSError):
            if why is not None:
                # After the last event: a client that went on from one behind it would keep what it may not see any
                # more, and miss what it may.
                await _send(send, ending(why))
            await send({"type": "http.response.body", "body": b""})


class _Watch:
    """What is told, until ``over``: of why, where that is to be said; or of a defect. Call `close` then."""

    def __init__(
        self,
        call: Call,
        selection: Selection,
        *,
        options: ListOptions,
        wants: Wanted,
        send: Send,
        outlet: Outlet | None,
    ) -> None:
        self.over: asyncio.Future[BessemerError | None] = asyncio.get_running_loop().create_future()
        state, resource = call.state, call.about.resource
        self._call = call
        self._selection = selection
        self._options = options
        self._send = send
        self._lines = Lines(resource, selection, shape=wants.shape, include=options.include, clock=state.context.clock)
        self._connection = outlet
        self._outlet = None if resource.sealed or wants.shape == "table" else outlet
        self._clock = state.context.clock
        self._tasks: set[asyncio.Future[None]] = set()
        self._bells = [state.bells.when(state.closing, self._end)]
        if options.bookmarks:
            self._bells.append(state.bells.after(state.context.limits.bookmark_seconds, self._remind))
        self._judged = Judged(
            call,
            partial(_holds, call, ours=selection.scope),
            bells=state.bells,
            ended=lambda defect: self._end(defect or Expired(_CHANGED)),
        )
        self._reading = Reading(
            self._outlet, self._judged, bookmarks=options.bookmarks, go=self._go, parted=self._parted
        )
        self._reading.told_at = self._clock.monotonic()
        if outlet is not None:
            outlet.when_lost = self._end
        self._go(self._begin)

    async def close(self) -> None:
        """Tell nothing more."""
        self._end()
        for bell in self._bells:
            bell.silence()
        self._reading.leave()
        if self._connection is not None:
            self._connection.when_lost = None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(self._judged.close(), *self._tasks, return_exceptions=True)

    # --- by itself --------------------------------------------------------------------------------------------------

    def _go(self, work: Work) -> None:
        """At the pace of the tenant's streams."""
        task = asyncio.ensure_future(self._call.state.flows.follow(work, tenant=group(self._call)))
        self._tasks.add(task)
        task.add_done_callback(self._went)

    def _went(self, task: asyncio.Future[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._end(error)

    async def _begin(self) -> None:
        beginning = Beginning(self._call, self._selection, options=self._options, lines=self._lines, tell=self._tell)
        self._reading.revision = await beginning.tell()
        await self._follow()

    async def _follow(self) -> None:
        """From where it stands until a channel has taken over. A store that cannot be read for now ends nothing."""
        while True:
            try:
                return await self._followed()
            except Unavailable:
                await self._clock.sleep(RETRY_SECONDS)

    async def _followed(self) -> None:
        objects, changes, level = self._call.state.ports.objects, list[Change](), False
        async with followed(objects, self._selection.scope, since=self._reading.revision, level=True) as events:
            async for event in events:
                before, level = level, isinstance(event, Bookmark)
                if isinstance(event, Change):
                    changes.append(event)
                if level or len(changes) >= _STEP:
                    await self._show(changes)
                    changes = []
                if level and await self._level(event.revision, due=before):
                    return

    async def _show(self, changes: Sequence[Change]) -> None:
        """Tell them a turn of the loop later: what the same commit woke runs before, also who learns that rights were
        lost."""
        if changes:
            await asyncio.sleep(0)
        for change in changes:
            (found,) = await keeping.shown(self._call, (change,), whole=self._lines.whole)
            await self._tell(self._lines.of(found))
            self._reading.revision = change.revision

    async def _level(self, revision: int, *, due: bool) -> bool:
        """Everything up to the revision was told; whether a channel tells the rest. Level twice, with nothing between:
        the store marks how far it has come."""
        if self._outlet is None and due and self._options.bookmarks:
            await self._tell(self._lines.bookmark(revision))
        self._reading.revision = max(self._reading.revision, revision)
        return self._outlet is not None and await self._joined(self._outlet)

    async def _joined(self, outlet: Outlet) -> bool:
        """Whether this has nothing more to tell: a channel tells the rest, or nobody hears it."""
        if not outlet.ready:
            await _send(self._send, b"")  # once it can be written to
        if outlet.closed:
            self._end()
            return True  # nobody tells the rest
        if not await self._judged.sure() or not outlet.ready:
            return False
        return self._reading.join(self._call.state.channels, _show(self._call, self._selection, lines=self._lines))

    def _parted(self, error: BaseException | None) -> None:
        """Go on by itself, from where it stands."""
        if error is not None and not isinstance(error, Unavailable):
            self._end(error)
        elif self._outlet is not None and self._outlet.closed:
            self._end()
        else:
            self._go(self._follow)

    async def _tell(self, lines: bytes) -> None:
        if lines:
            if not await self._judged.sure():
                raise Expired(_CHANGED)
            await _send(self._send, lines)
            self._reading.told_at = self._clock.monotonic()

    # --- what comes beside ------------------------------------------------------------------------------------------

    def _remind(self) -> None:
        """Tell the client how far it is where nothing else has told it anything for a while."""
        state, now = self._call.state, self._clock.monotonic()
        due = self._reading.told_at + state.context.limits.bookmark_seconds
        if now >= due:
            if not self._reading.mark(self._lines.bookmark):
                self._go(self._mark)
                return
            self._reading.told_at, due = now, now + state.context.limits.bookmark_seconds
        self._bells[-1] = state.bells.after(due - now, self._remind)

    async def _mark(self) -> None:
        """Of where it is once that can be written, and not behind what was told meanwhile."""
        told_at = self._reading.told_at
        await _send(self._send, b"")
        if self._reading.told_at == told_at:
            self._reading.told_at = self._clock.monotonic()
            if self._reading.revision:
                await _send(self._send, self._lines.bookmark(self._reading.revision))
        self._remind()

    def _end(self, why: BaseException | None = None) -> None:
        """It is over: said, where it is an error of ours to tell."""
        if self.over.done():
            return
        if why is None or isinstance(why, BessemerError):
            self.over.set_result(why)
        else:
            self.over.set_exception(why)


def _holds(call: Call, who: Identity, *, ours: Scope) -> bool:
    """Whether somebody may see what a watch shows, no more and no less."""
    try:
        scope = narrowed(call, who, scope=call.state.access.scope(who, "watch", on=call.about))
    except BessemerError:
        return False
    return (scope.namespaces, scope.names, scope.places) == (ours.namespaces, ours.names, ours.places)


def _show(call: Call, selection: Selection, *, lines: Lines) -> Show:
    """Holds nothing of who asks."""
    resource, tenant = call.about.resource, group(call)
    served = (resource.group, resource.version, resource.plural)
    return Show(
        scope=selection.scope,
        line=lambda change: lines.of(keeping.bare(resource, change)),
        bookmark=lines.bookmark,
        same=same(selection.scope, served, selection.labels, selection.fields, lines.shape, tenant),
        tenant=tenant,
    )


async def _send(send: Send, line: bytes) -> None:
    await send({"type": "http.response.body", "body": line, "more_body": True})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
