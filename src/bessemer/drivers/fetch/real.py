"""Content on this machine: one folder of read-only files named by their digests.

    ROOT/HEX          the content, 0444
    ROOT/HEX.part     what has come of it so far
    ROOT/HEX.seen     inode, size and times of the file when its bytes were last compared with its name;
                      its own time is when the content was last asked for

A file gets its name only after its bytes were hashed and synced, so that a crash or a full disk leaves at most a part.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from uuid import uuid4

from bessemer.core.errors import BessemerError, DriverError
from bessemer.drivers.fetch.intake import READ_BYTES, Intake
from bessemer.drivers.fetch.owning import note, release
from bessemer.drivers.fetch.pip import PipImporter
from bessemer.drivers.fetch.protocol import Held, Imported, Progress, RoomWanted, Source, Stored, Swept, check_digest
from bessemer.drivers.fetch.sweeping import abandoned, held, sweep

__all__ = ["HostContent", "PipImporter"]

_FINAL = frozenset(("SourceGated", "SourceNotFound", "AddressRefused", "DiskFull", RoomWanted.REASON))
Judge = Callable[[Path], None]

_WRITE_BYTES = 1 << 20
_BUSY_SECONDS = 0.2
_ABANDONED_SECONDS = 3600.0


class HostContent:
    """A cache below one folder. Processes may share it; one content is then fetched by one of them at a time."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._locks: dict[str, asyncio.Lock] = {}

    @property
    def root(self) -> Path:
        """The folder."""
        return self._root

    async def ensure(self, digest: str, sources: Sequence[Source], *, progress: Progress | None = None) -> Path:
        path = self._path(digest)
        async with self._locks.setdefault(digest, asyncio.Lock()):
            if not path.is_file() or not _used(path):
                await self._fetch(digest, sources, progress=progress)
            elif progress is not None:
                progress(path.stat().st_size)
        _used(path)
        return path

    async def find(self, digest: str) -> Path | None:
        path = self._path(digest)
        return path if path.is_file() and _used(path) else None

    async def verify(self, digest: str) -> Path:
        path = self._path(digest)
        try:
            now = _likeness(path)
        except FileNotFoundError:
            raise DriverError("ContentMissing", f"{digest} is not on this host") from None
        if _seen(path) == now:
            if not _used(path):
                raise DriverError("ContentMissing", f"{digest} is not on this host any more")
            return path
        if path.is_symlink() or await asyncio.to_thread(_hash_file, path) != digest:
            _remove(path)
            raise DriverError("DigestMismatch", f"the file of {digest} holds something else and was removed")
        _mark(path, now)
        return path

    async def stored(self) -> tuple[Stored, ...]:
        files = (file for file in _listing(self._root) if not file.suffix)
        items = (_stored(file) for file in files)
        return tuple(sorted((i for i in items if i is not None), key=lambda item: (item.used_at, item.digest)))

    async def room(self, digest: str = "") -> int | None:
        part = self._path(digest).with_suffix(".part") if digest else None
        had = part.stat().st_size if part is not None and part.is_file() else 0
        return (
            had + shutil.disk_usage(next(place for place in (self._root, *self._root.parents) if place.exists())).free
        )

    async def evict(self, budget_bytes: int, *, pinned: Collection[str] = ()) -> tuple[str, ...]:
        items = await self.stored()
        left = sum(item.size_bytes for item in items)
        gone: list[str] = []
        for item in items:
            if left > budget_bytes and item.digest not in pinned:
                _remove(item.path)
                left -= item.size_bytes
                gone.append(item.digest)
        abandoned(self._root, seconds=_ABANDONED_SECONDS)
        return tuple(gone)

    def held(self) -> Held:
        """What is here, by what becomes of it; blocks."""
        return held(self._root)

    def sweep(self, named: Collection[str], *, began: float, grace: float) -> Swept:
        """Remove what nobody has named for long (`sweeping.sweep`); blocks."""
        return sweep(self._root, named=named, began=began, grace=grace)

    async def gather(
        self, key: str, sources: Sequence[Source], *, judge: Judge, progress: Progress | None = None, owner: str = ""
    ) -> Imported:
        """Store what sources give whose digest is not known before. ``key`` names the very version of it, so that a
        later call goes on where this one was cut short, for the same ``owner`` alone; ``judge`` looks at it, in a
        thread, before it gets its name. What has an owner goes with it (`release`).

        Raises what ``judge`` raises, nothing is then kept; DriverError ``FetchFailed``, ``DiskFull``.
        """
        whole = f"{owner} {key}" if owner else key
        part = self._root / f"{hashlib.sha256(whole.encode()).hexdigest()}.part"
        intake = Intake(part)
        if owner:
            note(self._root, owner, name=part.name)
        if not await asyncio.to_thread(intake.open, resume=True):
            raise DriverError("FetchFailed", "another process brings it at this moment")
        try:
            await _drain(sources, intake=intake, progress=progress)
            try:
                await asyncio.to_thread(judge, part)
            except DriverError:
                intake.discard()
                raise
            path, digest, size = self._path(intake.digest), intake.digest, intake.size_bytes
            if owner:
                note(self._root, owner, name=path.name)
            await asyncio.to_thread(intake.finish, path)
        finally:
            intake.close()
        _mark(path, _likeness(path))
        return Imported(digest, size, path)

    async def release(self, owner: str, *, named: Collection[str]) -> tuple[str, ...]:
        """Remove all that was gathered for the owner but what is ``named``; the digests that went."""
        return await asyncio.to_thread(release, self._root, owner, named=named)

    def adopt(self, chunks: Iterable[bytes], *, digest: str | None, progress: Progress | None = None) -> Imported:
        """Store bytes whose digest is not known before; blocks. Raises what `Importer` raises."""
        intake = Intake(self._root / f"{uuid4().hex}.part")
        intake.open(resume=False)
        try:
            for chunk in chunks:
                intake.write(chunk)
                if progress is not None:
                    progress(intake.size_bytes)
            if digest is not None and intake.digest != check_digest(digest):
                raise DriverError("DigestMismatch", f"the import is {intake.digest}, not {digest}")
            path = self._path(intake.digest)
            intake.finish(path)
        except BaseException:
            intake.discard()
            raise
        finally:
            intake.close()
        _mark(path, _likeness(path))
        return Imported(intake.digest, intake.size_bytes, path)

    def _path(self, digest: str) -> Path:
        return self._root / check_digest(digest).removeprefix("sha256:")

    async def _fetch(self, digest: str, sources: Sequence[Source], *, progress: Progress | None) -> None:
        path = self._path(digest)
        intake = Intake(path.with_suffix(".part"))
        while not await asyncio.to_thread(intake.open, resume=True):
            await asyncio.sleep(_BUSY_SECONDS)
            if path.is_file():
                return
        try:
            if path.is_file():  # another process had the part, and finished it
                intake.discard()
                return
            await _pour(digest, sources, intake=intake, progress=progress)
            await asyncio.to_thread(intake.finish, path)
        finally:
            intake.close()
        _mark(path, _likeness(path))


