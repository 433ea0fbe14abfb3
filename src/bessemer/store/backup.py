"""The tables of a store as parts of a parcel, and back from them into an empty place.

What is packed is one commit. What is unpacked is a store whose history begins there: the revision moves on to the
microseconds of the wall clock, and by `REVISIONS_ON` at least, so that no revision from before, nor one of the time
that is lost, nor one after another restore of the same file is ever given again, and whoever watches from one hears
Expired. Leases are let go and their fences move on as far: what a process of the lost time sends under one is refused.
Hosts keep theirs: a silence in which nobody could hear is none (`leases.reopen`). The trail goes on with a row that
says so. Sessions end, and what was good once is worth nothing: whoever signed out since, or was signed out, stays out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from sqlalchemy import bindparam, delete, select, update

from bessemer import __version__
from bessemer.core.clock import Clock
from bessemer.core.errors import Conflict, Invalid
from bessemer.core.parcel import Packing
from bessemer.core.ports import HEARTBEATS, Writer
from bessemer.core.resource import Key
from bessemer.store import audit, dump
from bessemer.store.collect import Kinds, finish_deletion
from bessemer.store.kinds import HOST, SESSION
from bessemer.store.loading import Loader
from bessemer.store.rows import ROWS, Row
from bessemer.store.schema import METADATA, data_keys, leases, objects, of, sealed
from bessemer.store.schema_versions import HEAD
from bessemer.store.session import Session
from bessemer.store.snapshot import looking
from bessemer.store.transaction import SET_COUNTER, Tx, read_counter

REVISIONS_ON = 1_000_000_000
"""More than any store gives in the life of a backup, should the clock be wrong."""
TABLE = "table/"

_STORE = Writer("system", "store")

Told = Callable[[int, int], None]
"""(rows done, rows in all)."""

_KEKS = select(data_keys.c.kek).distinct()
_HOLDERS = select(leases.c.name).order_by(leases.c.name)
_LET_GO = (
    update(leases)
    .values(holder="", expires_at=bindparam("over"), fence=leases.c.fence + bindparam("on"))
    .where(of(leases.c.name))
)
_OF_KIND = ROWS.where(of(objects.c.kind)).order_by(objects.c.name)
_SPEND = delete(sealed).where(of(sealed.c.uid), of(sealed.c.field))


@dataclass(frozen=True, slots=True)
class Packed:
    """What was packed: at which revision, and the ids of the keys that its secrets are under."""

    revision: int
    keks: frozenset[str]


def pack(packing: Packing, where: str | Path, *, clock: Clock, told: Told) -> Packed:
    """Every table but history, of one commit, as parts. Raises Invalid, Conflict, Unavailable, OSError."""
    with looking(where, clock=clock) as snapshot:
        total, done = dump.expected(snapshot, dump.KEPT), 0
        for table in dump.KEPT:
            content = dump.batches(map(dump.Coding(table).encode, dump.rows(snapshot, table)))
            done += packing.part(TABLE + table.name, _counted(content, done, told=told, total=total)).entries
        keks = frozenset(str(kek) for (kek,) in snapshot.all(_KEKS))
        return Packed(snapshot.revision, keks)


def _counted(content: Iterable[tuple[bytes, int]], done: int, *, told: Told, total: int) -> Iterator[tuple[bytes, int]]:
    for some, rows in content:
        yield some, rows
        done += rows
        told(done, total)


def facts() -> dict[str, Any]:
    """What a backup says of the release that wrote it."""
    return {"release": __version__, "schema": HEAD}


def require_known(said: dict[str, Any]) -> None:
    """Raises Conflict for the backup of another schema."""
    if said.get("schema") != HEAD:
        theirs = f"release {said.get('release')} (schema {said.get('schema')})"
        raise Conflict(
            f"the backup is of {theirs}, and this one is {__version__} ({HEAD}): restore with that, then upgrade"
        )


class Unpacking:
    """Tables on their way into ``loader``."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self._missing = {table.name for table in dump.KEPT}

    def table(self, name: str, content: Iterable[bytes]) -> None:
        """One part. Raises Invalid for a table that is not known, Malformed."""
        if name not in self._missing:
            raise Invalid(f"the backup holds a table {name[:63]!r} that is not known, or twice")
        table = METADATA.tables[name]
        coding = dump.Coding(table)
        self._loader.load(table, (values for some in content for values in coding.decode(some)))
        self._missing.discard(name)

    def end(self, *, clock: Clock, keep: Collection[str], kinds: Kinds, once: Collection[str]) -> None:
        """All tables are there: let history begin anew. ``keep`` are leases that stay, ``once`` the fields sealed with
        a Host that are good for one use. Raises Invalid."""
        if self._missing:
            raise Invalid(f"the backup lacks {', '.join(sorted(self._missing))}")
        session = cast(Session, self._loader)  # an operation asks no more of one
        tx = Tx(session, clock, careful=True)
        revision = read_counter(session, "revision")
        to = max(revision + REVISIONS_ON, int(clock.now() * 1_000_000))  # no store gives a million a second
        for name in ("revision", "floor"):
            tx.run(SET_COUNTER, of_name=name, value=to)
        for (name,) in tx.all(_HOLDERS):
            if name not in keep and not name.startswith(HEARTBEATS):
                tx.run(_LET_GO, of_name=name, over=0.0, on=to - revision)
        audit.append(tx, _STORE, verb="restore", key=Key("Store", "", str(revision)), uid="")
        for row in map(Row.of, tx.all(_OF_KIND, of_kind=SESSION)):
            finish_deletion(tx, row, writer=_STORE, kinds=kinds)
        for host in map(Row.of, tx.all(_OF_KIND, of_kind=HOST)):
            for field in once:
                tx.run(_SPEND, of_uid=host.uid, of_field=field)
        for statement, rows in tx.rest():
            for values in rows:
                session.execute(statement, values)
