"""`ports.Leases`: time-bound rights in one relational row each, with a fence that grows with each new holder.

Time here is one clock's. Of a file it is its one process's monotonic clock from where the wall clock stood at the
opening, so that a wall clock that jumps neither ends a lease nor makes a dead holder's last; of a database it is the
server's, whichever machine asks (`Time`). What is answered is in terms of the process's wall clock as it is now. A
lease changes no object and has no revision.

Silence is what the store heard nothing of while it could hear: a host that was heard until the store went away has all
of its lease's time again when the store is back (`reopen`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from sqlalchemy import Float, bindparam, case, cast, delete, extract, func, insert, or_, select, update

from bessemer.core.clock import Clock
from bessemer.core.errors import Conflict
from bessemer.core.ports import HEARTBEATS, UNDER, Lease
from bessemer.store.known import Look
from bessemer.store.reader import Reader
from bessemer.store.runner import Operation
from bessemer.store.schema import leases, of
from bessemer.store.transaction import Tx
from bessemer.store.writer import Committer

T = TypeVar("T")

_COLUMNS = (leases.c.name, leases.c.holder, leases.c.fence, leases.c.expires_at, leases.c.note)
_MINE = leases.c.holder == bindparam("mine")
_FREE = leases.c.holder == ""
_UNDER_PREFIX = (leases.c.name >= bindparam("first"), leases.c.name < bindparam("beyond"), leases.c.holder != "")
_RENEW = (
    update(leases)
    .values(
        holder=bindparam("holder"),
        fence=case((_MINE, leases.c.fence), else_=leases.c.fence + 1),
        expires_at=bindparam("expires_at"),
        ttl=bindparam("ttl"),
        note=bindparam("note"),
    )
    .where(of(leases.c.name), or_(_MINE, _FREE, leases.c.expires_at <= bindparam("now")))
    .returning(*_COLUMNS)
)
_FENCE = select(leases.c.fence).where(of(leases.c.name))
_HELD_BY = select(leases.c.holder).where(of(leases.c.name))
_INSERT = insert(leases)
_RELEASE = update(leases).values(holder="", expires_at=bindparam("now")).where(of(leases.c.name), _MINE)
_FORGET = delete(leases).where(of(leases.c.name))
_UNDER = select(*_COLUMNS).where(*_UNDER_PREFIX).order_by(leases.c.name)
_UNDER_UNTIL = select(*_COLUMNS).where(*_UNDER_PREFIX, leases.c.expires_at <= bindparam("last")).order_by(leases.c.name)

_WRITTEN_AT = case((_FREE, leases.c.expires_at), else_=leases.c.expires_at - leases.c.ttl)
# What a writing process leaves under "writer/" (`postgres`) is nobody's lease.
_LAST = select(func.coalesce(func.max(_WRITTEN_AT), 0.0)).where(leases.c.name.not_like("writer/%"))
_SERVER_TIME = select(cast(extract("epoch", func.clock_timestamp()), Float(53)))
_OVER = (
    update(leases)
    .values(expires_at=bindparam("now"))
    .where(leases.c.expires_at <= bindparam("last"), leases.c.expires_at > bindparam("now"))
)
_HEARD = (
    update(leases)
    .values(expires_at=bindparam("now") + leases.c.ttl)
    .where(*_UNDER_PREFIX, leases.c.expires_at > bindparam("last"))
)
_CLAMP = (
    update(leases)
    .values(expires_at=bindparam("now") + leases.c.ttl)
    .where(leases.c.expires_at > bindparam("now") + leases.c.ttl)
)


class FencedCommitter(Committer):
    """Refuses what is written under a lease that has been given to another since (`ports.UNDER`)."""

    async def submit(
        self,
        operation: Operation[T],
        *,
        dry_run: bool = False,
        patience: float = 0.0,
        apart: bool = False,
        looks: Sequence[Look] | None = None,
    ) -> T:
        fence = UNDER.get()
        if fence is None:
            return await super().submit(operation, dry_run=dry_run, patience=patience, apart=apart, looks=looks)

        def fenced(tx: Tx) -> T:
            for (number,) in tx.look(_FENCE, of_name=fence.lease):
                if number != fence.number:
                    raise Conflict(f"{fence.lease} is another's by now")
            return operation(tx)

        if looks is not None:
            looks = [*looks, Look(_FENCE, {"of_name": fence.lease})]
        return await super().submit(fenced, dry_run=dry_run, patience=patience, apart=apart, looks=looks)


class Time(Protocol):
    """By what leases are measured: seconds since the epoch of the one clock that counts."""

    def asked(self) -> Callable[[Tx], float]:
        """The time of whoever asks now, to be read once it is their turn."""

    async def now(self, reader: Reader) -> float: ...


class SteadyTime:
    """Of the one process that has the store."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._start = clock.now() - clock.monotonic()

    def asked(self) -> Callable[[Tx], float]:
        now = self._start + self._clock.monotonic()
        return lambda _: now

    async def now(self, reader: Reader) -> float:
        return self._start + self._clock.monotonic()


