"""Reading a log that is rotated under the reader: ``log.1``, then ``log``, then what comes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

CHUNK_BYTES = 1 << 16
PAUSE_SECONDS = 0.1


async def tail(log: Path, *, living: Callable[[], Awaitable[bool]] | None = None) -> AsyncIterator[bytes]:
    """The log's bytes from the oldest kept; while ``living`` answers True, also those that come."""
    for chunk in _rest(_descriptor(log.with_name(log.name + ".1"))):
        yield chunk
    current = _descriptor(log)
    try:
        while True:
            # Asked before the read: what was printed before the end is then in the file.
            more = living is not None and await living()
            while chunk := _read(current):
                yield chunk
            renewed = _renewed(log, current)
            if renewed is not None:
                _close(current)
                current = renewed
            elif more:
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                return
    finally:
        _close(current)


def _descriptor(path: Path) -> int | None:
    try:
        return os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None


def _read(descriptor: int | None) -> bytes:
    return b"" if descriptor is None else os.read(descriptor, CHUNK_BYTES)


def _rest(descriptor: int | None) -> list[bytes]:
    """Everything that is left; half of a bounded log fits in memory."""
    chunks = list(iter(lambda: _read(descriptor), b""))
    _close(descriptor)
    return chunks


def _renewed(path: Path, current: int | None) -> int | None:
    """The file that has taken the path since, if any."""
    fresh = _descriptor(path)
    if fresh is None or current is None:
        return fresh
    if os.path.samestat(os.fstat(fresh), os.fstat(current)):
        os.close(fresh)
        return None
    return fresh


def _close(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)
