"""What a guest leaves to be read: its report, kept by the kernel in a pipe, and its serial log, kept within bounds.

The report pipe is a fifo whose both ends QEMU holds, so that the kernel keeps what the guest wrote (64 KiB at most,
then the guest's write waits) until QEMU ends. It is looked at with ``tee``, which takes nothing out: nothing is lost
with an agent, and no disk is filled.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from bessemer.drivers.qemu.protocol import REPORT_READ_LIMIT_BYTES

LOG_LIMIT_BYTES = 1 << 20
"""The log is turned when it is longer; one older piece of this length is kept."""

_SPLICE_NONBLOCK = 2
_CHUNK_BYTES = 64 << 10
_POLL_SECONDS = 0.1


def peek(fifo: Path) -> bytes | None:
    """What stands in the fifo, which stays there; None for nothing."""
    try:
        source = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        tee = ctypes.CDLL(None, use_errno=True).tee
        tee.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_size_t, ctypes.c_uint)
        tee.restype = ctypes.c_ssize_t
        count = tee(source, writer, REPORT_READ_LIMIT_BYTES, _SPLICE_NONBLOCK)
        return os.read(reader, REPORT_READ_LIMIT_BYTES) if count > 0 else None
    finally:
        for descriptor in (source, reader, writer):
            os.close(descriptor)


def older(log: Path) -> Path:
    """Where the piece before the current one is."""
    return log.with_name(log.name + ".1")


def turn(log: Path) -> None:
    """Keep the log within its bound: its last piece is copied aside and the file, to which QEMU appends, emptied."""
    size = _size(log)
    if size <= LOG_LIMIT_BYTES:
        return
    with open(log, "r+b") as stream:
        stream.seek(size - LOG_LIMIT_BYTES)
        try:
            older(log).write_bytes(stream.read(LOG_LIMIT_BYTES))
        except OSError:
            # On a full disk the bound matters more than the piece.
            older(log).unlink(missing_ok=True)
        stream.truncate(0)


async def follow(log: Path, *, until: Callable[[], bool]) -> AsyncIterator[bytes]:
    """The kept log, then what comes, until ``until`` says so and all is read."""
    for piece in _pieces(older(log), 0):
        yield piece
    offset = 0
    while True:
        over = until()
        offset = 0 if _size(log) < offset else offset
        for piece in _pieces(log, offset):
            offset += len(piece)
            yield piece
        if over:
            return
        await asyncio.sleep(_POLL_SECONDS)


def tail(path: Path, limit_bytes: int) -> str:
    """The end of a text file; "" where there is none."""
    try:
        with open(path, "rb") as stream:
            stream.seek(max(0, path.stat().st_size - limit_bytes))
            return stream.read(limit_bytes).decode(errors="replace")
    except FileNotFoundError:
        return ""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _pieces(path: Path, offset: int) -> list[bytes]:
    try:
        with open(path, "rb") as stream:
            stream.seek(offset)
            return list(iter(lambda: stream.read(_CHUNK_BYTES), b""))
    except FileNotFoundError:
        return []
