"""Usage on disk before it is anywhere else: length + checksum records in a file that cannot be full.

A segment is preallocated: ``BSPOOL1`` and a newline, its uid (16 bytes), then records of ``length: u32, crc32: u32,
JSON``; a length of 0 ends it, as preallocated zeros do. Record i of a segment has sequence i, from 1: (spool uid,
sequence) names it for ever. A torn record at the end, from a crash in the middle of a write, is overwritten. A segment
goes when all of it is settled.
"""

from __future__ import annotations

import os
import struct
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from bessemer.core.errors import DriverError
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
    """One file. ``end`` is where the next record goes; ``count`` is the sequence of the last one."""

    def __init__(self, path: Path, *, size: int) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.records: list[UsageRecord] = []
        self.settled = 0
        header = os.pread(self._fd, _HEADER_BYTES, 0)
        if len(header) == _HEADER_BYTES and header.startswith(_MAGIC):
            self.uid = uuid.UUID(bytes=header[len(_MAGIC) :]).hex
            self.size = os.fstat(self._fd).st_size
            self.end = self._read()
        else:
            fresh = uuid.uuid4()
            self.uid, self.end, self.size = fresh.hex, _HEADER_BYTES, size
            os.posix_fallocate(self._fd, 0, size)
            os.pwrite(self._fd, _MAGIC + fresh.bytes, 0)
            os.fsync(self._fd)

    def _read(self) -> int:
        data = os.pread(self._fd, self.size, 0)
        at = _HEADER_BYTES
        while at + _HEAD.size <= len(data):
            length, checksum = _HEAD.unpack_from(data, at)
            payload = data[at + _HEAD.size : at + _HEAD.size + length]
            if not 0 < length <= _RECORD_BYTES_MAX or len(payload) < length or zlib.crc32(payload) != checksum:
                break
            self.records.append(UsageRecord.model_validate_json(payload))
            at += _HEAD.size + length
        return at

    @property
    def count(self) -> int:
        return len(self.records)

    def room(self, length: int) -> bool:
        return self.end + 2 * _HEAD.size + length <= self.size

    def append(self, record: UsageRecord, payload: bytes) -> None:
        # The end mark goes with the record, so that an old record behind a torn one is never read again.
        data = _HEAD.pack(len(payload), zlib.crc32(payload)) + payload + bytes(_HEAD.size)
        os.pwrite(self._fd, data, self.end)
        self.end += len(data) - _HEAD.size
        self.records.append(record)

    def sync(self) -> None:
        os.fdatasync(self._fd)

    def close(self) -> None:
        os.close(self._fd)


class Spool:
    """Appends records, hands out what is not settled, forgets what is."""

    def __init__(self, directory: Path, *, segment_bytes: int = 4 << 20) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._directory = directory
        self._segment_bytes = segment_bytes
        paths = sorted(directory.glob("*.spool"))
        self._segments = [_Segment(path, size=segment_bytes) for path in paths]
        self._number = int(paths[-1].stem) if paths else 0
        self._dirty = False

    def reserve(self) -> None:
        """Make sure that one more record has room. Raises DriverError ``DiskFull``: then serve nothing."""
        if self._segments and self._segments[-1].room(_RECORD_BYTES_MAX * 64):
            return
        path = self._directory / f"{self._number + 1:08d}.spool"
        try:
            self._segments.append(_Segment(path, size=self._segment_bytes))
        except OSError as error:
            path.unlink(missing_ok=True)
            if self._segments and self._segments[-1].room(_RECORD_BYTES_MAX):
                return
            raise DriverError("DiskFull", "usage cannot be recorded", internal=str(error)) from error
        self._number += 1

    def append(self, record: UsageRecord) -> None:
        """Write a record; it survives the process from now and the machine from the next `sync`."""
        payload = orjson.dumps(record.dump())
        if not self._segments or not self._segments[-1].room(len(payload)):
            self.reserve()
        self._segments[-1].append(record, payload)
        self._dirty = True

    def sync(self) -> None:
        """Make what was appended survive the machine."""
        if self._dirty:
            self._dirty = False
            self._segments[-1].sync()

    def pending(self, *, most: int = 500) -> Pending | None:
        """The oldest records that are not settled."""
        for segment in self._segments:
            waiting = segment.records[segment.settled : segment.settled + most]
            if waiting:
                return Pending(segment.uid, segment.settled + 1, waiting)
        return None

    @property
    def waiting(self) -> int:
        """How many records are not settled."""
        return sum(segment.count - segment.settled for segment in self._segments)

    def settle(self, spool_uid: str, sequence: int) -> None:
        """Everything of the segment up to ``sequence`` is stored; a full one that is all settled goes."""
        for segment in list(self._segments):
            if segment.uid != spool_uid:
                continue
            segment.settled = min(max(segment.settled, sequence), segment.count)
            if segment is not self._segments[-1] and segment.settled == segment.count:
                self._segments.remove(segment)
                segment.close()
                segment.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the files; what is not settled waits for the next start."""
        self.sync()
        for segment in self._segments:
            segment.close()
        self._segments.clear()
