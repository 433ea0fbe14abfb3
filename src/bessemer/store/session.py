"""What the store asks of a connection, whichever database is behind it. `sqlite` and `postgres` have one each.

A session is used by one thread at a time. Statements are SQLAlchemy's, compiled once; parameters go by name, rows come
as tuples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from sqlalchemy import Select
from sqlalchemy.sql.dml import UpdateBase

from bessemer.core.errors import Invalid

Statement = Select[Any] | UpdateBase


class Cursor(Protocol):
    """What a statement answers."""

    @property
    def rowcount(self) -> int: ...
    def fetchone(self) -> Any: ...
    def fetchall(self) -> list[Any]: ...


class Stream(Protocol):
    """Rows of a longer read, which are fetched some at a time."""

    def fetchmany(self, size: int, /) -> list[Any]: ...


class ReadSession(Protocol):
    """A connection that only reads: where the database is not well it raises Unavailable."""

    def execute(self, statement: Statement, values: Mapping[str, Any]) -> Cursor:
        """Run one statement; its rows are fetched before the next is run."""

    def stream(self, statement: Statement, values: Mapping[str, Any]) -> Stream:
        """Begin a longer read within `look`; it ends with the next."""

    def look(self) -> None:
        """Begin a transaction that sees one revision, however long it takes."""

    def leave(self) -> None:
        """End it."""

    @property
    def sound(self) -> bool:
        """Whether the connection can be used again."""

    def close(self) -> None: ...


class Session(Protocol):
    """The connection that writes."""

    @property
    def remote(self) -> bool:
        """Whether a statement waits for a network: then no group runs in the event loop."""

    @property
    def refusals(self) -> tuple[type[Exception], ...]:
        """The statement was wrong, the database is well."""

    @property
    def faults(self) -> tuple[type[Exception], ...]:
        """The database is not well: full, locked, broken, gone."""

    @property
    def time(self) -> float | None:
        """The server's clock at `begin`, in seconds since the epoch; None where the process's own counts."""

    def execute(self, statement: Statement, values: Mapping[str, Any]) -> Cursor:
        """Run one statement. Raises Invalid for text that holds NUL."""

    def execute_each(self, statement: Statement, rows: Sequence[Mapping[str, Any]]) -> None:
        """Run one statement with each of the rows, in their order. Raises as `execute` does."""

    def begin(self, *, wait: bool = True) -> bool:
        """Open the one writing transaction. Without ``wait`` it answers False where another has the database."""

    def commit(self) -> None:
        """Raises `Unsettled` where nobody can say whether what was written stands."""

    def rollback(self) -> None: ...

    def savepoint(self) -> None: ...

    def keep(self) -> None:
        """Let the savepoint's writes stand."""

    def undo(self) -> None:
        """Take the savepoint's writes back."""

    @property
    def alive(self) -> bool:
        """Whether the transaction still stands."""

    def close(self) -> None: ...


def placed(values: Mapping[str, Any], order: Sequence[str]) -> list[Any]:
    """The parameters in their places. Raises Invalid for text that holds NUL, which not every database can keep."""
    found = [values[name] for name in order]
    for value in found:
        if value.__class__ is str and "\0" in value:
            raise Invalid("text with the character NUL (U+0000) cannot be kept or looked for")
    return found


class Unsettled(Exception):
    """The connection was lost amid a commit, and the database does not say what became of it."""
