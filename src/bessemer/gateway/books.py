"""What stands in the books of a request, in one place: room for its record, what is held of the bounds that judge it,
and the record of what it came to. What is entered is left, exactly once.
"""

from __future__ import annotations

import asyncio

import structlog

from bessemer.core.errors import DriverError
from bessemer.gateway import errors
from bessemer.gateway.admission import Admission
from bessemer.gateway.journal import Progress, Start
from bessemer.gateway.meter import Counts
from bessemer.gateway.record import Record
from bessemer.gateway.request import Wanted
from bessemer.gateway.spool import Spool
from bessemer.gateway.tables import EndpointEntry, KeyEntry
from bessemer.gateway.tickets import Ticket

_log = structlog.get_logger("gateway")


class Books:
    """Those of one gateway."""

    def __init__(self, spool: Spool, admission: Admission) -> None:
        self._spool = spool
        self._admission = admission

    def enter(
        self,
        key: KeyEntry,
        wanted: Wanted,
        *,
        endpoint: EndpointEntry,
        request_id: str,
        context_tokens: int,
        models: tuple[str, ...],
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
            ticket = self._admission.enter(key, wanted, endpoint=endpoint, context_tokens=context_tokens, models=models)
        except errors.Refused:
            self._spool.release()
            raise
        if isinstance(ticket, Ticket):
            return ticket
        asked = asyncio.ensure_future(ticket)
        asked.add_done_callback(self._asked)
        return asked

    def start(self, start: Start, slot: int) -> int:
        """Write that a replica is asked; its slot in the journal, which is ``slot`` where one was asked before. Raises
        Refused where the disk does not take it: then nobody may be asked."""
        try:
            return self._spool.journal.start(start, slot)
        except OSError as error:
            uid = start.endpoint_uid
            _log.error("usage cannot be recorded", request_id=start.request_id, object_uid=uid, error=str(error))
            raise errors.no_room_for_usage() from error

    def note(self, slot: int, progress: Progress) -> None:
        """Write how far it has come. Where the disk does not take it, what was written before stands."""
        try:
            self._spool.journal.note(slot, progress)
        except OSError as error:
            _log.error("how far an answer has come cannot be recorded", error=str(error))

    def record(self, ticket: Ticket, record: Record, *, slot: int) -> None:
        """Write what it came to; whoever counts what is spent hears of it."""
        self._spool.append(record, slot)
        self._admission.lending.spend(ticket, record)

    def unpaid(self, record: Record, *, slot: int) -> None:
        """Write that it paid nothing, though a replica was asked."""
        self._spool.append(record, slot)

    def aside(self, record: Record, *, slot: int) -> bool:
        """Write that one replica of several was asked and is paid nothing, while the request goes on: the room for its
        own record stays. Whether there was room for both; the ``slot`` is free then."""
        try:
            self._spool.reserve()
        except DriverError:
            return False
        self._spool.append(record, slot)
        self._spool.release()
        return True

    def leave(self, ticket: Ticket, counts: Counts, *, slot: int = 0) -> None:
        """It is over; a ``slot`` that it has yet is of one that pays nothing."""
        if slot:
            self._spool.journal.drop(slot)
        ticket.leave(counts.input_tokens + counts.output_tokens)
        self._spool.release()

    def _asked(self, asked: asyncio.Future[Ticket]) -> None:
        if asked.cancelled() or asked.exception() is not None:
            self._spool.release()
