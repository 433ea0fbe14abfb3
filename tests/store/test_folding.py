"""Folding: a long log is brought over into the file by a thread of its own, and by a commit where little is left."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from bessemer.store import folding, sqlite
from bessemer.store.folding import FoldingSession, Log, LogIndex

LONG, LITTLE, LAST = 40, 8, 120
_ADD = text("INSERT INTO kept (content) VALUES (:content)")
_ALL = text("SELECT content FROM kept ORDER BY number")


class Site:
    """A file whose commits each leave two pages or more in the log."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.index = LogIndex(path)
        self.texts = sqlite.Texts()
        self.session = FoldingSession(path, texts=self.texts, index=self.index, durable=False)
        self.session.script("CREATE TABLE kept (number INTEGER PRIMARY KEY, content TEXT NOT NULL)")
        self.written: list[str] = []

    @property
    def folder(self) -> folding.Folder:
        return self.session._folder

    @property
    def log(self) -> Log:
        return self.index.read()

    def write(self, pages: int = 1) -> None:
        """One commit of so many pages and a few."""
        content = f"{len(self.written):06}" + "x" * 8_000 * pages
        self.session.begin()
        self.session.execute(_ADD, {"content": content})
        self.session.commit()
        self.written.append(content)

    def write_until_folded(self) -> None:
        """Up to the commit that wakes the thread, which has done all when this returns."""
        self.write()
        while self.log.left:
            self.write()
            self.rest()

    def rest(self) -> None:
        """Let the thread end what it was asked to."""
        self.folder.close()

    def close(self) -> None:
        self.session.close()
        self.index.close()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    for name, value in {"LONG_PAGES": LONG, "LITTLE_PAGES": LITTLE, "LAST_PAGES": LAST}.items():
        monkeypatch.setattr(folding, name, value)
    made = Site(tmp_path / "s.db")
    yield made
    made.close()


def test_the_index_says_what_sqlite_says(site: Site) -> None:
    for _ in range(5):
        site.write()
    before = site.log
    other = sqlite3.connect(site.path, isolation_level=None)
    try:
        _, pages, folded = other.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        assert before == Log(pages, pages)
        assert site.log == Log(pages, pages - folded) == Log(pages, 0)
        site.write()
        assert site.log.pages < pages, "the log has begun anew"
    finally:
        other.close()


def test_a_long_log_is_folded_by_the_thread(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    woken: list[Log] = []
    with monkeypatch.context() as patched:
        patched.setattr(site.folder, "wake", lambda: woken.append(site.log))
        while not woken:
            site.write()
    assert woken[0].left == woken[0].pages >= LONG, "no commit folds much"
    site.folder.wake()
    site.rest()
    assert site.log == Log(woken[0].pages, 0)


def test_what_little_came_meanwhile_is_folded_by_a_commit(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where commits went on while the thread folded: the log is long, and of it a page or two are left."""
    with monkeypatch.context() as patched:
        patched.setattr(folding, "LONG_PAGES", LAST)  # nobody folds meanwhile
        while site.log.pages < LONG:
            site.write()
        beside = sqlite3.connect(site.path, isolation_level=None)
        site.session.begin()  # while a transaction is open, no log begins anew
        site.session.execute(_ADD, {"content": "new"})
        beside.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        beside.close()
    site.session.commit()
    site.written.append("new")
    assert site.log.pages > LONG
    assert site.log.left == 0
    assert site.folder._thread is None


def test_the_log_begins_anew_once_all_of_it_is_in_the_file(site: Site) -> None:
    site.write_until_folded()
    long = site.log.pages
    site.write()
    assert 0 < site.log.pages < long


def test_while_the_thread_folds_no_commit_does(site: Site) -> None:
    """Whatever the log's length: two at a time might take new pages for old ones."""
    site.folder.busy = True
    while site.log.pages < LAST + 10:
        site.write()
    assert site.log.left == site.log.pages
    assert site.folder._thread is None
    site.folder.busy = False
    site.write()
    assert site.folder._thread is not None, "it is too much for a commit to wait for"
    site.rest()
    assert site.log.left == 0


def test_where_the_thread_does_not_keep_up_a_commit_folds_as_much_as_it_does_at_a_time(site: Site) -> None:
    reader = sqlite.ReadSession(site.path, texts=site.texts)
    site.folder.busy = True
    while site.log.pages < LAST:
        site.write()
    reader.look()
    reader.execute(_ALL, {}).fetchall()
    seen = site.log.pages
    while site.log.pages <= seen + LITTLE:
        site.write()
    site.folder.wake()
    site.rest()
    assert LITTLE < site.log.left <= LONG, "up to what is read"
    reader.leave()
    reader.close()
    site.folder.busy = False
    site.write()
    assert site.log.left == 0


def test_who_reads_for_long_keeps_the_log_and_no_writer(site: Site) -> None:
    reader = sqlite.ReadSession(site.path, texts=site.texts)
    site.write()
    reader.look()
    assert len(reader.execute(_ALL, {}).fetchall()) == 1
    while site.log.pages < LAST + 10:
        site.write()
        site.rest()
    assert site.log.left > 0
    assert len(reader.execute(_ALL, {}).fetchall()) == 1
    reader.leave()
    reader.close()
    site.write()
    site.rest()
    assert site.log.left == 0


def test_what_cannot_be_folded_fails_no_commit(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable() -> Log:
        raise OSError(5, "Input/output error")

    def broken(*_: object, **__: object) -> sqlite.Session:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patched:
        patched.setattr(site.index, "read", unreadable)
        site.write()
    with monkeypatch.context() as patched, capture_logs() as lines:
        patched.setattr(sqlite, "Session", broken)
        while site.log.pages < LONG + LITTLE:
            site.write()
        site.rest()
        assert [line["error"] for line in lines] == ["disk I/O error"], "once, however often"
        assert not site.folder.busy
        assert site.log.left == site.log.pages
    site.write()
    site.rest()
    assert site.log.left <= LITTLE


def test_where_no_thread_can_be_had_no_commit_fails(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", none)
        while site.log.pages < LONG + LITTLE:
            site.write()
        assert not site.folder.busy
        site.rest()
    site.write()
    site.rest()
    assert site.log.left <= LITTLE


def test_nothing_is_lost_while_the_thread_folds_as_it_can(site: Site) -> None:
    """Commits of all lengths beside a thread that folds meanwhile, and readers that keep the log at times."""
    reader = sqlite.ReadSession(site.path, texts=site.texts)
    for number in range(400):
        site.write(1 + number % 7)
        if number % 50 == 0:
            reader.look()
            assert [row for (row,) in reader.execute(_ALL, {})] == site.written
        elif number % 50 == 20:
            reader.leave()
    reader.leave()
    assert [row for (row,) in reader.execute(_ALL, {})] == site.written
    reader.close()
    site.close()
    again = sqlite3.connect(site.path)
    try:
        assert again.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert [row for (row,) in again.execute("SELECT content FROM kept ORDER BY number")] == site.written
    finally:
        again.close()


def test_a_store_s_file_is_written_through_it(tmp_path: Path) -> None:
    from bessemer.store.places import File

    place = File(tmp_path / "store.db")
    session = place.writing()
    try:
        assert isinstance(session, FoldingSession)
        (pages,) = session._execute("PRAGMA wal_autocheckpoint").fetchone()
        assert pages == 0, "SQLite folds no log by itself"
    finally:
        session.close()
        place.close()
