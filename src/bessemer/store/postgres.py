"""The executor on PostgreSQL: connections of psycopg, and Core statements compiled once and prepared by the server.

The writing transaction begins with the counter's row, FOR UPDATE: the writers of all processes stand in line there, and
the order of their commits is the order of revisions. One that falls silent amid its transaction loses it after
`_SILENT_MS`, so that a process which hangs holds up nobody for longer.

Each commit leaves its number in its process's own row, which says besides what the process is (`beside`): one that the
database no longer carries is refused there. Of a commit whose answer was lost that row is read, in a transaction that
begins in the same line and so behind the lost one. (A transaction's id proves nothing: after a crash the server may
give it to another.)

Every parameter is typed and sent apart from its statement. What a statement has as a constant stands in its text, so
that an index of some rows is found by plans of any parameters.
"""

from __future__ import annotations

import functools
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy.dialects.postgresql.base import PGDialect

from bessemer.core.errors import Unavailable
from bessemer.store import beside, schema_versions
from bessemer.store.links import Link, Watch
from bessemer.store.session import Statement, Unsettled, placed
from bessemer.store.tables import IN_LINE, LINE_MS, Tables

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
_BEGIN = (
    b"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; " + IN_LINE + b"; SELECT extract(epoch FROM clock_timestamp())"
)
_SETTLE = f"BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = {_SETTLE_LINE_MS}; ".encode() + IN_LINE
_MARK = """INSERT INTO leases (name, holder, fence, expires_at, ttl, note)
VALUES ('writer/{0}', '{0}', {1}, extract(epoch FROM clock_timestamp()) + {2}, {2}, {3})
ON CONFLICT (name) DO UPDATE SET fence = excluded.fence, expires_at = excluded.expires_at; COMMIT"""
_MARKED = "SELECT fence FROM leases WHERE name = 'writer/{}'"
_GONE = "DELETE FROM leases WHERE name = 'writer/{}'"
_REFUSED = "BE001"
"""What the database says to a writer that it no longer carries (`beside`)."""
_LOOK = b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_DURABLE = "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
_STATEMENTS = 1_024
"""More than there are."""
_PARAMETER = re.compile(r"\$(\d+)")


@dataclass(frozen=True, slots=True)
class _Text:
    """A statement as PostgreSQL wants it, and the names of its parameters."""

    sql: bytes
    order: tuple[str, ...]


class Texts(dict[Statement, _Text]):
    """Statement → its text, compiled at first use."""

    def __missing__(self, statement: Statement) -> _Text:
        self[statement] = _compiled(statement)
        return self[statement]


@functools.lru_cache(_STATEMENTS)
def _compiled(statement: Statement) -> _Text:
    """What the stores of a process share: most statements are constants, and each takes a millisecond."""
    dialect = PGDialect(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]
    compiled = statement.compile(dialect=dialect)
    names, order = compiled.positiontup or [], list[str]()

    def place(match: re.Match[str]) -> str:
        name = names[int(match[1]) - 1]
        value = compiled.params[name]
        if value is not None:
            return _literal(value)
        if name not in order:
            order.append(name)
        return f"${order.index(name) + 1}"

    sql = _PARAMETER.sub(place, str(compiled))
    return _Text(sql.encode(), tuple(order))


def _literal(value: str | float) -> str:
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)


