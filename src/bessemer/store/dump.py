"""Tables as rows in order, in an encoding that is the same for every database: what backups hold and copies compare.

A row is a line of JSON, in which what is bytes stands as its length, and those bytes behind it. Rows come in the order
of their primary keys, texts in the order of their bytes, so that the SHA-256 of a table (`Sum`) is the same wherever it
is kept. What a process leaves for itself in ``leases`` ("writer/…") is nobody's, and left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from sqlalchemy import LargeBinary, Select, Table, select

from bessemer.core.errors import Malformed
from bessemer.store.schema import METADATA, changes, leases
from bessemer.store.snapshot import Snapshot

TABLES: tuple[Table, ...] = tuple(METADATA.sorted_tables)
KEPT: tuple[Table, ...] = tuple(table for table in TABLES if table is not changes)
"""What a backup holds: nobody goes on from history after a restore."""

BATCH_BYTES = 1 << 20

Values = Sequence[Any]


@dataclass(slots=True)
class Sum:
    """What a table came to."""

    rows: int = 0
    _digest: Any = field(default_factory=hashlib.sha256)

    def add(self, encoded: bytes) -> None:
        """One more row."""
        self.rows += 1
        self._digest.update(encoded)

    @property
    def sha256(self) -> str:
        return str(self._digest.hexdigest())


def expected(snapshot: Snapshot, tables: Iterable[Table]) -> int:
    """How many rows there may be in all, for who tells how far it is."""
    return sum(snapshot.about(table.name) for table in tables)


def rows(snapshot: Snapshot, table: Table) -> Iterator[Values]:
    """Every row, in order."""
    return snapshot.rows(_theirs(select(*table.c), table).order_by(*table.primary_key.columns))


def _theirs(statement: Select[Any], table: Table) -> Select[Any]:
    return statement.where(leases.c.name.not_like("writer/%")) if table is leases else statement


class Coding:
    """Rows of one table as bytes."""

    def __init__(self, table: Table) -> None:
        self._name = table.name
        self._blobs = [isinstance(column.type, LargeBinary) for column in table.c]

    def encode(self, values: Values) -> bytes:
        """One row."""
        if not any(self._blobs):
            return orjson.dumps([*values], option=orjson.OPT_APPEND_NEWLINE)
        both = list(zip(values, self._blobs, strict=True))
        said = [len(value) if blob else value for value, blob in both]
        return b"".join((orjson.dumps(said), b"\n", *(bytes(value) for value, blob in both if blob)))

    def decode(self, encoded: bytes) -> Iterator[Values]:
        """Each of several that stand one behind the other. Raises Malformed."""
        place = 0
        while place < len(encoded):
            end = encoded.find(b"\n", place) + 1
            try:
                values = orjson.loads(encoded[place : max(end, place)])
                if len(values) != len(self._blobs):
                    raise ValueError("columns")
            except (TypeError, ValueError) as error:
                raise Malformed(f"a row of {self._name} cannot be read") from error
            for at, blob in enumerate(self._blobs):
                if blob:
                    end, values[at] = end + values[at], encoded[end : end + values[at]]
            yield values
            place = end


def batches(encoded: Iterable[bytes]) -> Iterator[tuple[bytes, int]]:
    """Joined up to `BATCH_BYTES`, and how many each time; one that is longer stands alone."""
    held: list[bytes] = []
    size = 0
    for one in encoded:
        if held and size + len(one) > BATCH_BYTES:
            yield b"".join(held), len(held)
            held, size = [], 0
        held.append(one)
        size += len(one)
    if held:
        yield b"".join(held), len(held)


def sums(snapshot: Snapshot, tables: Iterable[Table]) -> dict[str, tuple[int, str]]:
    """Table → (rows, SHA-256)."""
    found = {}
    for table in tables:
        coding, total = Coding(table), Sum()
        for values in rows(snapshot, table):
            total.add(coding.encode(values))
        found[table.name] = (total.rows, total.sha256)
    return found
