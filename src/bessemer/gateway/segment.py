"""One file of the spool: length + checksum records in a file that cannot be full.

It is preallocated: ``BSPOOL1`` and a newline, its uid (16 bytes), then records of ``length: u32, crc32: u32, JSON``; a
length of 0 ends it, as preallocated zeros do. Record i has sequence i, from 1: (uid, sequence) names it for ever.

Where anything but zeros follows the last record that can be read, a write was torn or the disk has lost something: then
nobody knows how many sequences are taken, and nothing is ever written there again.
"""

from __future__ import annotations

import errno
import os
import struct
import uuid
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Self

import msgspec

from bessemer.gateway.record import Record, read

RECORD_BYTES_MAX = 4096
_MAGIC = b"BSPOOL1\n"
_HEAD = struct.Struct("<II")
_HEADER_BYTES = len(_MAGIC) + 16
_RECORD = b'{"'


class Segment:
    """``end`` is where the next record goes; ``count`` is the sequence of the last one.

    It is open while it is written to and until that survives the machine; after that it is opened for each look, since
    there may be very many.
    """

    def __init__(self, path: Path, fd: int, *, uid: str, size: int) -> None:
        self.path = path
        self.uid = uid
        self.count = self.settled = self._durable = 0
        self.damaged = False
        self.end = self._settled_at = self._last_at = _HEADER_BYTES
        self._ends: list[int] = []
        """Of those that were read last, and are not settled."""
        self._fd = fd
        self._size = size

    @classmethod
    def make(cls, path: Path, *, size: int) -> Self:
        """A new one of ``size`` bytes, which survives the machine. Raises OSError, and leaves nothing then."""
        fd, fresh = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), uuid.uuid4()
        try:
            os.posix_fallocate(fd, 0, size)
            os.pwrite(fd, _MAGIC + fresh.bytes, 0)
            os.fsync(fd)
        except BaseException:
            os.close(fd)
            path.unlink(missing_ok=True)
            raise
        return cls(path, fd, uid=fresh.hex, size=size)

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """What an earlier process left; None where it never began. Raises ValueError where it is none any more."""
        data = path.read_bytes()
        if len(data) < _HEADER_BYTES or not data.startswith(_MAGIC):
            if data.strip(b"\0"):
                raise ValueError("its beginning cannot be read")
            return None
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        segment = cls(path, fd, uid=uuid.UUID(bytes=data[len(_MAGIC) : _HEADER_BYTES]).hex, size=len(data))
        for end, _ in _records(data, _HEADER_BYTES):
            segment._last_at, segment.end = segment.end, end
            segment.count += 1
        segment.damaged = data.count(0, segment.end) < len(data) - segment.end
        return segment

    @property
    def waiting(self) -> int:
        """How many records are not settled."""
        return self.count - self.settled

    @property
    def room(self) -> int:
        """How many records fit, whatever they hold."""
        return 0 if self.damaged else max(0, self._size - self.end - _HEAD.size) // (_HEAD.size + RECORD_BYTES_MAX)

    def fits(self, payload: bytes) -> bool:
        """Whether this record does."""
        return not self.damaged and self.end + 2 * _HEAD.size + len(payload) <= self._size

    def append(self, payload: bytes) -> None:
        """Write a record. Raises OSError; then it is not there, and may be written again."""
        # The end mark goes with the record, so that nothing of a failed write behind it is ever read.
        data = _HEAD.pack(len(payload), zlib.crc32(payload)) + payload + bytes(_HEAD.size)
        if os.pwrite(self._fd, data, self.end) < len(data):
            raise OSError(errno.ENOSPC, "only a part of a record was written", str(self.path))
        self._last_at = self.end
        self.end += len(data) - _HEAD.size
        self.count += 1

    def next(self, most: int) -> list[Record]:
        """The oldest records that are not settled. Raises OSError where the first of them cannot be read."""
        try:
            self._ends, lines = [], []
            for end, payload in self._unsettled(most):
                self._ends.append(end)
                lines.append(read(payload))
        except msgspec.MsgspecError as error:
            raise _unreadable(self) from error
        if not lines:
            raise _unreadable(self)
        return lines

    def settle(self, sequence: int) -> None:
        """Everything up to ``sequence`` is stored."""
        more = min(sequence, self.count) - self.settled
        ends = self._ends if more <= len(self._ends) else [end for end, _ in self._unsettled(more)]
        if more > 0 and ends:
            ends, self._ends = ends[:more], ends[more:]
            self._settled_at = ends[-1]
            self.settled += len(ends)

    def rewind(self) -> None:
        """Nobody knows what of it is stored: all of it waits again."""
        self.settled, self._settled_at, self._ends = 0, _HEADER_BYTES, []

    def doubt(self) -> None:
        """Where all of it is settled, let its last record wait once more: whether that is stored still is heard before
        the file goes. One that cannot be read any more does not."""
        if self.waiting or not self.count:
            return
        self.settled, self._settled_at, self._ends = self.count - 1, self._last_at, []
        if next(self._unsettled(1), None) is None:
            self.settled, self._settled_at = self.count, self.end

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

    def _unsettled(self, most: int) -> Iterator[tuple[int, bytes]]:
        length = min(self.end - self._settled_at, most * (_HEAD.size + RECORD_BYTES_MAX))
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


def payloads(path: Path) -> Iterator[bytes]:
    """Each record of a file that can be read, settled or not, also behind what cannot be."""
    data = path.read_bytes()
    at = _HEADER_BYTES
    while at >= 0:
        for end, payload in _records(data, at):
            at = end
            yield payload
        at = _behind(data, at)


def _behind(data: bytes, at: int) -> int:
    """Where the next record stands that can be read, behind one that cannot be; -1 where there is none."""
    while (at := data.find(_RECORD, at + _HEAD.size + 1)) >= 0:
        if next(_records(data, at - _HEAD.size), None) is not None:
            return at - _HEAD.size
        at -= _HEAD.size
    return -1


def _unreadable(segment: Segment) -> OSError:
    words = f"what was written behind record {segment.settled} cannot be read"
    return OSError(errno.EIO, words, str(segment.path))


def _records(data: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    """Each whole record from ``at`` on, with the place after it."""
    while at + _HEAD.size <= len(data):
        length, checksum = _HEAD.unpack_from(data, at)
        payload = data[at + _HEAD.size : at + _HEAD.size + length]
        if not 0 < length <= RECORD_BYTES_MAX or len(payload) < length or zlib.crc32(payload) != checksum:
            return
        at += _HEAD.size + length
        yield at, payload
