"""What stands in the books of a request, in one place: room for its record, what is held of the bounds that judge it,
and the record of what it came to. What is entered is left, exactly once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass

import structlog

from bessemer.core.errors import DriverError
from bessemer.gateway import errors
from bessemer.gateway.meter import Counts
from bessemer.gateway.purse import Held, Need
from bessemer.gateway.record import Record
from bessemer.gateway.request import Wanted
from bessemer.gateway.shares import Shares, bounded, most
from bessemer.gateway.spool import Spool
from bessemer.gateway.tables import EndpointEntry, KeyEntry

_log = structlog.get_logger("gateway")


@dataclass(slots=True)
class Ticket:
    """What one request holds, given back once. ``writes`` is what the gateway lets each of its answers write, where
    that is less than was asked for; ``headers`` go with its answer."""

    held: Held
    writes: int | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()

    def billed(self, counts: Counts) -> Counts:
        """What of an answer is billed."""
        return bounded(self.held, counts)


class Admission:
    """May it, now: by the shares of its project."""

    def __init__(self, shares: Shares) -> None:
        self._shares = shares

    def enter(self, key: KeyEntry, wanted: Wanted, *, endpoint: EndpointEntry) -> Ticket | Awaitable[Ticket]:
        """A ticket, at once where nobody has to be asked. Raises Refused, now or where it is awaited."""
        need = most(wanted, endpoint.context_tokens)
        held = self._shares.at_once(endpoint.project, need)
        return Ticket(held) if held is not None else self._asked(endpoint.project, need)

    def spend(self, ticket: Ticket, record: Record) -> None:
        """The record of it is in the spool."""
        self._shares.spend(ticket.held, record)

    def leave(self, ticket: Ticket, counts: Counts) -> None:
        """It is over, and came to so much: what it did not use is the next one's."""
        self._shares.settle(ticket.held, counts.input_tokens + counts.output_tokens)

    async def _asked(self, project: str, need: Need) -> Ticket:
        return Ticket(await self._shares.hold(project, need))


class Books:
    """Those of one gateway."""

    def __init__(self, spool: Spool, admission: Admission) -> None:
        self._spool = spool
        self._admission = admission

    def enter(
        self, key: KeyEntry, wanted: Wanted, *, endpoint: EndpointEntry, request_id: str
    ) -> Ticket | asyncio.Future[Ticket]:
        """Let a request in: there is room for its record, and what it may amount to is held. A future where the api has
        to be asked for that; one that fails or is cancelled has let nobody in. Raises Refused, the future, too."""
        try:
            self._spool.reserve()
        except DriverError as error:
            why = error.internal or error.message
            _log.error("usage cannot be recorded", request_id=request_id, object_uid=endpoint.uid, error=why)
            raise errors.no_room_for_usage() from error
        try:
            ticket = self._admission.enter(key, wanted, endpoint=endpoint)
        except errors.Refused:
            self._spool.release()
            raise
        if isinstance(ticket, Ticket):
            return ticket
        asked = asyncio.ensure_future(ticket)
        asked.add_done_callback(self._asked)
        return asked

    def record(self, ticket: Ticket, record: Record) -> None:
        """Write what it came to; whoever counts what is spent hears of it."""
        self._spool.append(record)
        self._admission.spend(ticket, record)

    def leave(self, ticket: Ticket, counts: Counts) -> None:
        """It is over."""
        self._admission.leave(ticket, counts)
        self._spool.release()

    def _asked(self, asked: asyncio.Future[Ticket]) -> None:
        if asked.cancelled() or asked.exception() is not None:
            self._spool.release()
