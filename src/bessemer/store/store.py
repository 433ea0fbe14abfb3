"""The store put together: one file, one writer, its ports as attributes.

``open_store`` brings an older file to the present schema, or says that it is newer than this program. One process
writes to a file at a time: a lock beside it holds that.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import tempfile
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bessemer.core import ports
from bessemer.core.clock import Clock
from bessemer.core.errors import Invalid, Unavailable
from bessemer.store import events, leases
from bessemer.store.audit import Trail
from bessemer.store.capacity import CapacityTable
from bessemer.store.compaction import History, compact
from bessemer.store.events import EventTable
from bessemer.store.feed import Feed
from bessemer.store.kinds import CLAIM, EVENT, StoreKind
from bessemer.store.leases import FencedCommitter, LeaseTable
from bessemer.store.ledger import LedgerTable
from bessemer.store.metrics import Metrics
from bessemer.store.objects import ObjectTable
from bessemer.store.reader import Reader
from bessemer.store.schema_versions import prepare
from bessemer.store.sealed import SealedTable, cipher
from bessemer.store.sqlite import ReadSession, Session, Texts
from bessemer.store.transaction import Tx, read_counter
from bessemer.store.writer import Committer

TEND_SECONDS = 60.0
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_REMEDY = "bring it back from a copy, or move the whole state directory away to begin anew"


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """What ``main`` hands to the other rooms, port by port."""

    objects: ports.Objects
    capacity: ports.Capacity
    ledger: ports.Ledger
    leases: ports.Leases
    audit: ports.Audit
    sealed: ports.Sealed
    events: ports.Events
    metrics: Metrics
    history: History
    _clock: Clock
    _committer: Committer
    _reader: Reader
    _feed: Feed
    _place: _Place = field(repr=False)

    @property
    def revision(self) -> int:
        """The last committed one."""
        return self._reader.revision()

    async def tend(self) -> None:
        """For ever: drop old history and old events, bookmark quiet watches. ``main`` runs it as a task."""
        while True:
            await self._clock.sleep(TEND_SECONDS)
            try:
                await self.tidy()
            except Unavailable:
                continue  # a full disk: the writers hear of it; the next round tries again

    async def tidy(self) -> None:
        """One round of `tend`."""
        while dropped := await self._committer.submit(lambda tx: compact(tx, self.history), apart=True):
            self.metrics.compacted += dropped
        while await self._committer.submit(events.prune, apart=True):
            pass
        self._feed.mark()
        self._reader.trim()

    def close(self) -> None:
        """Finish what was submitted and close every connection."""
        self._committer.close()
        self._reader.close()
        self._place.close()


class _Place:
    """Where the file lies. ``:memory:`` is a file of its own, in memory where the machine has a place for that."""

    def __init__(self, path: str | Path) -> None:
        self.durable = str(path) != ":memory:"
        self._forget: Callable[[], object] = lambda: None
        if not self.durable:
            shared = "/dev/shm"
            folder = tempfile.mkdtemp(prefix="bessemer-store-", dir=shared if os.access(shared, os.W_OK) else None)
            self._forget = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            path = Path(folder) / "store.db"
        self.path = Path(path)
        self._lock = os.open(f"{self.path}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise Unavailable(f"another process has {self.path} open") from error
        # Made here, for its owner alone: SQLite gives its log the mode of the file.
        os.close(os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))

    def close(self) -> None:
        """Let another process have it."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        self._forget()


def open_store(
    path: str | Path,
    *,
    clock: Clock,
    kinds: Mapping[str, StoreKind],
    seal_key: bytes,
    history: History | None = None,
) -> Store:
    """Open or make the store at ``path`` (``:memory:`` is private and gone with `Store.close`).

    ``kinds`` says by name what the store must know of each (see `store_kinds`); ``seal_key`` has 32 bytes or more.
    Raises Unavailable where another process has it open, or a newer release wrote it; Invalid where it is damaged.
    """
    seal = cipher(seal_key)
    place = _Place(path)
    texts = Texts()

    def reading(lean: bool) -> Session:
        return ReadSession(place.path, texts=texts, lean=lean)

    try:
        session = Session(place.path, texts=texts, durable=place.durable)
        prepare(session, place.path)
    except BaseException as error:
        place.close()
        if isinstance(error, sqlite3.DatabaseError) and error.sqlite_errorcode & 0xFF in _DAMAGED:
            raise Invalid(f"{path} is damaged ({error}): {_REMEDY}") from error
        raise
    facts = {CLAIM: StoreKind(namespaced=True), **kinds, EVENT: events.FACTS}
    metrics = Metrics()
    feed = Feed(read_counter(session, "revision"), metrics)
    flat = frozenset(name for name, kind in facts.items() if not kind.namespaced)
    reader = Reader(reading, clock=clock, metrics=metrics, flat=flat)
    session.begin()
    leases.reopen(Tx(session, clock))
    session.commit()
    committer = FencedCommitter(session, clock=clock, metrics=metrics, publish=feed.publish)
    return Store(
        objects=ObjectTable(committer, reader, feed=feed, kinds=facts),
        capacity=CapacityTable(committer, reader, kinds=facts),
        ledger=LedgerTable(committer, reader),
        leases=LeaseTable(committer, reader, clock=clock),
        audit=Trail(committer, reader),
        sealed=SealedTable(committer, reader, cipher=seal),
        events=EventTable(committer),
        metrics=metrics,
        history=history or History(),
        _clock=clock,
        _committer=committer,
        _reader=reader,
        _feed=feed,
        _place=place,
    )
