"""What a transaction knows of the database without asking it again, and what makes that untrue.

An answer is known by its statement and values: because it was looked for beforehand, was asked before, or because
whoever wrote the row says what stands there now. A write forgets each answer that it may have changed: on its table,
and of the same row as far as the primary key tells. `back` restores what was known at a `mark`, for a transaction that
goes back, too. Which table a statement touches, and which row, is read off the statement once.

It is right because one transaction writes at a time (ADR 8). It ends with its transaction, but where nobody else writes
to the database: there the next begins with what the last one knew as it was committed (`go_on`).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import BindParameter, Column, Delete, Insert, Select, Table, Update
from sqlalchemy.sql import operators, visitors
from sqlalchemy.sql.elements import BinaryExpression, BooleanClauseList, ColumnElement

from bessemer.store.session import Batch, Statement

Rows = Sequence[Any]
_UID = "uid"
_STATEMENTS = 1_024
"""More than there are."""
_ANY = object()
"""Whatever it is."""

CARRIED_MAX, CARRIED_BYTES_MAX = 4_096, 8 << 20
"""Answers that the next transaction begins with, and what all that came to be known since it began with none has of
bodies; past either it begins with none."""
_LOOKED_THROUGH_MAX = 16
"""Of those, answers to one statement that a write would have to look through."""


class Look(NamedTuple):
    """What an operation will ask, said beforehand. ``learn`` tells what follows from the rows where that is another
    answer than this statement's own."""

    statement: Select[Any]
    values: Mapping[str, Any]
    learn: Callable[[Known, Rows], None] | None = None

    @property
    def name(self) -> tuple[Any, ...]:
        """Two of one name ask the same."""
        return (self.statement, *sorted(self.values.items()))


@dataclass(frozen=True, slots=True)
class Touch:
    """What a statement has to do with tables. ``fixed``: of its only table, each column that never changes (those of
    the primary key, and a uid) and is equal to a parameter → the parameter's name. ``key``: the parameters that make
    the primary key, where all of it is fixed. ``states``: it is an UPDATE of one row that says all of what it sets, so
    that of several with the same row the last one counts. ``writes``: it is none that only asks."""

    tables: frozenset[str]
    fixed: Mapping[str, str] = field(default_factory=dict)
    key: tuple[str, ...] = ()
    states: bool = False
    row: Callable[[Mapping[str, Any]], tuple[Any, ...]] = lambda _: ()
    """The primary key in such values; () where it is not fixed."""
    writes: bool = False


class _Touches(dict[Statement, Touch]):
    """Statement → what it touches, read off it at first use. Nearly all are constants; those that are not must not be
    kept for ever. A dictionary, for this is asked several times for each write."""

    def __missing__(self, statement: Statement) -> Touch:
        if len(self) >= _STATEMENTS:
            self.clear()
        found = self[statement] = _touch(statement)
        return found


_touches = _Touches()


def touch(statement: Statement) -> Touch:
    """See `Touch`."""
    return _touches[statement]


def _touch(statement: Statement) -> Touch:
    tables, writes = {table.name: table for table in _tables(statement)}, bool(statement.is_dml)
    if len(tables) != 1:
        return Touch(frozenset(tables), writes=writes)
    ((name, table),) = tables.items()
    keys = [column.name for column in table.primary_key]
    names = {*keys, _UID} & {column.name for column in table.columns}
    where = statement.whereclause if isinstance(statement, Select | Update | Delete) else None
    if isinstance(statement, Insert):
        fixed = {key: key for key in names} if _plain(statement) else {}
    else:
        fixed = dict(_equal(where, names)) if where is not None else {}
    key = tuple(fixed[key] for key in keys) if fixed.keys() >= set(keys) else ()
    states = isinstance(statement, Update) and bool(key) and _conditions(where) == len(keys) and _says_all(statement)
    return Touch(frozenset((name,)), fixed, key, states, _row_of(key), writes)


def _row_of(key: tuple[str, ...]) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    """Several times for each write, and so not by a loop in Python."""
    if len(key) > 1:
        return itemgetter(*key)
    return (lambda values: (values[key[0]],)) if key else (lambda _: ())


@functools.lru_cache(_STATEMENTS)
def _common(asked: Statement, written: Statement) -> tuple[tuple[str, str], ...]:
    """The parameters of both that fix the same column."""
    one, other = touch(asked).fixed, touch(written).fixed
    return tuple((one[column], other[column]) for column in one.keys() & other.keys())


def _plain(statement: Insert) -> bool:
    return not statement._values and statement.select is None


