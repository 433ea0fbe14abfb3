"""From one place to another, of whichever kind each is: every table, in one look, compared at the end.

The source is held meanwhile, so that nothing is written which the copy has not: a file by its lock, a database by the
row at which its writers stand in line. What was copied is the same store, with its history, leases and keys.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bessemer.core.clock import Clock
from bessemer.core.errors import Conflict, Unavailable
from bessemer.store import dump
from bessemer.store.loading import connected, loading, require_empty
from bessemer.store.places import File, is_address
from bessemer.store.snapshot import Snapshot, looking

if TYPE_CHECKING:
    from bessemer.store import links

Told = Callable[[float, str], None]
"""(percent, what is under way)."""

_OTHERS = (
    b"SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'bessemer' "
    b"AND pid <> pg_backend_pid()"
)
_LEAVE_SECONDS = 1.0
_TOLD_EACH = 1_000
"""Rows."""


@dataclass(slots=True)
class _Passing:
    """How far it is, of as many rows as are expected."""

    told: Told
    expected: int
    rows: int = 0

    def counted(self, rows: Iterable[dump.Values], name: str) -> Iterator[dump.Values]:
        """The same rows."""
        self._tell(name)
        for row in rows:
            yield row
            self.rows += 1
            if self.rows % _TOLD_EACH == 0:
                self._tell(name)

    def _tell(self, name: str) -> None:
        self.told(90 * min(self.rows / self.expected, 1.0), name)


def copy_store(source: str | Path, target: str | Path, *, clock: Clock, told: Told) -> dict[str, int]:
    """Table → rows. Raises Conflict where the source is being served or the target is not empty, Invalid where there is
    no store, Unavailable; then nothing is there that was not."""
    require_empty(target)
    with held(source), looking(source, clock=clock) as snapshot, loading(target) as loader:
        passing = _Passing(told, max(dump.expected(snapshot, dump.TABLES), 1))
        for table in dump.TABLES:
            loader.load(table, passing.counted(dump.rows(snapshot, table), table.name))
        told(90, "comparing")
        copied = Snapshot(loader, snapshot.revision, is_address(target), clock)
        wanted, found = (dump.sums(one, dump.TABLES) for one in (snapshot, copied))
        different = [name for name, came in wanted.items() if found[name] != came]
        if different:
            raise Conflict(f"{', '.join(different)}: what was copied is not what was read")
    return {name: rows for name, (rows, _) in wanted.items()}


@contextmanager
def held(source: str | Path) -> Iterator[None]:
    """Nobody writes to the store within the block. Raises Conflict where somebody serves it, Unavailable."""
    if not is_address(source):
        if not Path(source).exists():
            yield  # whoever looks says so
            return
        try:
            place = File(source)
        except Unavailable as error:
            raise Conflict(f"{source} is being served: stop that first (`bessemer down`)") from error
        with closing(place):
            yield
        return
    from bessemer.store.tables import IN_LINE

    with connected(str(source)) as link:
        others, until = _others(link), time.monotonic() + _LEAVE_SECONDS
        while others and time.monotonic() < until:
            time.sleep(0.05)  # the server takes a moment to notice that somebody has gone
            others = _others(link)
        if others:
            raise Conflict(f"the database is being served ({others} connections): stop every replica first")
        link.say(b"BEGIN; " + IN_LINE)
        yield
        link.say(b"ROLLBACK")


def _others(link: links.Link) -> int:
    return int(link.say(_OTHERS).get_value(0, 0) or 0)
