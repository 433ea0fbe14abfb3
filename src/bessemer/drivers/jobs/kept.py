"""Output of members that are gone: a file each, bounded together in bytes and in age, the oldest first to go.

Each is bounded too, and so is what one job has of them all (its members' names begin with its uid): a job that prints
much, or is started again and again, displaces its own output before anybody else's.
"""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import AsyncIterator
from pathlib import Path

from bessemer.drivers.process.protocol import check_uid

BYTES_MAX, BYTES_OF_ONE_MAX, BYTES_EACH_MAX = 256 << 20, 32 << 20, 4 << 20
SECONDS_MAX = 7 * 86_400.0
_CHUNK = 1 << 16


class Kept:
    """The files of one folder, which only root or the agent's user reads."""

    def __init__(self, folder: Path, *, bytes_max: int = BYTES_MAX, seconds_max: float = SECONDS_MAX) -> None:
        self._folder = folder
        self._bytes_max = bytes_max
        self._of_one_max = min(bytes_max, BYTES_OF_ONE_MAX)
        self._seconds_max = seconds_max

    async def keep(self, name: str, output: AsyncIterator[bytes]) -> None:
        """Keep the end of it, or what there was where there is no more; then make room. Raises OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = self._folder / check_uid(name)
        draft = file.with_name(f".{name}")
        with draft.open("wb") as stream:
            stream.write(await _last(output, BYTES_EACH_MAX))
        if draft.stat().st_size or not file.exists():
            os.replace(draft, file)
        else:
            draft.unlink()
        self._trim()

    async def read(self, name: str) -> AsyncIterator[bytes]:
        """What was kept; nothing where nothing was. Raises Invalid for what is no name."""
        try:
            stream = (self._folder / check_uid(name)).open("rb")
        except FileNotFoundError:
            return
        with stream:
            while chunk := stream.read(_CHUNK):
                yield chunk

    def _trim(self) -> None:
        """The newest stay, as far as they go into the bounds."""
        files = sorted(((file.stat(), file) for file in self._folder.iterdir()), key=lambda f: -f[0].st_mtime)
        room, oldest = self._bytes_max, time.time() - self._seconds_max
        used = Counter[str]()
        for stat, file in files:
            job = file.name.lstrip(".").partition(".")[0]
            used[job] += stat.st_size
            within = used[job] <= self._of_one_max
            room -= stat.st_size if within else 0
            if not within or room < 0 or stat.st_mtime < oldest:
                file.unlink(missing_ok=True)


async def _last(output: AsyncIterator[bytes], size: int) -> bytes:
    """The end of it."""
    chunks, held = deque[bytes](), 0
    async for chunk in output:
        chunks.append(chunk)
        held += len(chunk)
        while held - len(chunks[0]) >= size:
            held -= len(chunks.popleft())
    return b"".join(chunks)[-size:]
