"""A new store at an empty place, filled with rows: all of it is there when the block ends, or nothing is.

A file is written aside, without waiting for the disk, then synced and named; in a database tables and rows are one
transaction. Triggers that keep rows as they are let rows in, and stand from the first on. It reads back what it wrote,
before anybody else can.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from sqlalchemy import Table, delete, insert, text

from bessemer.core.errors import Conflict, Unavailable
from bessemer.store import sqlite
from bessemer.store.dump import Values
from bessemer.store.places import is_address
from bessemer.store.schema import counters
from bessemer.store.schema_versions import HEAD, ddl, ddl_of_database
from bessemer.store.session import ReadSession, Statement, placed
from bessemer.store.streams import Rows
from bessemer.store.transaction import SET_COUNTER, read_counter

if TYPE_CHECKING:
    from bessemer.store import links, postgres

ASIDE = ".copying"


class Loader(ReadSession, Protocol):
    """The transaction that fills a store: it reads what it wrote."""

    @property
    def time(self) -> float | None: ...

    def load(self, table: Table, rows: Iterable[Values]) -> None:
        """Add rows to a table."""


@contextmanager
def loading(where: str | Path) -> Iterator[Loader]:
    """A store of the present schema without a row, to be filled within the block. Raises Conflict where something is
    there, Invalid, Unavailable, OSError; whatever the block raises, nothing is left; of a process that was
    killed, a file named `ASIDE` is."""
    if is_address(where):
        with _database(str(where)) as loader:
            yield loader
        return
    path = Path(where)
    if path.exists():
        raise Conflict(f"{path} is there already")
    aside = path.with_name(path.name + ASIDE)
    _clear(aside)  # what one that was killed has left
    try:
        with _file(aside) as loader:
            yield loader
        aside.rename(path)
    except BaseException:
        _clear(aside)
        raise
    sync(path.parent)


def _complete(loader: Loader, database: str) -> None:
    """What was copied may be of a database that carries writers of an older schema yet, and has rows to be filled in.
    Beside a new store there are none, and its tables are those of this schema: nobody would do it later."""
    from bessemer.store import migrations  # not paid for by who only looks

    carried = read_counter(loader, "carries", missing=int(HEAD))
    for script in migrations.after(f"{carried:04d}") or ():
        steps = migrations.steps_of(script, database) or migrations.Steps()
        for words in steps.migrate:
            while loader.execute(cast(Statement, text(words)), {}).rowcount > 0:
                pass
    loader.execute(SET_COUNTER, {"of_name": "carries", "value": int(HEAD)})


def _clear(path: Path) -> None:
    for end in ("", "-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)


def require_empty(where: str | Path) -> None:
    """Raises Conflict where something is there, and what `loading` does."""
    if is_address(where):
        with connected(str(where)) as link:
            _require_no_tables(link)
    elif Path(where).exists():
        raise Conflict(f"{where} is there already")


def sync(path: Path) -> None:
    """A file or folder is on the disk when this returns. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- a file ---------------------------------------------------------------------------------------------------------


class _File(sqlite.Session):
    """Not durable: it is synced as a whole."""

    stream = sqlite.Session.execute

    def export(self) -> str:
        return ""

    def load(self, table: Table, rows: Iterable[Values]) -> None:
        names, statement = [column.name for column in table.c], insert(table)
        for values in rows:
            self.execute(statement, dict(zip(names, values, strict=True)))


@contextmanager
def _file(path: Path) -> Iterator[Loader]:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    session = _File(path, texts=sqlite.Texts(), durable=False)
    try:
        session.script(ddl())
        session.begin()
        session.execute(delete(counters), {})
        yield session
        _complete(session, "SQLITE")
        session.commit()
        session.script("PRAGMA wal_checkpoint(TRUNCATE)")
    except session.faults as error:
        raise Unavailable("the store cannot be written", internal=str(error)) from error
    finally:
        session.close()
    sync(path)


# --- a database -----------------------------------------------------------------------------------------------------


class _Database:
    """One transaction of a connection of its own."""

    sound = True

    def __init__(self, link: links.Link, texts: postgres.Texts, *, time: float) -> None:
        self._link = link
        self._texts = texts
        self._rows = Rows(lambda sql, values: link.run(sql, values, prepare=False, bound=False))
        self.time = time
        self.counter = None

    def load(self, table: Table, rows: Iterable[Values]) -> None:
        from psycopg import sql

        names = sql.SQL(", ").join(sql.Identifier(column.name) for column in table.c)
        copy = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table.name), names)
        with self._link.connection.cursor() as cursor, cursor.copy(copy) as into:
            for values in rows:
                into.write_row(values)

    def execute(self, statement: Statement, values: Mapping[str, Any]) -> Any:
        text = self._texts[statement]
        return self._link.run(text.sql, placed(values, text.order), prepare=True, bound=False)

    def stream(self, statement: Statement, values: Mapping[str, Any]) -> Rows:
        text = self._texts[statement]
        return self._rows.begin(text.sql, placed(values, text.order))

    def look(self, snapshot: str = "") -> None:
        """It is one look already, and nobody else's."""

    def export(self) -> str:
        return ""

    def leave(self) -> None:
        """The block's end ends it."""

    def close(self) -> None:
        self._link.close()


@contextmanager
def connected(url: str) -> Iterator[links.Link]:
    """A connection of its own. Raises Invalid, Unavailable."""
    import psycopg

    from bessemer.store import links

    watch = links.Watch()
    link = None
    try:
        link = links.Link(url, *links.WHOLE, watch=watch)
        yield link
    except psycopg.Error as error:
        raise Unavailable("the database of the store cannot be reached or used", internal=str(error)) from error
    finally:
        if link is not None:
            link.close()
        watch.close()


@contextmanager
def _database(url: str) -> Iterator[Loader]:
    from bessemer.store import postgres

    with connected(url) as link:
        begun = link.say(b"BEGIN; SELECT extract(epoch FROM clock_timestamp())")
        _require_no_tables(link)
        script = ddl_of_database().removeprefix("BEGIN;").removesuffix("COMMIT;")
        link.say(script.encode(), bound=False)
        loader = _Database(link, postgres.Texts(), time=float(begun.get_value(0, 0) or 0))
        loader.execute(delete(counters), {})
        yield loader
        _complete(loader, "POSTGRESQL")
        # Numbers of rows that come later go on behind those that are there.
        link.say(b"SELECT setval('ledger_id_seq', coalesce((SELECT max(id) FROM ledger), 0) + 1, false)")
        link.say(b"COMMIT", bound=False)


def _require_no_tables(link: links.Link) -> None:
    found = link.say(b"SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()").get_value(0, 0)
    if found != b"0":
        raise Conflict("the database holds tables already: give an empty one (createdb)")