class _SourceFailed(Exception):
    """The source broke off; what came before stays."""

    def __init__(self, text: str, cause: Exception) -> None:
        super().__init__(text)
        self.cause = cause


async def _pour(digest: str, sources: Sequence[Source], *, intake: Intake, progress: Progress | None) -> None:
    """Fill the intake with exactly the content, from whichever source gives it."""
    if intake.digest == digest:  # all of it had come when the last try was cut short
        return
    failure = DriverError("FetchFailed", f"no source gives {digest}")
    for source in sources:
        for _ in range(2):
            offset = intake.size_bytes
            try:
                await _read(source, intake, progress=progress)
            except _SourceFailed as error:
                failure = _failure(error, digest)
                break
            if intake.digest == digest:
                return
            # What an earlier try left may be what is wrong: once more from the start.
            await asyncio.to_thread(intake.restart)
            if offset == 0:
                failure = DriverError("DigestMismatch", f"a source gave something else for {digest}")
                break
    if intake.size_bytes == 0:
        intake.discard()
    raise failure


async def _drain(sources: Sequence[Source], *, intake: Intake, progress: Progress | None) -> None:
    """Fill the intake with all that a source gives, from where it is; from the start where that is of another
    version."""
    said = "there is no source"
    for source in sources:
        try:
            await _read(source, intake, progress=progress)
        except _SourceFailed as error:
            said = str(error)
            if final := _final(error):
                raise final from error
            if isinstance(error.cause, DriverError) and error.cause.reason == "SourceChanged":
                await asyncio.to_thread(intake.restart)
        else:
            return
    raise DriverError("FetchFailed", f"the file did not come to its end: {said}")


