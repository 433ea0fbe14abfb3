"""`bessemer audit verify` against a server whose database somebody writes by hand: which row it is, and where."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bessemer.core.ports import AuditRow
from tests.cli.conftest import Cli, Said, terminal

REST = ", ".join(f'"{name}"' for name in AuditRow.__dataclass_fields__ if name != "id")
Hand = Callable[..., None]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Cli]:
    with terminal(tmp_path, place=str(tmp_path / "store.db")) as made:
        yield made


@pytest.fixture
def hand(site: Cli, tmp_path: Path) -> Hand:
    """Who writes beside the server, past the triggers."""

    def write(*statements: str) -> None:
        connection = sqlite3.connect(tmp_path / "store.db", isolation_level=None, timeout=60)
        past = [f"DROP TRIGGER IF EXISTS audit_no_{act}" for act in ("update", "delete")]
        for statement in (*past, *statements):
            connection.execute(statement)
        connection.close()

    return write


def copy(number: int) -> str:
    """The last row, under another number."""
    return f"INSERT INTO audit (id, {REST}) SELECT {number}, {REST} FROM audit ORDER BY id DESC LIMIT 1"


TAMPERS = {
    "changed": (
        ["UPDATE audit SET writer = 'user:mallory:' || writer WHERE id = 3"],
        ["UPDATE audit SET writer = substr(writer, 14) WHERE id = 3"],
        "row 3 does not fit the row before it",
    ),
    "taken out": (
        ["CREATE TABLE kept AS SELECT * FROM audit WHERE id = 4", "DELETE FROM audit WHERE id = 4"],
        ["INSERT INTO audit SELECT * FROM kept", "DROP TABLE kept"],
        "row 4 before row 5 was taken out",
    ),
    "another's": (
        ["UPDATE audit SET tenant = 'other' || tenant WHERE id = 5"],
        ["UPDATE audit SET tenant = substr(tenant, 6) WHERE id = 5"],
        "row 5 is said to be of another tenant",
    ),
    "before the first": ([copy(-7)], ["DELETE FROM audit WHERE id = -7"], "row -7 stands before the first"),
    "nought": ([copy(0)], ["DELETE FROM audit WHERE id = 0"], "row 0 stands before the first"),
}


def told(said: Said, words: str) -> None:
    assert said.code == 1, said.out
    assert words in said.err
    assert "sound up to row" in said.err or "no row before is vouched for" in said.err
    assert "sound: " not in said.out


def test_what_was_done_to_a_served_trail_is_found_where_it_was_done(site: Cli, hand: Hand, tmp_path: Path) -> None:
    assert site("audit", "verify").out.startswith("sound: ")
    for how, (touch, undo, words) in TAMPERS.items():
        hand(*touch)
        told(site("audit", "verify"), words)
        file = tmp_path / how
        told(site("audit", "export", str(file)), words)
        told(site("audit", "verify", str(file)), words)
        hand(*undo)
        assert site("audit", "verify").code == 0, how
    last = int(site("audit", "list", "--limit", "1").out.splitlines()[1].split()[0])
    hand(copy(last + 1))
    told(site("audit", "verify"), f"row {last + 1} does not fit the row before it")


def test_a_row_that_is_put_where_others_were_archived_is_found(site: Cli, hand: Hand, tmp_path: Path) -> None:
    assert site("audit", "archive", str(tmp_path / "old"), "--before", "2100-01-01").code == 0
    hand(copy(3))
    told(site("audit", "verify"), "row 3 stands before the first")
    told(site("audit", "archive", str(tmp_path / "more"), "--before", "2100-01-01"), "row 3 stands before the first")
    hand("DELETE FROM audit WHERE id = 3")
    assert site("audit", "verify").code == 0
