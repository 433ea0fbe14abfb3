"""What stands in the books of a request, in one place: room for its record, what is held of the bounds that judge it,
and the record of what it came to. What is entered is left, exactly once.
"""

from __future__ import annotations

import asyncio

import structlog

from bessemer.core.errors import DriverError
from bessemer.gateway import errors
from bessemer.gateway.admission import Admission
from bessemer.gateway.meter import Counts
from bessemer.gateway.record import Record
from bessemer.gateway.request import Wanted
from bessemer.gateway.spool import Spool
from bessemer.gateway.tables import EndpointEntry, KeyEntry
from bessemer.gateway.vessels import Ticket

_log = structlog.get_logger("gateway")


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
