"""Usage on disk before it is anywhere else, in segments that are made before they are needed.

Invariants: whoever is admitted by `reserve` has room for a record, whatever becomes of the disk; a record that is
appended is never dropped, and waits in memory where the disk does not take it; a sequence never means two records. A
segment goes when all of it is settled, and was said to be after it was full. One with a part that cannot be read is
written to no more, and stays as ``*.damaged`` once the rest of it is settled: what is behind the damage is nowhere
else.

Records are read from the file again when they are sent, so that a long absence of the api costs disk and no memory.
One process has a spool at a time: a lock in its folder, which the kernel lets go with the process, holds that.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
import structlog

from bessemer.core.errors import DriverError, Unavailable
from bessemer.gateway.journal import Journal, ended_of, recorded, unpaid_of
from bessemer.gateway.record import AnyRecord, Record
from bessemer.gateway.segment import RECORD_BYTES_MAX, Segment

_log = structlog.get_logger("gateway.spool")


@dataclass(frozen=True, slots=True)
class Pending:
    """Records that wait to be settled, in order, from ``first_sequence`` on."""

    spool_uid: str
    first_sequence: int
    records: Sequence[Record]


class Spool:
    """Appends records, hands out what is not settled, forgets what is. Raises Unavailable where another has it open.

    One event loop owns it; `sync` alone may be called from a thread. ``news`` is set where there is something for
    `sync` or to settle.
    """

    def __init__(self, directory: Path, *, segment_bytes: int = 4 << 20) -> None:
        assert segment_bytes > 2 * RECORD_BYTES_MAX, "a segment has room for a record"
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = _locked(directory)
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._ahead = segment_bytes // RECORD_BYTES_MAX // 4
        """For how many records there is room before it is needed: more than come while a segment is made."""
        self._segments: list[Segment] = []
        self._spare: list[Segment] = []
        self._full: list[Segment] = []
        """Those that are written to no more and still open: they are synced by whoever calls `sync`, then let go."""
        self._done: list[Segment] = []
        self._cleared: list[Segment] = []
        """All settled; they go when the journal that survives the machine says nothing of their requests any more."""
        self._writing = threading.Lock()
        """No file is closed while another thread syncs it."""
        self._making = threading.Lock()
        """No two threads make a segment of one name."""
        self._promised = 0
        self._sure = 0
        """For how many there is room at least: one less for each record since that was looked at."""
        self._owed: deque[tuple[bytes, int]] = deque()
        self.news = asyncio.Event()
        self._number = max((int(p.stem) for e in ("spool", "damaged") for p in directory.glob(f"*.{e}")), default=0)
        for path in sorted(directory.glob("*.spool")):
            self._read(path)
        self.journal = Journal(directory / "journal")
        """Of what is being answered."""
        _finish(self, directory)

    def reserve(self) -> None:
        """Keep room for one more record until `release`. Raises DriverError ``DiskFull``: then serve nothing."""
        if self._owed and not self._catch_up():
            raise DriverError("DiskFull", "usage cannot be recorded", internal="records wait for the disk")
        promised = self._promised + 1
        if self._sure < promised + self._ahead:
            self._look(promised)
        self._promised = promised

    def _look(self, promised: int) -> None:
        """Have room for so many, and see how much there is. Raises DriverError ``DiskFull``."""
        room = _room_of(self._segments, self._spare)
        try:
            while room < promised:
                self._make(promised)
                room = _room_of(self._segments, self._spare)
            self.journal.grow(promised)
        except OSError as error:
            raise DriverError("DiskFull", "usage cannot be recorded", internal=str(error)) from error
        self._sure = min(room, self.journal.room)
        if self._sure < promised + self._ahead:
            self.news.set()

    def release(self) -> None:
        """Whoever was admitted is done, and has appended what there was."""
        self._promised -= 1

    def append(self, record: AnyRecord, slot: int = 0) -> None:
        """Write a record; it survives the process from now and the machine from the next `sync`. The ``slot`` of its
        start is free then.

        What the disk does not take waits in memory until it does, and `reserve` admits nobody meanwhile.
        """
        payload = record.line() if isinstance(record, Record) else orjson.dumps(record.dump())
        if self._owed or not self._write(payload, slot):
            self._owed.append((payload, slot))
        if self._owed and not self._catch_up():
            uid, waiting = record.endpoint_uid, len(self._owed)
            _log.error("usage waits in memory", request_id=record.request_id, object_uid=uid, waiting=waiting)
        self.news.set()

    @property
    def owes(self) -> bool:
        """Whether records wait in memory, for want of a disk."""
        return bool(self._owed)

    def sync(self) -> None:
        """Make what was appended survive the machine, and make room ahead. It takes a disk's time: for a thread."""
        with self._writing:
            for segment in [*self._segments[-1:], *self._full]:
                segment.sync()
        if self._cleared:
            with self._writing:
                self.journal.sync()
            _let_go(self._cleared)
        try:
            with self._making:
                if self._lock >= 0:
                    self.journal.grow(self._promised + 2 * self._ahead)  # or each who comes would look for room
            while _room_of(self._segments, self._spare) < self._promised + self._ahead:
                self._make(self._promised + self._ahead)
        except OSError:
            return  # `reserve` says so, where it matters.

    def pending(self, *, most: int = 500) -> Pending | None:
        """The oldest records that are not settled. Raises OSError where they cannot be read, and where the journal
        cannot be cleared of what has ended, though segments are to go."""
        self._catch_up()
        if self._done:
            self.journal.clear()
            self._cleared, self._done = [*self._cleared, *self._done], []
        self._full = _still_open(self._full)
        for segment in self._segments:
            if segment.waiting:
                return Pending(segment.uid, segment.settled + 1, segment.next(most))
        return None

    @property
    def waiting(self) -> int:
        """How many records are not settled."""
        return sum(segment.waiting for segment in self._segments) + len(self._owed)

    def settle(self, spool_uid: str, sequence: int | None) -> None:
        """Everything of the segment up to ``sequence`` is stored; a full one that is all settled goes. None: the store
        has less of it than was settled, and all that is here waits again, of every segment."""
        if sequence is None:
            for segment in self._segments:
                segment.rewind()
            return
        for segment in list(self._segments):
            if segment.uid == spool_uid:
                segment.settle(sequence)
            if not segment.waiting and (segment.damaged or segment is not self._segments[-1]):
                self._segments.remove(segment)
                self._done.append(segment)
        if self.journal.idle:
            _let_go(self._done)

    def close(self) -> None:
        """Close the files; what is not settled waits for the next start."""
        self._catch_up()
        for payload, _ in self._owed:
            _log.error("usage is lost", record=payload.decode())
        with self._making, self._writing:
            for segment in [*self._full, *self._segments, *self._spare]:
                segment.close()
            self.journal.close()
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1
        for kept in (self._full, self._segments, self._spare, self._owed, self._done, self._cleared):
            kept.clear()

    def _read(self, path: Path) -> None:
        try:
            segment = Segment.read(path)
        except ValueError as error:
            _set_aside(path, str(error))
            return
        if segment is None:
            path.unlink()
        elif segment.count or segment.damaged:
            for before in self._segments[-1:]:
                before.close()
            self._segments.append(segment)
            if segment.damaged:
                segment.close()
                _log.error("a record cannot be read", path=str(path), behind=segment.count)
        else:
            self._spare.append(segment)

    def _make(self, records: int) -> None:
        """Another segment, unless there is room for so many by now. Raises OSError."""
        with self._making:
            if self._lock < 0:
                raise OSError(errno.EBADF, "the spool is closed", str(self._directory))
            if _room_of(self._segments, self._spare) < records:
                path = self._directory / f"{self._number + 1:08d}.spool"
                self._spare.append(Segment.make(path, size=self._segment_bytes))
                self._number += 1

    def _catch_up(self) -> bool:
        """Write what waits in memory; whether all of it is written."""
        while self._owed:
            if not self._write(*self._owed[0]):
                return False
            self._owed.popleft()
        return True

    def _write(self, payload: bytes, slot: int) -> bool:
        """Whether the disk takes a record; then the slot of its start is free."""
        try:
            if not self._segments or not self._segments[-1].fits(payload):
                if not self._spare:
                    self._make(_room_of(self._segments, self._spare) + 1)
                # In this order: `sync` looks at the last segment first and at the full ones then, and so misses none.
                self._full = _still_open([*self._full, *self._segments[-1:]])
                for before in self._segments[-1:]:
                    before.doubt()
                self._segments.append(self._spare.pop(0))
            self._sure -= 1
            self._segments[-1].append(payload)
        except OSError:
            return False
        if slot:
            self.journal.free(slot)
        return True


