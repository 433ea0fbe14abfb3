"""Core statements as PostgreSQL wants them, compiled once.

Every parameter is typed and sent apart from its statement. What a statement has as a constant stands in its text, so
that an index of some rows is found by plans of any parameters. An INSERT of many rows is one statement, too, with an
array for each column.
"""

from __future__ import annotations

import functools
import operator
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Float, Insert, Integer, LargeBinary
from sqlalchemy.dialects.postgresql.base import PGDialect

from bessemer.store.exchange import BINARY, Said
from bessemer.store.session import Statement, placed

_STATEMENTS = 1_024
"""More than there are."""
_PARAMETER = re.compile(r"\$(\d+)")
_INT8, _TEXT, _BYTES, _FLOAT8 = (20, 1016), (25, 1009), (17, 1001), (701, 1022)
"""The server's number of a type, and of an array of it."""
TEXT = _TEXT[0]
_ARRAYS = {20: "bigint[]", 25: "text[]", 17: "bytea[]", 701: "float8[]"}
_NULL = (-1).to_bytes(4, "big", signed=True)


@dataclass(frozen=True, slots=True)
class _Text:
    """A statement as PostgreSQL wants it, and the names of its parameters. ``many``: for any number of rows."""

    sql: bytes
    order: tuple[str, ...]
    many: Many | None


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
            return literal(value)
        if name not in order:
            order.append(name)
        return f"${order.index(name) + 1}"

    sql = _PARAMETER.sub(place, str(compiled))
    return _Text(sql.encode(), tuple(order), many(statement, order))


def literal(value: str | float) -> str:
    """As it stands in a statement."""
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)


class Many(NamedTuple):
    """An INSERT of any number of rows, its columns, and (type, array of it) of each."""

    sql: bytes
    order: tuple[str, ...]
    types: tuple[tuple[int, int], ...]

    def said(self, rows: Sequence[Mapping[str, Any]]) -> Said:
        """With these. Raises Invalid, ValueError, TypeError and OverflowError for what no database takes."""
        placed_rows = [placed(row, self.order) for row in rows]
        columns = zip(*placed_rows, strict=True)
        values = [array(column, of) for (of, _), column in zip(self.types, columns, strict=True)]
        return Said(self.sql, values, tuple(array for _, array in self.types), [BINARY] * len(values))


def many(statement: Statement, order: Sequence[str]) -> Many | None:
    """An INSERT of all of a row, as one of many; None for everything else. ``order`` are its columns."""
    if not isinstance(statement, Insert) or statement._values or statement.select is not None:
        return None
    columns = [statement.table.c[name] for name in order]
    types = [_type(column.type) for column in columns]
    arrays = ", ".join(f"${place}::{_ARRAYS[of]}" for place, (of, _) in enumerate(types, 1))
    names = ", ".join(f'"{name}"' for name in order)
    sql = f'INSERT INTO "{statement.table.name}" ({names}) SELECT * FROM unnest({arrays})'
    return Many(sql.encode(), tuple(order), tuple(types))


def _type(of: Any) -> tuple[int, int]:
    if isinstance(of, Integer):
        return _INT8
    if isinstance(of, LargeBinary):
        return _BYTES
    return _FLOAT8 if isinstance(of, Float) else _TEXT


def array(values: Sequence[Any], of: int) -> bytes:
    """As the server reads an array of one dimension."""
    count = len(values).to_bytes(4, "big")
    head = b"\0\0\0\1" + (b"\0\0\0\1" if None in values else b"\0\0\0\0") + of.to_bytes(4, "big")
    return b"".join((head, count, b"\0\0\0\1", *_elements(values, of)))


def _elements(values: Sequence[Any], of: int) -> Iterator[bytes]:
    for value in values:
        if value is None:
            yield _NULL
            continue
        if of == _INT8[0]:
            data = operator.index(value).to_bytes(8, "big", signed=True)
        elif of == TEXT:
            data = str.encode(value)
        elif of == _FLOAT8[0]:
            data = struct.pack(">d", value)
        else:
            data = bytes(value)
        yield len(data).to_bytes(4, "big")
        yield data
