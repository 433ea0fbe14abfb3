"""A store whose trail has a dozen rows, and the hands of somebody who has all of its database."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from bessemer.core.clock import FakeClock
from bessemer.core.ports import AuditRow
from bessemer.core.trail import Fault, FileVerifier, Head, Signer
from bessemer.store import Guard, Store, open_store
from bessemer.store.heads import Signing
from tests.oracle import trail as oracle
from tests.store.conftest import KEY, KINDS
from tests.store.invariants import connect
from tests.store.make import ALICE, body

SIGN_KEY = bytes(range(32, 64))
PUBLIC = Signer(SIGN_KEY).public
NAMES = [*AuditRow.__dataclass_fields__]
COLUMNS = ", ".join(f'"{name}"' for name in NAMES)
BOTH = (("audit", COLUMNS), ("audit_heads", "kind, id, digest, at, key, signature"))


def quoted(value: Any) -> str:
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)


@dataclass
class Town:
    """A store with a dozen rows in its trail, of which 4, 8 and 12 are signed."""

    store: Store
    place: str
    heads: Path
    clock: FakeClock

    async def act(self, times: int = 4) -> None:
        await self.clock.advance(1)
        names = [f"t{self.clock.now():.0f}-{number}" for number in range(times)]
        await asyncio.gather(*(self.store.objects.create(body("Thing", name), ALICE) for name in names))
        await self.store.audit.sign()

    def sql(self, *statements: str) -> None:
        """By hand, past the triggers."""
        connection = connect(self.place)
        past = ["SET session_replication_role = replica"]
        if isinstance(connection, sqlite3.Connection):
            past = [f"DROP TRIGGER IF EXISTS audit_no_{act}" for act in ("update", "delete")]
        for statement in (*past, *statements):
            connection.execute(statement)  # type: ignore[arg-type]
        connection.close()

    def rows(self) -> list[dict[str, Any]]:
        return [dict(zip(NAMES, row, strict=True)) for row in self.tables()[0]]

    def tables(self) -> list[list[tuple[Any, ...]]]:
        """Rows and heads."""
        connection = connect(self.place)
        found = [connection.execute(f"SELECT {columns} FROM {name} ORDER BY id").fetchall() for name, columns in BOTH]  # type: ignore[arg-type]
        connection.close()
        return found

    def bring_back(self, kept: list[list[tuple[Any, ...]]]) -> None:
        statements = [f"DELETE FROM {name}" for name, _ in BOTH]
        for (name, columns), rows in zip(BOTH, kept, strict=True):
            values = ", ".join(f"({', '.join(map(quoted, row))})" for row in rows)
            statements.append(f"INSERT INTO {name} ({columns}) VALUES {values}")
        self.sql(*statements)

    def compute_anew(self, since: int) -> None:
        """Make the digests of row ``since`` and of what follows fit what stands there."""
        digest, statements = "", []
        for row in self.rows():
            if row["id"] < since:
                digest = row["digest"]
                continue
            digest = oracle.row_digest(digest, {**row, "allowed": bool(row["allowed"])})
            statements.append(f"UPDATE audit SET digest = '{digest}' WHERE id = {row['id']}")
        self.sql(*statements)

    async def lines(self, after: int = 0) -> list[bytes]:
        parts = [part async for part in self.store.audit.export(after=after)]
        return b"".join(parts).splitlines()


def opened(place: str, clock: FakeClock, signing: Signing) -> Store:
    return open_store(place, clock=clock, kinds=KINDS, guard=replace(Guard.of(KEY), signing=signing))


@pytest.fixture
async def town(place: str, tmp_path: Path) -> AsyncIterator[Town]:
    clock, heads = FakeClock(), tmp_path / "outside" / "heads.jsonl"
    made = Town(opened(place, clock, Signing(SIGN_KEY, heads)), place, heads, clock)
    for _ in range(3):
        await made.act()
    yield made
    made.store.close()


def judged(lines: list[bytes], *, key: str = PUBLIC, heads: list[Head] | None = None) -> Fault | None:
    check = FileVerifier([key] if key else [], heads=heads or [])
    for line in lines:
        if fault := check.line(line):
            return fault
    return check.end()


def open_again(town: Town, key: bytes = SIGN_KEY) -> Town:
    town.store.close()
    return Town(opened(town.place, town.clock, Signing(key, town.heads)), town.place, town.heads, town.clock)
