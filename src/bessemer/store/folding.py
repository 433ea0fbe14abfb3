"""The log of a file is folded into it beside the commits.

What is committed stands in the log; now and then it is brought over into the file, and the log begins anew. SQLite does
that within whichever commit finds the log long: a thousand pages are written and synced, 25 to 60 ms, for which every
writer waits. Here a thread of its own brings them over through its own connection while commits go on. What came
meanwhile is little, and the commit that finds only little left brings it over itself: the next one begins the log anew,
for which all of it must be in the file. Where a long read holds on to the log it grows until that read ends.

Of two that bring pages over at the same time, one may take what a commit has put in place of the old log for what it
has brought over already (https://www.sqlite.org/wal.html#walresetbug, before 3.51.3). So one does at a time: the thread
while it was asked to, the commit while it was not; and none begins where nothing is left, which is when the log may
begin anew.

How long the log is says its index, the file ``-shm`` (https://www.sqlite.org/walformat.html#walidxfmt).
"""

from __future__ import annotations

import os
import queue
import sqlite3
import struct
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import structlog

from bessemer.store import sqlite
from bessemer.store.session import Batch

LONG_PAGES = 5_000
"""A log of 40 MB: folding it in more often writes the same pages more often."""
LITTLE_PAGES = 250
"""A commit brings so many over in a few milliseconds."""
LAST_PAGES = 20_000
"""Here the thread does not keep up, and commits have to wait: for as much as it folds at a time, and for no more, since
of a log that a long read held nobody knows how long it is."""

_LENGTH = struct.Struct("=I")
_LENGTH_AT, _FOLDED_AT = 16, 96
_FOLD = "PRAGMA wal_checkpoint(PASSIVE)"

log = structlog.get_logger(__name__)


class Log(NamedTuple):
    """Pages in it, and how many of these are not in the file yet."""

    pages: int
    left: int


class LogIndex:
    """The index of a file's log. To be closed after every connection: a file's locks are gone with the first of its
    descriptors that a process closes."""

    def __init__(self, path: Path) -> None:
        self._path = f"{path}-shm"
        self._file = -1

    def read(self) -> Log:
        """How long the log is. Raises OSError."""
        if self._file < 0:
            self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        pages, folded = self._at(_LENGTH_AT), self._at(_FOLDED_AT)
        return Log(pages, max(0, pages - folded))

    def close(self) -> None:
        """Read no more."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _at(self, offset: int) -> int:
        (value,) = _LENGTH.unpack(os.pread(self._file, _LENGTH.size, offset))
        return int(value)


class FoldingSession(sqlite.Session):
    """The connection that writes. Its log is folded once it is long."""

    def __init__(self, path: Path, *, texts: sqlite.Texts, index: LogIndex, durable: bool = True) -> None:
        super().__init__(path, texts=texts, durable=durable)
        self._execute("PRAGMA wal_autocheckpoint=0")
        self._index = index
        self._folder = Folder(path, texts=texts, durable=durable)

    def commit(self, batches: Sequence[Batch] = ()) -> None:
        """Also folds, or has it done; a log that could not be folded fails no commit, which stands already."""
        super().commit(batches)
        with suppress(OSError, struct.error, sqlite3.Error):
            self._fold(self._index.read())

    def _fold(self, log: Log) -> None:
        if log.pages < LONG_PAGES or not log.left or self._folder.busy:
            return
        behind = log.pages >= LAST_PAGES and log.left <= LONG_PAGES
        if log.left <= LITTLE_PAGES or behind:
            self._execute(_FOLD)
        else:
            self._folder.wake()

    def close(self) -> None:
        self._folder.close()
        super().close()


class Folder:
    """The thread that folds. ``busy``: from when it was asked to until it has; whoever sees it False may fold."""

    def __init__(self, path: Path, *, texts: sqlite.Texts, durable: bool) -> None:
        self.busy = False
        self._path = path
        self._texts = texts
        self._durable = durable
        self._asked: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Fold what there is; where the machine has no thread to give, a later commit asks again."""
        if self._thread is None:
            thread = threading.Thread(target=self._work, name="store-folder", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return
            self._thread = thread
        self.busy = True
        self._asked.put(True)

    def close(self) -> None:
        """Once it has done what it was asked to."""
        if self._thread is not None:
            self._asked.put(False)
            self._thread.join()
            self._thread = None

    def _work(self) -> None:
        session: sqlite.Session | None = None
        told = False
        while self._asked.get():
            try:
                session = session or sqlite.Session(self._path, texts=self._texts, durable=self._durable)
                session.script(_FOLD)
                told = False
            except sqlite3.Error as error:  # a full disk: each commit asks again
                if not told:
                    log.warning("the store's log cannot be folded, and grows", error=str(error))
                told = True
            finally:
                self.busy = False
        if session is not None:
            session.close()
