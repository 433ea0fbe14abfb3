"""Usage on disk before it is anywhere else: length + checksum records in a file that cannot be full.

A segment is preallocated: ``BSPOOL1`` and a newline, its uid (16 bytes), then records of ``length: u32, crc32: u32,
JSON``; a length of 0 ends it, as preallocated zeros do. Record i of a segment has sequence i, from 1: (spool uid,
sequence) names it for ever. A torn record at the end, from a crash in the middle of a write, is overwritten. A segment
goes when all of it is settled.

Records are read from the file again when they are sent, so that a long absence of the api costs disk and no memory.
One process has a spool at a time: a lock in its folder, which the kernel lets go with the process, holds that.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import threading
import uuid
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import orjson
from pydantic import ValidationError

from bessemer.core.errors import DriverError, Unavailable
from bessemer.core.values import UsageRecord

_MAGIC = b"BSPOOL1\n"
_HEAD = struct.Struct("<II")
_HEADER_BYTES = len(_MAGIC) + 16
_RECORD_BYTES_MAX = 4096


@dataclass(frozen=True, slots=True)
class Pending:
    """Records that wait to be settled, in order, from ``first_sequence`` on."""

    spool_uid: str
    first_sequence: int
    records: Sequence[UsageRecord]


class _Segment:
    """One file. ``end`` is where the next record goes; ``count`` is the sequence of the last one.

    It is open while it is written to and until that survives the machine; after that it is opened for each look, since
    there may be very many.
    """

    def __init__(self, path: Path, *, size: int) -> None:
        self.path = path
        self.count = self.settled = self._durable = 0
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._settled_at = self.end = _HEADER_BYTES
        try:
            self._begin(size)
        except BaseException:
            os.close(self._fd)
            raise

    def _begin(self, size: int) -> None:
        """Read what is there, or make it a segment of ``size`` bytes."""
        header = os.pread(self._fd, _HEADER_BYTES, 0)
        if len(header) == _HEADER_BYTES and header.startswith(_MAGIC):
            self.uid = uuid.UUID(bytes=header[len(_MAGIC) :]).hex
            self.size = os.fstat(self._fd).st_size
            for place, _ in _records(os.pread(self._fd, self.size, 0), _HEADER_BYTES):
                self.end = place
                self.count += 1
        else:
            fresh = uuid.uuid4()
            self.uid, self.size = fresh.hex, size
            os.posix_fallocate(self._fd, 0, size)
            os.pwrite(self._fd, _MAGIC + fresh.bytes, 0)
            os.fsync(self._fd)

    @property
    def waiting(self) -> int:
        """How many records are not settled."""
        return self.count - self.settled

    def room(self, length: int) -> bool:
        """Whether a record of that length fits."""
        return self.end + 2 * _HEAD.size + length <= self.size

    def append(self, payload: bytes) -> None:
        # The end mark goes with the record, so that an old record behind a torn one is never read again.
        data = _HEAD.pack(len(payload), zlib.crc32(payload)) + payload + bytes(_HEAD.size)
        os.pwrite(self._fd, data, self.end)
        self.end += len(data) - _HEAD.size
        self.count += 1

    def next(self, most: int) -> list[UsageRecord]:
        """The oldest records that are not settled. Raises OSError where the first of them cannot be read."""
        try:
            records = [UsageRecord.model_validate_json(payload) for _, payload in self._unsettled(most)]
        except ValidationError as error:
            raise self._damaged() from error
        if not records:
            raise self._damaged()
        return records

    def _damaged(self) -> OSError:
        return OSError(errno.EIO, f"what was written behind record {self.settled} cannot be read", str(self.path))

    def settle(self, sequence: int) -> None:
        """Everything up to ``sequence`` is stored."""
        for place, _ in self._unsettled(min(sequence, self.count) - self.settled):
            self._settled_at = place
            self.settled += 1

    def _unsettled(self, most: int) -> Iterator[tuple[int, bytes]]:
        length = min(self.end - self._settled_at, most * (_HEAD.size + _RECORD_BYTES_MAX))
        if length <= 0:
            return
        fd = self._fd if self._fd >= 0 else os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.pread(fd, length, self._settled_at)
        finally:
            if fd != self._fd:
                os.close(fd)
        since = self._settled_at
        for place, payload in islice(_records(data, 0), most):
            yield since + place, payload

    def sync(self) -> None:
        """Make what it has now survive the machine; what is appended meanwhile waits for the next time."""
        count = self.count
        if self._fd >= 0 and self._durable < count:
            os.fdatasync(self._fd)
            self._durable = count

    def rest(self) -> bool:
        """Let go of the file of a full segment, unless it is still to be synced; whether it is let go."""
        if self._durable < self.count:
            return False
        self.close()
        return True

    def close(self) -> None:
        """Make it survive the machine, and let go of the file. Harmless when repeated."""
        if self._fd >= 0:
            try:
                self.sync()
            finally:
                os.close(self._fd)
                self._fd = -1


def _records(data: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    """Each whole record from ``at`` on, with the place after it."""
    while at + _HEAD.size <= len(data):
        length, checksum = _HEAD.unpack_from(data, at)
        payload = data[at + _HEAD.size : at + _HEAD.size + length]
        if not 0 < length <= _RECORD_BYTES_MAX or len(payload) < length or zlib.crc32(payload) != checksum:
            return
        at += _HEAD.size + length
        yield at, payload


class Spool:
    """Appends records, hands out what is not settled, forgets what is. Raises Unavailable where another has it open."""

    def __init__(self, directory: Path, *, segment_bytes: int = 4 << 20) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = _locked(directory)
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._segments: list[_Segment] = []
        self._full: list[_Segment] = []
        """Those that are written to no more and still open: they are synced by whoever calls `sync`, then let go."""
        self._writing = threading.Lock()
        """No file is closed while another thread syncs it."""
        paths = sorted(directory.glob("*.spool"))
        self._number = int(paths[-1].stem) if paths else 0
        for path in paths:
            if self._segments:
                self._segments[-1].close()
            self._segments.append(_Segment(path, size=segment_bytes))

    def reserve(self) -> None:
        """Make sure that one more record has room. Raises DriverError ``DiskFull``: then serve nothing."""
        if self._segments and self._segments[-1].room(_RECORD_BYTES_MAX * 64):
            return
        path = self._directory / f"{self._number + 1:08d}.spool"
        try:
            segment = _Segment(path, size=self._segment_bytes)
        except OSError as error:
            path.unlink(missing_ok=True)
            if self._segments and self._segments[-1].room(_RECORD_BYTES_MAX):
                return
            raise DriverError("DiskFull", "usage cannot be recorded", internal=str(error)) from error
        self._number += 1
        # In this order: `sync` looks at the last segment first and at the full ones then, and so misses none.
        self._full = _still_open([*self._full, *self._segments[-1:]])
        self._segments.append(segment)

    def append(self, record: UsageRecord) -> None:
        """Write a record; it survives the process from now and the machine from the next `sync`."""
        payload = orjson.dumps(record.dump())
        if not self._segments or not self._segments[-1].room(len(payload)):
            self.reserve()
        self._segments[-1].append(payload)

    def sync(self) -> None:
        """Make what was appended survive the machine. It takes a disk's time: for a thread of its own."""
        with self._writing:
            for segment in [*self._segments[-1:], *self._full]:
                segment.sync()

    def pending(self, *, most: int = 500) -> Pending | None:
        """The oldest records that are not settled. Raises OSError where they cannot be read."""
        self._full = _still_open(self._full)
        for segment in self._segments:
            if segment.waiting:
                return Pending(segment.uid, segment.settled + 1, segment.next(most))
        return None

    @property
    def waiting(self) -> int:
        """How many records are not settled."""
        return sum(segment.waiting for segment in self._segments)

    def settle(self, spool_uid: str, sequence: int) -> None:
        """Everything of the segment up to ``sequence`` is stored; a full one that is all settled goes."""
        for segment in list(self._segments):
            if segment.uid != spool_uid:
                continue
            segment.settle(sequence)
            if segment is not self._segments[-1] and not segment.waiting:
                self._segments.remove(segment)
                segment.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the files; what is not settled waits for the next start."""
        with self._writing:
            for segment in [*self._full, *self._segments]:
                segment.close()
        self._full.clear()
        self._segments.clear()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _still_open(full: Sequence[_Segment]) -> list[_Segment]:
    """Let go of those that survive the machine by now; the others."""
    return [segment for segment in full if not segment.rest()]


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
