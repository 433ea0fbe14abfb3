"""The executor on PostgreSQL: connections of psycopg, and Core statements compiled once and prepared by the server.

The writing transaction begins with the counter's row, FOR UPDATE: the writers of all processes stand in line there, and
the order of their commits is the order of revisions. One that falls silent amid its transaction loses it after
`_SILENT_MS`, so that a process which hangs holds up nobody for longer.

Each commit leaves its number in its process's own row, which says besides what the process is (`beside`): one that the
database no longer carries is refused there. Of a commit whose answer was lost that row is read, in a transaction that
begins in the same line and so behind the lost one. (A transaction's id proves nothing: after a crash the server may
give it to another.)

How a statement reads is `texts`'s, and how many are sent together `exchange`'s.
"""

from __future__ import annotations

import functools
import itertools
import re
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar

import psycopg
from psycopg.pq import TransactionStatus

from bessemer.core.errors import Expired, Invalid
from bessemer.store import beside, schema_versions
from bessemer.store.exchange import Exchange, Said, said
from bessemer.store.links import Link, Watch
from bessemer.store.session import Asked, Batch, Statement, Undone, Unsettled, placed, unreadable
from bessemer.store.streams import Rows
from bessemer.store.tables import IN_LINE, LINE_MS, Tables
from bessemer.store.texts import Texts, literal

__all__ = ["CHANNEL", "ReadSession", "Session", "Texts"]

CHANNEL = "bessemer"
"""Where the database says that the counter has moved."""

_SILENT_MS = 3_000
_LOOK_MS = 120_000
"""How long a list that nobody continues keeps its snapshot at most."""
_READ_MS = 10_000
_WHOLE_MS = 3_600_000
"""How long who reads a whole store may do something else between two reads."""
_SETTLE_SECONDS = 20.0
_SETTLE_EACH = 0.2
_SETTLE_LINE_MS = 4_000
"""Longer than whoever fell silent may hold the line."""
_MARK_SECONDS = 86_400
"""What a process leaves behind is forgotten after a day in which it wrote nothing."""

