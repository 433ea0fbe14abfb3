"""Which statements read a scope, in order of namespace and name.

Sets of namespaces, and of names in one (the same in each, or its own), are walked one by one, each by its index. A
label selector goes by the index of the label that selects least; the reader checks the others. Built once for
all readers; it holds no state but statements.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from sqlalchemy import and_, bindparam, func, select, tuple_

from bessemer.core.ports import Scope
from bessemer.store.rows import ROWS
from bessemer.store.schema import filled, labels, objects, of
from bessemer.store.session import ReadSession, Statement

Place = tuple[str, str]
Read = tuple[Statement, Mapping[str, str]]

_FEW = 256
"""A label with fewer matches than this is good enough to go by."""


class Listing:
    """The statements for each choice of what a scope gives. ``flat`` names the kinds that belong to no project."""

    def __init__(self, flat: frozenset[str]) -> None:
        self._flat = flat
        self._all = _variants(ROWS, objects, start=of(objects.c.kind))
        counted = select(func.count()).select_from(objects)
        self._count = _variants(counted, objects, start=of(objects.c.kind), ordered=False)
        same = and_(*(objects.c[name] == labels.c[name] for name in ("kind", "namespace", "name")))
        labelled = and_(of(labels.c.kind), of(labels.c.label), of(labels.c.value))
        self._labelled = _variants(ROWS.select_from(labels.join(objects, same)), labels, start=labelled)
        few = select(labels.c.name).where(labelled).limit(_FEW).subquery()
        self._frequency = select(func.count()).select_from(few)

    def reads(self, session: ReadSession, scope: Scope, *, after: Place) -> Iterator[Read]:
        """What together reads the scope from ``after`` on; of labels, one is answered for."""
        statements, label = self._all, {}
        if scope.labels:
            statements, label = self._labelled, self._rarest(session, scope)
        for values in self._ranges(scope, after):
            yield statements[_given(values)], {**values, **label}

    def counts(self, scope: Scope, after: Place) -> Iterator[Read]:
        """What together counts the scope, labels apart."""
        for values in self._ranges(scope, after):
            yield self._count[_given(values)], values

    def _rarest(self, session: ReadSession, scope: Scope) -> dict[str, str]:
        choices = [{"of_label": label, "of_value": value} for label, value in scope.labels.items()]
        if len(choices) == 1:
            return choices[0]
        kind = {"of_kind": scope.kind}
        return min(choices, key=lambda values: session.execute(self._frequency, {**kind, **values}).fetchone()[0])

    def _ranges(self, scope: Scope, after: Place) -> Iterator[dict[str, str]]:
        base = {"of_kind": scope.kind} | ({"of_host": scope.host} if scope.host is not None else {})
        places = scope.places
        namespaces = _within(scope.namespace, _both(scope.namespaces, None if places is None else frozenset(places)))
        if namespaces == (None,) and scope.kind in self._flat:
            namespaces = ("",)
        for namespace in namespaces:
            if namespace is None:
                place = {"after_namespace": after[0], "after_name": after[1]}
            elif namespace < after[0]:
                continue
            else:
                place = {"of_namespace": namespace, "after_name": after[1] if namespace == after[0] else ""}
            # Over all namespaces a set of names has no order of its own: the reader sieves instead.
            known = scope.names if places is None or namespace is None else _both(scope.names, places[namespace])
            names = (scope.name,) if namespace is None else _within(scope.name, known)
            for name in names:
                yield base | place | ({} if name is None else {"of_name": name})


@functools.cache
def listing(flat: frozenset[str]) -> Listing:
    """The statements for these kinds, written once for all stores of a process."""
    return Listing(flat)


def _variants(statement: Any, by: Any, *, start: Any, ordered: bool = True) -> dict[tuple[bool, bool, bool], Any]:
    """The statement for each choice of (namespace, host, name) given; ``by`` is the table whose index leads."""
    found = {}
    for namespace, host, name in product((False, True), repeat=3):
        conditions = [start]
        if namespace:
            conditions += [of(by.c.namespace), by.c.name > bindparam("after_name")]
        else:
            place = tuple_(by.c.namespace, by.c.name)
            conditions.append(place > tuple_(bindparam("after_namespace"), bindparam("after_name")))
        if host:
            conditions += [of(objects.c.host), filled(objects.c.host)]
        if name:
            conditions.append(of(by.c.name))
        one = statement.where(*conditions)
        found[namespace, host, name] = one.order_by(by.c.namespace, by.c.name) if ordered else one
    return found


def _both(one: frozenset[str] | None, other: frozenset[str] | None) -> frozenset[str] | None:
    """What is in both; None is everything."""
    return one if other is None else other if one is None else one & other


def _given(values: Mapping[str, str]) -> tuple[bool, bool, bool]:
    return ("of_namespace" in values, "of_host" in values, "of_name" in values)


def _within(one: str | None, many: frozenset[str] | None) -> Sequence[str | None]:
    """The values to ask for, in order: (None,) asks for any."""
    if one is None:
        return (None,) if many is None else sorted(many)
    return (one,) if many is None or one in many else ()
