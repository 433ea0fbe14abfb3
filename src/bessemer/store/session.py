"""What the store asks of a connection, whichever database is behind it. `sqlite` and `postgres` have one each.

A session is used by one thread at a time. Statements are SQLAlchemy's, compiled once; parameters go by name, rows come
as tuples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Protocol, TypeVar, runtime_checkable

from sqlalchemy import Select
from sqlalchemy.sql.dml import UpdateBase

from bessemer.core.errors import Invalid, Unavailable

S = TypeVar("S", bound=Sequence[Any])

Statement = Select[Any] | UpdateBase
Batch = tuple[Statement, Sequence[Mapping[str, Any]]]
"""A write, with the values of each time that it is done."""


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

    def look(self, snapshot: str = "") -> None:
        """Begin a transaction that sees one revision, however long it takes: that of a ``snapshot``, where one is
        named. Raises Expired where that is gone."""

    def export(self) -> str:
        """Within `look`: by which name others find what it sees for as long as it lasts; "" where nobody does."""

    def leave(self) -> None:
        """End it."""

    @property
    def sound(self) -> bool:
        """Whether the connection can be used again."""

    def close(self) -> None: ...


class Asked(Protocol):
    """What an operation says beforehand that it will ask: see `known.Look`."""

    @property
    def statement(self) -> Select[Any]: ...
    @property
    def values(self) -> Mapping[str, Any]: ...


class Session(Protocol):
    """The connection that writes."""

    stamp: int | None
    """As `begin` found it: another than at the last where another connection has written since. None where that is
    nothing special."""

    @property
    def refusals(self) -> tuple[type[Exception], ...]:
        """The statement was wrong, the database is well."""

    @property
    def faults(self) -> tuple[type[Exception], ...]:
        """The database is not well: full, locked, broken, gone."""

    @property
    def time(self) -> float | None:
        """The server's clock at `begin`, in seconds since the epoch; None where the process's own counts."""

    @property
    def counter(self) -> int | None:
        """The revision at `begin`; None where nobody looked."""

    @property
    def found(self) -> Sequence[Sequence[Any] | None]:
        """The rows of each look of `begin`, None where it could not be asked; nothing where nobody looked."""

    def execute(self, statement: Statement, values: Mapping[str, Any]) -> Cursor:
        """Run one statement. Raises Invalid for text that holds NUL."""

    def execute_each(self, batches: Sequence[Batch]) -> None:
        """Run statements with each of their rows, in their order. Raises as `execute` does."""

    def begin(self, *, wait: bool = True, looks: Sequence[Asked] = ()) -> bool:
        """Open the one writing transaction. Without ``wait`` it answers False where another has the database.
        ``looks`` may be asked along with it, where that is for nothing."""

    def commit(self, batches: Sequence[Batch] = ()) -> None:
        """Write what is left, and commit. Raises as `execute_each` does, and `Unsettled` where nobody can say whether
        what was written stands, and `Undone` where it was lost, and does not."""

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


class Exchange(Protocol):
    """What was sent to a server, and is answered at once: see `exchange`."""

    @property
    def error(self) -> Exception | None:
        """Why it came to nothing, once it is over."""

    @property
    def over(self) -> bool: ...
    @property
    def socket(self) -> int: ...
    @property
    def pushed(self) -> bool: ...
    def step(self) -> bool: ...
    def wait(self) -> object: ...


@runtime_checkable
class Remote(Session, Protocol):
    """One whose statements wait for a network. What begins and what ends a transaction is sent in one piece each, and
    whoever sent it may wait for the answer in his own way. Each is over before the next is sent."""

    def opening(self, looks: Sequence[Asked]) -> Exchange:
        """Send what `begin` does. Raises what is in `faults`."""

    def opened(self, exchange: Exchange) -> None:
        """What is left of `begin` once the answer is there. Raises what is in `faults` and `refusals`."""

    def closing(self, batches: Sequence[Batch]) -> Exchange:
        """Send what `commit` does. Raises as `execute_each` does for rows that no database takes: then nothing was
        sent."""

    def closed(self, exchange: Exchange) -> None:
        """What is left of `commit`; where that failed, it takes its time. Raises what `commit` does."""

    def leaving(self) -> Exchange:
        """Send what `rollback` does."""


def unreadable(error: Exception) -> Unavailable:
    """What a `ReadSession` raises where the database is not well, by what its driver says."""
    return Unavailable("the store cannot be read now", internal=f"{type(error).__name__}: {error}")


def in_order(names: Sequence[str], constants: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], Sequence[Any]]:
    """What finds the values of these names, in their order. ``constants`` are those of values that say none."""
    if constants:
        return lambda values: [values[name] if name in values else constants[name] for name in names]
    if len(names) > 1:
        return itemgetter(*names)
    return lambda values: [values[name] for name in names]


def placed(values: Mapping[str, Any], order: Sequence[str]) -> list[Any]:
    """The parameters in their places. Raises Invalid for text that holds NUL, which not every database can keep."""
    return kept([values[name] for name in order])


def kept(found: S) -> S:
    """The same parameters. Raises Invalid as `placed` does."""
    for value in found:
        if value.__class__ is str and "\0" in value:
            raise Invalid("text with the character NUL (U+0000) cannot be kept or looked for")
    return found


class Unsettled(Exception):
    """The connection was lost amid a commit, and the database does not say what became of it."""


class Undone(Exception):
    """The connection was lost amid a commit, of which the database says that nothing was done."""
