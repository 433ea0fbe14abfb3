"""A feed of a database that other processes write to as well: what they commit reaches those who watch here.

The truth is ``changes`` from the last revision on, which is dense and in order of commit: whoever gives a number holds
the counter's row until it is committed, so that no smaller one can come later. That the counter moved is said by
NOTIFY, which only shortens the wait. What this process commits goes out at once where nothing is missing before it, and
else by the same way as what others commit.

A new connection may be to another server, or to one whose database was brought back from a copy. So on each the change
that went out last is looked for; until it is found, nothing goes out. Where it is another, or none, the database has
gone back: whoever watches is told to list again.
"""

from __future__ import annotations

import asyncio
import os
import select
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

import structlog

from bessemer.core.errors import BessemerError
from bessemer.core.ports import Scope
from bessemer.core.resource import Change
from bessemer.store.feed import Entry, Feed, Watcher
from bessemer.store.metrics import Metrics
from bessemer.store.postgres import ReadSession, Session
from bessemer.store.reader import NEWER, WINDOW, entry
from bessemer.store.transaction import read_counter

POLL_SECONDS = 1.0
AGAIN_SECONDS = 0.2
"""After the database could not be read."""

TROUBLE: tuple[type[Exception], ...] = (BessemerError, OSError, *Session.refusals)
"""What may come of asking the database; the next connection may fare better."""

log = structlog.get_logger(__name__)


class _LoopEnded(Exception):
    """There is nobody to tell."""


class SharedFeed(Feed):
    """A feed with a thread that looks for the changes of others, from the first watch on. ``links`` says how many
    connections the writer has had."""

    def __init__(
        self, revision: int, metrics: Metrics, *, connect: Callable[[], ReadSession], links: Callable[[], int]
    ) -> None:
        super().__init__(revision, metrics)
        self._connect = connect
        self._links = links
        self._sure = links()
        """The writer's connection of which it is known that it leads to the same database."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._poke = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._closed = False
        self._last: Entry | None = None
        """What went out last, by which the database is known again."""
        self._position = 0
        """How far the thread has handed over."""
        self.heard_at = time.monotonic()
        self._backs = self._heard_backs = 0
        """How often the database has gone back: as the thread knows, and as the loop does."""

    def join(self, scope: Scope) -> Watcher:
        """See `Feed.join`; the loop that watches first is the one that is told."""
        if self._thread is None:
            self._loop = asyncio.get_running_loop()
            self.heard_at = time.monotonic()
            self._begin()
        return super().join(scope)

    def publish(self, entries: Sequence[Entry], revision: int) -> None:
        """Offer the changes of one commit of this process, unless those of others come first."""
        if self._sure == self._links() and entries and entries[0].change.revision == self.revision + 1:
            self._offer_all(entries)
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

    # --- in the loop --------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        if self._closed:
            return
        self._position = self.revision
        self._thread = threading.Thread(target=self._work, name="store-tail", daemon=True)
        self._thread.start()

    def _offer_all(self, entries: Sequence[Entry]) -> None:
        self._last = entries[-1]
        super().publish(entries, entries[-1].change.revision)

    def _caught_up(self, entries: Sequence[Entry]) -> None:
        """Offer what the thread has read, as far as nobody did before."""
        fresh = [entry for entry in entries if entry.change.revision > self.revision]
        if fresh:
            self._offer_all(fresh)

    def _skip(self, revision: int) -> None:
        """History was dropped before it was read. Each watcher reads on from where it stands, or hears that this is
        gone."""
        self._last = None
        self.revision = max(self.revision, revision)
        for watcher in self.everybody():
            watcher.queue.clear()
            watcher.lagging = True
            watcher.wake()

    def _gone_back(self, revision: int) -> None:
        """The database is not the one that was: whoever watches lists again."""
        log.error("the database has gone back to an earlier state", before=self.revision, now=revision)
        self._last = None
        self.revision = revision
        self._heard_backs += 1
        for watcher in self.everybody():
            watcher.queue.clear()
            watcher.ended = True
            watcher.wake()

    # --- in the thread ------------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            while not self._closed:
                self._attend()
        except _LoopEnded:
            return  # nobody watches any more
        finally:
            if not self._closed and self._loop is not None:
                # By a defect, which has been told of: whoever watches is not to hear of nothing any more.
                with suppress(_LoopEnded):
                    self._tell(partial(self._loop.call_later, AGAIN_SECONDS), self._begin)

    def _attend(self) -> None:
        session = None
        try:
            session = self._connect()
            self._follow(session, session.listen())
        except TROUBLE:
            _wait([self._poke], AGAIN_SECONDS)
            _emptied(self._poke)
        finally:
            if session is not None:
                session.close()

    def _follow(self, session: ReadSession, socket: int) -> None:
        """Until the writer has another connection: then we want another, too."""
        links = self._links()
        same, revision = self._recognise(session)
        if not same:
            self._position, self._backs = revision, self._backs + 1
            self._tell(self._gone_back, revision)
        # From here on what that connection commits may go out at once.
        self._tell(partial(setattr, self, "_sure"), links)
        while links == self._links() and not self._closed:
            while self._read(session):
                continue
            if not session.hear():  # what was said while we read is no reason to wait
                _wait([socket, self._poke], POLL_SECONDS)
                session.hear()
            _emptied(self._poke)

    def _recognise(self, session: ReadSession) -> tuple[bool, int]:
        """Whether the database is the one that was, and where it stands. That is looked at last: it may go back
        while we look, and where it stood before is nothing to go on from."""
        last = self._last
        same = last is None or _holds(session, last.change)
        revision = read_counter(session, "revision")
        return same and revision >= max(self._position, last.change.revision if last is not None else 0), revision

    def _read(self, session: ReadSession) -> bool:
        """Hand over the next changes; whether there may be more."""
        if self._backs == self._heard_backs:
            self._position = max(self._position, self.revision)
        began = time.monotonic()
        rows = session.execute(NEWER, {"since": self._position, "most": WINDOW}).fetchall()
        if not rows:
            self.heard_at = began
            return False
        if rows[0][0] != self._position + 1:
            self._position = read_counter(session, "revision")
            self._tell(self._skip, self._position)
            return True
        entries = [entry(row) for row in rows]
        self._position = entries[-1].change.revision
        self._tell(self._caught_up, entries)
        if len(rows) == WINDOW:
            return True
        self.heard_at = began
        return False

    def _tell(self, call: Callable[..., object], what: object) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(call, what)
        except RuntimeError as error:
            raise _LoopEnded from error


def _holds(session: ReadSession, last: Change) -> bool:
    """Whether the change is there, or history of it is dropped."""
    rows = session.execute(NEWER, {"since": last.revision - 1, "most": 1}).fetchall()
    return (bool(rows) and _same(entry(rows[0]).change, last)) or last.revision <= read_counter(session, "floor")


def _same(found: Change, last: Change) -> bool:
    return (found.revision, found.uid, found.body) == (last.revision, last.uid, last.body)


def _emptied(poke: int) -> None:
    with suppress(BlockingIOError):
        os.eventfd_read(poke)


def _wait(files: Sequence[int], seconds: float) -> None:
    """Until one of them can be read, whatever their numbers are (`select` knows a thousand)."""
    poll = select.poll()
    for file in files:
        poll.register(file, select.POLLIN)
    poll.poll(seconds * 1000)
