"""One connection to a PostgreSQL server, with what is the same for every use of one.

An answer has a bound. A wire that is cut is noticed by the kernel (keepalives, `tcp_user_timeout`); a middle that
takes bytes and forwards none, by `Watch`, whose thread shuts the socket of an answer that is overdue. So no call waits
for ever, but for those of who reads or changes the whole of a database, and asks for it without a bound; and a call
that failed says nothing of the next connection.

Where the address names several servers, the one that takes writes is asked for.
"""

from __future__ import annotations

import math
import os
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import psycopg
from psycopg.adapt import Transformer
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import ConnStatus, ExecStatus
from psycopg.types.numeric import Int8Dumper

from bessemer.core.errors import Invalid

ANSWER_SECONDS = 12.0
"""After so long without an answer the connection is taken for cut. The server's own bounds are below it."""

_PARAMETERS: Mapping[str, Any] = {
    "application_name": "bessemer",
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 8_000,
    "target_session_attrs": "read-write",
}
"""What the address does not say itself."""

WHOLE = ("SET statement_timeout = 0", "SET idle_in_transaction_session_timeout = 0")
"""Settings of who fills a whole database: nobody knows how long that takes, and who asks for bounds has others."""

_LOOK_SECONDS = 0.5
_PREPARED_MAX = 400
_OK = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK)
_LOST = (psycopg.OperationalError, psycopg.DatabaseError)
"""What the driver raises, without a code of the server's, where the connection is lost."""


class Watch:
    """Shuts the connections on which an answer is overdue. Its thread ends with `close`."""

    def __init__(self) -> None:
        self._links: set[Link] = set()
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._work, name="store-watch", daemon=True)
        self._thread.start()

    def add(self, link: Link) -> None:
        with self._lock:
            self._links.add(link)

    def discard(self, link: Link) -> None:
        with self._lock:
            self._links.discard(link)

    def close(self) -> None:
        """End the thread. Harmless when repeated."""
        self._end.set()
        self._thread.join()

    def _work(self) -> None:
        looked = time.monotonic()
        while not self._end.wait(_LOOK_SECONDS):
            before, looked = looked, time.monotonic()
            if looked - before > 4 * _LOOK_SECONDS:
                continue  # this process was held up, so its connections may have answered meanwhile
            with self._lock:  # which a link takes before it is closed
                self._cut_overdue(looked)

    def _cut_overdue(self, now: float) -> None:
        for link in self._links:
            if link.due < now:
                link.cut()


class Link:
    """One connection. ``settings`` are statements that are said once, at its beginning. Raises psycopg.Error, and
    Invalid for an address that is none: neither shows it, since it may bear a password."""

    def __init__(self, url: str, *settings: str, watch: Watch) -> None:
        self.due = math.inf
        """When the answer that is waited for is overdue."""
        self.broken = False
        """It was lost amid an answer, whatever it says itself."""
        self._watch = watch
        try:
            where = make_conninfo(**{**_PARAMETERS, **conninfo_to_dict(url)})
        except psycopg.ProgrammingError:
            raise Invalid("the address of the store is none that PostgreSQL knows: postgresql://…") from None
        self.connection = psycopg.connect(where, autocommit=True, cursor_factory=psycopg.RawCursor)
        self.connection.prepared_max = _PREPARED_MAX
        self.connection.adapters.register_dumper(int, Int8Dumper)
        self.cursor = self.connection.cursor(binary=True)
        self.wire = self.connection.pgconn
        self.transformer = Transformer(self.connection)
        """Turns values to what is sent, and back."""
        self.prepared: dict[tuple[bytes, tuple[int, ...]], bytes] = {}
        """Statement and types of its parameters → the name by which the server knows it, of an `exchange`."""
        try:
            # Another name for the same socket, which stays ours however the driver ends its own.
            self._socket = socket.socket(fileno=os.dup(self.wire.socket))
        except OSError as error:  # there are no more descriptors
            self.connection.close()
            raise psycopg.OperationalError(f"a connection cannot be kept: {error}") from error
        watch.add(self)
        try:
            for setting in settings:
                self.say(setting.encode())
        except BaseException:
            self.close()
            raise

    def say(self, words: bytes, *, bound: bool = True) -> psycopg.pq.abc.PGresult:
        """Words without parameters, of which the last result counts. What takes its time, as DDL does, is not bound."""
        self.due = time.monotonic() + ANSWER_SECONDS if bound else math.inf
        try:
            result = self.wire.exec_(words)
        finally:
            self.due = math.inf
        return self.good(result)

    def good(self, result: psycopg.pq.abc.PGresult) -> psycopg.pq.abc.PGresult:
        """The result. Raises psycopg.Error where it is none."""
        if result.status not in _OK:
            raise self._noted(psycopg.errors.error_from_result(result))
        return result

    def _noted(self, error: psycopg.Error) -> psycopg.Error:
        """After a crash of the server the driver may say that the connection is lost before it looks so."""
        self.broken = self.broken or (type(error) in _LOST and error.sqlstate is None)
        return error

    def run(self, sql: bytes, values: list[Any], *, prepare: bool, bound: bool = True) -> psycopg.Cursor[Any]:
        """One statement; its rows stand in the link's one cursor until the next. What reads all is not bound."""
        self.due = time.monotonic() + ANSWER_SECONDS if bound else math.inf
        try:
            return self.cursor.execute(sql, values, prepare=prepare)
        except psycopg.Error as error:
            self._noted(error)
            raise
        finally:
            self.due = math.inf

    def rows(self, result: psycopg.pq.abc.PGresult) -> list[tuple[Any, ...]]:
        """What it found. Nothing of it is kept here."""
        self.transformer.set_pgresult(result)
        try:
            return self.transformer.load_rows(0, result.ntuples, tuple)
        finally:
            self.transformer.set_pgresult(None)

    @property
    def well(self) -> bool:
        """Whether there is a server at the other end, as far as is known."""
        return not self.broken and bool(self.wire.status == ConnStatus.OK)

    @property
    def file(self) -> int:
        """What an event loop waits on, until `close`."""
        return self._socket.fileno()

    def cut(self) -> None:
        """Have whoever waits for an answer hear that there is none. From any thread."""
        with suppress(OSError):  # it is cut already
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Harmless when repeated."""
        self._watch.discard(self)
        self._socket.close()
        self.connection.close()
