"""Models brought from where they are into the control side's content, file by file, resumed where they were cut short.

What a source says of a file (size, SHA-256, git's id) is what must come; nothing else gets a name. A file that breaks
off is asked for again where it ended, a few times; then the whole is given up until somebody asks anew. Parts stay, so
that asking anew, in this process or the next, goes on with them.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from bessemer.core.errors import DriverError
from bessemer.core.units import show_bytes
from bessemer.drivers.fetch.choose import chosen
from bessemer.drivers.fetch.folder import FolderOrigin
from bessemer.drivers.fetch.intake import READ_BYTES
from bessemer.drivers.fetch.protocol import (
    HUB,
    HttpPlace,
    HubPlace,
    Imported,
    Listed,
    Model,
    ModelPart,
    Origin,
    Own,
    PathPlace,
    Place,
    Progress,
    RoomWanted,
    S3Place,
    Source,
)
from bessemer.drivers.fetch.reach import Reach

TRIES = 5
PAUSE_SECONDS = 1.0
RESERVE_BYTES = 512 << 20
"""What a model leaves free on its disk, on which the control plane mostly has its store, too."""
LOOK_BYTES = 64 << 20
"""After so many it is seen again whether that is still free, for nothing says how much some sources give."""
STEP_BYTES = 256 << 20
"""What is asked for first where a source does not say how much it gives."""
GIT_BYTES_MAX = 64 << 20
"""Of a file that a hub keeps in git itself, by whose id alone it can be checked."""


Judge = Callable[[Path], None]


class Store(Protocol):
    """Where models go; `real.HostContent` is one."""

    @property
    def root(self) -> Path: ...

    async def ensure(self, digest: str, sources: Sequence[Source], *, progress: Progress | None = None) -> Path: ...

    async def find(self, digest: str) -> Path | None: ...

    async def gather(
        self, key: str, sources: Sequence[Source], *, judge: Judge, progress: Progress | None = None, owner: str = ""
    ) -> Imported: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the operator allows: where sources may be, and (``own_reach``) those of what is not the platform's;
    ``folders`` of this machine, the hub's ``endpoint``, bytes of one model; and how many
    bytes of the disk stay free."""

    reach: Reach = field(default_factory=Reach)
    own_reach: Reach = field(default_factory=Reach)
    endpoint: str = HUB
    folders: tuple[Path, ...] = ()
    bytes_max: int = 4 << 40
    pause_seconds: float = PAUSE_SECONDS
    reserve_bytes: int = RESERVE_BYTES


class SourceModels:
    """Implements `protocol.Models` over a store."""

    def __init__(self, store: Store, limits: Limits) -> None:
        self._store = store
        self._limits = limits

    async def bring(
        self,
        place: Place,
        *,
        revision: str,
        secrets: Mapping[str, str],
        progress: Callable[[int, int], None],
        own: Own | None = None,
    ) -> Model:
        origin = self._origin(place, revision=revision, secrets=secrets, own=own)
        listing = await origin.listing()
        files = chosen(listing, () if isinstance(place, HttpPlace) else place.files)
        total = sum(max(0, file.size_bytes) for file in files)
        if total > self._limits.bytes_max:
            most = show_bytes(self._limits.bytes_max)
            raise DriverError("ImportFailed", f"the model has {show_bytes(total)}, and at most {most} are taken")
        if own is not None and total > own.bytes_max:
            raise RoomWanted(total, exact=all(file.size_bytes >= 0 for file in files))
        await asyncio.to_thread(self._check_room, files)
        parts: list[ModelPart] = []
        had = 0

        def tell(count: int) -> None:
            progress(had + count, total)

        for file in files:
            given = _within(origin.source(file), own, had=had) if own is not None else origin.source(file)
            sources = list(_again(self._watched(given, parts), file, limits=self._limits))
            owner = own.owner if own is not None else ""
            parts.append(await self._part(place, file, sources=sources, progress=tell, owner=owner))
            had += parts[-1].size_bytes
        return Model(listing.revision, tuple(parts), listing.gated)

    def _origin(self, place: Place, *, revision: str, secrets: Mapping[str, str], own: Own | None) -> Origin:
        if isinstance(place, PathPlace):
            if own is not None:
                raise DriverError("AddressRefused", "folders of the control plane's machine are the platform's alone")
            return FolderOrigin(place, allowed=self._limits.folders)
        # Read when one is first asked: a server without models need not wait for it.
        from bessemer.drivers.fetch.hub import HubOrigin
        from bessemer.drivers.fetch.s3 import S3Origin
        from bessemer.drivers.fetch.single import HttpOrigin
        from bessemer.drivers.fetch.web import Web

        # Where the hub is, the operator says; where the others are, whoever made the model.
        reach = self._limits.reach if own is None or isinstance(place, HubPlace) else self._limits.own_reach
        web = Web(reach)
        match place:
            case HubPlace():
                token = secrets.get("token", "")
                return HubOrigin(web, place, endpoint=self._limits.endpoint, revision=revision, token=token)
            case S3Place():
                return S3Origin(web, place, secrets=secrets)
            case HttpPlace():
                return HttpOrigin(web, place, reach=reach, token=secrets.get("token", ""))

    async def _part(
        self, place: Place, file: Listed, *, sources: list[Source], progress: Progress, owner: str
    ) -> ModelPart:
        if file.digest and not owner:
            path = await self._store.ensure(file.digest, sources, progress=progress)
            return ModelPart(file.path, file.digest, path.stat().st_size, path)
        key = f"{type(place).__name__} {file.where} {file.version} {file.blob} {file.size_bytes}"
        kept = await self._store.gather(
            key, sources, judge=lambda part: _judge(file, part), progress=progress, owner=owner
        )
        return ModelPart(file.path, kept.digest, kept.size_bytes, kept.path)

    def _watched(self, source: Source, had: Sequence[ModelPart]) -> Source:
        """The same, given up where the disk gets full while it comes. What came before it is asked for meanwhile: no
        object names it yet, and it is not to be taken for what nobody wants."""

        async def read(at: int) -> AsyncGenerator[bytes, None]:
            unseen = 0
            async with aclosing(source(at)) as stream:
                async for part in stream:
                    unseen += len(part)
                    if unseen >= LOOK_BYTES:
                        unseen = 0
                        self._check_reserve()
                        await self._ask_for(had)
                    yield part

        return read

    async def _ask_for(self, parts: Sequence[ModelPart]) -> None:
        for one in parts:
            await self._store.find(one.digest)

    def _check_reserve(self) -> None:
        free = _free(self._store.root)
        if free < self._limits.reserve_bytes:
            raise DriverError("DiskFull", f"{show_bytes(free)} are free, and that stays free")

    def _check_room(self, files: Sequence[Listed]) -> None:
        """That what is still to come has room: before it comes, and not when the disk is full."""
        root = self._store.root
        lacking = sum(max(0, file.size_bytes - _had(root, file)) for file in files)
        unknown = any(file.size_bytes < 0 for file in files)
        free = _free(root)
        if (lacking or unknown) and lacking + self._limits.reserve_bytes > free:
            words = f"{show_bytes(lacking)} are still to come, and {show_bytes(free)} are free"
            raise DriverError("DiskFull", f"{words}, of which {show_bytes(self._limits.reserve_bytes)} stay free")


