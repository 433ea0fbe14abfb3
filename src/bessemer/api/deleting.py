"""DELETE of a collection: what a list by the same selectors shows is deleted, each as if it were asked for alone.

Invariants: nothing goes that its asker may not read, or may not delete so (the verb is ``deletecollection``, as in
Kubernetes); each object is an operation of its own, with its own row in the trail. `AT_ONCE` of them stand in the
writer's line together, of a tenant no more however many calls it makes, and of all together few (`State.deletions`), so
that no other writer waits for many; between two parts it is asked again who asks, and what they may. A call works for
`SECONDS` at most: then it says how far it came, and that one may ask again. What was deleted is answered as a list,
without what was sealed; of more than `ANSWER_BYTES` nobody keeps a copy, and the answer is a Status.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from starlette.responses import Response

from bessemer.api import keeping
from bessemer.api.access import Target
from bessemer.api.deletion import Wish, delete_options, wish_of
from bessemer.api.errors import success
from bessemer.api.granting import WAYS_IN, require_administrator
from bessemer.api.lists import Selection, select, selected, shape
from bessemer.api.media import wanted
from bessemer.api.query import ListOptions, list_options
from bessemer.api.shown import page_of
from bessemer.api.state import Call, answer, asker
from bessemer.core.errors import Conflict, Expired, NotFound, Unavailable
from bessemer.core.ports import Page, Stored
from bessemer.core.resource import Verb

VERB: Verb = "deletecollection"
AT_ONCE = 8
"""Deletions of a tenant that stand in the writer's line together."""

SECONDS = 20.0
PAGE = 500
ANSWER_BYTES = 8 << 20


def offered(target: Target) -> bool:
    """Whether the collection can be deleted: one of all projects at once cannot, as in Kubernetes."""
    return VERB in target.resource.verbs and bool(target.namespace or not target.resource.namespaced)


async def delete_collection(call: Call) -> Response:
    """DELETE of a collection."""
    wants = wanted(call.request.headers.get("accept", ""))
    options = await delete_options(call)
    await call.still()
    wish = wish_of(options, call.query)
    asked = list_options({name: value for name, value in call.query.items() if name != "watch"})
    if call.about.resource.stored in WAYS_IN:
        require_administrator(call, call.about)
    selection = select(call, asked, verb=VERB)
    done = _Done(call, wish)
    try:
        async for items in _parts(call, selection, asked=asked, done=done):
            await done.take(items)
    finally:
        await done.reach()
    if done.kept is None:
        return answer({**success(call.about.subject, ""), "message": f"{done.count} objects were deleted"})
    meta = {"resourceVersion": str(done.revision), **({"continue": done.next} if done.next else {})}
    start, write = shape(call, asked, wants=wants, meta=meta)
    return answer(start + b",".join(write(item) for item in done.kept) + b"]}")


class _Done:
    """What one call has deleted."""

    def __init__(self, call: Call, wish: Wish) -> None:
        self._call = call
        self._wish = wish
        self._until = call.state.context.clock.monotonic() + SECONDS
        self._bytes = 0
        self._last = 0
        self.count = 0
        self.revision = 0
        """Of the list that was gone through."""
        self.next = ""
        """Where that goes on, if it was asked for a part of it."""
        self.kept: list[Stored] | None = []
        """As they went; None once they are too many to be kept."""

    async def take(self, items: Sequence[Stored]) -> None:
        """Delete those that may be. Raises Unavailable once the time is up, and what a deletion does: the others of
        its part have gone then."""
        async with self._call.state.deletions.place(self._call.about.tenant):
            if self._call.state.context.clock.monotonic() > self._until:
                raise self.unfinished()
            await self._call.still()
            going = (self._delete(item) for item in items if self._may(item))
            gone = await asyncio.gather(*going, return_exceptions=True)
        for one in gone:
            if isinstance(one, Stored):
                self._keep(one)
        for one in gone:
            if isinstance(one, BaseException):
                raise one

    async def reach(self) -> None:
        """Let this replica know what it did before it says so."""
        if self._last and not self._wish.dry_run:
            await self._call.state.directory.reach(self._call.about.resource.stored, self._last)

    def unfinished(self) -> Unavailable:
        """It takes longer than one request may."""
        return Unavailable(f"{self.count} objects were deleted, and there are more: ask again")

    def _may(self, item: Stored) -> bool:
        one = replace(self._call.about, namespace=item.key.namespace, name=item.key.name)
        access, who = self._call.state.access, self._call.who
        return access.may(who, "get", on=one) and access.may(who, VERB, on=one)

    async def _delete(self, item: Stored) -> Stored | None:
        """The object as it went, or is marked; None where somebody else was first."""
        objects, wish = self._call.state.ports.objects, self._wish
        uid = wish.uid or item.uid
        try:
            left = await objects.delete(
                item.key,
                self._call.writer,
                uid=uid,
                revision=wish.revision,
                dry_run=wish.dry_run,
                policy=wish.policy,
            )
            return keeping.unwritten(left, str(item.revision)) if wish.dry_run else left
        except NotFound:
            return None
        except Conflict:
            if uid == item.uid and await self._gone(item):
                return None
            raise

    async def _gone(self, item: Stored) -> bool:
        try:
            return (await self._call.state.ports.objects.get(item.key)).uid != item.uid
        except NotFound:
            return True

    def _keep(self, left: Stored) -> None:
        self.count += 1
        self._last = max(self._last, left.revision)
        self._bytes += len(left.body)
        if self.kept is None or self._bytes > ANSWER_BYTES:
            self.kept = None
            return
        self.kept.append(keeping.bare(self._call.about.resource, left))


async def _parts(
    call: Call, selection: Selection, *, asked: ListOptions, done: _Done
) -> AsyncIterator[Sequence[Stored]]:
    """What is to go, a few at a time: of the list's one revision, so that what is made meanwhile stays."""
    page = await _page(call, selection, asked=asked, after=asked.after)
    done.revision = page.revision
    while True:
        for start in range(0, len(page.items), AT_ONCE):
            items = page.items[start : start + AT_ONCE]
            fits = {item.key for item in selected(selection, [keeping.bare(call.about.resource, i) for i in items])}
            yield [item for item in items if item.key in fits]
        if asked.limit or not page.next:
            done.next = page.next
            return
        try:
            page = await _page(call, selection, asked=asked, after=page.next)
        except Expired as error:
            raise done.unfinished() from error


async def _page(call: Call, selection: Selection, *, asked: ListOptions, after: str) -> Page:
    limit = page_of(call.about.resource, asked.limit or PAGE)
    who = asker(call, selection.scope)
    return await call.state.ports.objects.list(selection.scope, limit=limit, after=after, asker=who)
