"""What is being answered, on disk: a start before an engine is asked, how far it has come, and what became of it.

A file of slots of 4 KiB, preallocated: whoever is admitted has one. A slot holds the start of one request, with a
checksum, and two cells that its progress is written to in turn, so that a write that was torn leaves the one before.
Each write is one `pwrite` within a page: it is in the kernel when it returns, and nothing waits for a disk. None of it
is ever sent: what is settled are the ends alone, in the spool, whose sequences stay dense.

A slot is free once the end of its request is in the spool. It need not be cleared for that: the next start writes over
it, and `clear` writes to those that nobody took. That is done, and survives the machine, before a segment goes: so a
slot whose request has ended is found only beside the record of that end, and is told by its id.
"""

from __future__ import annotations

import os
import re
import struct
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
import structlog

from bessemer.gateway.record import Record
from bessemer.gateway.segment import payloads

SLOT_BYTES = 4096
SLOTS_AT_ONCE = 256
_MAGIC = b"BSTART1\n"
_HEAD = struct.Struct("<II")
_CELL = struct.Struct("<IqQQQII")
_CHECK = struct.Struct("<I")
_CELL_BYTES = 64
_CELLS_AT = (64, 128)
_START_AT = 192
_NO_CELLS = bytes(_START_AT - _HEAD.size)
_FREE = bytes(_HEAD.size)
_ID = re.compile(rb'"requestId":"([^"\\]+)"')
_log = structlog.get_logger("gateway.journal")


class Start(msgspec.Struct, array_like=True, gc=False):
    """One request that a replica is asked for. Fields are only ever added, at the end and with a default: an older
    reader leaves them out."""

    at: int
    request_id: str
    project: str
    endpoint: str
    endpoint_uid: str
    api_key: str
    model: str
    replica: str
    held_micro: int | None = None
    owner: str | None = None
    held_bounds: list[str] | None = None
    asked: str = ""


class Progress(msgspec.Struct, gc=False):
    """How far an answer has come, as it is billed: tokens, and milliseconds since the request. ``at`` is the time."""

    at: int
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    elapsed_ms: int
    first_ms: int


