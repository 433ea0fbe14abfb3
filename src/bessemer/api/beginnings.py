"""What a watch begins with: what there is, of one snapshot, a page at a time, or an earlier revision.

Each page is given before the next is read, so of a large kind no more than a page is held. A watch that goes on from an
earlier revision begins no earlier than the tenants and projects that it is about: what was under their names before was
somebody else's. What follows is the watch's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from bessemer.api import keeping
from bessemer.api.errors import FutureRevision
from bessemer.api.lines import Lines
from bessemer.api.query import ListOptions
from bessemer.api.shown import page_of, part_of
from bessemer.api.state import Call, asker
from bessemer.core.errors import Expired
from bessemer.core.ports import Page
from bessemer.core.resource import Change

if TYPE_CHECKING:
    from bessemer.api.lists import Selection

OPENING_PAGE = 500
"""Objects of a beginning that are held at once."""

OPENING_SECONDS = 60.0
"""For a beginning of several pages. Whoever takes longer to read them keeps others from theirs, and begins again."""

_PART = 64
"""Objects between two chances for others to run."""

Tell = Callable[[bytes], Awaitable[None]]


class Beginning:
    """Of one watch. ``tell`` gives lines to who asks, and waits until they can be taken."""

    def __init__(self, call: Call, selection: Selection, *, options: ListOptions, lines: Lines, tell: Tell) -> None:
        self._call = call
        self._scope = selection.scope
        self._asker = asker(call, selection.scope)
        self._options = options
        self._lines = lines
        self._tell = tell

    async def tell(self) -> int:
        """Tell what there is, where that is asked for, and that this was all; the revision to go on from. Raises
        FutureRevision, and Expired where that is gone or the client takes too long."""
        options = self._options
        if options.revision and not options.initial:
            if options.revision < self._call.state.access.begins(self._scope):
                raise Expired("that is from before what is here now: list again")
            return options.revision
        if options.initial is False:
            return await self._call.state.standing.present()
        since = await self._open()
        if options.bookmarks:
            await self._tell(self._lines.bookmark(since, ends=bool(options.initial)))
        return since

    async def _open(self) -> int:
        """What there is, as ADDED; the revision that it is of."""
        objects, who = self._call.state.ports.objects, self._call.who
        async with self._call.state.openings.place(f"{who.kind}:{who.name}"):
            limit = page_of(self._call.about.resource, OPENING_PAGE)
            page = await objects.list(self._scope, limit=limit, asker=self._asker)
            if (self._options.revision or 0) > page.revision:
                raise FutureRevision(self._options.revision or 0, page.revision)
            try:
                async with asyncio.timeout(OPENING_SECONDS):
                    await self._all(page)
            except TimeoutError as error:
                raise Expired("what there is was not read in time: list again") from error
        return page.revision

    async def _all(self, page: Page) -> None:
        """Show this page and those after it, which are of its revision."""
        while page.next:
            await self._show(page)
            limit = page_of(self._call.about.resource, OPENING_PAGE)
            objects = self._call.state.ports.objects
            page = await objects.list(self._scope, limit=limit, after=page.next, asker=self._asker)
        await self._show(page)

    async def _show(self, page: Page) -> None:
        """A page of what there is, in parts, with a turn for others between."""
        step = part_of(self._call.about.resource, _PART)
        for start in range(0, len(page.items), step):
            part = await keeping.shown(self._call, page.items[start : start + step], whole=self._lines.whole)
            lines = [self._lines.of(Change(i.revision, "ADDED", i.key, i.uid, i.host, i.body)) for i in part]
            await self._tell(b"".join(lines))
            await asyncio.sleep(0)
