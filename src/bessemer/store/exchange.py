"""Statements that are sent to a PostgreSQL server together, and its answers to them, which are waited for once.

libpq's pipeline, spoken without the driver's own: that one waits wherever it reads, and an event loop has to wait in a
way of its own. The server runs the statements one after the other; after one that it refuses it runs none. What went
wrong stands in `error`, and raises nowhere else, so that whoever waits for an answer need not be who judges it.

Each statement is prepared once for a connection.
"""

from __future__ import annotations

import select
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import PyFormat
from psycopg.pq import ExecStatus

from bessemer.store.links import ANSWER_SECONDS, Link

_OK = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK)
BINARY = 1
"""The form in which values come and go, where it is not text."""
_NOT_PREPARED = "26000"


class Said(NamedTuple):
    """A statement with its parameters as they are sent."""

    sql: bytes
    values: Sequence[Buffer | None] = ()
    types: tuple[int, ...] = ()
    formats: Sequence[int] = ()


class Exchange:
    """Of one connection, on which nothing else is under way until it is over. ``step`` and ``wait`` never raise."""

    def __init__(self, link: Link, statements: Sequence[Said]) -> None:
        self.error: psycopg.Error | None = None
        """What the server refused first, or how the connection was lost."""
        self.over = False
        self._link = link
        self._found: list[psycopg.pq.abc.PGresult] = []
        self._sent: list[tuple[bytes, tuple[int, ...]] | None] = []
        self._answered = 0
        self._pushed = False
        link.due = time.monotonic() + ANSWER_SECONDS
        try:
            link.wire.enter_pipeline_mode()
            for one in statements:
                self._send(one)
            link.wire.pipeline_sync()
            self._pushed = link.wire.flush() == 0
        except psycopg.Error as error:
            self._lost(error)
        except BaseException:
            link.broken = True  # half of it may be on its way
            raise

    def _send(self, said: Said) -> None:
        known = said.sql, said.types
        name = self._link.prepared.get(known)
        if name is None:
            name = self._link.prepared[known] = b"s%d" % len(self._link.prepared)
            self._link.wire.send_prepare(name, said.sql, said.types or None)
            self._sent.append(known)
        self._link.wire.send_query_prepared(name, said.values or None, said.formats or None, BINARY)
        self._sent.append(None)

    @property
    def socket(self) -> int:
        """What to wait on: until it can be read, and until it can be written as long as not all is `pushed`. It is
        there until the link is closed; the driver's own may end, and be another's, amid a step."""
        return self._link.file

    @property
    def pushed(self) -> bool:
        """Whether all is on its way."""
        return self._pushed

    def step(self) -> bool:
        """Take on what has come; whether it is over."""
        try:
            if not self.over:
                self._pushed = self._pushed or self._link.wire.flush() == 0
                self._link.wire.consume_input()
                self._take()
        except psycopg.Error as error:
            self._lost(error)
        return self.over

    def _take(self) -> None:
        wire, idle = self._link.wire, 0
        while not self.over and not wire.is_busy():
            result = wire.get_result()
            if result is None:
                idle += 1
                if idle > 1:  # it waits for nothing more, and has said nothing of an end
                    raise psycopg.OperationalError("the connection was lost amid an exchange")
                continue
            idle = 0
            if result.status == ExecStatus.PIPELINE_SYNC:
                wire.exit_pipeline_mode()
                self._end()
            else:
                self._answer(result)

    def _answer(self, result: psycopg.pq.abc.PGresult) -> None:
        if self._answered >= len(self._sent):
            raise psycopg.errors.error_from_result(result)  # the connection's own end
        prepared, self._answered = self._sent[self._answered], self._answered + 1
        if result.status not in _OK:
            if prepared is not None:
                self._link.prepared.pop(prepared, None)
            if self.error is None and result.status != ExecStatus.PIPELINE_ABORTED:
                self.error = psycopg.errors.error_from_result(result)
        elif prepared is None:
            self._found.append(result)

    def _end(self) -> None:
        self.over, self._link.due = True, float("inf")
        if self.error is not None and self.error.sqlstate == _NOT_PREPARED:
            self._link.prepared.clear()

    def _lost(self, error: psycopg.Error) -> None:
        self.error = self.error if self.error is not None and self.over else error
        self._link.broken = True  # nobody knows what it would say next
        self._end()

    def wait(self) -> Exchange:
        """Wait for the answers here; it lasts no longer than the link lets anyone wait."""
        poll = select.poll()
        while not self.over:
            poll.register(self.socket, select.POLLIN if self._pushed else select.POLLIN | select.POLLOUT)
            poll.poll()
            self.step()
        return self

    def rows(self, number: int) -> list[Any]:
        """What a statement found, as tuples."""
        return self._link.rows(self._found[number])

    @property
    def status(self) -> bytes | None:
        """What the last statement is said to have done."""
        return self._found[-1].command_status if self._found else None


def said(link: Link, sql: bytes, *, values: Sequence[Any]) -> Said:
    """A statement with values as the driver sends them."""
    if not values:
        return Said(sql)
    adapt = link.transformer
    dumped = adapt.dump_sequence(values, [PyFormat.AUTO] * len(values))
    return Said(sql, dumped, tuple(adapt.types or ()), list(adapt.formats or ()))
