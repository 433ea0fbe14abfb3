"""The executor on PostgreSQL: connections of psycopg, and Core statements compiled once and prepared by the server.

The writing transaction begins with the counter's row, FOR UPDATE: the writers of all processes stand in line there, and
the order of their commits is the order of revisions. One that falls silent amid its transaction loses it after
`_SILENT_MS`, so that a process which hangs holds up nobody for longer. Of a commit whose answer was lost the server is
asked what became of it.

Every parameter is typed and sent apart from its statement. What a statement has as a constant stands in its text, so
that an index of some rows is found by plans of any parameters.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import ConnStatus, ExecStatus, TransactionStatus
from psycopg.types.numeric import Int8Dumper
from sqlalchemy.dialects.postgresql.base import PGDialect

from bessemer.core.errors import Invalid, Unavailable
from bessemer.store.session import Statement, Unsettled

CHANNEL = "bessemer"
"""Where the database says that the counter has moved."""

_OLDEST_SERVER = 130_000
_CONNECT_SECONDS = 5
_SILENT_MS = 5_000
_LINE_MS = 30_000
"""How long a writer stands in line."""
_LOOK_MS = 120_000
"""How long a list that nobody continues keeps its snapshot at most."""
_READ_MS = 30_000
_PREPARED_MAX = 400
_SETTLE_SECONDS = 10.0
_SETTLE_EACH = 0.2

_OK = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK)
_OPEN = (TransactionStatus.INTRANS, TransactionStatus.INERROR)
_BEGIN = b"BEGIN; SELECT pg_current_xact_id() FROM counters WHERE name = 'revision' FOR UPDATE"
_LOOK = b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_STATUS = b"SELECT pg_xact_status($1::text::xid8)"
_DURABLE = "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
_PARAMETER = re.compile(r"\$(\d+)")
_SETUP_LOCK = 0x62657373
"""Of those who make or migrate the tables."""


@dataclass(frozen=True, slots=True)
class _Text:
    """A statement as PostgreSQL wants it, and the names of its parameters."""

    sql: bytes
    order: tuple[str, ...]


class Texts(dict[Statement, _Text]):
    """Statement → its text, compiled at first use."""

    def __init__(self) -> None:
        super().__init__()
        self._dialect = PGDialect(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]

    def __missing__(self, statement: Statement) -> _Text:
        compiled = statement.compile(dialect=self._dialect)
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
        text = self[statement] = _Text(sql.encode(), tuple(order))
        return text


def _literal(value: str | float) -> str:
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)


class _Link:
    """One connection, with what is the same for every use of one."""

    def __init__(self, url: str, *settings: str) -> None:
        asked: dict[str, Any] = {"connect_timeout": _CONNECT_SECONDS, "application_name": "bessemer"}
        where = make_conninfo(**asked | conninfo_to_dict(url))
        self.connection = psycopg.connect(where, autocommit=True, cursor_factory=psycopg.RawCursor)
        self.connection.prepared_max = _PREPARED_MAX
        self.connection.adapters.register_dumper(int, Int8Dumper)
        self.cursor = self.connection.cursor(binary=True)
        self.wire = self.connection.pgconn
        for setting in settings:
            self.say(setting.encode())

    def say(self, words: bytes) -> psycopg.pq.abc.PGresult:
        """Words without parameters, of which the last result counts."""
        result = self.wire.exec_(words)
        if result.status not in _OK:
            raise psycopg.errors.error_from_result(result)
        return result

    def run(self, sql: bytes, values: list[Any], *, prepare: bool) -> psycopg.Cursor[Any]:
        """One statement; its rows stand in the link's one cursor until the next."""
        return self.cursor.execute(sql, values, prepare=prepare)

    @property
    def well(self) -> bool:
        """Whether there is a server at the other end, as far as is known."""
        return bool(self.wire.status == ConnStatus.OK)


