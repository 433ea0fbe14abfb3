"""A look at a whole store that is there already: one commit of it, whoever writes to it meanwhile.

It takes no lock and changes nothing: of a file it is a reading transaction in the log's own order, of a database one
that is REPEATABLE READ and READ ONLY, whose reads take what they take. It is for what reads everything (`check`,
`dump`), in a process of its own; what is served reads through `reader`. It makes no store: where there is none, or one
of another schema, it says so.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sqlalchemy import Select, Text, bindparam, cast, column, func, literal_column, select, table
from sqlalchemy.dialects.postgresql import OID

from bessemer.core.clock import Clock
from bessemer.core.errors import Conflict, Invalid
from bessemer.store import sqlite
from bessemer.store.apart import Here
from bessemer.store.continuing import Seal
from bessemer.store.held import Held
from bessemer.store.metrics import Metrics
from bessemer.store.places import Server, is_address
from bessemer.store.pool import Pool
from bessemer.store.reader import Reader
from bessemer.store.schema_versions import HEAD
from bessemer.store.session import ReadSession, Statement
from bessemer.store.transaction import read_counter

ROWS_EACH = 64
"""Fetched at once: bodies may have megabytes each."""

_VERSION: Select[Any] = select(column("version_num")).select_from(table("alembic_version"))
_VERSIONED = select(cast(func.to_regclass(literal_column("'alembic_version'")), Text))

_TAKEN_FOR: Select[Any] = (
    select(column("reltuples"))
    .select_from(table("pg_class"))
    .where(column("oid") == cast(func.to_regclass(bindparam("called", type_=Text)), OID))
)


@dataclass(frozen=True)
class Snapshot:
    """``remote`` says that it is of a server's database. One longer read is under way at a time."""

    session: ReadSession
    revision: int
    remote: bool
    clock: Clock

    def about(self, name: str) -> int:
        """How many rows a table may have: of a database what the server takes it to have, 0 where it does not know."""
        if not self.remote:
            return int(self.all(select(func.count()).select_from(table(name)))[0][0])
        return max(int(self.all(_TAKEN_FOR, called=name)[0][0]), 0)

    def rows(self, statement: Statement, **values: Any) -> Iterator[tuple[Any, ...]]:
        """Row by row; short reads may go between. Raises Unavailable."""
        stream = self.session.stream(statement, values)
        while rows := stream.fetchmany(ROWS_EACH):
            yield from rows

    def all(self, statement: Statement, **values: Any) -> list[tuple[Any, ...]]:
        """Every row of a short read. Raises Unavailable."""
        return self.session.execute(statement, values).fetchall()

    @cached_property
    def reader(self) -> Reader:
        """For what asks through one: each of its reads is of this commit. It is not to be closed."""
        pool = Pool(lambda _: self.session, turn=Here())
        return Reader(pool, held=Held(pool, clock=self.clock, metrics=Metrics()), seal=Seal(secrets.token_bytes(32)))


@contextmanager
def looking(where: str | Path, *, clock: Clock) -> Iterator[Snapshot]:
    """Look at the store at ``where``, a file or an address, for as long as the block lasts. Raises Invalid where there
    is none, Conflict for one of another schema, Unavailable."""
    with ExitStack() as undo:
        remote = is_address(where)
        session = _database(str(where), undo) if remote else _file(Path(where), undo)
        session.look()
        undo.callback(session.leave)
        if not remote or session.execute(_VERSIONED, {}).fetchone()[0] is not None:
            version = str(session.execute(_VERSION, {}).fetchone()[0])
        else:
            raise Invalid("the database holds no store")
        require_schema(version)
        yield Snapshot(session, read_counter(session, "revision"), remote, clock)


def require_schema(version: str) -> None:
    """Raises Conflict for another than this release's."""
    if version != HEAD:
        older = "start the control plane once, which brings it up" if version < HEAD else "take a newer release"
        raise Conflict(f"the store has schema {version}, and this release has {HEAD}: {older}")


def _file(path: Path, undo: ExitStack) -> ReadSession:
    if not path.exists():
        raise Invalid(f"there is no store at {path}")
    session = sqlite.ReadSession(path, texts=sqlite.Texts())
    undo.callback(session.close)
    session.script("PRAGMA query_only = ON")
    if session.version() is None:
        raise Invalid(f"{path} holds no store")
    return session


def _database(url: str, undo: ExitStack) -> ReadSession:
    server = Server(url)
    undo.callback(server.close)
    session = server.reading(lean=True, whole=True)
    undo.callback(session.close)
    return session
