"""Where a store is kept: in a file that one process has open, or in a database of a PostgreSQL server.

A place makes the connections and knows what goes with them. It is opened once, by `store.open_store`.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import tempfile
import weakref
from collections.abc import Callable, Container
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from bessemer.core.clock import Clock
from bessemer.core.errors import Invalid, Unavailable
from bessemer.store import sqlite
from bessemer.store.apart import Apart, Here, Turn
from bessemer.store.feed import Feed
from bessemer.store.folding import FoldingSession, LogIndex
from bessemer.store.held import SNAPSHOTS_MAX
from bessemer.store.leases import ServerTime, SteadyTime, Time
from bessemer.store.metrics import Metrics
from bessemer.store.rows import LOAD_EACH
from bessemer.store.schema_versions import prepare
from bessemer.store.session import ReadSession, Session

if TYPE_CHECKING:
    from bessemer.store import postgres
    from bessemer.store.gathering import Gathering

_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_REMEDY = "bring it back from a copy, or move the whole state directory away to begin anew"
_SCHEMES = ("postgresql://", "postgres://")
_READERS = 8
_HELD_MAX = 16
"""Snapshots of lists, each of which has a connection: a server has few."""


class Place(Protocol):
    """What `store.open_store` asks of either."""

    @property
    def held(self) -> int:
        """The snapshots of lists that it can afford."""

    def writing(self) -> Session:
        """The one connection that writes, to tables of the present schema. Raises what `open_store` does."""

    def reading(self, lean: bool) -> ReadSession: ...
    def turn(self) -> Turn: ...
    def gathering(self, turn: Turn, files: Container[str]) -> Gathering | None:
        """How single objects are read, where that waits for a network. ``files`` are kinds of large ones."""

    def time(self, clock: Clock) -> Time:
        """By what its leases are measured."""

    def feed(self, revision: int, metrics: Metrics) -> Feed: ...
    def finish(self) -> None:
        """Go on with what could not be done to the tables while older replicas served. It takes its time. Raises
        Unavailable."""

    def close(self) -> None: ...


def place_of(path: str | Path) -> Place:
    """By what it is called. Raises Unavailable, Invalid."""
    return Server(str(path)) if is_address(path) else File(path)


def is_address(path: str | Path) -> bool:
    """Whether it names a database, and no file."""
    return str(path).startswith(_SCHEMES)


class File:
    """A file. ``:memory:`` is a file of its own, in memory where the machine has a place for that."""

    held = SNAPSHOTS_MAX

    def __init__(self, path: str | Path) -> None:
        self.durable = str(path) != ":memory:"
        self._texts = sqlite.Texts()
        self._forget: Callable[[], object] = lambda: None
        if not self.durable:
            shared = "/dev/shm"
            folder = tempfile.mkdtemp(prefix="bessemer-store-", dir=shared if os.access(shared, os.W_OK) else None)
            self._forget = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            path = Path(folder) / "store.db"
        self.path = Path(path)
        self._index = LogIndex(self.path)
        self._lock = os.open(f"{self.path}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise Unavailable(f"another process has {self.path} open") from error
        # Made here, for its owner alone: SQLite gives its log the mode of the file.
        os.close(os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))

    def writing(self) -> sqlite.Session:
        try:
            session = FoldingSession(self.path, texts=self._texts, index=self._index, durable=self.durable)
            prepare(session, self.path)
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF in _DAMAGED:
                raise Invalid(f"{self.path} is damaged ({error}): {_REMEDY}") from error
            raise
        return session

    def reading(self, lean: bool) -> sqlite.ReadSession:
        return sqlite.ReadSession(self.path, texts=self._texts, lean=lean)

    def turn(self) -> Here:
        return Here()

    def gathering(self, turn: Turn, files: Container[str]) -> None:
        """A get of a file waits for nothing."""

    def time(self, clock: Clock) -> Time:
        return SteadyTime(clock)

    def feed(self, revision: int, metrics: Metrics) -> Feed:
        return Feed(revision, metrics)

    def finish(self) -> None:
        """Nobody else has it open, so nothing was left."""

    def close(self) -> None:
        """Let another process have it."""
        self._index.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        self._forget()


class Server:
    """A database of a server, which several processes may have open. Its driver is an extra: whoever has a file neither
    needs nor imports it."""

    held = _HELD_MAX

    def __init__(self, url: str) -> None:
        try:
            from bessemer.store import links, postgres
        except ImportError as error:
            raise Invalid("a store on PostgreSQL needs the extra `postgresql`: bessemer[postgresql]") from error
        self._url = url
        self._finished = False
        self._texts = postgres.Texts()
        self._watch = links.Watch()
        self._links: Callable[[], int] = lambda: 0
        self._close: Callable[[], None] = lambda: None

    def writing(self) -> postgres.Session:
        from bessemer.store import expanding, postgres

        session = None
        try:
            session = postgres.Session(self._url, texts=self._texts, watch=self._watch)
            self._finished = expanding.prepare_database(session.tables, self._url)
            session.tables.forget()
        except BaseException as error:
            if session is not None:
                session.close()
            if isinstance(error, postgres.Session.faults):
                raise Unavailable("the database of the store cannot be reached or used", internal=str(error)) from error
            raise
        self._links = partial(getattr, session, "links")
        return session

    def reading(self, lean: bool, *, whole: bool = False) -> postgres.ReadSession:
        """``whole`` is for who reads all there is."""
        from bessemer.store.postgres import ReadSession

        return ReadSession(self._url, texts=self._texts, watch=self._watch, whole=whole)

    def turn(self) -> Apart:
        return Apart(_READERS)

    def gathering(self, turn: Turn, files: Container[str]) -> Gathering:
        from bessemer.store import gathering, postgres
        from bessemer.store.links import Link

        connect = partial(Link, self._url, *postgres.reading(), *gathering.PLANS, watch=self._watch)
        return gathering.Gathering(connect, self._texts[LOAD_EACH].sql, turn=turn, files=files)

    def time(self, clock: Clock) -> Time:
        return ServerTime()

    def feed(self, revision: int, metrics: Metrics) -> Feed:
        from bessemer.store.tail import SharedFeed

        feed = SharedFeed(revision, metrics, connect=lambda: self.reading(True), links=self._links)
        self._close = feed.close
        return feed

    def finish(self) -> None:
        if self._finished:
            return
        from bessemer.store import expanding, postgres

        try:
            session = postgres.Session(self._url, texts=self._texts, watch=self._watch)
            try:
                with session.tables.alone(wait=False) as mine:
                    self._finished = mine and expanding.finish(session.tables)
            finally:
                session.close()
        except postgres.Session.faults as error:
            raise Unavailable("the tables of the store cannot be changed now", internal=str(error)) from error

    def close(self) -> None:
        """Hear of nobody any more."""
        self._close()
        self._watch.close()
