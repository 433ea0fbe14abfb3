"""One request on its way, from whoever was let in to the record of what it came to: what asks and what answers share.

Usage is written to the spool before the answer's last byte is sent. A replica that did not answer as it should rests,
and counts as well only when an answer of it was whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import structlog

from bessemer.core.clock import Clock
from bessemer.core.money import said_of
from bessemer.gateway.books import Books
from bessemer.gateway.chains import Chain
from bessemer.gateway.entry import Entry
from bessemer.gateway.errors import Refused
from bessemer.gateway.journal import Progress, Start, unpaid_of
from bessemer.gateway.meter import Counts
from bessemer.gateway.metrics import GatewayMetrics
from bessemer.gateway.record import Ended, Record
from bessemer.gateway.reply import Call
from bessemer.gateway.request import Wanted
from bessemer.gateway.route import Replica, Sought
from bessemer.gateway.tables import EndpointEntry, KeyEntry
from bessemer.gateway.tickets import Ticket
from bessemer.gateway.turns import Turns
from bessemer.gateway.upstream import Link, Links
from bessemer.gateway.waking import Waking

UNTOLD_MAX = 32
"""After so many chunks of a stream, or tokens, it is written how far that has come."""

_MS_MAX = (1 << 32) - 1
_NEVER = float("inf")
_log = structlog.get_logger("gateway")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a replica may take until the first byte of an answer. One that is no stream has none before it is whole:
    it is given as long as OpenAI's clients wait. ``pause_seconds`` is how long an answer that has begun may stand
    still."""

    streamed_seconds: float = 60.0
    whole_seconds: float = 600.0
    pause_seconds: float = 120.0


@dataclass(frozen=True, slots=True)
class Means:
    """What every exchange of a gateway uses. ``secret`` keys the replicas' secrets."""

    books: Books
    clock: Clock
    metrics: GatewayMetrics
    secret: bytes
    links: Links
    patience: Patience
    turns: Turns
    waking: Waking


def forsake(exchange: Exchange) -> None:
    """Its replica answers nothing, though it may have read what it was asked: that is recorded by itself, for what
    another answers is another record."""
    if exchange.slot and exchange.heard and exchange.means.books.aside(exchange._unpaid(), slot=exchange.slot):
        exchange.slot = 0