def _tables(statement: Statement) -> Iterator[Table]:
    for element in visitors.iterate(statement):
        if isinstance(element, Table):
            yield element
        elif isinstance(element, Column) and isinstance(element.table, Table):
            yield element.table
    if isinstance(statement, Insert | Update | Delete) and isinstance(statement.table, Table):
        yield statement.table
    if isinstance(statement, Select):
        yield from (table for table in statement.get_final_froms() if isinstance(table, Table))


def _conditions(where: ColumnElement[bool] | None) -> int:
    return len(where.clauses) if isinstance(where, BooleanClauseList) else int(where is not None)


def _equal(where: ColumnElement[bool], keys: Set[str]) -> Iterator[tuple[str, str]]:
    """Conditions ``column = :parameter`` that all must hold."""
    every = where.clauses if isinstance(where, BooleanClauseList) and where.operator is operators.and_ else (where,)
    for one in every:
        if isinstance(one, BinaryExpression) and one.operator is operators.eq and isinstance(one.left, Column):
            value = one.right
            if one.left.name in keys and isinstance(value, BindParameter) and value.required:
                yield one.left.name, value.key


def _says_all(statement: Update) -> bool:
    values: Mapping[Any, Any] = statement._values or {}
    return bool(values) and all(isinstance(value, BindParameter) for value in values.values())


_Entry = tuple[Mapping[str, Any], Rows]
_Found = dict[tuple[Any, ...], _Entry]


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """What is known of a statement, by the name that its values have; ``by_row``: that is the primary key of the row
    that the answer is of."""

    statement: Statement
    by_row: bool
    name: Callable[[Mapping[str, Any]], tuple[Any, ...]]
    found: _Found = field(default_factory=dict)

    @classmethod
    def of(cls, statement: Statement, values: Mapping[str, Any]) -> _Asked:
        """Nothing yet of a statement that is asked with such values."""
        touched = _touches[statement]
        by_key = len(touched.key) == len(values)
        return cls(statement, by_key and bool(values), touched.row if by_key else _sorted)