class Journal:
    """The slots of one spool. A request has a slot from `start` until `free`; ``unfinished`` are those that an earlier
    process left, with how far each had come.

    `grow`, `start`, `note` and `clear` raise OSError where the disk does not take it; `sync` is for a thread.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._size = 0
        self._free: list[int] = []
        """The last first: its page is in the kernel's memory, and in the processor's."""
        self._ended: set[int] = set()
        self._cells: dict[int, int] = {}
        self._written = self._synced = 0
        self._growing = threading.Lock()
        self.unfinished: list[tuple[int, Start, Progress | None]] = []
        if path.exists():
            self._read()

    @property
    def room(self) -> int:
        """How many may be under way at a time."""
        return self._size

    @property
    def idle(self) -> bool:
        """Whether nothing was written since it was cleared and synced."""
        return not self._ended and self._synced == self._written

    def grow(self, most: int) -> None:
        """Have room for so many. Raises OSError, and has what there was then."""
        with self._growing:
            if most <= self._size:
                return
            if self._fd < 0:
                self._open()
            size = -(-most // SLOTS_AT_ONCE) * SLOTS_AT_ONCE
            os.posix_fallocate(self._fd, 0, (size + 1) * SLOT_BYTES)
            self._free[:0] = range(size, self._size, -1)
            self._size = size

    def start(self, start: Start, slot: int = 0) -> int:
        """Write the start of a request, over that of the same one where another replica is asked; its slot."""
        payload = _ENCODER.encode(start)
        data = _HEAD.pack(len(payload), zlib.crc32(payload)) + _NO_CELLS + payload
        if len(data) > SLOT_BYTES:
            raise OSError(f"a start of {len(data)} bytes has no room")
        mine = slot or self._take()
        try:
            self._write(data, mine * SLOT_BYTES)
        except OSError:
            if not slot:
                self._free.append(mine)
            raise
        self._cells[mine] = 0
        self._ended.discard(mine)
        return mine

    def note(self, slot: int, progress: Progress) -> None:
        """Write how far it has come."""
        number = self._cells[slot] + 1
        cell = _CELL.pack(number, *msgspec.structs.astuple(progress))
        self._write(_CHECK.pack(zlib.crc32(cell)) + cell, slot * SLOT_BYTES + _CELLS_AT[number & 1])
        self._cells[slot] = number

    def drop(self, slot: int) -> None:
        """It pays nothing: there will be no record of its end. Where the disk does not take that, it is cleared later;
        it has sent nothing, so that nobody would bill it."""
        self.free(slot)
        with suppress(OSError):
            self._write(_FREE, slot * SLOT_BYTES)
            self._ended.discard(slot)

    def free(self, slot: int) -> None:
        """The record of its end is in the spool: the next start may have its slot."""
        self._cells.pop(slot, None)
        self._free.append(slot)
        self._ended.add(slot)

    def clear(self) -> None:
        """Clear what has ended, and nobody took since."""
        while self._ended:
            slot = next(iter(self._ended))
            self._write(_FREE, slot * SLOT_BYTES)
            self._ended.discard(slot)

    def sync(self) -> None:
        """Make it survive the machine."""
        written = self._written
        if self._fd >= 0 and self._synced < written:
            os.fdatasync(self._fd)
            self._synced = written

    def close(self) -> None:
        """Clear what has ended, and let go of the file; it goes where nothing is under way any more."""
        if self._fd < 0:
            return
        with suppress(OSError):
            self.clear()
            if len(self._free) == self._size:
                self._path.unlink(missing_ok=True)
        os.close(self._fd)
        self._fd, self._size = -1, 0
        self._free.clear()

    def _take(self) -> int:
        if not self._free:
            self.grow(self._size + 1)
        return self._free.pop()

    def _write(self, data: bytes, at: int) -> None:
        self._written += 1
        if os.pwrite(self._fd, data, at) < len(data):
            raise OSError(f"only a part was written of what is under way: {self._path}")

    def _open(self) -> None:
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, SLOT_BYTES)
            if os.pwrite(fd, _MAGIC, 0) < len(_MAGIC):
                raise OSError(f"its beginning was not written: {self._path}")
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd

    def _read(self) -> None:
        data = self._path.read_bytes()
        if not data.startswith(_MAGIC) and data.strip(b"\0"):
            kept = self._path.with_suffix(".unread")
            self._path.rename(kept)
            _log.error("what was under way cannot be read", kept=str(kept))
            return
        self._open()
        self._size = max(0, len(data) // SLOT_BYTES - 1)
        for slot in range(self._size, 0, -1):
            found = _slot(memoryview(data)[slot * SLOT_BYTES : (slot + 1) * SLOT_BYTES])
            if found is None:
                self._free.append(slot)
            else:
                self.unfinished.append((slot, *found))


def ended_of(start: Start, progress: Progress) -> Record:
    """The record of a request whose gateway was killed: it pays for as far as it is known to have come."""
    return Record(
        at=progress.at,
        request_id=start.request_id,
        project=start.project,
        endpoint=start.endpoint,
        endpoint_uid=start.endpoint_uid,
        api_key=start.api_key,
        model=start.model,
        status=200,
        input_tokens=progress.input_tokens,
        cached_input_tokens=progress.cached_input_tokens,
        output_tokens=progress.output_tokens,
        latency_ms=progress.elapsed_ms,
        first_token_ms=progress.first_ms,
        held_micro=start.held_micro,
        owner=start.owner,
        held_bounds=start.held_bounds,
        replica=start.replica,
        ended="killed",
        asked=start.asked,
    )


def unpaid_of(start: Start, *, at: int, status: int, latency_ms: int = 0) -> Record:
    """The record of a request of which nothing was sent, and that pays nothing. What was held for it is given back as
    of one that was never asked."""
    return Record(
        at=at,
        request_id=start.request_id,
        project=start.project,
        endpoint=start.endpoint,
        endpoint_uid=start.endpoint_uid,
        api_key=start.api_key,
        model=start.model,
        status=status,
        input_tokens=0,
        latency_ms=latency_ms,
        owner=start.owner,
        replica=start.replica,
        ended="unpaid",
        asked=start.asked,
    )


def recorded(paths: Sequence[Path]) -> Iterator[str]:
    """The requests whose end stands in one of these segments, and can be read: one that was torn was never settled."""
    for path in paths:
        for payload in payloads(path):
            if (found := _ID.search(payload)) is not None:
                yield found[1].decode("latin-1")


def _slot(data: memoryview) -> tuple[Start, Progress | None] | None:
    """What a slot holds; None where nothing, or where its start was torn: then no engine was asked."""
    length, checksum = _HEAD.unpack_from(data, 0)
    payload = data[_START_AT : _START_AT + length]
    if not 0 < length <= SLOT_BYTES - _START_AT or zlib.crc32(payload) != checksum:
        return None
    try:
        start = _DECODER.decode(payload)
    except msgspec.MsgspecError:
        return None
    latest, progress = 0, None
    for at in _CELLS_AT:
        cell = data[at + _CHECK.size : at + _CHECK.size + _CELL.size]
        number, *said = _CELL.unpack(cell)
        if number > latest and zlib.crc32(cell) == _CHECK.unpack_from(data, at)[0]:
            latest, progress = number, Progress(*said)
    return start, progress


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Start)
