"""Gets from a database behind a network: those that are asked while others are under way go together.

One statement reads them all, on a connection of its own, which the event loop itself waits on: no thread is woken and
none queues for the interpreter. Whoever asks while an answer is waited for goes with the next: a get that begins after
a write was acknowledged is sent after it, and so sees it.

A batch that fails fails for all who are in it or stand behind it, so that nobody waits for longer than two answers and
a connection. One that is sent on a connection that broke while it was idle is sent once more, on a new one. Who is
cancelled leaves the others theirs. It knows one statement; lists and other reads go by `pool`, and so do gets of what
is as large as a file, which would hold up all the others.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Container, Mapping, Sequence
from itertools import islice
from typing import Any

import psycopg
from psycopg.pq import Format
from psycopg.pq.abc import PGresult

from bessemer.core.errors import Unavailable
from bessemer.core.resource import Key
from bessemer.store import links
from bessemer.store.apart import PENDING_MAX, Turn
from bessemer.store.hearing import Hearing
from bessemer.store.links import Link
from bessemer.store.session import placed, unreadable
from bessemer.store.texts import TEXT, array

MOST = 64
"""Objects of one batch: with bodies of some kilobytes, an answer that does not hold up the loop."""
PLANS = (
    "SET plan_cache_mode = force_generic_plan",
    "SET enable_seqscan = off",
    "SET enable_bitmapscan = off",
    "SET enable_hashjoin = off",
    "SET enable_mergejoin = off",
)
"""The statement is planned once: each object by the key's index, however small the table was then."""

_STATEMENT = b"each"
_BINARY = (Format.BINARY,) * len(Key._fields)

Row = tuple[Any, ...]
_Line = dict[Key, list[asyncio.Future[Row | None]]]


class Gathering:
    """``connect`` makes a connection that has ``PLANS``, in a thread of ``turn``; ``sql`` reads the objects of three
    arrays: kinds, namespaces, names. ``files`` are the kinds that it leaves to others."""

    def __init__(self, connect: Callable[[], Link], sql: bytes, *, turn: Turn, files: Container[str]) -> None:
        self._connect = connect
        self._sql = sql
        self._turn = turn
        self.files = files
        self._line: _Line = {}
        self._waiting = 0
        self._link: Link | None = None
        self._work: asyncio.Task[None] | None = None
        self._closed = False

    async def row(self, key: Key) -> Row | None:
        """The object's row, or None where there is none. Raises Unavailable, also where more wait than are taken on,
        and Invalid for text that no database takes."""
        for text in placed(key._asdict(), Key._fields):
            text.encode()  # what cannot be sent fails here, and not for its neighbours
        if self._closed:
            raise Unavailable("the store is closed")
        if self._waiting >= PENDING_MAX:
            raise Unavailable("more reads wait than the store takes on; try again")
        asker: asyncio.Future[Row | None] = asyncio.get_running_loop().create_future()
        self._line.setdefault(key, []).append(asker)
        self._waiting += 1
        if self._work is None or self._work.done():
            self._work = asyncio.ensure_future(self._serve())
        return await asker

    def close(self) -> None:
        """Let go of the connection; whoever waits is told."""
        self._closed = True
        if self._work is None or self._work.done():
            self._drop()
        elif self._link is not None:
            self._link.cut()

    # --- the line -----------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        """Until nobody stands in line. It begins in the loop's next turn, with all who asked in this one."""
        asked: _Line = {}
        try:
            while self._line:
                asked = {key: self._line.pop(key) for key in [*islice(self._line, MOST)]}
                try:
                    rows = await self._rows([*asked])
                except Unavailable as error:
                    self._fail(asked, error)
                else:
                    self._give(asked, rows)
        except BaseException as error:  # the loop ends, or a defect
            self._drop()
            self._fail(asked, Unavailable("the store cannot be read now", internal=repr(error)))
            raise
        finally:
            if self._closed:
                self._drop()

    def _give(self, asked: _Line, rows: Mapping[Row, Row]) -> None:
        for key, askers in asked.items():
            self._waiting -= len(askers)
            row = rows.get(key)
            for asker in askers:
                if not asker.done():
                    asker.set_result(row)

    def _fail(self, asked: _Line, error: Unavailable) -> None:
        """For those of a batch, and for all who stand behind it."""
        behind, self._line = self._line, {}
        for askers in (*asked.values(), *behind.values()):
            self._waiting -= len(askers)
            for asker in askers:
                if not asker.done():
                    asker.set_exception(Unavailable(error.message, internal=error.internal))

    # --- the connection -----------------------------------------------------------------------------------------

    async def _rows(self, keys: Sequence[Key]) -> Mapping[Row, Row]:
        """By kind, namespace and name. Raises Unavailable."""
        while True:
            link = self._link
            if fresh := link is None:
                link = self._link = await self._turn.do(self._linked, undo=Link.close)
            if self._closed:
                raise Unavailable("the store is closed")
            try:
                return await _ask(link, keys)
            except psycopg.Error as error:
                again = not (fresh or link.well or self._closed)
                self._drop()
                if not again:
                    raise unreadable(error) from error

    def _linked(self) -> Link:
        try:
            link = self._connect()
            try:
                link.due = time.monotonic() + links.ANSWER_SECONDS
                link.good(link.wire.prepare(_STATEMENT, self._sql))
                link.due = math.inf
                link.wire.nonblocking = 1
            except BaseException:
                link.close()
                raise
        except psycopg.Error as error:
            raise unreadable(error) from error
        return link

    def _drop(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None


async def _ask(link: Link, keys: Sequence[Key]) -> Mapping[Row, Row]:
    """Send one batch and wait for its rows. Raises psycopg.Error; a connection whose answer is overdue is cut."""
    link.due = time.monotonic() + links.ANSWER_SECONDS
    try:
        link.wire.send_query_prepared(
            _STATEMENT, [array(texts, TEXT) for texts in zip(*keys, strict=True)], _BINARY, Format.BINARY
        )
        result = link.good(await _answer(link))
    finally:
        link.due = math.inf
    return {row[: len(Key._fields)]: row for row in link.rows(result)}


async def _answer(link: Link) -> PGresult:
    """What the server says to what was sent, once all of it is here. Raises psycopg.Error."""
    loop, wire = asyncio.get_running_loop(), link.wire
    came: asyncio.Future[PGresult] = loop.create_future()
    results: list[PGresult] = []

    def look() -> None:
        if came.done():
            return
        try:
            wire.consume_input()
            if not wire.flush():
                hearing.written()
            while not wire.is_busy():
                result = wire.get_result()
                if result is None:
                    came.set_result(results[0])
                    return
                results.append(result)
        except psycopg.Error as error:
            came.set_exception(error)

    hearing = Hearing(loop, link.file, call=look, writing=bool(wire.flush()))
    try:
        return await came
    finally:
        hearing.end()