def _free(root: Path) -> int:
    return shutil.disk_usage(next(place for place in (root, *root.parents) if place.exists())).free


def _had(root: Path, file: Listed) -> int:
    """Bytes of a file that are here already, where its digest tells."""
    name = file.digest.removeprefix("sha256:")
    found = [place.stat().st_size for place in (root / name, root / f"{name}.part") if name and place.is_file()]
    return max(found, default=0)


def _again(source: Source, file: Listed, *, limits: Limits) -> Iterator[Source]:
    """The source as often as it is tried, each time after a longer pause."""
    for n in range(TRIES):
        yield partial(_read, source=source, file=file, limits=limits, pause=limits.pause_seconds * (2**n - 1))


async def _read(at: int, *, source: Source, file: Listed, limits: Limits, pause: float) -> AsyncGenerator[bytes, None]:
    """Exactly as many bytes as the file has. Where nothing tells its versions apart, an offset is of any of them."""
    if at and not (file.digest or file.version):
        raise DriverError("SourceChanged", "a source does not say which version it has")
    await asyncio.sleep(pause)
    known = file.size_bytes >= 0
    count, most = at, file.size_bytes if known else limits.bytes_max
    async with aclosing(source(at)) as stream:
        async for part in stream:
            count += len(part)
            if count > most:
                raise DriverError("ImportFailed", f"a source gives more than the {most} bytes that {file.path!r} has")
            yield part
    if known and count < most:
        raise DriverError("FetchFailed", f"a source broke off after {count} of {most} bytes of {file.path!r}")


def _within(source: Source, own: Own, *, had: int) -> Source:
    """The same, as far as its owner may have it beside the ``had`` bytes of other files."""

    async def read(at: int) -> AsyncGenerator[bytes, None]:
        count = had + at
        async with aclosing(source(at)) as stream:
            async for part in stream:
                count += len(part)
                if count > own.bytes_max:
                    raise RoomWanted(max(STEP_BYTES, 2 * own.bytes_max), exact=False)
                yield part

    return read


def _judge(file: Listed, part: Path) -> None:
    """See that a file is what its source said, as far as that said anything. Raises DriverError."""
    size = part.stat().st_size
    if file.size_bytes not in (-1, size):
        raise DriverError("DigestMismatch", f"{file.path!r} has {size} bytes, and its source said {file.size_bytes}")
    if file.digest and _sha256(part) != file.digest:
        raise DriverError("DigestMismatch", f"{file.path!r} is another file than its source said")
    if file.blob and size <= GIT_BYTES_MAX and _git_id(part, size) != file.blob:
        raise DriverError("DigestMismatch", f"{file.path!r} is another file than its source said")


def _sha256(part: Path) -> str:
    with open(part, "rb") as stream:
        return f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"


def _git_id(part: Path, size: int) -> str:
    """What git calls a file of these bytes."""
    hashed = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    with open(part, "rb") as stream:
        while chunk := stream.read(READ_BYTES):
            hashed.update(chunk)
    return hashed.hexdigest()
