"""A longer read of a server's database, within a transaction: the server keeps its rows until they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg

Run = Callable[[bytes, list[Any]], "psycopg.Cursor[Any]"]
"""One statement, with its values, that is not prepared."""


class Rows:
    """Those of a connection's one longer read; the next one takes its place."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._open = False

    def begin(self, sql: bytes, values: list[Any]) -> Rows:
        """Begin to read; itself."""
        if self._open:
            self._run(b"CLOSE rows", [])
        self._run(b"DECLARE rows NO SCROLL CURSOR FOR " + sql, values)
        self._open = True
        return self

    def fetchmany(self, size: int, /) -> list[Any]:
        """The next of them; none at the end."""
        return self._run(f"FETCH {size} FROM rows".encode(), []).fetchall()

    def end(self) -> None:
        """The transaction is over, and the rows with it."""
        self._open = False
