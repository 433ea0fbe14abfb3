"""The executor on SQLite: connections, pragmas, and Core statements compiled once.

``synchronous=FULL`` and WAL: a commit that returned survives the loss of power. One connection writes, from one thread
at a time; others read, and between `look` and `leave` one sees one revision however long that takes.

Nothing outside this module knows that the database is SQLite, but for migrations.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakSet

from sqlalchemy.dialects import sqlite

from bessemer.core.errors import Expired, Unavailable
from bessemer.store.session import Asked, Batch, Statement, in_order, kept, unreadable

_CHECKPOINT_PAGES = 5_000
"""A log of 40 MB: folding it in more often is what makes the slowest commits slow."""
_BUSY_MS = 5_000
_STATEMENTS = 1_024
"""More than there are."""
_CACHE_KIB = 8_192
_READ_CACHE_KIB = 4_096
"""A commit empties a reader's cache, and what the machine's own cache of the file has is two microseconds away."""
_LEAN_CACHE_KIB = 1_024
"""Of a connection of which there are many."""
_PAGE_BYTES = 8_192
"""Bodies of up to 2 kB stay within a leaf: with SQLite's 4,096 every object of ours has an overflow page."""


@dataclass(frozen=True, slots=True)
class _Text:
    """A statement as SQLite wants it. Parameters go by place: by name, the driver lets go of the interpreter lock for
    each of them, and a writer beside a busy event loop would queue for it a dozen times per statement."""

    sql: str
    order: Callable[[Mapping[str, Any]], Sequence[Any]]


class Texts(dict[Statement, _Text]):
    """Statement → its text, compiled at first use."""

    def __missing__(self, statement: Statement) -> _Text:
        self[statement] = _compiled(statement)
        return self[statement]


@functools.lru_cache(_STATEMENTS)
def _compiled(statement: Statement) -> _Text:
    """What the stores of a process share: most statements are constants, and each takes a millisecond."""
    compiled = statement.compile(dialect=sqlite.dialect(paramstyle="qmark"))
    constants = {name: value for name, value in compiled.params.items() if value is not None}
    return _Text(str(compiled), in_order(compiled.positiontup or (), constants))