class ServerTime:
    """Of the server that all processes share."""

    def asked(self) -> Callable[[Tx], float]:
        return lambda tx: tx.server_time

    async def now(self, reader: Reader) -> float:
        ((now,),) = await reader.ask(_SERVER_TIME)
        return float(now)


class LeaseTable:
    """Implements `ports.Leases`."""

    def __init__(self, committer: Committer, reader: Reader, *, clock: Clock, time: Time) -> None:
        self._committer = committer
        self._reader = reader
        self._clock = clock
        self._time = time

    async def acquire(
        self, name: str, holder: str, ttl_seconds: float, *, note: str = "", patience: float = 0.0
    ) -> Lease | None:
        """Take or renew; None while somebody else holds it. Its time runs from the call on, or of a server from when
        the transaction began."""
        asked = self._time.asked()

        def take(tx: Tx) -> Lease | None:
            now = asked(tx)
            values = {"holder": holder, "expires_at": now + ttl_seconds, "ttl": ttl_seconds, "note": note}
            row = tx.one(_RENEW, of_name=name, mine=holder, now=now, **values)
            if row is None and tx.one(_HELD_BY, of_name=name) is None:
                tx.run(_INSERT, name=name, fence=1, **values)
                row = (name, holder, 1, values["expires_at"], note)
            return self._lease(row, now) if row is not None else None

        return await self._committer.submit(take, patience=patience)

    async def release(self, name: str, holder: str) -> None:
        """Let go, if it is still the holder's."""
        asked = self._time.asked()
        await self._committer.submit(lambda tx: tx.run(_RELEASE, of_name=name, mine=holder, now=asked(tx)))

    async def held(self, prefix: str) -> Sequence[Lease]:
        """Every lease under a prefix that has a holder, run out or not."""
        rows = await self._reader.ask(_UNDER, **_bounds(prefix))
        if not rows:
            return []
        now = await self._time.now(self._reader)
        return [self._lease(row, now) for row in rows]

    async def ending(self, prefix: str, within: float) -> Sequence[Lease]:
        """Of those the ones that have run out, or will within so many seconds unless they are renewed."""
        now = await self._time.now(self._reader)
        rows = await self._reader.ask(_UNDER_UNTIL, **_bounds(prefix), last=now + within)
        return [self._lease(row, now) for row in rows]

    def _lease(self, row: tuple[str, str, int, float, str], now: float) -> Lease:
        name, holder, fence, expires_at, note = row
        return Lease(name, holder, fence, expires_at - now + self._clock.now(), note)


def reopen(tx: Tx) -> None:
    """At the opening: a host's silence while nobody could hear it is none, and the wall clock may have moved meanwhile.

    ``last`` is the last moment at which any lease was taken, renewed or let go: the store was there then. A heartbeat
    that still held then gets its whole time anew, however long ago that was (a short one stays short), and what had run
    out by then, silent hosts with it, stays run out. No other lease lasts beyond its own time from now on.

    Where other processes write to the same database, as PostgreSQL allows, it is their renewals that make ``last``
    recent: a silence that they heard stays one, and a host that they hear is at most given time that its next beat
    would give it, so each may call this at its own start.
    """
    (last,) = tx.one(_LAST)
    now = tx.server_time
    tx.run(_OVER, last=last, now=now)
    tx.run(_HEARD, last=last, now=now, **_bounds(HEARTBEATS))
    tx.run(_CLAMP, now=now)


def forget(tx: Tx, name: str) -> None:
    """The lease's row goes: nobody of the name is there any more."""
    tx.run(_FORGET, of_name=name)


def _bounds(prefix: str) -> dict[str, str]:
    return {"first": prefix, "beyond": prefix + "\U0010ffff"}
