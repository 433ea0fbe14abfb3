"""Passes an answer on, from its first byte: as it comes where it is a stream, at once where it is none.

What was sent of a stream that is cut stands and is metered; an error event says that this is not the end which was
asked for. A client that does not keep up holds up the replica, and nothing is kept for it meanwhile.
"""

from __future__ import annotations

import msgspec
import orjson

from bessemer.gateway import errors
from bessemer.gateway.exchange import Exchange
from bessemer.gateway.logged import Hearing
from bessemer.gateway.meter import EVENT_BYTES_MAX, EventStream, metered
from bessemer.gateway.upstream import WHOLE_BYTES_MAX, Endless, Link, Lost, Silent

_ECHOED_BYTES = EVENT_BYTES_MAX // 4
"""Of a body, from which on an event may be too long that tells it all again, written in another way."""


class Answering:
    """Of one request, once a replica has begun to answer."""

    __slots__ = ("_events", "_exchange", "_going", "_paused")

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._events: EventStream | None = None
        self._paused = False
        self._going = True
        """Something has come since somebody looked."""
        exchange.call.work = self

    def wait(self) -> None:
        """Look whether it goes on when it has stood still for too long, or twice as long at the most."""
        exchange = self._exchange
        pause = exchange.means.patience.pause_seconds
        exchange.call.deadline = min(exchange.until, exchange.means.clock.monotonic() + pause)
        self._going = False

    def heard(self, link: Link) -> None:
        """A part of the answer has come."""
        self._going = True
        try:
            if link.streaming:
                self._relay(link)
            elif link.size > WHOLE_BYTES_MAX:
                raise Endless(f"the answer has more than {WHOLE_BYTES_MAX} bytes")
            elif link.complete:
                self._whole(link)
        except (Lost, orjson.JSONDecodeError, msgspec.MsgspecError, RecursionError) as error:
            link.drop()
            self._broken(error)

    def lost(self, why: str) -> None:
        """The rest of the answer will not come."""
        self._broken(Lost(why))

    def gone(self) -> None:
        """The client has left: the replica hears of that at once, too."""
        if self._exchange.link is not None:
            self._exchange.link.drop()
        self._exchange.end(ended="cancelled")

    def late(self) -> None:
        """Its client wants it no more, or it stands still; else one that has begun may take as long as it likes."""
        exchange = self._exchange
        in_time = exchange.means.clock.monotonic() < exchange.until
        if in_time and (self._going or self._paused):
            self.wait()
            return
        if exchange.link is not None:
            exchange.link.drop()
        if in_time:
            self._broken(Silent(f"nothing came for {exchange.means.patience.pause_seconds:g} s"))
        elif self._events is None:
            exchange.refuse(errors.deadline_passed())
        else:
            exchange.end(ended="cancelled")
            exchange.call.finish(b"data: " + errors.deadline_passed().body() + b"\n\n")

    def flow(self, paused: bool) -> None:
        """Let the replica wait while its reader does not keep up."""
        link = self._exchange.link
        if link is None or paused is self._paused or link.transport.is_closing():
            return
        self._paused = paused
        if paused:
            link.transport.pause_reading()
        else:
            self._going = True
            link.transport.resume_reading()

    def _relay(self, link: Link) -> None:
        exchange = self._exchange
        events = self._events
        if events is None:
            events = self._begin(link.status)
        shown = events.feed(link.take())
        if shown and exchange.first_byte is None:
            exchange.first_byte = exchange.means.clock.monotonic()
        if not link.complete:
            exchange.call.send(shown)
            if shown and exchange.ticket is not None:
                exchange.sent()
            return
        exchange.well()
        exchange.end()
        exchange.call.finish(shown)

    def _begin(self, status: int) -> EventStream:
        exchange = self._exchange
        wanted = exchange.wanted
        events = self._events = EventStream(
            show_usage=wanted.show_usage, show_timings=wanted.show_timings, show_counts=wanted.show_counts
        )
        if exchange.log is not None:
            events = self._events = Hearing(events, exchange.log)
        exchange.counts = events.counts
        exchange.status = status
        exchange.call.start(status, extra=exchange.headers)
        return events

    def _whole(self, link: Link) -> None:
        exchange = self._exchange
        body, status = link.take(), link.status
        if 200 <= status < 300:
            body = metered(body, exchange.counts, show_timings=exchange.wanted.show_timings)
        exchange.status = status
        if exchange.log is not None:
            exchange.log.answered(body)
        exchange.well()
        now = exchange.first_byte = exchange.means.clock.monotonic()
        exchange.end(now)
        exchange.call.answer(status, body, extra=exchange.headers)

    def _broken(self, error: Exception) -> None:
        """It is not what it began to be. What a client may have asked for by its body is no fault of a replica's: too
        much, an answer of another form, an event that tells it all that it said."""
        exchange = self._exchange
        name = exchange.endpoint.name
        stopped = _stopped(exchange)
        large = self._events is None or len(exchange.wanted.body) > _ECHOED_BYTES
        asked_for = isinstance(error, msgspec.ValidationError) or (isinstance(error, Endless) and large)
        if not (asked_for or stopped):
            exchange.unwell("answer cannot be used" if self._events is None else "stream cut", error)
        words = errors.answer_unfit(name) if asked_for else errors.replica_failed(name)
        if self._events is None:
            exchange.refuse(words)
            return
        if exchange.first_byte is not None and not asked_for:
            words = errors.replica_stopped(name) if stopped else errors.answer_cut(name)
        exchange.end(ended="cut")
        exchange.call.finish(b"data: " + words.body() + b"\n\n")


def _stopped(exchange: Exchange) -> bool:
    """Whether the replica that answers was told that it ends, or is gone: what it leaves undone is no failure."""
    replica = exchange.replica
    return replica is not None and (replica.leaving or exchange.endpoint.replicas.get(replica.claim_uid) is not replica)