def _failure(error: _SourceFailed, digest: str) -> DriverError:
    """The error of a source that broke off. Raises what asking another, or again, would not change."""
    if final := _final(error):
        raise final from error
    return DriverError("FetchFailed", f"no source gave {digest} to its end", internal=str(error))


def _final(error: _SourceFailed) -> DriverError | None:
    """What asking again would not change."""
    return error.cause if isinstance(error.cause, DriverError) and error.cause.reason in _FINAL else None


async def _read(source: Source, intake: Intake, *, progress: Progress | None) -> None:
    """Go on where the intake is. Raises _SourceFailed."""
    async with aclosing(source(intake.size_bytes)) as stream:
        await _copy(stream, intake, progress=progress)


async def _copy(stream: AsyncIterator[bytes], intake: Intake, *, progress: Progress | None) -> None:
    buffer = bytearray()
    failed: _SourceFailed | None = None
    more = True
    while more:
        try:
            chunk = await anext(stream)
            buffer += chunk
        except StopAsyncIteration:
            more = False
        except (OSError, BessemerError) as error:
            failed, more = _SourceFailed(str(error), error), False
        if buffer and (len(buffer) >= _WRITE_BYTES or not more):
            await asyncio.to_thread(intake.write, bytes(buffer))
            buffer.clear()
            if progress is not None:
                progress(intake.size_bytes)
    if failed is not None:
        raise failed


def _listing(root: Path) -> list[Path]:
    return list(root.iterdir()) if root.is_dir() else []


def _stored(file: Path) -> Stored | None:
    try:
        size = file.stat().st_size
        used = file.with_suffix(".seen").stat().st_mtime
    except FileNotFoundError:
        used = 0.0
        if not file.exists():
            return None
        size = file.stat().st_size
    return Stored(f"sha256:{file.name}", size, used, file)


def _likeness(path: Path) -> str:
    """What changes when a file's bytes do: inode, size, and the times that only the kernel sets."""
    found = os.lstat(path)
    return f"{found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


def _seen(path: Path) -> str | None:
    try:
        return path.with_suffix(".seen").read_text()
    except OSError:
        return None


def _mark(path: Path, likeness: str) -> None:
    """Write down that the bytes were compared. Failing costs one more reading, no more."""
    try:
        path.with_suffix(".seen").write_text(likeness)
        _used(path)
    except OSError:
        path.with_suffix(".seen").unlink(missing_ok=True)


def _used(path: Path) -> bool:
    """Say that it is asked for; whether it is still there after that, so that no sweep takes it (`sweeping`)."""
    now = time.time_ns()  # finer than the kernel's own stamp, which stands still for a tick
    seen = path.with_suffix(".seen")
    with suppress(OSError):  # it then looks older than it is
        seen.touch()
        os.utime(seen, ns=(now, now))
    return path.is_file()


def _remove(path: Path) -> None:
    path.with_suffix(".seen").unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _hash_file(path: Path) -> str:
    hashed = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(READ_BYTES):
            hashed.update(chunk)
    return "sha256:" + hashed.hexdigest()