class Session:
    """The writing connection. It is made anew where it was lost between two transactions."""

    remote: ClassVar[bool] = True
    refusals: ClassVar[tuple[type[Exception], ...]] = (
        psycopg.IntegrityError,
        psycopg.DataError,
        psycopg.ProgrammingError,
    )
    faults: ClassVar[tuple[type[Exception], ...]] = (psycopg.Error, Unsettled, beside.Outdated)

    def __init__(self, url: str, *, texts: Texts, watch: Watch) -> None:
        self._url = url
        self._texts = texts
        self._watch = watch
        self._name = secrets.token_hex(8)
        self._said = _literal(beside.said())
        self._number = 0
        self._kept = False
        self.time = 0.0
        """The server's clock at `begin`, in seconds since the epoch."""
        self.links = 1
        """How often a connection was made: another may be to another server."""
        self._link = _writing(url, watch)

    def _relink(self) -> None:
        self._link.close()
        self.links += 1
        self._link = _writing(self._url, self._watch)

    def execute(self, statement: Statement, values: Mapping[str, Any]) -> psycopg.Cursor[Any]:
        """Run one statement. Raises Invalid for text that no database takes."""
        text = self._texts[statement]
        return self._link.run(text.sql, placed(values, text.order), prepare=True)

    def execute_each(self, statement: Statement, rows: Sequence[Mapping[str, Any]]) -> None:
        """Run one statement with each of the rows, which are sent together."""
        text = self._texts[statement]
        self._link.run_each(text.sql, [placed(row, text.order) for row in rows])

    def begin(self, *, wait: bool = True) -> bool:
        """Open a transaction as the one writer of all processes. It waits in line, whatever ``wait`` says."""
        if not self._link.well:
            self._relink()
        try:
            begun = self._link.say(_BEGIN)
        except psycopg.Error:
            if self._link.well:
                raise
            self._relink()  # lost while nothing was under way
            begun = self._link.say(_BEGIN)
        self._kept = False
        self._number += 1
        self.time = float(begun.get_value(0, 0) or 0)
        return True

    def commit(self) -> None:
        """Raises `Unsettled` where the answer was lost and nobody says what became of it, `Outdated` where the database
        no longer carries this release."""
        mark = _MARK.format(self._name, self._number, _MARK_SECONDS, self._said)
        try:
            status = self._link.say(mark.encode()).command_status
        except psycopg.Error as error:
            if error.sqlstate == _REFUSED:
                raise beside.Outdated(beside.too_old(self._version())) from error
            if self.alive:  # the server broke the transaction off, and says so
                raise
            self._settle(error)
            return
        if status != b"COMMIT":
            raise psycopg.OperationalError("the transaction had been broken off")

    def _settle(self, lost: psycopg.Error) -> None:
        """Look whether the commit whose answer was ``lost`` was done: it returns where it stands."""
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
            raise lost
        raise Unsettled(f"{type(lost).__name__}: {lost}")

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


class ReadSession:
    """A connection that only reads: where the database is not well it raises Unavailable. ``whole`` is for who reads
    all there is: a read of it takes what it takes."""

    def __init__(self, url: str, *, texts: Texts, watch: Watch, whole: bool = False) -> None:
        self._texts = texts
        self._bound = not whole
        self._streams = False
        self._heard = False
        try:
            self._link = Link(
                url,
                "SET default_transaction_read_only = on",
                f"SET statement_timeout = {0 if whole else _READ_MS}",
                f"SET idle_in_transaction_session_timeout = {_WHOLE_MS if whole else _LOOK_MS}",
                watch=watch,
            )
        except psycopg.Error as error:
            raise _unreadable(error) from error

    def execute(self, statement: Statement, values: Mapping[str, Any]) -> psycopg.Cursor[Any]:
        """Run one statement. Raises Unavailable, and Invalid for text that no database takes."""
        text = self._texts[statement]
        return self._run(text.sql, placed(values, text.order), prepare=True)

    def stream(self, statement: Statement, values: Mapping[str, Any]) -> ReadSession:
        """Within `look`: begin a longer read, whose rows the server keeps until `fetchmany` asks for them."""
        if self._streams:
            self._run(b"CLOSE rows", [], prepare=False)
        text = self._texts[statement]
        named = placed(values, text.order)
        self._run(b"DECLARE rows NO SCROLL CURSOR FOR " + text.sql, named, prepare=False)
        self._streams = True
        return self

    def fetchmany(self, size: int) -> list[Any]:
        """The next rows of `stream`."""
        return self._run(f"FETCH {size} FROM rows".encode(), [], prepare=False).fetchall()

    def look(self) -> None:
        """Begin a transaction that sees one revision; `leave` ends it."""
        try:
            self._link.say(_LOOK)
        except psycopg.Error as error:
            raise _unreadable(error) from error

    def leave(self) -> None:
        """End it. (After a ROLLBACK the driver would have everything prepared anew.)"""
        self._streams = False
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
            raise _unreadable(error) from error
        return self._link.wire.socket

    def hear(self) -> bool:
        """Take up what was said since: whether anything was is all that matters. Raises Unavailable."""
        try:
            self._link.wire.consume_input()
            while self._link.wire.notifies() is not None:
                self._heard = True
        except psycopg.Error as error:
            raise _unreadable(error) from error
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
            raise _unreadable(error) from error


def _unreadable(error: psycopg.Error) -> Unavailable:
    return Unavailable("the store cannot be read now", internal=f"{type(error).__name__}: {error}")