class Session:
    """One connection. The statement's parameters are passed by name; every one without a constant is required."""

    refusals: ClassVar[tuple[type[Exception], ...]] = (
        sqlite3.IntegrityError,
        sqlite3.DataError,
        sqlite3.ProgrammingError,
        sqlite3.InterfaceError,
    )
    """The statement was wrong, the database is well."""
    faults: ClassVar[tuple[type[Exception], ...]] = (sqlite3.Error,)
    """The database is not well: full, locked, broken."""
    time: ClassVar[None] = None
    counter: ClassVar[None] = None
    found: ClassVar[tuple[()]] = ()

    def __init__(self, path: Path, *, texts: Texts, durable: bool = True) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, cached_statements=256, check_same_thread=False)
        self._execute = self._connection.execute
        self._texts = texts
        self.stamp: int | None = 0
        self._waits = True
        for pragma in (
            f"busy_timeout={_BUSY_MS}",
            f"page_size={_PAGE_BYTES}",
            "journal_mode=WAL",
            f"synchronous={'FULL' if durable else 'OFF'}",
            f"wal_autocheckpoint={_CHECKPOINT_PAGES}",
            f"cache_size=-{_CACHE_KIB}",
            "temp_store=MEMORY",
        ):
            self._execute(f"PRAGMA {pragma}")

    def execute(self, statement: Statement, values: Mapping[str, Any]) -> sqlite3.Cursor:
        """Run one statement."""
        text = self._texts[statement]
        return self._execute(text.sql, kept(text.order(values)))

    def execute_each(self, batches: Sequence[Batch]) -> None:
        """Run statements with each of their rows."""
        for statement, rows in batches:
            if len(rows) == 1:
                self.execute(statement, rows[0])
                continue
            text = self._texts[statement]
            self._connection.executemany(text.sql, [kept(text.order(row)) for row in rows])

    def begin(self, *, wait: bool = True, looks: Sequence[Asked] = ()) -> bool:
        """Open the one writing transaction. Without ``wait`` it answers False where another has the database. A look
        costs the same whenever it is asked: none is asked here."""
        if wait is not self._waits:
            self._execute(f"PRAGMA busy_timeout={_BUSY_MS if wait else 0}")
            self._waits = wait
        try:
            self._execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if wait or error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            return False
        self.stamp = self._execute("PRAGMA data_version").fetchone()[0]
        return True

    def commit(self, batches: Sequence[Batch] = ()) -> None:
        self.execute_each(batches)
        self._execute("COMMIT")

    def rollback(self) -> None:
        if self._connection.in_transaction:
            self._execute("ROLLBACK")

    def savepoint(self) -> None:
        self._execute("SAVEPOINT op")

    def keep(self) -> None:
        """Let the savepoint's writes stand."""
        self._execute("RELEASE op")

    def undo(self) -> None:
        """Take the savepoint's writes back."""
        self._execute("ROLLBACK TO op")
        self._execute("RELEASE op")

    @property
    def alive(self) -> bool:
        """Whether the transaction still stands: SQLite ends it by itself where the disk is full."""
        return self._connection.in_transaction

    def look(self, snapshot: str = "") -> None:
        """Begin a reading transaction; `leave` ends it. None of a file is found by a name."""
        if snapshot:
            raise Expired("a file's snapshots have no names")
        self._execute("BEGIN")

    leave = rollback

    @property
    def sound(self) -> bool:
        """Whether the connection can be used again: a file's always can."""
        return True

    def script(self, sql: str) -> None:
        """Several statements of DDL."""
        self._connection.executescript(sql)

    def version(self) -> str | None:
        """The schema's version; None for an empty file."""
        named = self._execute("SELECT name FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
        if named is None:
            return None
        row = self._execute("SELECT version_num FROM alembic_version").fetchone()
        return str(row[0]) if row is not None else None

    def close(self) -> None:
        self._connection.close()


class ReadSession(Session):
    """A connection that only reads: where the database is not well it raises Unavailable. ``lean`` keeps few pages."""

    def __init__(self, path: Path, *, texts: Texts, lean: bool = False) -> None:
        try:
            super().__init__(path, texts=texts)
            self._closed = False
            self._streams: WeakSet[sqlite3.Cursor] = WeakSet()
            self._execute(f"PRAGMA cache_size=-{_LEAN_CACHE_KIB if lean else _READ_CACHE_KIB}")
        except sqlite3.Error as error:
            raise unreadable(error) from error

    def execute(self, statement: Statement, values: Mapping[str, Any]) -> sqlite3.Cursor:
        """Run one statement. Raises Unavailable, also while its rows are fetched, and where this was closed."""
        text = self._texts[statement]
        ordered = kept(text.order(values))
        try:
            return self._connection.cursor(_Cursor).execute(text.sql, ordered)
        except self.refusals as error:
            if self._closed:
                raise Unavailable("the store is closed") from error
            raise
        except sqlite3.Error as error:
            raise unreadable(error) from error

    def stream(self, statement: Statement, values: Mapping[str, Any]) -> sqlite3.Cursor:
        """Within `look`: begin a longer read, of which there may be several at once, for lists share what they look at.
        SQLite finds rows as they are fetched."""
        stream = self.execute(statement, values)
        self._streams.add(stream)
        return stream

    def leave(self) -> None:
        """End it, and longer reads: while one is not at its end, SQLite keeps what it sees for the next `look`."""
        if not self._closed:
            for stream in [*self._streams]:
                stream.close()
            self._streams.clear()
            self.rollback()

    def export(self) -> str:
        """Nobody else finds what it sees."""
        return ""

    @property
    def sound(self) -> bool:
        """Whether the connection can be used again: a file's always can, until it is closed."""
        return not self._closed

    def close(self) -> None:
        self._closed = True
        super().close()


class _Cursor(sqlite3.Cursor):
    """Rows are read as they are fetched, so this is where a broken disk shows."""

    def fetchone(self) -> Any:
        try:
            return super().fetchone()
        except sqlite3.DatabaseError as error:
            raise unreadable(error) from error

    def fetchmany(self, size: int | None = 1) -> list[Any]:
        try:
            return super().fetchmany(size)
        except sqlite3.DatabaseError as error:
            raise unreadable(error) from error

    def fetchall(self) -> list[Any]:
        try:
            return super().fetchall()
        except sqlite3.DatabaseError as error:
            raise unreadable(error) from error
