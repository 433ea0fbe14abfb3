"""A feed of a database that other processes write to as well: what they commit reaches those who watch here.

The truth is ``changes`` from the last revision on, which is dense and in order of commit: whoever gives a number holds
the counter's row until it is committed, so that no smaller one can come later. That the counter moved is said by
NOTIFY, which only shortens the wait. What this process commits goes out at once where nothing is missing before it, and
else by the same way as what others commit.
"""

from __future__ import annotations

import asyncio
import os
import select
import threading
from collections.abc import Callable, Sequence

from bessemer.core.errors import Unavailable
from bessemer.core.ports import Scope
from bessemer.store.feed import Entry, Feed, Watcher
from bessemer.store.metrics import Metrics
from bessemer.store.postgres import ReadSession
from bessemer.store.reader import NEWER, WINDOW, entry
from bessemer.store.transaction import read_counter

POLL_SECONDS = 1.0
AGAIN_SECONDS = 0.2
"""After the database could not be read."""


class SharedFeed(Feed):
    """A feed with a thread that looks for the changes of others, from the first watch on."""

    def __init__(self, revision: int, metrics: Metrics, *, connect: Callable[[], ReadSession]) -> None:
        super().__init__(revision, metrics)
        self._connect = connect
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._poke = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._closed = False
        self._position = 0
        """How far the thread has handed over."""

    def join(self, scope: Scope) -> Watcher:
        """See `Feed.join`; the loop that watches first is the one that is told."""
        if self._thread is None:
            self._loop = asyncio.get_running_loop()
            self._position = self.revision
            self._thread = threading.Thread(target=self._work, name="store-tail", daemon=True)
            self._thread.start()
        return super().join(scope)

    def publish(self, entries: Sequence[Entry], revision: int) -> None:
        """Offer the changes of one commit of this process, unless those of others come first."""
        if entries and entries[0].change.revision == self.revision + 1:
            super().publish(entries, revision)
        elif self._thread is None or self._closed:
            self.revision = max(self.revision, revision)  # nobody watches who could miss any
        else:
            os.eventfd_write(self._poke, 1)

    def close(self) -> None:
        """End the thread."""
        if not self._closed:
            self._closed = True
            os.eventfd_write(self._poke, 1)
            if self._thread is not None:
                self._thread.join()
            os.close(self._poke)

    def _caught_up(self, entries: Sequence[Entry]) -> None:
        """In the loop: offer what the thread has read, as far as nobody did before."""
        fresh = [entry for entry in entries if entry.change.revision > self.revision]
        if fresh:
            super().publish(fresh, fresh[-1].change.revision)

    def _skip(self, revision: int) -> None:
        """In the loop: history was dropped before it was read. Each watcher reads on from where it stands, or hears
        that this is gone."""
        self.revision = max(self.revision, revision)
        for watchers in self._buckets.values():
            for watcher in watchers:
                watcher.queue.clear()
                watcher.lagging = True
                watcher.wake()

    # --- in the thread ------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while not self._closed:
            session = None
            try:
                session = self._connect()
                self._follow(session, session.listen())
            except Unavailable:
                select.select([self._poke], [], [], AGAIN_SECONDS)
            except RuntimeError:
                return  # the loop has ended: nobody watches any more
            finally:
                if session is not None:
                    session.close()

    def _follow(self, session: ReadSession, socket: int) -> None:
        while not self._closed:
            while self._read(session):
                continue
            select.select([socket, self._poke], [], [], POLL_SECONDS)
            session.hear()
            try:
                os.eventfd_read(self._poke)
            except BlockingIOError:
                pass

    def _read(self, session: ReadSession) -> bool:
        """Hand over the next changes; whether there may be more."""
        self._position = max(self._position, self.revision)
        rows = session.execute(NEWER, {"since": self._position, "most": WINDOW}).fetchall()
        if not rows:
            return False
        if rows[0][0] != self._position + 1:
            self._position = read_counter(session, "revision")
            self._tell(self._skip, self._position)
            return True
        entries = [entry(row) for row in rows]
        self._position = entries[-1].change.revision
        self._tell(self._caught_up, entries)
        return len(rows) == WINDOW

    def _tell(self, call: Callable[..., None], what: object) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(call, what)
