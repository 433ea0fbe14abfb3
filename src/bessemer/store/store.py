"""The store put together: one place, one writer, its ports as attributes.

``open_store`` brings an older file or database to the present schema, or says that it is newer than this program. One
process has a file open at a time; a database of a server is many's (`places`).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic

from bessemer.core import ports
from bessemer.core.bounds import Bounding
from bessemer.core.clock import Clock
from bessemer.core.errors import Unavailable
from bessemer.core.sealing import KeyRing
from bessemer.core.served import Figures
from bessemer.store import events, leases, quota
from bessemer.store.audit import Trail
from bessemer.store.beside import Outdated
from bessemer.store.bounding import BoundsTable
from bessemer.store.capacity import CapacityTable
from bessemer.store.cascade import Cascades
from bessemer.store.compaction import AT_ONCE, History, compact
from bessemer.store.continuing import Seal
from bessemer.store.events import EventTable
from bessemer.store.feed import Feed
from bessemer.store.forward import Forwarding, rewrite
from bessemer.store.heads import Signing, derived
from bessemer.store.held import Held
from bessemer.store.kinds import CLAIM, EVENT, StoreKind
from bessemer.store.leases import FencedCommitter, LeaseTable
from bessemer.store.ledger import LedgerTable
from bessemer.store.metrics import Metrics
from bessemer.store.objects import ObjectTable
from bessemer.store.places import Place, place_of
from bessemer.store.pool import Pool
from bessemer.store.reader import Reader
from bessemer.store.recent import Recent
from bessemer.store.sealed import SealedTable
from bessemer.store.served import ServedTable
from bessemer.store.session import Session
from bessemer.store.transaction import Tx, read_counter
from bessemer.store.vault import Vault
from bessemer.store.writer import Committer

TEND_SECONDS = 60.0
SOON_SECONDS = 5.0
"""From the start to the first round, for a process that is restarted all the time has history, too."""


@dataclass(frozen=True, slots=True)
class Guard:
    """Keys that never come into the database. ``direct`` are those under which releases before data keys sealed."""

    wrapping: ports.Wrapping
    direct: Callable[[], KeyRing]
    signing: Signing

    @classmethod
    def of(cls, key: bytes) -> Guard:
        """All of it from one key. Raises ValueError below 32 bytes."""
        ring = KeyRing([key])
        return cls(ring, lambda: ring, Signing(derived(key)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """What ``main`` hands to the other rooms, port by port."""

    objects: ports.Objects
    capacity: ports.Capacity
    ledger: ports.Ledger
    bounds: Bounding
    figures: Figures
    leases: ports.Leases
    audit: ports.Audit
    sealed: ports.Sealed
    events: ports.Events
    metrics: Metrics
    history: History
    _cascades: Cascades
    _kinds: Mapping[str, StoreKind]
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

    def unheard(self) -> float:
        """For how many seconds this process has not known how far the database is; of a file, none."""
        return max(0.0, monotonic() - self._feed.heard_at)

    async def tend(self) -> None:
        """For ever: see to what waits for its dependents, drop old history and old events, rewrite what is stored in an
        older version, bookmark quiet watches. ``main`` runs it as a task."""
        cascades = asyncio.create_task(self._cascades.run())
        try:
            await self._clock.sleep(SOON_SECONDS)
            while True:
                try:
                    await self.tidy()
                except Outdated:
                    raise  # nothing of this process is kept any more
                except Unavailable:
                    pass  # a full disk: the writers hear of it; the next round tries again
                await self._clock.sleep(TEND_SECONDS)
        finally:
            cascades.cancel()

    async def tidy(self) -> None:
        """One round of `tend`. Each of its operations commits, and so says that this process serves (`beside`)."""
        await asyncio.to_thread(self._place.finish)
        await self._committer.submit(lambda tx: quota.begin_counting(tx, self._kinds), apart=True)
        await self._cascades.again()
        dropped = AT_ONCE
        while dropped >= AT_ONCE:  # what is written meanwhile is the next round's
            dropped = await self._committer.submit(lambda tx: compact(tx, self.history), apart=True)
            self.metrics.compacted += dropped
        while await self._committer.submit(events.prune, apart=True):
            pass
        while await self._committer.submit(lambda tx: rewrite(tx, self._forward), apart=True):
            pass
        self._feed.mark()
        await self._reader.trim()
        await self.audit.sign()
        await self.audit.tidy()
        await self.sealed.tidy()

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
    seal_key: bytes = b"",
    guard: Guard | None = None,
    history: History | None = None,
) -> Store:
    """Open or make the store at ``path``: a file (``:memory:`` is private and gone with `Store.close`), or the URL of a
    PostgreSQL database, ``postgresql://…``.

    ``kinds`` says by name what the store must know of each (see `store_kinds`); ``guard`` says who wraps data keys
    and how the trail's heads are signed; without one, both follow from ``seal_key``, which has 32 bytes or more.
    Raises Unavailable where another process has the file open, a newer release wrote it, or no server answers; Invalid
    where it is damaged, or the server is none that will do.
    """
    guard = guard or Guard.of(seal_key)
    place = place_of(path)
    with ExitStack() as undo:  # where anything fails, nothing stays open
        undo.callback(place.close)
        session = place.writing()
        undo.callback(session.close)
        try:
            store = _opened(place, session, clock=clock, kinds=kinds, guard=guard, undo=undo)
        except Outdated:
            raise
        except session.faults as error:
            raise Unavailable("the database of the store cannot be reached or used", internal=str(error)) from error
        undo.pop_all()
    return replace(store, history=history or History())


def _opened(
    place: Place,
    session: Session,
    *,
    clock: Clock,
    kinds: Mapping[str, StoreKind],
    guard: Guard,
    undo: ExitStack,
) -> Store:
    facts = {CLAIM: StoreKind(namespaced=True), EVENT: events.FACTS, **kinds}
    vault = Vault(guard.wrapping, clock=clock, direct=guard.direct)
    metrics = Metrics()
    session.begin()
    leases.reopen(Tx(session, clock, careful=True))
    quota.begin_counting(Tx(session, clock, careful=True), facts)
    revision = read_counter(session, "revision")
    session.commit()
    turn = place.turn()
    pool = Pool(place.reading, turn=turn)
    undo.callback(pool.close, ())
    feed = place.feed(revision, metrics)
    flat = frozenset(name for name, kind in facts.items() if not kind.namespaced)
    gathering = place.gathering(turn, frozenset(name for name, kind in facts.items() if kind.files))
    held = Held(pool, clock=clock, metrics=metrics, most=place.held)
    seal = Seal(hashlib.sha256(b"bessemer continue v1" + guard.signing.key).digest())
    recent = None if turn.remote else Recent(flat)
    reader = Reader(pool, held=held, seal=seal, flat=flat, gathering=gathering, recent=recent)
    time = place.time(clock)
    about, publish = (
        (recent.move, recent.before(feed.publish)) if recent is not None else (lambda _: None, feed.publish)
    )
    committer = FencedCommitter(session, clock=clock, metrics=metrics, publish=publish, about=about)
    cascades = Cascades(committer, kinds=facts)
    table = ObjectTable(committer, reader, feed=feed, kinds=facts, vault=vault, cascades=cascades)
    return Store(
        objects=table,
        capacity=CapacityTable(committer, reader, kinds=facts, clock=clock, time=time, cascades=cascades),
        ledger=LedgerTable(committer, reader),
        bounds=BoundsTable(committer),
        figures=ServedTable(reader),
        leases=LeaseTable(committer, reader, clock=clock, time=time),
        audit=Trail(committer, reader, clock=clock, signing=guard.signing),
        sealed=SealedTable(committer, reader, vault=vault, clock=clock),
        events=EventTable(committer, table),
        metrics=metrics,
        history=History(),
        _cascades=cascades,
        _kinds=facts,
        _forward=Forwarding(facts),
        _clock=clock,
        _committer=committer,
        _reader=reader,
        _feed=feed,
        _place=place,
    )
