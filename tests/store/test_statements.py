"""Statements as the database compiles them."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Select
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.exc import UnsupportedCompilationError
from sqlalchemy.sql.dml import UpdateBase

import bessemer.store
from bessemer.store.known import touch
from bessemer.store.schema import METADATA


def statements(value: Any) -> Iterator[Select[Any] | UpdateBase]:
    if isinstance(value, Select | UpdateBase):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from statements(one)


def named() -> Iterator[tuple[str, Select[Any] | UpdateBase]]:
    for found in pkgutil.iter_modules(bessemer.store.__path__):
        module = importlib.import_module(f"bessemer.store.{found.name}")
        for name, value in vars(module).items():
            for statement in statements(value):
                yield f"{found.name}.{name}", statement


def texts() -> Iterator[tuple[str, str]]:
    return ((name, compiled(statement)) for name, statement in named())


def compiled(statement: Select[Any] | UpdateBase) -> str:
    """For SQLite; what asks a server for its own catalogue, for that."""
    try:
        return str(statement.compile(dialect=sqlite.dialect(paramstyle="qmark")))
    except UnsupportedCompilationError:
        return str(statement.compile(dialect=PGDialect(paramstyle="qmark")))  # type: ignore[no-untyped-call]


def partial() -> set[str]:
    """``column <> ''`` of every partial index, by its column."""
    wheres = [index.dialect_options["sqlite"]["where"] for table in METADATA.tables.values() for index in table.indexes]
    return {found[1] for where in wheres if (found := re.fullmatch(r"(\w+) <> ''", str(where)))}


@pytest.mark.parametrize("column", sorted(partial()))
def test_what_decides_about_a_partial_index_is_written_out(column: str) -> None:
    """Else each execution would compile the statement anew."""
    bound = [name for name, text in texts() if re.search(rf"\b{column} (!=|<>) \?", text)]
    assert bound == []
    assert any(re.search(rf"\b{column} != ''", text) for _, text in texts())


def test_which_tables_a_statement_touches_is_read_off_it_in_full() -> None:
    """Else what was put off would not be written before it is asked about."""
    wrong = {}
    for name, statement in named():
        said = re.findall(r"(?:\bFROM|JOIN|INTO|UPDATE) (\w+)|\b(\w+)\.\w", compiled(statement))
        tables = {one or other for one, other in said} & METADATA.tables.keys()
        if touch(statement).tables & METADATA.tables.keys() != tables:
            wrong[name] = (touch(statement).tables, tables)
    assert wrong == {}


def test_which_row_a_statement_is_of_is_read_off_it() -> None:
    of_row = {name: touch(statement) for name, statement in named()}
    key = ("of_kind", "of_namespace", "of_name")
    assert of_row["rows.LOAD"].key == of_row["rows._UPDATE"].key == of_row["rows._DELETE"].key == key
    assert of_row["rows._INSERT"].key == ("kind", "namespace", "name")
    assert of_row["rows.BY_UID"].fixed == {"uid": "of_uid"}
    assert all(of_row[name].states for name in ("rows._UPDATE", "quota._SET", "transaction.SET_COUNTER"))
    assert not any(of_row[name].states for name in ("transaction._STEP", "money._ADD"))
    assert not any(of_row[name].fixed for name in ("events._OLDEST", "collect._OF_KEY"))
