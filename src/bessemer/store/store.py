"""The store put together: one place, one writer, its ports as attributes.

``open_store`` brings an older file or database to the present schema, or says that it is newer than this program. One
process has a file open at a time; a database of a server is many's (`places`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bessemer.core import ports
from bessemer.core.clock import Clock
from bessemer.core.errors import Unavailable
from bessemer.store import events, leases
from bessemer.store.audit import Trail
from bessemer.store.capacity import CapacityTable
from bessemer.store.compaction import History, compact
from bessemer.store.events import EventTable
from bessemer.store.feed import Feed
from bessemer.store.forward import Forwarding, rewrite
from bessemer.store.kinds import CLAIM, EVENT, StoreKind
from bessemer.store.leases import FencedCommitter, LeaseTable
from bessemer.store.ledger import LedgerTable
from bessemer.store.metrics import Metrics
from bessemer.store.objects import ObjectTable
from bessemer.store.places import Place, place_of
from bessemer.store.pool import Pool
from bessemer.store.reader import Reader
from bessemer.store.sealed import SealedTable, cipher
from bessemer.store.transaction import Tx, read_counter
from bessemer.store.writer import Committer

TEND_SECONDS = 60.0


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
    _forward: Forwarding
    _clock: Clock
    _committer: Committer
    _reader: Reader
    _feed: Feed
    _place: Place = field(repr=False)

    @property
    def revision(self) -> int:
        """The last committed one that this process has heard of: of a file, the last."""
        return self._feed.revision

    async def tend(self) -> None:
        """For ever: drop old history and old events, rewrite what is stored in an older version, bookmark quiet
        watches. ``main`` runs it as a task."""
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
        while await self._committer.submit(lambda tx: rewrite(tx, self._forward), apart=True):
            pass
        self._feed.mark()
        await self._reader.trim()

    def close(self) -> None:
        """Finish what was submitted and close every connection."""
        self._committer.close()
        self._reader.close()
        self._place.close()


def open_store(
    path: str | Path,
    *,
    clock: Clock,
    kinds: Mapping[str, StoreKind],
    seal_key: bytes,
    history: History | None = None,
) -> Store:
    """Open or make the store at ``path``: a file (``:memory:`` is private and gone with `Store.close`), or the URL of a
    PostgreSQL database, ``postgresql://…``.

    ``kinds`` says by name what the store must know of each (see `store_kinds`); ``seal_key`` has 32 bytes or more.
    Raises Unavailable where another process has the file open, a newer release wrote it, or no server answers; Invalid
    where it is damaged, or the server is none that will do.
    """
    seal = cipher(seal_key)
    place = place_of(path)
    try:
        session = place.writing()
    except BaseException:
        place.close()
        raise
    facts = {CLAIM: StoreKind(namespaced=True), **kinds, EVENT: events.FACTS}
    metrics = Metrics()
    feed = place.feed(read_counter(session, "revision"), metrics)
    flat = frozenset(name for name, kind in facts.items() if not kind.namespaced)
    pool = Pool(place.reading, turn=place.turn())
    reader = Reader(pool, clock=clock, metrics=metrics, flat=flat, held=place.held)
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
        _forward=Forwarding(facts),
        _clock=clock,
        _committer=committer,
        _reader=reader,
        _feed=feed,
        _place=place,
    )
