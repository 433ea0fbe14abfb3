"""What is logged of one request: what was asked, and what was answered, as long as neither is too long.

It is in memory, counted, from when the request is let in until it stands in its place or is dropped. Whoever answers
the request only hands over what there is; a line of JSON is made of it later, by another thread.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from typing import Any, Protocol

import msgspec
import orjson

from bessemer.core.clock import rfc3339_ms
from bessemer.gateway.assembled import Assembled

BYTES_MAX = 1 << 20
"""Of what was asked, and of what was answered: what is longer is cut there, and says so."""
FOLD_BYTES = 8 << 10
"""Of events of a stream, until they are put together."""
OVERHEAD_BYTES = 1 << 10
"""That an entry takes beside what it holds."""


class Facts(msgspec.Struct, rename="camel", frozen=True, gc=False):
    """Of a request, beside what was said. ``request_id`` is as in the record of its usage; ``client_id`` is what its
    client calls it, or "". ``answered_by`` is the endpoint that answered in the place of ``endpoint``, or "".
    ``ended`` is ``whole``, ``cut``, ``cancelled`` (its client left) or ``refused`` (by the gateway)."""

    request_id: str
    client_id: str
    project: str
    endpoint: str
    answered_by: str
    api_key: str
    owner: str
    model: str
    adapter: str
    path: str
    status: int
    stream: bool
    ended: str
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    latency_ms: int
    first_token_ms: int


class Room:
    """The memory of all entries of a process. Whoever has waits for a place that hangs leaves some of it to others:
    no ``whose`` may hold more than what is free then."""

    __slots__ = ("_by", "held", "most")

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0
        self._by: dict[str, int] = {}

    def take(self, whose: str, size: int) -> bool:
        """So many bytes more, if there is room."""
        own = self._by.get(whose, 0) + size
        if own > self.most - self.held:
            return False
        self._by[whose] = own
        self.held += size
        return True

    def give(self, whose: str, size: int) -> None:
        """They are free again."""
        self.held -= size
        own = self._by.pop(whose) - size
        if own:
            self._by[whose] = own


class Keeper(Protocol):
    """Where an entry goes. ``whose`` it is counts by ``room``; ``endpoint`` is the one that was asked."""

    room: Room
    whose: str
    endpoint: str

    @property
    def answers(self) -> bool:
        """Whether answers are wanted."""

    def add(self, entry: Entry) -> None:
        """All of it is there, or it is lost. Once for each that was begun."""


class Entry:
    """Of one request; ``lost`` where there was no room. ``asked`` None is not to be logged. ``held`` are the bytes of
    the room that it has."""

    __slots__ = (
        "_assembled",
        "_fresh",
        "_fresh_bytes",
        "_keeper",
        "answers",
        "asked",
        "asked_cut",
        "at",
        "body",
        "body_cut",
        "endpoint",
        "facts",
        "held",
        "lost",
        "refused",
    )

    def __init__(self, keeper: Keeper, asked: bytes | None, *, at: float) -> None:
        self.asked_cut = asked is not None and len(asked) > BYTES_MAX
        self.asked = asked[:BYTES_MAX] if asked is not None and self.asked_cut else asked
        self.answers = keeper.answers
        self.endpoint = keeper.endpoint
        self.at = at
        self.facts: Facts | None = None
        self.held = 0
        self.lost = False
        self.refused = 0
        """The status by which the gateway itself refused it."""
        self.body: bytes | None = None
        """The answer that was no stream."""
        self.body_cut = False
        self._assembled: Assembled | None = None
        self._fresh: list[bytes] = []
        self._fresh_bytes = 0
        self._keeper = keeper

    def begin(self) -> None:
        """The request is let in: from here on it holds memory."""
        self._grow(OVERHEAD_BYTES + len(self.asked or b""))

    def heard(self, events: bytes) -> None:
        """Whole events of a stream went to the client."""
        if self.lost or not self.answers or not events:
            return
        self._fresh.append(events)
        self._fresh_bytes += len(events)
        self._grow(len(events))
        if self._fresh_bytes >= FOLD_BYTES:
            self._fold()

    def answered(self, body: bytes) -> None:
        """An answer that is no stream goes to the client."""
        if self.lost or not self.answers:
            return
        self.body_cut = len(body) > BYTES_MAX
        self.body = body[:BYTES_MAX] if self.body_cut else body
        self._grow(len(self.body))

    def end(self, facts: Facts) -> None:
        """That is all."""
        self._fold()
        self.facts = facts
        self._keeper.add(self)

    def leave(self) -> None:
        """It holds nothing any more."""
        held, self.held = self.held, 0
        if held:
            self._keeper.room.give(self._keeper.whose, held)
        self.asked = self.body = self._assembled = None
        self._fresh = []

    def line(self) -> bytes:
        """Of JSON, with its end."""
        assert self.facts is not None
        said: dict[str, Any] = {"time": rfc3339_ms(self.at), **msgspec.to_builtins(self.facts)}
        if self.asked is not None:
            said["request"], said["requestCut"] = _as_json(self.asked, cut=self.asked_cut), self.asked_cut
        if self.answers:
            said["answer"], said["answerCut"] = self._answer()
        try:
            return orjson.dumps(said, option=orjson.OPT_APPEND_NEWLINE)
        except (orjson.JSONEncodeError, RecursionError):  # nested too deep to be written
            said.update(answer=None, answerCut=True)
            return orjson.dumps(said, option=orjson.OPT_APPEND_NEWLINE)

    def _answer(self) -> tuple[Any, bool]:
        if self.body is not None:
            return _as_json(self.body, cut=self.body_cut), self.body_cut
        if self._assembled is None:
            return None, False
        return self._assembled.answer(), self._assembled.cut

    def _fold(self) -> None:
        fresh, size, self._fresh, self._fresh_bytes = self._fresh, self._fresh_bytes, [], 0
        if not fresh or self.lost:
            return
        if self._assembled is None:
            self._assembled = Assembled(BYTES_MAX)
        before = self._assembled.size
        self._assembled.feed(b"".join(fresh))
        self._grow(self._assembled.size - before - size)

    def _grow(self, size: int) -> None:
        """It holds so much more; where there is no room for that, it is lost."""
        if self.lost:
            return
        if size > 0 and not self._keeper.room.take(self._keeper.whose, size):
            self.lost = True
            self.leave()
        elif size > 0:
            self.held += size
        elif size < 0:
            self._keeper.room.give(self._keeper.whose, -size)
            self.held += size


def packed(entries: Iterable[Entry]) -> bytes:
    """As an object holds them: lines of JSON, packed by gzip."""
    return gzip.compress(b"".join([entry.line() for entry in entries]), compresslevel=6, mtime=0)


def _as_json(text: bytes, *, cut: bool) -> Any:
    """What was said as JSON, to the letter where that is one line of it; as a string where it is none."""
    if not cut:
        try:
            parsed = orjson.loads(text)
            return parsed if b"\n" in text or b"\r" in text else orjson.Fragment(text)
        except orjson.JSONDecodeError:
            pass
    return text.decode("utf-8", "replace")
