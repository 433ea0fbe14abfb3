"""Watches: one JSON object per line, for as long as the client, the server and the asker's rights last.

One that begins with what there is reads it from one snapshot, a page at a time, each given before the next is read, and
goes on from the snapshot's revision: nothing is missed or doubled, and of a large kind no more than a page is held.
One that goes on from an earlier revision begins no earlier than the tenants and projects that it is about: what was
under their names before was somebody else's. A stream ends when the client goes, its time is up, the server stops, or
who asks may see something else now (looked at whenever what that hangs on changes, and for people now and then). That,
and history that is gone, is told inside the stream (ERROR, 410 Expired), as every client expects: it lists again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import orjson
from starlette.responses import Response
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from bessemer.api import keeping, table
from bessemer.api.credentials import narrowed
from bessemer.api.errors import FutureRevision, status_of
from bessemer.api.media import Wanted
from bessemer.api.query import ListOptions
from bessemer.api.shown import page_of, part_of
from bessemer.api.state import Call
from bessemer.core.errors import BessemerError, Expired
from bessemer.core.ports import Bookmark, Page
from bessemer.core.resource import Change
from bessemer.core.tasks import first_error, until_first
from bessemer.kinds.kubernetes.secret import SEALED

if TYPE_CHECKING:
    from bessemer.api.lists import Selection

OPENING_PAGE = 500
"""Objects of a beginning that are held at once."""

OPENING_SECONDS = 60.0
"""For a beginning of several pages. Whoever takes longer to read them keeps others from theirs, and begins again."""

_PART = 64
"""Objects between two chances for others to run."""

_STEP = 16
"""Changes, likewise."""

INITIAL_EVENTS_END = {"k8s.io/initial-events-end": "true"}
_HEADERS = [(b"content-type", b"application/json"), (b"cache-control", b"no-cache, private")]


def watch(call: Call, selection: Selection, *, options: ListOptions, wants: Wanted) -> Response:
    """The streaming answer."""
    return _Watch(call, selection, options=options, wants=wants)


class _Watch(Response):
    """Sends by itself: several things may end it, and Starlette's streaming answer knows only one of them."""

    def __init__(self, call: Call, selection: Selection, *, options: ListOptions, wants: Wanted) -> None:
        super().__init__()
        self._call = call
        self._selection = selection
        self._options = options
        self._wants = wants
        self._whole = wants.shape == "object" or options.include == "Object"
        self._revision = 0
        """Everything up to it was told; 0 until what there is was."""
        self._told_at = call.state.context.clock.monotonic()
        self._head = True
        self._tellings = 0

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        self._call.linger()
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        metrics, kind = self._call.state.metrics, self._call.about.resource.plural
        metrics.watches.labels(kind).inc()
        closing = self._call.state.closing
        lapsed = asyncio.ensure_future(self._lapsed())
        told = self._call.state.flows.follow(self._produce(send), tenant=self._call.about.tenant)
        works = (told, self._bookmark(send), _gone(receive), closing.wait())
        tasks = [lapsed, *(asyncio.ensure_future(work) for work in works)]
        try:
            await until_first(tasks, seconds=float(self._options.seconds) or None)
        finally:
            metrics.watches.labels(kind).dec()
        if error := first_error(tasks):
            raise error
        with suppress(OSError):
            if not lapsed.cancelled():
                # After the last event: a client that went on from one behind it would keep what it may not see any
                # more, and miss what it may.
                await _send(send, _error(Expired("what may be seen here has changed: list again")))
            await send({"type": "http.response.body", "body": b""})

    async def _produce(self, send: Send) -> None:
        try:
            self._revision = since = await self._begin(send)
            events = self._call.state.ports.objects.watch(self._selection.scope, since=since)
            try:
                async for event in events:
                    self._revision = max(self._revision, event.revision)
                    await self._tell(send, self._line(await _served(self._call, event, whole=self._whole)))
            finally:
                await _close(events)
        except BessemerError as error:
            await _send(send, _error(error))

    async def _begin(self, send: Send) -> int:
        """Tell what there is, where that is asked for, and that this was all; the revision to go on from."""
        options = self._options
        if options.revision and not options.initial:
            if options.revision < self._call.state.access.begins(self._selection.scope):
                raise Expired("that is from before what is here now: list again")
            return options.revision
        if options.initial is False:
            return await self._call.state.standing.present()
        since = await self._open(send)
        if options.bookmarks:
            await self._tell(send, self._bookmark_line(since, ends=bool(options.initial)))
        return since

    async def _open(self, send: Send) -> int:
        """What there is, as ADDED; the revision that it is of. Raises FutureRevision, and Expired where the client
        takes too long."""
        objects, scope = self._call.state.ports.objects, self._selection.scope
        who = self._call.who
        async with self._call.state.openings.place(f"{who.kind}:{who.name}"):
            page = await objects.list(scope, limit=page_of(self._call.about.resource, OPENING_PAGE))
            if (self._options.revision or 0) > page.revision:
                raise FutureRevision(self._options.revision or 0, page.revision)
            try:
                async with asyncio.timeout(OPENING_SECONDS):
                    await self._all(send, page)
            except TimeoutError as error:
                raise Expired("what there is was not read in time: list again") from error
        return page.revision

    async def _all(self, send: Send, page: Page) -> None:
        """Show this page and those after it, which are of its revision."""
        while page.next:
            await self._show(send, page)
            limit = page_of(self._call.about.resource, OPENING_PAGE)
            page = await self._call.state.ports.objects.list(self._selection.scope, limit=limit, after=page.next)
        await self._show(send, page)

    async def _show(self, send: Send, page: Page) -> None:
        """A page of what there is, in parts, with a turn for others between."""
        step = part_of(self._call.about.resource, _PART)
        for start in range(0, len(page.items), step):
            part = await keeping.shown(self._call, page.items[start : start + step], whole=self._whole)
            lines = [self._line(Change(i.revision, "ADDED", i.key, i.uid, i.host, i.body)) for i in part]
            await self._tell(send, b"".join(lines))
            await asyncio.sleep(0)

    async def _tell(self, send: Send, lines: bytes) -> None:
        self._tellings += 1
        if self._tellings % _STEP == 0:
            await asyncio.sleep(0)
        if lines:
            self._told_at = self._call.state.context.clock.monotonic()
            await _send(send, lines)

    async def _bookmark(self, send: Send) -> None:
        """Tell the client how far it is where nothing else has told it anything for a while."""
        clock, seconds = self._call.state.context.clock, self._call.state.context.limits.bookmark_seconds
        while True:
            await clock.sleep(self._told_at + seconds - clock.monotonic())
            if clock.monotonic() < self._told_at + seconds:
                continue
            self._told_at = clock.monotonic()
            if self._options.bookmarks and self._revision:
                await _send(send, self._bookmark_line(self._revision))

    async def _lapsed(self) -> None:
        """Return once who asks may see something else, or nothing."""
        call = self._call
        turns = call.turns()
        while await self._still_allowed():
            await call.doubted(turns, seconds=call.state.context.limits.bookmark_seconds)
            turns = call.turns()

    async def _still_allowed(self) -> bool:
        who = await self._call.again()
        if who is None:
            return False
        try:
            scope = narrowed(self._call, who, scope=self._call.state.access.scope(who, "watch", on=self._call.about))
        except BessemerError:
            return False
        ours = self._selection.scope
        return (scope.namespaces, scope.names, scope.places) == (ours.namespaces, ours.names, ours.places)

    def _line(self, event: Change | Bookmark) -> bytes:
        if isinstance(event, Bookmark):
            return self._bookmark_line(event.revision) if self._options.bookmarks else b""
        resource = self._call.about.resource
        if self._selection.plain and not resource.sealed and self._wants.shape == "object":
            return b'{"type":"' + event.type.encode() + b'","object":' + event.body + b"}\n"
        body = orjson.loads(event.body)
        kind = event.type if self._selection.plain else self._seen(event, body)
        if kind is None:
            return b""
        if self._whole and resource.sealed and body.pop(SEALED, None) and kind != "DELETED":
            return b""  # its data is gone: what is there now comes with a later change
        return b'{"type":"' + kind.encode() + b'","object":' + self._shaped(body, event.revision) + b"}\n"

    def _seen(self, event: Change, body: dict[str, Any]) -> str | None:
        """The type of a change as a selector sees it: what leaves it is DELETED, what enters it ADDED."""
        now = self._selection.shows(body)
        before = now
        if event.type == "MODIFIED" and event.labels_before is not None:
            was = {**body, "metadata": {**body["metadata"], "labels": event.labels_before}}
            before = self._selection.shows(was)
        if event.type != "MODIFIED" or now == before:
            return event.type if now else None
        return "ADDED" if now else "DELETED"

    def _shaped(self, body: dict[str, Any], revision: int) -> bytes:
        resource = self._call.about.resource
        if self._wants.shape == "table":
            line = table.row(resource, body, include=self._options.include, now=self._call.state.context.clock.now())
            head, self._head = self._head, False
            return table.table(resource, [line], metadata={"resourceVersion": str(revision)}, head=head)
        return orjson.dumps(table.partial(body) if self._wants.shape == "partial" else body)

    def _bookmark_line(self, revision: int, *, ends: bool = False) -> bytes:
        """``ends``: what there is was told with this, and changes follow."""
        resource = self._call.about.resource
        kind, version = resource.kind, resource.api_version
        metadata: dict[str, Any] = {"resourceVersion": str(revision), "creationTimestamp": None}
        if ends:
            metadata["annotations"] = INITIAL_EVENTS_END
        value: dict[str, Any] = {"kind": kind, "apiVersion": version, "metadata": metadata}
        if self._wants.shape == "table":
            value = table.bookmark(resource, metadata)
        elif self._wants.shape == "partial":
            value = table.partial(value)
        return orjson.dumps({"type": "BOOKMARK", "object": value}) + b"\n"


async def _served(call: Call, event: Change | Bookmark, *, whole: bool) -> Change | Bookmark:
    if isinstance(event, Bookmark):
        return event
    (found,) = await keeping.shown(call, (event,), whole=whole)
    return found


def _error(error: BessemerError) -> bytes:
    return orjson.dumps({"type": "ERROR", "object": status_of(error)}) + b"\n"


async def _send(send: Send, line: bytes) -> None:
    await send({"type": "http.response.body", "body": line, "more_body": True})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _close(events: AsyncIterator[Any]) -> None:
    close = getattr(events, "aclose", None)
    if close is not None:
        await close()