def _room_of(segments: Sequence[Segment], spare: Sequence[Segment]) -> int:
    """For how many records there is, whatever they hold."""
    room = segments[-1].room if segments else 0
    for segment in spare:
        room += segment.room
    return room


def _finish(spool: Spool, directory: Path) -> None:
    """Record what an earlier process left unfinished, as far as it is known to have come; what has sent nothing pays
    nothing, and that is recorded, too. One whose end is in the spool has ended, also where that is damaged: it may be
    settled from there."""
    journal = spool.journal
    if not journal.unfinished:
        return
    ended = set(recorded(sorted([*directory.glob("*.spool"), *directory.glob("*.damaged")])))
    billed = 0
    for slot, start, progress in journal.unfinished:
        if start.request_id in ended:
            journal.free(slot)
        elif progress is None:
            spool.append(unpaid_of(start, at=start.at, status=499), slot)
        else:
            spool.append(ended_of(start, progress), slot)
            billed += 1
    _log.warning("requests were under way when the gateway was killed", unfinished=len(journal.unfinished), paid=billed)
    journal.unfinished.clear()


def unread(directory: Path) -> list[Path]:
    """The files of a spool that nobody has open in which something stands that cannot be read, and so is nowhere else.
    Those that were set aside, and those that nobody has set aside yet."""
    kept = [path for ending in ("damaged", "unread") for path in directory.glob(f"*.{ending}")]
    for path in directory.glob("*.spool"):
        try:
            segment = Segment.read(path)
        except (OSError, ValueError):
            kept.append(path)
            continue
        if segment is not None:
            segment.close()
            kept += [path] if segment.damaged else []
    return sorted(kept)


def _still_open(full: Sequence[Segment]) -> list[Segment]:
    """Let go of those that survive the machine by now; the others."""
    return [segment for segment in full if not segment.rest()]


def _let_go(segments: list[Segment]) -> None:
    """What is settled goes; of one that was damaged, what is behind that stays."""
    while segments:
        segment = segments.pop()
        if segment.damaged:
            _set_aside(segment.path, "what is behind its last record cannot be read")
        else:
            segment.path.unlink(missing_ok=True)


def _set_aside(path: Path, reason: str) -> None:
    """Keep a file out of the way: what cannot be read of it is nowhere else."""
    kept = path.with_suffix(".damaged")
    path.rename(kept)
    _log.error("usage cannot be read", kept=str(kept), reason=reason)


def _locked(directory: Path) -> int:
    """The spool's lock, held until it is closed or the process ends, however that comes."""
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        remedy = "stop it first, or give this one a state directory of its own"
        raise Unavailable(f"another gateway runs and has {directory} open: {remedy}") from error
    return lock
