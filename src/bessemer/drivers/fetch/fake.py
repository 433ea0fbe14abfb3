"""Content of a fake host: digests without bytes on an injected clock, and an importer that knows a list.

`FakeContent` takes a digest for granted once its first source was opened, so that 200 fake hosts cost nothing; sources
are read only when ``reads`` is set. Files can be made corrupt, the disk full and sources silent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from contextlib import aclosing
from fnmatch import fnmatchcase
from pathlib import Path

from bessemer.core.clock import Clock
from bessemer.core.errors import BessemerError, DriverError
from bessemer.drivers import Hook, no_hook
from bessemer.drivers.fetch.protocol import Imported, Progress, Source, Stored, check_digest


class FakeContent:
    """A cache in memory. ``seconds`` is how long a fetch takes; ``capacity_bytes`` is when its disk is full."""

    def __init__(
        self,
        clock: Clock,
        *,
        on_call: Hook = no_hook,
        reads: bool = False,
        seconds: float = 0.0,
        capacity_bytes: int = 1 << 50,
    ) -> None:
        self._clock = clock
        self._on_call = on_call
        self._reads = reads
        self._seconds = seconds
        self._stored: dict[str, Stored] = {}
        self._corrupt: set[str] = set()
        self.capacity_bytes = capacity_bytes
        self.refuse: DriverError | None = None

    async def ensure(self, digest: str, sources: Sequence[Source], *, progress: Progress | None = None) -> Path:
        self._on_call("content.ensure")
        known = self._stored.get(check_digest(digest))
        size = known.size_bytes if known else await self._fetch(digest, sources)
        if progress is not None:
            progress(size)
        path = Path("/fake/content") / digest.removeprefix("sha256:")
        self._stored[digest] = Stored(digest, size, self._clock.now(), path)
        self._on_call("content.ensure.done")
        return path

    async def find(self, digest: str) -> Path | None:
        self._on_call("content.find")
        known = self._stored.get(check_digest(digest))
        return known.path if known else None

    async def verify(self, digest: str) -> Path:
        self._on_call("content.verify")
        known = self._stored.get(check_digest(digest))
        if known is None:
            raise DriverError("ContentMissing", f"{digest} is not on this host")
        if digest in self._corrupt:
            self._corrupt.discard(digest)
            del self._stored[digest]
            raise DriverError("DigestMismatch", f"the file of {digest} holds something else and was removed")
        return known.path

    async def stored(self) -> tuple[Stored, ...]:
        self._on_call("content.stored")
        return tuple(sorted(self._stored.values(), key=lambda item: (item.used_at, item.digest)))

    async def room(self, digest: str = "") -> int | None:
        return None

    async def evict(self, budget_bytes: int, *, pinned: Collection[str] = ()) -> tuple[str, ...]:
        self._on_call("content.evict")
        left = sum(item.size_bytes for item in self._stored.values())
        gone: list[str] = []
        for item in sorted(self._stored.values(), key=lambda item: (item.used_at, item.digest)):
            if left > budget_bytes and item.digest not in pinned:
                del self._stored[item.digest]
                left -= item.size_bytes
                gone.append(item.digest)
        self._on_call("content.evict.done")
        return tuple(gone)

    def corrupt(self, digest: str) -> None:
        """The file now holds something else."""
        self._corrupt.add(digest)

    async def _fetch(self, digest: str, sources: Sequence[Source]) -> int:
        if self.refuse is not None:
            raise self.refuse
        if not sources:
            raise DriverError("FetchFailed", f"no source offers {digest}")
        if self._seconds:
            await self._clock.sleep(self._seconds)
        size = await self._read(digest, sources) if self._reads else 1
        if size + sum(item.size_bytes for item in self._stored.values()) > self.capacity_bytes:
            raise DriverError("DiskFull", "no space is left for content")
        return size

    async def _read(self, digest: str, sources: Sequence[Source]) -> int:
        failure = "no source answered"
        for source in sources:
            try:
                found, size = await _told(source)
            except (OSError, BessemerError) as error:
                failure = str(error)
                continue
            if found != digest:
                raise DriverError("DigestMismatch", f"a source gave something else for {digest}")
            return size
        raise DriverError("FetchFailed", f"no source gave {digest} to its end: {failure}")


async def _told(source: Source) -> tuple[str, int]:
    """The digest and the size of what a source gives."""
    hashed, size = hashlib.sha256(), 0
    async with aclosing(source(0)) as stream:
        async for chunk in stream:
            hashed.update(chunk)
            size += len(chunk)
    return "sha256:" + hashed.hexdigest(), size


class FakeImporter:
    """Imports from a list: ``known`` maps ``(requirement, member name)`` or a path's text to the bytes found there."""

    def __init__(self, known: Mapping[tuple[str, str] | str, bytes], *, on_call: Hook = no_hook) -> None:
        self._known = dict(known)
        self._on_call = on_call

    async def wheel(
        self, requirement: str, member: str, *, digest: str | None = None, progress: Progress | None = None
    ) -> Imported:
        self._on_call("importer.wheel")
        found = [
            data
            for key, data in self._known.items()
            if isinstance(key, tuple) and key[0] == requirement and fnmatchcase(key[1], member)
        ]
        if len(found) != 1:
            raise DriverError("ImportFailed", f"{member!r} matches {len(found)} files in {requirement}, not one")
        return self._done(found[0], digest=digest, progress=progress)

    async def file(self, path: Path, *, digest: str | None = None, progress: Progress | None = None) -> Imported:
        self._on_call("importer.file")
        data = self._known.get(str(path))
        if data is None:
            raise DriverError("ImportFailed", f"{path.name!r} is no file that can be read")
        return self._done(data, digest=digest, progress=progress)

    def _done(self, data: bytes, *, digest: str | None, progress: Progress | None) -> Imported:
        had = "sha256:" + hashlib.sha256(data).hexdigest()
        if digest is not None and had != digest:
            raise DriverError("DigestMismatch", f"the import is {had}, not {digest}")
        if progress is not None:
            progress(len(data))
        self._on_call("importer.done")
        return Imported(had, len(data), Path("/fake/content") / had.removeprefix("sha256:"))
