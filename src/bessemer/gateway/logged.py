"""A request of which is logged what is asked and answered: the exchange of any other, and who listens to it."""

from __future__ import annotations

import msgspec

from bessemer.core.clock import Clock
from bessemer.gateway.entry import Entry, Facts
from bessemer.gateway.errors import Refused
from bessemer.gateway.exchange import Exchange
from bessemer.gateway.meter import EventStream
from bessemer.gateway.record import Ended
from bessemer.gateway.tickets import Ticket

LINE = b"x-bessemer-logged: 1\r\n"
"""Of the head of an answer: whoever uses the key is to know."""
_GONE = 499


class Logged(Exchange):
    """It has a `log`, and is logged once it is let in."""

    @classmethod
    def of(cls, other: Exchange, log: Entry) -> Logged:
        """The same, which nobody has begun."""
        return cls(**{**msgspec.structs.asdict(other), "log": log})

    def begin(self, ticket: Ticket) -> None:
        super().begin(ticket)
        self.headers += LINE
        if self.log is not None:
            self.log.begin()

    def refuse(self, refused: Refused) -> None:
        refused.lines += LINE
        if self.log is not None and self.ticket is not None:
            self.log.refused = refused.status
            self.log.answered(refused.body())
        super().refuse(refused)

    def end(self, now: float | None = None, *, ended: Ended | None = None) -> None:
        let_in = self.ticket is not None
        super().end(now, ended=ended)
        if let_in and self.log is not None:
            self.log.end(self._facts(self.log, self.means.clock, ended=ended))

    def _facts(self, log: Entry, clock: Clock, *, ended: Ended | None) -> Facts:
        key, counts, call, start = self.key, self.counts, self.call, self.start
        shown, asked = call.shown.decode("ascii", "replace"), log.endpoint
        how = "refused" if log.refused else ended or ("whole" if self.status else "cancelled")
        now, first = clock.monotonic(), self.first_byte
        return Facts(
            request_id=start.request_id if start is not None else call.id,
            client_id="" if shown == call.id else shown,
            project=key.project,
            endpoint=asked,
            answered_by="" if self.endpoint.name == asked else self.endpoint.name,
            api_key=key.name,
            owner=key.owner,
            model=start.model if start is not None else self.endpoint.model,
            adapter=self.adapter,
            path=call.path,
            status=log.refused or self.status or _GONE,
            stream=self.wanted.stream,
            ended=how,
            input_tokens=counts.input_tokens,
            cached_input_tokens=counts.cached_input_tokens,
            output_tokens=counts.output_tokens,
            latency_ms=int((now - self.started) * 1000),
            first_token_ms=max(1, int((first - self.started) * 1000))
            if first is not None and self.wanted.stream
            else 0,
        )


class Hearing(EventStream):
    """Events of a stream, and who hears those that go on."""

    __slots__ = ("_entry", "_of")

    def __init__(self, of: EventStream, entry: Entry) -> None:
        self._of, self._entry = of, entry
        self.counts = of.counts

    def feed(self, part: bytes) -> bytes:
        shown = self._of.feed(part)
        self._entry.heard(shown)
        return shown
