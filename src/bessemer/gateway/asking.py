"""Asks a replica for an answer: lets a request in, finds who answers it, and hands over when the first byte is here.

A request that fails before the replica's first byte is tried once more on another replica, and on each where one could
not be reached at all; one that is no stream and took too long is not. One whose kept connection had died is tried over
a new one, and nobody is blamed. A client that goes ends the connection to the replica at once.
"""

from __future__ import annotations

import asyncio

import structlog

from bessemer.core.tokens import replica_secret
from bessemer.gateway import blame, errors, seeking, upstream
from bessemer.gateway.answering import Answering
from bessemer.gateway.blame import TRIES, Doubted, Fault
from bessemer.gateway.errors import Refused
from bessemer.gateway.exchange import Exchange, forsake
from bessemer.gateway.onward import OURS, Fields, called, carrying
from bessemer.gateway.request import ROUTES, shortened
from bessemer.gateway.route import FULL, Full, Replica
from bessemer.gateway.tickets import Ticket
from bessemer.gateway.upstream import Link, Lost, Silent

WAIT_SECONDS = 60.0
"""For a slot."""
_log = structlog.get_logger("gateway")


class Entering:
    """Waits until the api has said whether a request may go on."""

    __slots__ = ("_asked", "_exchange")

    def __init__(self, exchange: Exchange, asked: asyncio.Future[Ticket]) -> None:
        self._exchange = exchange
        self._asked = asked
        exchange.call.work = self
        exchange.call.deadline = exchange.until
        asked.add_done_callback(self._told)

    def gone(self) -> None:
        """The client has left."""
        if not self._asked.cancel() and self._asked.exception() is None:
            self._exchange.means.books.leave(self._asked.result(), self._exchange.counts)

    def late(self) -> None:
        """Its client wants it no more."""
        self.gone()
        self._exchange.call.refuse(errors.deadline_passed())

    def flow(self, paused: bool) -> None:
        """Nothing is written yet."""

    def _told(self, asked: asyncio.Future[Ticket]) -> None:
        call = self._exchange.call
        if asked.cancelled() or call.work is not self:
            return
        error = asked.exception()
        if error is None:
            Asking(self._exchange).begin(asked.result())
        elif isinstance(error, Refused):
            call.refuse(error)
        else:
            call.abandon()
            raise error


class Queueing:
    """Waits until a replica has a slot free, where there is room for that."""

    __slots__ = ("_asking", "_exchange", "_path")

    def __init__(self, asking: Asking, exchange: Exchange) -> None:
        self._asking = asking
        self._exchange = exchange
        self._path = seeking.path(exchange.wanted, exchange.key)
        exchange.call.work = self

    def begin(self, now: float, *, cost: int) -> None:
        """Wait; another may have to give way."""
        exchange = self._exchange
        pool, cost = exchange.endpoint.pool, cost + seeking.written(exchange.wanted)
        room, other = pool.waiting.add(self, self._path, cost=cost, slots=pool.total)
        if not room:
            self.crowded()
            return
        exchange.call.deadline = min(now + WAIT_SECONDS, exchange.until)
        exchange.means.turns.add(pool)
        if other is not None:
            other.crowded()

    def turn(self) -> None:
        """There is room."""
        self._asking.go_on()

    def crowded(self) -> None:
        """There is none to wait."""
        pool = self._exchange.endpoint.pool
        seconds = pool.waiting.retry_after(pool.total)
        refused = errors.overloaded(self._exchange.endpoint.name, retry_after_seconds=seconds)
        self._asking.elsewhere(refused, self._exchange.means.clock.monotonic())

    def gone(self) -> None:
        """The client has left."""
        self._exchange.endpoint.pool.waiting.leave(self, self._path)
        self._exchange.end()

    def late(self) -> None:
        """It has waited for too long."""
        exchange = self._exchange
        exchange.endpoint.pool.waiting.leave(self, self._path)
        if exchange.means.clock.monotonic() >= exchange.until:
            exchange.refuse(errors.deadline_passed())
        else:
            self.crowded()

    def flow(self, paused: bool) -> None:
        """Nothing is written yet."""


