"""Columns and conditions that the tables are made of, and the register of all tables.

Types are plain integers (of 64 bits), texts (in the order of their bytes) and bytes, so that statements compiled from
the tables run on a bare driver with no conversion.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, Text, bindparam, literal_column, text
from sqlalchemy.sql.elements import ColumnElement

METADATA = MetaData()
INTEGER = Integer().with_variant(BigInteger(), "postgresql")
TEXT = Text().with_variant(Text(collation="C"), "postgresql")


def of(column: Column[Any]) -> ColumnElement[bool]:
    """``column = :of_NAME``: a condition whose parameter cannot be mistaken for a value to be set."""
    return column == bindparam(f"of_{column.name}")


def filled(column: ColumnElement[str]) -> ColumnElement[bool]:
    """``column <> ''`` and `is_kind` ``kind = 'KIND'``, as partial indices have them: written out, because a statement
    whose parameter decides whether such an index may be used is compiled anew each time that it is bound."""
    return column != literal_column("''")


def is_kind(column: ColumnElement[str], kind: str) -> ColumnElement[bool]:
    """See `filled`. ``kind`` is a word of ours."""
    return column == literal_column(f"'{kind}'")


def string(name: str, **options: Any) -> Column[str]:
    """A text that is there."""
    return Column(name, TEXT, nullable=False, **options)


def whole(name: str, **options: Any) -> Column[int]:
    """An integer that is there."""
    return Column(name, INTEGER, nullable=False, **options)


def some(name: str, *columns: str, where: str, **options: Any) -> Index:
    """An index of some rows."""
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where), **options)
