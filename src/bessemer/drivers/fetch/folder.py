"""A model in a folder of the control side's machine, below one that the operator allows.

No link is followed, at no step: of the path, of the folders within, of the files. Sockets, devices and pipes are no
files. It blocks where it lists, and reads in threads.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path

from bessemer.core.errors import DriverError
from bessemer.drivers.fetch.intake import READ_BYTES
from bessemer.drivers.fetch.protocol import Listed, Listing, PathPlace, Source

ENTRIES_MAX, DEPTH_MAX = 10_000, 8
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class FolderOrigin:
    """Implements `protocol.Origin`. ``allowed`` are absolute paths of folders."""

    def __init__(self, place: PathPlace, *, allowed: Sequence[Path]) -> None:
        self._place = place
        self._allowed = allowed

    async def listing(self) -> Listing:
        return Listing("", tuple(await asyncio.to_thread(self._list)))

    def source(self, file: Listed) -> Source:
        def read(offset: int) -> AsyncGenerator[bytes, None]:
            return self._read(file, offset)

        return read

    async def _read(self, file: Listed, offset: int) -> AsyncGenerator[bytes, None]:
        number = await asyncio.to_thread(_open, file.where)
        try:
            if offset and _version(os.fstat(number)) != file.version:
                raise DriverError("SourceChanged", f"{file.path!r} has changed")
            os.lseek(number, offset, os.SEEK_SET)
            while chunk := await asyncio.to_thread(os.read, number, READ_BYTES):
                yield chunk
        finally:
            os.close(number)

    def _list(self) -> list[Listed]:
        path = os.path.normpath(self._place.path)
        if not any(path == str(folder) or path.startswith(f"{folder}/") for folder in self._allowed):
            allowed = ", ".join(map(str, self._allowed)) or "none"
            raise DriverError("AddressRefused", f"{path!r} is below no folder that the operator allows: {allowed}")
        number = _open(path)
        try:
            found = os.fstat(number)
            if stat.S_ISREG(found.st_mode):
                return [_listed(os.path.basename(path), path, found)]
            if not stat.S_ISDIR(found.st_mode):
                raise DriverError("SourceNotFound", f"{path!r} is neither a file nor a folder")
        finally:
            os.close(number)
        return list(_walk(path))


def _walk(root: str) -> Iterator[Listed]:
    count = 0
    for place, folders, names in os.walk(root, followlinks=False):
        below = os.path.relpath(place, root)
        count += len(names) + len(folders)
        if count > ENTRIES_MAX or below.count("/") >= DEPTH_MAX:
            raise DriverError("ImportFailed", "the folder holds more than a model does")
        for name in names:
            path = os.path.join(place, name)
            found = os.lstat(path)
            if stat.S_ISREG(found.st_mode):
                yield _listed(os.path.normpath(os.path.join(below, name)), path, found)


def _listed(path: str, where: str, found: os.stat_result) -> Listed:
    return Listed(path=path, size_bytes=found.st_size, version=_version(found), where=where)


def _version(found: os.stat_result) -> str:
    return f"{found.st_dev}-{found.st_ino}-{found.st_size}-{found.st_mtime_ns}-{found.st_ctime_ns}"


def _open(path: str) -> int:
    """A descriptor of what lies there, reached folder by folder without a link. Raises DriverError."""
    at = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in path.strip("/").split("/"):
            below = os.open(name, _OPEN, dir_fd=at)
            os.close(at)
            at = below
    except OSError as error:
        os.close(at)
        raise DriverError("SourceNotFound", f"{path!r} cannot be read: {error.strerror}") from error
    return at