class Asking:
    """Of one request that was let in, until its answer begins."""

    __slots__ = ("_body", "_carries", "_dialling", "_doubted", "_exchange", "_heard", "_said", "_sought", "_tried")

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._body = exchange.wanted.body
        self._dialling: asyncio.Future[Link] | None = None
        self._tried: frozenset[str] = frozenset()
        self._heard = 0
        """How many of those that were tried may have heard of it: whoever could not be reached counts for nothing."""
        self._doubted: Doubted = ()
        wanted, call = exchange.wanted, exchange.call
        several = exchange.chain is not None or len(exchange.endpoint.pool.replicas) > 1
        project, adapter = exchange.key.project, exchange.adapter
        self._sought = seeking.sought(wanted, call.headers, project=project, adapter=adapter, several=several)
        if (context := exchange.endpoint.context_tokens) and self._sought.cost > context:
            self._sought.cost = context  # an image's bytes are not its tokens, and nobody reads more
        self._carries: Fields | None = None
        self._said = OURS.intersection(wanted.fields or ())
        wanted.fields = None
        call.work = self

    def begin(self, ticket: Ticket) -> None:
        """Ask the first."""
        self._exchange.begin(ticket)
        if ticket.writes is not None:
            self._body = shortened(self._body, ticket.writes, route=ROUTES[self._exchange.call.path])
        self._ask(None)

    def go_on(self) -> None:
        """It has waited, and there is room."""
        self._exchange.call.work = self
        self._ask(None, waited=True)

    def _ask(self, failed: Refused | None, *, waited: bool = False) -> None:
        exchange = self._exchange
        pool = exchange.endpoint.pool
        now = exchange.started if failed is None and not waited else exchange.means.clock.monotonic()
        chosen: Replica | Full | None = None
        if self._heard < TRIES:
            chosen = pool.choose(self._sought, now, tried=self._tried, waited=waited)
        if chosen is FULL:
            Queueing(self, exchange).begin(now, cost=self._sought.cost)
        elif chosen is None:
            self.elsewhere(failed or errors.no_replica(exchange.endpoint.name), now)
        else:
            self._ask_of(chosen, now)

    def elsewhere(self, refused: Refused, now: float) -> None:
        """Nobody here answers: another endpoint does, or it ends with that."""
        exchange = self._exchange
        exchange.endpoint.pool.gauge.called = True
        entry = exchange.chain.next(now) if exchange.chain is not None else None
        if entry is None:
            if self._tried or not exchange.means.waking.hold(self, exchange):
                exchange.refuse(refused)
            return
        exchange.endpoint, exchange.start = entry, None
        entry.pool.gauge.arrived += 1
        entry.pool.tally.fell_over += 1
        exchange.call.work = self
        self._tried, self._heard = frozenset(), 0
        self._ask(None)

    def _ask_of(self, replica: Replica, now: float) -> None:
        exchange = self._exchange
        self._carries = replica.carries.get(exchange.adapter)
        name = exchange.endpoint.name
        if exchange.wanted.model != name or exchange.adapter:
            self._carries = called(name, exchange.adapter, carries=self._carries)
        try:
            exchange.ask(replica, self._sought, now=now)
        except Refused as refused:
            exchange.refuse(refused)
            return
        link = exchange.means.links.kept(replica)
        if link is None:
            self._dial(replica)
        else:
            exchange.means.metrics.reused += 1
            self._send(link, now)

    def _dial(self, replica: Replica) -> None:
        self._exchange.means.metrics.dialled += 1
        self._exchange.call.deadline = self._exchange.until
        self._dialling = asyncio.ensure_future(self._exchange.means.links.dial(replica))
        self._dialling.add_done_callback(self._dialled)

    def _dialled(self, dialling: asyncio.Future[Link]) -> None:
        if dialling.cancelled():
            return
        error = dialling.exception()
        if dialling is not self._dialling:  # the client has gone meanwhile
            if error is None:
                dialling.result().drop()
            return
        self._dialling = None
        if error is None and not dialling.result().transport.is_closing():
            self._send(dialling.result(), self._exchange.means.clock.monotonic())
        elif error is None:  # it was told already, when nobody listened
            self._fail(Lost("the connection ended before anything was asked"))
        elif isinstance(error, Lost):
            self._fail(error)
        else:
            self._exchange.call.abandon()
            self._exchange.end()
            raise error

    def _send(self, link: Link, now: float) -> None:
        exchange, replica = self._exchange, link.replica
        call, means, stream = exchange.call, exchange.means, exchange.wanted.stream
        exchange.link, exchange.heard = link, True
        call.deadline = min(now + exchange.patience, exchange.until)
        head = replica.heads.get((call.path, stream))
        outer = replica.outer
        if head is None and outer is not None:
            head = replica.heads[call.path, stream] = outer.head(call.path)
        elif head is None:
            secret = replica_secret(means.secret, replica.claim_uid)
            head = replica.heads[call.path, stream] = upstream.head(call.path, secret, stream=stream)
        body = self._body
        if self._carries is not None:
            body = carrying(body, self._carries, said=self._said)
        if outer is not None:
            wanted = exchange.wanted
            body = outer.body(body, timings=wanted.show_timings, counts=wanted.show_counts)
        link.ask(upstream.ask(head, call.shown, body=body), self)

    def heard(self, link: Link) -> None:
        """The first of the answer's body is here."""
        exchange = self._exchange
        if not 200 <= link.status < 300:
            fault = blame.fault(exchange, link.status, tried=self._tried)
            if fault is not None:
                link.drop()
                if fault is Fault.UNFIT:
                    exchange.refuse(errors.embeds_not(exchange.endpoint.name))
                else:
                    self._fail(Lost(f"it answered with status {link.status}"), doubt=fault is Fault.DOUBT)
                return
        if self._doubted:
            blame.settle(self._doubted, link.status, now=exchange.means.clock.monotonic())
        exchange.was_read()
        if exchange.chain is not None:
            exchange.headers += b"x-bessemer-endpoint: %b\r\n" % exchange.endpoint.name.encode()
        answering = Answering(exchange)
        if not link.complete:
            answering.wait()
        link.owner = answering
        answering.heard(link)

    def lost(self, why: str) -> None:
        """No answer will come over this connection."""
        link, self._exchange.link = self._exchange.link, None
        if link is not None and link.kept and link.silent:
            self._dial(link.replica)  # it died while nobody needed it
        else:
            self._fail(Lost(why))

    def gone(self) -> None:
        """The client has left: the replica hears of that at once, too."""
        dialling, self._dialling = self._dialling, None
        if dialling is not None:
            dialling.cancel()
        self._exchange.end()

    def late(self) -> None:
        """No answer has begun in time."""
        exchange = self._exchange
        if exchange.means.clock.monotonic() >= exchange.until:
            self.gone()
            exchange.call.refuse(errors.deadline_passed())
            return
        name, seconds = exchange.endpoint.name, exchange.patience
        error, refused = Silent(f"no answer began within {seconds:g} s"), errors.replica_silent(name, seconds)
        if exchange.wanted.stream:
            self._fail(error, refused)
            return
        # A long answer is no fault of the replica's, and the next one would take as long for it.
        uid = exchange.replica.claim_uid if exchange.replica is not None else ""
        _log.warning("answer too long", request_id=exchange.call.id, object_uid=uid, error=str(error))
        exchange.refuse(refused)

    def flow(self, paused: bool) -> None:
        """Nothing is written yet."""

    def _fail(self, error: Lost, refused: Refused | None = None, *, doubt: bool = False) -> None:
        """This one did not answer: try another. ``doubt``: it may not be its fault."""
        exchange = self._exchange
        if not doubt:
            exchange.unwell("replica lost", error)
        elif exchange.replica is not None:
            self._doubted += ((exchange.endpoint.pool, exchange.replica),)
        exchange.means.metrics.retries += 1
        if exchange.replica is not None:
            self._tried |= {exchange.replica.claim_uid}
        self._heard += exchange.heard
        failed = errors.replica_failed if self._heard else errors.no_replica
        forsake(exchange)
        exchange.let_go()
        self._ask(refused or failed(exchange.endpoint.name))