def _sorted(values: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(sorted(values.items())) if len(values) > 1 else tuple(values.items())


class Known:
    """Statement and values → rows."""

    def __init__(self) -> None:
        self._rows: dict[Statement, _Asked] = {}
        self._tables: dict[str, list[_Asked]] = {}
        self._journal: list[tuple[_Found, tuple[Any, ...], _Entry | None]] = []
        self._bytes = 0

    def get(self, statement: Statement, values: Mapping[str, Any]) -> Rows | None:
        """The rows, or None where nobody knows."""
        asked = self._rows.get(statement)
        if asked is None:
            return None
        entry = asked.found.get(asked.name(values))
        return entry[1] if entry is not None else None

    def at(self, statement: Statement, row: tuple[Any, ...]) -> Rows | None:
        """`get` of a statement that finds one row by its primary key, which this is."""
        asked = self._rows.get(statement)
        entry = asked.found.get(row) if asked is not None and asked.by_row else None
        return entry[1] if entry is not None else None

    def set(self, statement: Statement, values: Mapping[str, Any], *, rows: Rows) -> None:
        """This is what the statement would answer now."""
        asked = self._asked(statement, values)
        self._keep(asked, asked.name(values), entry=(values, rows))

    def _asked(self, statement: Statement, values: Mapping[str, Any]) -> _Asked:
        asked = self._rows.get(statement)
        if asked is None:
            asked = self._rows[statement] = _Asked.of(statement, values)
            for table in _touches[statement].tables:
                self._tables.setdefault(table, []).append(asked)
        return asked

    def _keep(self, asked: _Asked, name: tuple[Any, ...], *, entry: _Entry) -> None:
        found = asked.found
        self._journal.append((found, name, found.get(name)))
        found[name] = entry
        for row in entry[1]:
            if row[-1].__class__ is bytes:
                self._bytes += len(row[-1])

    def forget(self, written: Statement, values: Mapping[str, Any]) -> None:
        """What may be another by a write."""
        change = _touches[written]
        for table in change.tables:
            if (asked := self._tables.get(table)) is not None:
                self._forget(asked, change.row(values), written=written, values=values)

    def replace(self, written: Statement, values: Mapping[str, Any], *, look: Look, rows: Rows) -> None:
        """`forget` what a write of one row may have changed, but for what a statement finds by its key, of which this
        is the answer now."""
        change, mine = _touches[written], self._rows.get(look.statement) or self._asked(look.statement, look.values)
        row = change.row(values)
        for table in change.tables:
            for asked in self._tables.get(table, ()):
                # What is not known of that very row is not looked through: asked several times for each write.
                if asked is mine or not asked.found or (asked.by_row and row and row not in asked.found):
                    continue
                self._forget((asked,), row, written=written, values=values)
        self._keep(mine, row if row and mine.by_row else mine.name(look.values), entry=(look.values, rows))

    def _forget(
        self, every: Sequence[_Asked], row: tuple[Any, ...], *, written: Statement, values: Mapping[str, Any]
    ) -> None:
        for asked in every:
            found = asked.found
            if not found:
                continue
            if row and asked.by_row:
                if (before := found.pop(row, None)) is not None:
                    self._journal.append((found, row, before))
            else:
                gone = _met(asked.statement, found, written=written, values=values)
                self._journal.extend([(found, name, found.pop(name)) for name in gone])

    def go_on(self) -> None:
        """Its transaction was committed, and the next one may begin with it."""
        self._journal.clear()
        every = [asked for some in self._tables.values() for asked in some]
        whole = self._bytes > CARRIED_BYTES_MAX or sum(len(asked.found) for asked in every) > CARRIED_MAX
        for asked in every:
            if whole or not (asked.by_row or len(asked.found) <= _LOOKED_THROUGH_MAX):
                asked.found.clear()
        if whole:
            self._bytes = 0

    def mark(self) -> int:
        """Where it stands, for `back`."""
        return len(self._journal)

    def back(self, mark: int) -> None:
        """Know what was known then."""
        while len(self._journal) > mark:
            found, name, before = self._journal.pop()
            if before is None:
                found.pop(name, None)
            else:
                found[name] = before


def _met(asked: Statement, found: _Found, *, written: Statement, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """The answers that may be of a row that is written: no column is fixed to one thing here and another there."""
    common = _common(asked, written)
    return [name for name, (said, _) in found.items() if all(said[one] == values[other] for one, other in common)]


class Later:
    """Writes that were put off, in order, and whether a statement may meet one of them."""

    def __init__(self) -> None:
        self.writes: list[tuple[Statement, Mapping[str, Any]]] = []
        self._tables: dict[str, list[tuple[Statement, Mapping[str, Any]]]] = {}
        self._rows: dict[str, tuple[int, set[tuple[Any, ...]]]] = {}
        self._values: dict[tuple[str, str], tuple[int, set[Any]]] = {}

    def add(self, statement: Statement, values: Mapping[str, Any]) -> None:
        """One more, of one table."""
        write = (statement, values)
        self.writes.append(write)
        for table in _touches[statement].tables:
            found = self._tables.get(table)
            if found is None:
                self._tables[table] = [write]
            else:
                found.append(write)

    def met(self, statement: Statement, values: Mapping[str, Any]) -> bool:
        """Whether it asks, or writes, what may be one of theirs."""
        asked, met = _touches[statement], False
        for table in asked.tables:
            met = met or (table in self._tables and self._meets(table, asked, values=values))
        return met

    def _meets(self, table: str, asked: Touch, *, values: Mapping[str, Any]) -> bool:
        if asked.key:
            rows = self._rows_of(table)
            return () in rows or asked.row(values) in rows
        # It asks for rows with a certain value in a column in which each of theirs is known to have another.
        for column, name in asked.fixed.items():
            there = self._values_of(table, column)
            if _ANY not in there and values[name] not in there:
                return False
        return True

    def _rows_of(self, table: str) -> set[tuple[Any, ...]]:
        """The primary keys of the rows; () for a write whose row is not known."""
        seen, rows = self._rows.get(table, (0, set()))
        writes = self._tables[table]
        rows.update([_touches[statement].row(values) for statement, values in writes[seen:]])
        self._rows[table] = (len(writes), rows)
        return rows

    def _values_of(self, table: str, column: str) -> set[Any]:
        """What the rows have in a column that never changes; `_ANY` for a write that does not say it."""
        seen, there = self._values.get((table, column), (0, set()))
        writes = self._tables[table]
        for statement, values in writes[seen:]:
            name = _touches[statement].fixed.get(column)
            there.add(_ANY if name is None else values[name])
        self._values[table, column] = (len(writes), there)
        return there

    def cut(self, length: int) -> None:
        """Forget those after so many."""
        if length < len(self.writes):
            writes, self.writes, self._tables, self._rows, self._values = self.writes[:length], [], {}, {}, {}
            for statement, values in writes:
                self.add(statement, values)

    def batches(self) -> list[Batch]:
        """In each table in order, and together where that is the same statement."""
        found: list[Batch] = []
        for writes in self._tables.values():
            for statement, some in itertools.groupby(writes, key=_statement):
                rows = [values for _, values in some]
                found.append((statement, _last(statement, rows) if len(rows) > 1 else rows))
        return found


def _statement(write: tuple[Statement, Mapping[str, Any]]) -> Statement:
    return write[0]


def _last(statement: Statement, rows: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of writes that state all of a row, the last for each."""
    change = _touches[statement]
    return list({change.row(values): values for values in rows}.values()) if change.states else rows