class Session:
    """The writing connection. It is made anew where it was lost between two transactions."""

    remote: ClassVar[bool] = True
    refusals: ClassVar[tuple[type[Exception], ...]] = (
        psycopg.IntegrityError,
        psycopg.DataError,
        psycopg.ProgrammingError,
    )
    faults: ClassVar[tuple[type[Exception], ...]] = (psycopg.Error, Unsettled)

    def __init__(self, url: str, *, texts: Texts) -> None:
        self._url = url
        self._texts = texts
        self._number = ""
        self._kept = False
        self._link = self._connect()

    def _connect(self) -> _Link:
        return _Link(
            self._url,
            f"SET idle_in_transaction_session_timeout = {_SILENT_MS}",
            f"SET lock_timeout = {_LINE_MS}",
            _DURABLE,
        )

    def execute(self, statement: Statement, values: Mapping[str, Any]) -> psycopg.Cursor[Any]:
        """Run one statement."""
        text = self._texts[statement]
        return self._link.run(text.sql, [values[name] for name in text.order], prepare=True)

    def begin(self, *, wait: bool = True) -> bool:
        """Open a transaction as the one writer of all processes. It waits in line, whatever ``wait`` says."""
        if not self._link.well:
            self._link = self._connect()
        try:
            begun = self._link.say(_BEGIN)
        except psycopg.Error:
            if self._link.well:
                raise
            self._link = self._connect()  # lost while nothing was under way
            begun = self._link.say(_BEGIN)
        self._kept = False
        self._number = (begun.get_value(0, 0) or b"").decode()
        return True

    def commit(self) -> None:
        """Raises `Unsettled` where the answer was lost and nobody says what became of it."""
        try:
            status = self._link.say(b"COMMIT").command_status
        except psycopg.Error as error:
            self._settle(error)
            return
        if status != b"COMMIT":
            raise psycopg.OperationalError("the transaction had been broken off")

    def _settle(self, lost: psycopg.Error) -> None:
        """Ask what became of the commit whose answer was ``lost``: it returns where it stands."""
        until = time.monotonic() + _SETTLE_SECONDS
        while time.monotonic() < until:
            try:
                if not self._link.well:
                    self._link = self._connect()
                found = self._link.run(_STATUS, [self._number], prepare=False).fetchone()
            except psycopg.Error:
                found = None  # not there yet
            if found == ("committed",):
                return
            if found == ("aborted",):
                raise lost
            time.sleep(_SETTLE_EACH)
        raise Unsettled(f"transaction {self._number}: {lost}")

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

    def close(self) -> None:
        self._link.connection.close()

    # --- tables -------------------------------------------------------------------------------------------------

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else makes or migrates tables within the block. Raises Invalid where the server will not do."""
        info = self._link.connection.info
        if info.server_version < _OLDEST_SERVER:
            raise Invalid(f"this PostgreSQL is older than {_OLDEST_SERVER // 10_000}")
        if info.parameter_status("server_encoding") != "UTF8":
            raise Invalid("the database's encoding is not UTF8")
        self._link.say(f"SELECT pg_advisory_lock({_SETUP_LOCK})".encode())
        try:
            yield
        finally:
            self._link.say(f"SELECT pg_advisory_unlock({_SETUP_LOCK})".encode())

    def script(self, sql: str) -> None:
        """Several statements of DDL."""
        self._link.say(sql.encode())

    def version(self) -> str | None:
        """The schema's version; None for an empty database."""
        if self._link.say(b"SELECT to_regclass('alembic_version')").get_value(0, 0) is None:
            return None
        return (self._link.say(b"SELECT version_num FROM alembic_version").get_value(0, 0) or b"").decode()


class ReadSession:
    """A connection that only reads: where the database is not well it raises Unavailable."""

    def __init__(self, url: str, *, texts: Texts) -> None:
        self._texts = texts
        self._streams = False
        try:
            self._link = _Link(
                url,
                "SET default_transaction_read_only = on",
                f"SET statement_timeout = {_READ_MS}",
                f"SET idle_in_transaction_session_timeout = {_LOOK_MS}",
            )
        except psycopg.Error as error:
            raise _unreadable(error) from error

    def execute(self, statement: Statement, values: Mapping[str, Any]) -> psycopg.Cursor[Any]:
        """Run one statement. Raises Unavailable."""
        text = self._texts[statement]
        return self._run(text.sql, [values[name] for name in text.order], prepare=True)

    def stream(self, statement: Statement, values: Mapping[str, Any]) -> ReadSession:
        """Within `look`: begin a longer read, whose rows the server keeps until `fetchmany` asks for them."""
        if self._streams:
            self._run(b"CLOSE rows", [], prepare=False)
        text = self._texts[statement]
        named = [values[name] for name in text.order]
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
        self._link.connection.close()

    # --- what others say ----------------------------------------------------------------------------------------

    def listen(self) -> int:
        """Hear from now on that the counter has moved; answers what to wait on."""
        try:
            self._link.say(f"LISTEN {CHANNEL}".encode())
        except psycopg.Error as error:
            raise _unreadable(error) from error
        return self._link.wire.socket

    def hear(self) -> None:
        """Take up what was said: that something was is all that matters. Raises Unavailable."""
        try:
            self._link.wire.consume_input()
            while self._link.wire.notifies() is not None:
                continue
        except psycopg.Error as error:
            raise _unreadable(error) from error

    def _run(self, sql: bytes, values: list[Any], *, prepare: bool) -> psycopg.Cursor[Any]:
        try:
            return self._link.run(sql, values, prepare=prepare)
        except Session.refusals:
            raise
        except psycopg.Error as error:
            raise _unreadable(error) from error


def _unreadable(error: psycopg.Error) -> Unavailable:
    return Unavailable("the store cannot be read now", internal=f"{type(error).__name__}: {error}")
