"""What a tab shows, as parts, and what is new for it: the difference between what it was shown and what holds now.

A page is lists of parts. A part is a frozen value with an id and the name of the macro that draws it; equal parts are
drawn once and not sent again. A `Tab` remembers the lists that its page was drawn from; a stream compares them with
a fresh build of the same page and sends operations, each message below 2 kB unless one part alone is larger.

Operations are JSON arrays: ``["set", id, html]``, ``["put", list id, id of the next sibling or null, html]``,
``["del", id]``, ``["order", list id, [ids]]``. It knows no page and no kind.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import orjson

from bessemer.core.resource import Key

MESSAGE_BYTES_MAX = 1900
SHOWN_KEPT = 4


@dataclass(frozen=True, slots=True)
class Part:
    """Something on a page that can change by itself. ``macro`` of ``parts/`` draws it with this ``id`` at its root."""

    macro: ClassVar[str]

    id: str


Lists = Mapping[str, Sequence[Part]]
Draw = Callable[[Part], str]
Operation = list[Any]


@dataclass(frozen=True, slots=True)
class Page:
    """``lists`` is what lives, by the id of the element that holds it; ``fixed`` is what the template needs besides."""

    template: str
    title: str
    lists: Lists
    fixed: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Tab:
    """One page in one browser. ``build`` makes it anew from the desk's mirrors; ``log`` is whose log it shows;
    ``ask`` fetches what no watch tells of; ``owner`` is the stream that tells of it; ``forgotten`` says that the desk
    keeps it no more.

    Each batch of news has a number, and what was shown after it is kept for a while: a browser that comes back says the
    last number that it saw, so that nothing is lost between two connections and nothing is sent twice.
    """

    build: Callable[[], Page]
    lists: Lists
    log: Key | None = None
    ask: Callable[[], Awaitable[None]] | None = None
    token: str = field(default_factory=lambda: secrets.token_urlsafe(9))
    number: int = 0
    owner: object = None
    forgotten: bool = False
    _shown: dict[int, Lists] = field(default_factory=dict)

    def resume(self, number: int) -> bool:
        """Go on from what the browser saw last. False where that is forgotten: it must fetch the page again."""
        if number != self.number:
            if number not in self._shown:
                return False
            self.lists = self._shown[number]
        return True

    def news(self, draw: Draw) -> Iterator[bytes]:
        """Messages that bring the browser up to date, and remember that they were sent. Raises NotFound when the
        page's object is gone."""
        now = self.build().lists
        operations = [
            op
            for name, parts in now.items()
            for op in difference(name, self.lists.get(name, ()), after=parts, draw=draw)
        ]
        if operations:
            self._shown[self.number] = self.lists
            self._shown = dict(list(self._shown.items())[-SHOWN_KEPT:])
            self.number += 1
        self.lists = now
        yield from packed(self.token, operations, number=self.number)


def difference(name: str, before: Sequence[Part], *, after: Sequence[Part], draw: Draw) -> Iterator[Operation]:
    """Operations that turn one list into the other, in an order in which they can be done."""
    old, new = {p.id: p for p in before}, {p.id: p for p in after}
    for part_id in old:
        if part_id not in new:
            yield ["del", part_id]
    following: str | None = None
    puts: list[Operation] = []
    for part in reversed(after):
        if part.id not in old:
            puts.append(["put", name, following, draw(part)])
        elif old[part.id] != part:
            yield ["set", part.id, draw(part)]
        following = part.id
    yield from puts
    if [i for i in old if i in new] != [i for i in new if i in old]:
        yield ["order", name, list(new)]


def packed(token: str, operations: Sequence[Operation], *, number: int) -> Iterator[bytes]:
    """Operations gathered into messages ``{"t": token, "o": [...]}``; the last one says the batch's number as ``n``."""
    batch: list[bytes] = []
    size = 0
    for operation in operations:
        data = orjson.dumps(operation)
        if batch and size + len(data) > MESSAGE_BYTES_MAX:
            yield _message(token, batch, tail=b"")
            batch, size = [], 0
        batch.append(data)
        size += len(data) + 1
    if batch:
        yield _message(token, batch, tail=b',"n":%d' % number)


def _message(token: str, batch: Sequence[bytes], *, tail: bytes) -> bytes:
    return b'{"t":' + orjson.dumps(token) + b',"o":[' + b",".join(batch) + b"]" + tail + b"}"