_OPEN = (TransactionStatus.INTRANS, TransactionStatus.INERROR)
_BEGIN = Said(b"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
_LINE = Said(
    b"SELECT value, extract(epoch FROM clock_timestamp())::float8 FROM (" + IN_LINE + b") AS line"  # behind it in line
)
_COMMIT = Said(b"COMMIT")
_ROLLBACK = Said(b"ROLLBACK")
_SETTLE = f"BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = {_SETTLE_LINE_MS}; ".encode() + IN_LINE
_MARK = """INSERT INTO leases (name, holder, fence, expires_at, ttl, note)
VALUES ('writer/{0}', '{0}', $1, extract(epoch FROM clock_timestamp()) + {1}, {1}, {2})
ON CONFLICT (name) DO UPDATE SET fence = excluded.fence, expires_at = excluded.expires_at"""
_MARKED = "SELECT fence FROM leases WHERE name = 'writer/{}'"
_GONE = "DELETE FROM leases WHERE name = 'writer/{}'"
_REFUSED = "BE001"
"""What the database says to a writer that it no longer carries (`beside`)."""
_LOOK = b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_EXPORT = b"SELECT pg_export_snapshot()"
_SNAPSHOT = re.compile(r"[0-9A-F-]{1,64}").fullmatch
_GONE_SNAPSHOT = ("22023", "42704", "55000")
"""There is no such name; whoever held it has ended."""
_DURABLE = "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"


class _Writing:
    """What runs within a transaction."""

    def __init__(self, link: Link, texts: Texts) -> None:
        self._link = link
        self._texts = texts
        self._kept = False

    def execute(self, statement: Statement, values: Mapping[str, Any]) -> psycopg.Cursor[Any]:
        """Run one statement. Raises Invalid for text that no database takes."""
        text = self._texts[statement]
        return self._link.run(text.sql, placed(values, text.order), prepare=True)

    def execute_each(self, batches: Sequence[Batch]) -> None:
        """Run statements with each of their rows, all of which are sent together."""
        if statements := list(self._texted(batches)):
            error = Exchange(self._link, statements).wait().error
            if error is not None:
                raise error

    def _texted(self, batches: Sequence[Batch]) -> Iterator[Said]:
        for statement, rows in batches:
            text = self._texts[statement]
            if text.many is not None and len(rows) > 1:
                yield text.many.said(rows)
            else:
                yield from (said(self._link, text.sql, values=placed(row, text.order)) for row in rows)

    def rollback(self) -> None:
        if self.alive:
            self._link.say(b"ROLLBACK")

    def savepoint(self) -> None:
        self._link.say(b"RELEASE op; SAVEPOINT op" if self._kept else b"SAVEPOINT op")
        self._kept = False

    def keep(self) -> None:
        """Let the savepoint's writes stand. The next savepoint, or the commit, takes the word along."""
        self._kept = True

    def undo(self) -> None:
        """Take the savepoint's writes back."""
        self._link.say(b"ROLLBACK TO op; RELEASE op")

    @property
    def alive(self) -> bool:
        """Whether the transaction still stands, be it only to be undone."""
        return self._link.well and self._link.wire.transaction_status in _OPEN


class Session(_Writing):
    """The writing connection. It is made anew where it was lost between two transactions."""

    refusals: ClassVar[tuple[type[Exception], ...]] = (
        psycopg.IntegrityError,
        psycopg.DataError,
        psycopg.ProgrammingError,
    )
    faults: ClassVar[tuple[type[Exception], ...]] = (psycopg.Error, Undone, Unsettled, beside.Outdated)

    def __init__(self, url: str, *, texts: Texts, watch: Watch) -> None:
        self._url = url
        self._watch = watch
        self._name = secrets.token_hex(8)
        self._mark = _MARK.format(self._name, _MARK_SECONDS, literal(beside.said())).encode()
        self._number = 0
        self._asked: list[bool] = []
        self.time = 0.0
        self.stamp: int | None = None
        """The server's clock at `begin`, in seconds since the epoch."""
        self.counter: int | None = None
        """The revision then."""
        self.found: Sequence[list[Any] | None] = ()
        """What the looks of `begin` found; None for one that could not be asked."""
        self.links = 1
        """How often a connection was made: another may be to another server."""
        super().__init__(_writing(url, watch), texts)

    def _relink(self) -> None:
        self._link.close()
        self.links += 1
        self._link = _writing(self._url, self._watch)

    def begin(self, *, wait: bool = True, looks: Sequence[Asked] = ()) -> bool:
        """Open a transaction as the one writer of all processes. It waits in line, whatever ``wait`` says."""
        if not self._link.well:
            self._relink()
        try:
            self.rollback()  # what came to nothing elsewhere
            self.opened(self.opening(looks).wait())
        except self.refusals:
            self.rollback()  # a look that the server does not take is its operation's to hear of
            self.opened(self.opening(()).wait())
        except psycopg.Error:
            if self._link.well:
                raise
            self._relink()  # lost while nothing was under way
            self.opened(self.opening(looks).wait())
        return True

    def opening(self, looks: Sequence[Asked]) -> Exchange:
        """Send what `begin` does."""
        if not self._link.well:
            raise psycopg.OperationalError("the connection was lost")
        statements, self._asked = [_BEGIN, _LINE], []
        for look in looks:
            text = self._texts[look.statement]
            try:
                statements.append(said(self._link, text.sql, values=placed(look.values, text.order)))
                self._asked.append(True)
            except (Invalid, ValueError, TypeError):
                self._asked.append(False)  # its operation hears so, when it asks
        return Exchange(self._link, statements)

    def opened(self, exchange: Exchange) -> None:
        """The transaction is open, and this is what was found."""
        if exchange.error is not None:
            raise exchange.error
        ((self.counter, self.time),) = exchange.rows(1)
        places = itertools.count(2)
        self.found = [exchange.rows(next(places)) if asked else None for asked in self._asked]
        self._kept = False
        self._number += 1

    def commit(self, batches: Sequence[Batch] = ()) -> None:
        """Write what is left, and commit. Where the answer was lost, raises `Undone` if the database says that nothing
        was done, and `Unsettled` if it does not say; `Outdated` where it no longer carries this release."""
        self.closed(self.closing(batches).wait())

    def closing(self, batches: Sequence[Batch]) -> Exchange:
        """Send what `commit` does."""
        statements = [*self._texted(batches), said(self._link, self._mark, values=[self._number]), _COMMIT]
        return Exchange(self._link, statements)

    def closed(self, exchange: Exchange) -> None:
        """It is committed, or not; see `commit`."""
        error = exchange.error
        if error is None:
            if exchange.status != b"COMMIT":
                raise psycopg.OperationalError("the transaction had been broken off")
        elif error.sqlstate == _REFUSED:
            raise beside.Outdated(beside.too_old(self._version())) from error
        elif self.alive:  # the server broke the transaction off, and says so
            raise error
        else:
            self._settle(error)

    def leaving(self) -> Exchange:
        """Send what `rollback` does."""
        return Exchange(self._link, [_ROLLBACK])

    def _settle(self, lost: psycopg.Error) -> None:
        """Look whether the commit whose answer was ``lost`` was done: it returns where it stands. Raises `Undone`,
        `Unsettled`."""
        until = time.monotonic() + _SETTLE_SECONDS
        while time.monotonic() < until:
            try:
                self._relink()
                self._link.say(_SETTLE)
                found = self._link.say(_MARKED.format(self._name).encode())
                marked = int(found.get_value(0, 0) or 0) if found.ntuples else 0
                self._link.say(b"ROLLBACK")
            except psycopg.Error:
                time.sleep(_SETTLE_EACH)  # not there yet, or the lost one still holds the line
                continue
            if marked == self._number:
                return
            raise Undone(f"{type(lost).__name__}: {lost}") from lost
        raise Unsettled(f"{type(lost).__name__}: {lost}")

    def _version(self) -> str:
        self.rollback()
        return self.tables.version() or schema_versions.HEAD

    def close(self) -> None:
        """Nobody waits for this process any more."""
        if self._link.well and not self.alive:
            with suppress(psycopg.Error):
                self._link.say(_GONE.format(self._name).encode())
        self._link.close()

    @property
    def tables(self) -> Tables:
        """What makes and migrates them, on this connection."""
        return Tables(self._link)


def _writing(url: str, watch: Watch) -> Link:
    """A connection that writes."""
    silent = f"SET idle_in_transaction_session_timeout = {_SILENT_MS}"
    return Link(url, silent, f"SET lock_timeout = {LINE_MS}", _DURABLE, watch=watch)


def reading(*, whole: bool = False) -> tuple[str, ...]:
    """Settings of a connection that only reads."""
    return (
        "SET default_transaction_read_only = on",
        f"SET statement_timeout = {0 if whole else _READ_MS}",
        f"SET idle_in_transaction_session_timeout = {_WHOLE_MS if whole else _LOOK_MS}",
    )


class ReadSession:
    """A connection that only reads: where the database is not well it raises Unavailable. ``whole`` is for who reads
    all there is: a read of it takes what it takes."""

    def __init__(self, url: str, *, texts: Texts, watch: Watch, whole: bool = False) -> None:
        self._texts = texts
        self._bound = not whole
        self._rows = Rows(functools.partial(self._run, prepare=False))
        self._heard = False
        try:
            self._link = Link(url, *reading(whole=whole), watch=watch)
        except psycopg.Error as error:
            raise unreadable(error) from error

    def execute(self, statement: Statement, values: Mapping[str, Any]) -> psycopg.Cursor[Any]:
        """Run one statement. Raises Unavailable, and Invalid for text that no database takes."""
        text = self._texts[statement]
        return self._run(text.sql, placed(values, text.order), prepare=True)

    def stream(self, statement: Statement, values: Mapping[str, Any]) -> Rows:
        """Within `look`: begin a longer read."""
        text = self._texts[statement]
        return self._rows.begin(text.sql, placed(values, text.order))

    def look(self, snapshot: str = "") -> None:
        """Begin a transaction that sees one revision; `leave` ends it. Raises Expired where nobody holds the snapshot
        any more."""
        if snapshot and not _SNAPSHOT(snapshot):
            raise Expired("that is no snapshot's name")
        try:
            self._link.say(_LOOK + f"; SET TRANSACTION SNAPSHOT '{snapshot}'".encode() if snapshot else _LOOK)
        except psycopg.Error as error:
            if snapshot and error.sqlstate in _GONE_SNAPSHOT:
                self.leave()
                raise Expired("that snapshot is held by nobody any more", internal=str(error)) from error
            raise unreadable(error) from error

    def export(self) -> str:
        """By which name other connections find what this one sees, while its transaction lasts."""
        try:
            return bytes(self._link.say(_EXPORT).get_value(0, 0) or b"").decode()
        except psycopg.Error as error:
            raise unreadable(error) from error

    def leave(self) -> None:
        """End it. (After a ROLLBACK the driver would have everything prepared anew.)"""
        self._rows.end()
        try:
            self._link.say(b"COMMIT")
        except psycopg.Error:
            self.close()

    @property
    def sound(self) -> bool:
        """Whether the connection can be used again."""
        return self._link.well and self._link.wire.transaction_status == TransactionStatus.IDLE

    def close(self) -> None:
        self._link.close()

    # --- what others say ----------------------------------------------------------------------------------------

    def listen(self) -> int:
        """Hear from now on that the counter has moved; answers what to wait on."""
        # Else what is said during a statement would pile up in the driver, which nobody asks for it.
        self._link.connection.add_notify_handler(self._note)
        try:
            self._link.say(f"LISTEN {CHANNEL}".encode())
        except psycopg.Error as error:
            raise unreadable(error) from error
        return self._link.wire.socket

    def hear(self) -> bool:
        """Take up what was said since: whether anything was is all that matters. Raises Unavailable."""
        try:
            self._link.wire.consume_input()
            while self._link.wire.notifies() is not None:
                self._heard = True
        except psycopg.Error as error:
            raise unreadable(error) from error
        heard, self._heard = self._heard, False
        return heard

    def _note(self, _: psycopg.Notify) -> None:
        self._heard = True

    def _run(self, sql: bytes, values: list[Any], *, prepare: bool) -> psycopg.Cursor[Any]:
        try:
            return self._link.run(sql, values, prepare=prepare, bound=self._bound)
        except Session.refusals:
            raise
        except psycopg.Error as error:
            raise unreadable(error) from error