class Exchange(msgspec.Struct, eq=False):
    """``status`` 0 is one that no replica has answered; ``replica`` is who is asked, and counts as busy for it, and as
    reading ``tokens``; ``link`` the connection to it; ``until`` is when its client wants it no more. Whoever has a
    ``ticket`` has to give it back: `end`, once. ``slot`` is where the journal has its ``start``, 0 nowhere. ``untold``
    chunks may come, and answers be as long as ``told`` tokens, until it is to be written how far it has come.
    ``adapter`` is the one that it asks for, by name; ``chain`` are those who may answer where there are several, of
    which it is ``endpoint`` that is asked. ``held_since`` is since when it waited for a first replica. ``asks`` counts
    replicas that it was asked of; the present one ``heard`` of it where it may have."""

    means: Means
    call: Call
    key: KeyEntry
    endpoint: EndpointEntry
    wanted: Wanted
    started: float
    ticket: Ticket | None = None
    replica: Replica | None = None
    link: Link | None = None
    counts: Counts = msgspec.field(default_factory=Counts)
    first_byte: float | None = None
    status: int = 0
    headers: bytes = b""
    start: Start | None = None
    slot: int = 0
    untold: int = UNTOLD_MAX
    told: int = 1
    until: float = _NEVER
    tokens: int = 0
    asked: float = 0.0
    probe: bool = False
    adapter: str = ""
    chain: Chain | None = None
    held_since: float = 0.0
    asks: int = 0
    heard: bool = False
    log: Entry | None = None
    """Where what is asked and answered is to be logged."""

    @property
    def patience(self) -> float:
        """Seconds until the first byte of an answer."""
        patience = self.means.patience
        return patience.streamed_seconds if self.wanted.stream else patience.whole_seconds

    def begin(self, ticket: Ticket) -> None:
        """It was let in."""
        self.ticket = ticket
        self.endpoint.pool.gauge.arrived += 1
        self.means.metrics.busy += 1
        self.headers = ticket.lines

    def ask(self, replica: Replica, sought: Sought, *, now: float) -> None:
        """It is this one's to answer, and the journal says so. Raises Refused where that cannot be written."""
        self.replica = replica
        self.asks, self.heard = self.asks + 1, False
        if self.start is not None:
            self.start.request_id = f"{self.call.id}/{self.asks}"
        self.tokens, self.asked = sought.cost, now
        self.probe = self.endpoint.pool.began(replica, sought.cost)
        start = self.start
        if start is None:
            start = self.start = self._start(replica)
        else:
            start.replica, start.model = replica.claim_uid, _model(self, replica)
        self.slot = self.means.books.start(start, self.slot)

    def was_read(self) -> None:
        """The replica begins to answer."""
        if self.replica is not None:
            self.replica.tokens -= self.tokens
            self.tokens = 0

    def let_go(self) -> None:
        """Nobody is asked any more: a connection that may not be kept is closed."""
        replica, self.replica = self.replica, None
        if replica is not None:
            pool = self.endpoint.pool
            pool.ended(replica, self.tokens, probe=self.probe)
            self.tokens, self.probe = 0, False
            if pool.waiting.count:
                self.means.turns.freed(pool)
        link, self.link = self.link, None
        if link is not None:
            self.means.links.give_back(link)

    def sent(self) -> None:
        """A chunk of the stream has gone to the client."""
        self.untold -= 1
        if self.untold <= 0 or self.counts.output_tokens >= self.told:
            self._tell()

    def well(self) -> None:
        """The replica has answered, all of it. An error of 5xx says nothing of it alone (`blame`)."""
        if self.replica is not None and self.status < 500:
            self.endpoint.pool.answered(self.replica)

    def unwell(self, event: str, error: Exception) -> None:
        """Let the replica rest, the longer the more often in a row."""
        replica = self.replica
        if replica is None:
            return
        _log.warning(event, request_id=self.call.id, object_uid=replica.claim_uid, error=str(error)[:200])
        self.endpoint.pool.lost(replica, self.means.clock.monotonic())

    def refuse(self, refused: Refused) -> None:
        """End it with an error of ours."""
        self.end()
        self.call.refuse(refused)

    def end(self, now: float | None = None, *, ended: Ended | None = None) -> None:
        """It is over: what it came to is recorded, and what it held is free. ``ended`` says how, where the answer is
        not whole: then it pays for what was sent, if any was."""
        ticket, self.ticket = self.ticket, None
        if ticket is None:
            return
        self.let_go()
        means = self.means
        means.metrics.busy -= 1
        if self.status:
            if ended is not None and self.first_byte is None:
                self.counts = Counts()
            self._account(ticket, now or means.clock.monotonic(), ended=ended)
        if self.slot and self.heard and (ended is not None or not 200 <= self.status < 500):
            # It pays nothing, and the replica's own counters may have some of it: they are compared with what is said.
            slot, self.slot = self.slot, 0
            means.books.unpaid(self._unpaid(), slot=slot)
        means.books.leave(ticket, self.counts, slot=self.slot)

    def _start(self, replica: Replica) -> Start:
        ticket, endpoint, key = self.ticket, self.endpoint, self.key
        assert ticket is not None
        return Start(
            int(self.means.clock.now()),
            f"{self.call.id}/{self.asks}" if self.asks > 1 else self.call.id,
            endpoint.project,
            endpoint.name,
            endpoint.uid,
            key.name,
            _model(self, replica),
            replica.claim_uid,
            ticket.held_micro,
            key.owner or None,
            ticket.names,
            self.chain.instead(self.endpoint) if self.chain is not None else "",
        )

    def _tell(self) -> None:
        """Write how far it has come, as it is billed."""
        ticket, clock = self.ticket, self.means.clock
        if ticket is None or not self.slot or not 200 <= self.status < 300:
            return
        self.untold, self.told = UNTOLD_MAX, self.counts.output_tokens + UNTOLD_MAX
        counts, now = _billed(self, ticket), clock.monotonic()
        elapsed, first = now - self.started, (self.first_byte or now) - self.started
        progress = Progress(
            int(clock.now()),
            counts.input_tokens,
            counts.cached_input_tokens,
            counts.output_tokens,
            min(int(elapsed * 1000), _MS_MAX),
            min(int(first * 1000), _MS_MAX),
        )
        self.means.books.note(self.slot, progress)

    def _account(self, ticket: Ticket, now: float, *, ended: Ended | None) -> None:
        means, pool, status, first = self.means, self.endpoint.pool, self.status, self.first_byte
        pool.waiting.took(now - self.asked)
        counts = self.counts = _billed(self, ticket)
        whole, until_first = now - self.started, first - self.started if first is not None else None
        # A client takes it for an answer: then it is one that is paid for, unless nothing of it was sent.
        if 200 <= status < 300 and (ended is None or first is not None):
            slot, self.slot = self.slot, 0
            means.books.record(ticket, self._record(now, ended), slot=slot)
            if pool.gauge.wake_seconds:
                told = (until_first or whole) if self.wanted.stream else None
                pool.gauge.ended(reads=counts.input_tokens, writes=counts.output_tokens, first=told, whole=whole)
        means.metrics.answered((self.call.path, status), counts, whole=whole, first=until_first)

    def _record(self, now: float, ended: Ended | None) -> Record:
        start, counts = self.start, self.counts
        assert start is not None
        first = self.first_byte if self.first_byte is not None else now
        first_ms = max(1, int((first - self.started) * 1000)) if self.wanted.stream else 0
        return Record(
            at=int(self.means.clock.now()),
            request_id=start.request_id,
            project=start.project,
            endpoint=start.endpoint,
            endpoint_uid=start.endpoint_uid,
            api_key=start.api_key,
            model=start.model,
            status=self.status,
            input_tokens=counts.input_tokens,
            cached_input_tokens=counts.cached_input_tokens,
            output_tokens=counts.output_tokens,
            latency_ms=int((now - self.started) * 1000),
            first_token_ms=first_ms,
            held_micro=start.held_micro,
            owner=start.owner,
            held_bounds=start.held_bounds,
            replica=start.replica,
            ended=ended,
            asked=start.asked,
        )

    def _unpaid(self) -> Record:
        assert self.start is not None
        clock = self.means.clock
        elapsed = int((clock.monotonic() - self.started) * 1000)
        return unpaid_of(self.start, at=int(clock.now()), status=self.status or 499, latency_ms=elapsed)


def _model(of: Exchange, replica: Replica) -> str:
    """Who answers, as the record says it."""
    return said_of(replica.model or of.endpoint.model, adapter=of.adapter)


def _billed(of: Exchange, ticket: Ticket) -> Counts:
    return ticket.billed(of.counts, of.start.model if of.start is not None else "")
