"""The tables of a database on a server, for whoever makes or changes them: it takes its time, and is done by one
process at a time, beside others that write.

A statement that asks for the lock of a table makes those that come after it wait behind it: so it waits for `LOCK_MS`
at most, lets go, and asks again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import psycopg

from bessemer.core.errors import Invalid, Unavailable
from bessemer.store import beside
from bessemer.store.links import Link

LINE_MS = 10_000
"""How long a writer stands in line."""
IN_LINE = b"SELECT value FROM counters WHERE name = 'revision' FOR UPDATE"
"""Begins each writing transaction: the writers of all processes stand in line at this row."""
LOCK_MS = 500
UNGUARD_MS = 50
"""For what is tried again and again while everybody reads and writes."""
TRIES = 60
PAUSE_SECONDS = 0.5

_OLDEST_SERVER = 130_000
_SETUP_LOCK = 0x62657373
"""Of those who make or migrate the tables."""
_ASK_SECONDS = 0.1
_NOW = "extract(epoch FROM clock_timestamp())"
_FORGET = f"DELETE FROM leases WHERE name LIKE 'writer/%' AND expires_at < {_NOW}"
_OLDER = (
    f"SELECT name FROM leases WHERE name LIKE 'writer/%' AND expires_at - ttl > {_NOW} - {{}} "
    f"AND coalesce(nullif(split_part(note, ' ', 1), '')::BIGINT, {beside.SAYS - 1}) < {{}} ORDER BY name"
)
_CARRIED = b"SELECT value FROM counters WHERE name = 'carries'"
_CARRY = "UPDATE counters SET value = {} WHERE name = 'carries'"
_GUARDS = (
    rb"SELECT proname FROM pg_proc WHERE proname LIKE 'forget\_%' AND pronamespace = current_schema()::regnamespace"
)


def patiently(act: Callable[[], None], *, what: str) -> None:
    """Do what raises TimeoutError where a lock was not had at once, until it is. Raises Unavailable after a minute."""
    for _ in range(TRIES):
        try:
            return act()
        except TimeoutError:
            time.sleep(PAUSE_SECONDS)
    raise Unavailable("the tables of the store cannot be changed: somebody has held one for long", internal=what)


class Tables:
    """Of one connection, on which nothing else is under way."""

    def __init__(self, link: Link) -> None:
        self._link = link

    @contextmanager
    def alone(self, *, wait: bool = True) -> Iterator[bool]:
        """Nobody else makes or migrates tables within the block; without ``wait`` it may be that somebody does: False.
        Raises Invalid where the server will not do."""
        info = self._link.connection.info
        if info.server_version < _OLDEST_SERVER:
            raise Invalid(f"this PostgreSQL is older than {_OLDEST_SERVER // 10_000}")
        if info.parameter_status("server_encoding") != "UTF8":
            raise Invalid("the database's encoding is not UTF8")
        # Asked for again and again: an index that is made concurrently would wait for a statement that waits for us.
        while not (mine := self._asked()) and wait:
            time.sleep(_ASK_SECONDS)
        if not mine:
            yield False
            return
        self._link.say(f"SET lock_timeout = {LOCK_MS}".encode())
        yield True
        # Where the block raised, the connection is of no use any more, and the lock ends with it.
        self._link.say(f"SELECT pg_advisory_unlock({_SETUP_LOCK}); SET lock_timeout = {LINE_MS}".encode())

    def _asked(self) -> bool:
        return self._link.say(f"SELECT pg_try_advisory_lock({_SETUP_LOCK})".encode()).get_value(0, 0) == b"t"

    def script(self, sql: str) -> None:
        """Several statements of DDL."""
        self._link.say(sql.encode(), bound=False)

    def grow(self, sql: str) -> None:
        """A statement beside others that write. Raises Unavailable where a table's lock is not had for long."""
        if "CONCURRENTLY" in sql:  # nobody waits for it, and it waits for whoever reads
            self.script("SET lock_timeout = 0")
            self.script(sql)
            self.script(f"SET lock_timeout = {LOCK_MS}")
            return
        patiently(partial(self._briefly, sql), what=sql)

    def _briefly(self, sql: str) -> None:
        try:
            self.script(sql)
        except psycopg.errors.LockNotAvailable as error:
            raise TimeoutError from error

    def fill(self, sql: str) -> int:
        """A statement in the writers' line; answers how many rows it met."""
        with self._line():
            return self._link.say(sql.encode()).command_tuples or 0

    def contract(self, statements: Sequence[str], *, carries: int, migrate: Sequence[str] = ()) -> bool:
        """Change the tables for good, and admit no writer of a schema before ``carries`` from then on. What was written
        since the rows were filled in is filled in with that by ``migrate``. False, with nothing changed, where one
        serves or a table is held."""
        try:
            with self._line():
                if self.older(carries):
                    return False
                for statement in migrate:
                    self._exhaust(statement)
                for statement in (*statements, _CARRY.format(carries)):
                    self._link.say(statement.encode())
        except psycopg.errors.LockNotAvailable:
            return False
        return True

    def unguard(self) -> bool:
        """Drop the triggers that guarded what was filled in: no older writer is admitted any more, and they do nothing.
        Nobody stands in line for it, and who reads waits for `UNGUARD_MS` at most. False where a table is held."""
        found = self._link.say(_GUARDS)
        try:
            for row in range(found.ntuples):
                name = (found.get_value(row, 0) or b"").decode()
                self.script(f"SET lock_timeout = {UNGUARD_MS}; DROP FUNCTION {name}() CASCADE")
        except psycopg.errors.LockNotAvailable:
            return False
        finally:
            if self._link.well:
                self.script(f"SET lock_timeout = {LOCK_MS}")
        return True

    def _exhaust(self, sql: str) -> None:
        while self._link.say(sql.encode()).command_tuples:
            pass

    @contextmanager
    def _line(self) -> Iterator[None]:
        """A transaction that stands in line with all writers: it is before or after each of theirs."""
        self._link.say(f"BEGIN; SET LOCAL lock_timeout = {LINE_MS}; ".encode() + IN_LINE)
        try:
            self._link.say(f"SET LOCAL lock_timeout = {LOCK_MS}".encode())
            yield
        except BaseException:
            if self._link.well:
                self._link.say(b"ROLLBACK")
            raise
        self._link.say(b"COMMIT")

    def older(self, schema: int) -> list[str]:
        """The processes that serve and write an older schema, by the names of their rows."""
        found = self._link.say(_OLDER.format(beside.SERVES_SECONDS, schema).encode())
        return [(found.get_value(row, 0) or b"").decode() for row in range(found.ntuples)]

    def forget(self) -> None:
        """Drop what processes left that have written nothing for long."""
        self._link.say(_FORGET.encode())

    def version(self) -> str | None:
        """The schema's version; None for an empty database."""
        if self._link.say(b"SELECT to_regclass('alembic_version')").get_value(0, 0) is None:
            return None
        return (self._link.say(b"SELECT version_num FROM alembic_version").get_value(0, 0) or b"").decode()

    def carried(self) -> int:
        """The oldest schema whose writers are admitted; 0 where releases before this one made the database."""
        found = self._link.say(_CARRIED)
        return int(found.get_value(0, 0) or 0) if found.ntuples else 0
