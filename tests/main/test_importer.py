"""Imports in the background: one at a time of a name, none lost with who asked, none started for nothing."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from pathlib import Path

import orjson
import pytest

from bessemer.core.clock import settle
from bessemer.core.errors import DriverError
from bessemer.core.ports import UNDER, Fence
from bessemer.drivers.fetch import protocol as fetch
from bessemer.drivers.fetch.bringing import Limits, SourceModels
from bessemer.drivers.fetch.known import SMOLLM2_135M_INSTRUCT as SMOLLM2
from bessemer.drivers.fetch.real import HostContent
from bessemer.drivers.guest.fake import FakeGuest
from bessemer.drivers.weights.fake import SMALL, FakeWeights
from bessemer.drivers.weights.protocol import refused
from bessemer.kinds.context import Imported, Progress
from bessemer.main.importer import ControlImporter, ModelDrivers

WEIGHTS = b"weights" * 1000
SHA = hashlib.sha256(WEIGHTS).hexdigest()


class SlowIndex:
    """An importer over real content whose wheels come when ``gate`` opens, after saying that half has come."""

    def __init__(self, content: HostContent) -> None:
        self.content = content
        self.gate = asyncio.Event()
        self.calls = 0
        self.refuse: Exception | None = None

    async def wheel(
        self, requirement: str, member: str, *, digest: str | None = None, progress: fetch.Progress | None = None
    ) -> fetch.Imported:
        self.calls += 1
        assert progress is not None
        progress(len(WEIGHTS) // 2)
        await self.gate.wait()
        if self.refuse is not None:
            raise self.refuse
        return self.content.adopt([WEIGHTS], digest=digest)

    async def file(
        self, path: Path, *, digest: str | None = None, progress: fetch.Progress | None = None
    ) -> fetch.Imported:
        return self.content.adopt([await asyncio.to_thread(path.read_bytes)], digest=digest)


class Bench:
    def __init__(self, folder: Path) -> None:
        self.content = HostContent(folder / "content")
        self.index = SlowIndex(self.content)
        self.weights = FakeWeights()
        self.sources = SourceModels(self.content, Limits(folders=(folder / "models",)))
        self.drivers = ModelDrivers(sources=self.sources, weights=self.weights, secrets=self.secrets)
        self.importer = ControlImporter(
            FakeGuest(), self.index, content=self.content, cache=folder / "cache", models=self.drivers
        )

    async def look(self, *, sha256: str = SHA, size_bytes: int = 0) -> Imported | None:
        return await self.importer.wheel("m", "1.0", member="m/m.gguf", sha256=sha256, size_bytes=size_bytes)

    async def secrets(self, uid: str, place: fetch.Place) -> Mapping[str, str]:
        return {}

    def path(self) -> Path:
        return self.content._path(f"sha256:{SHA}")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_nobody_waits_and_all_look_at_the_same_import(bench: Bench) -> None:
    assert [await bench.look() for _ in range(3)] == [None] * 3
    await settle()
    bench.index.gate.set()
    await settle()
    first = await bench.look()
    assert first is not None
    assert (first.digest, first.labels) == (f"sha256:{SHA}", {"format": "gguf"})
    assert first.facts == SMALL
    assert await bench.look() == first
    assert bench.index.calls == 1


async def test_percent_is_of_what_is_expected_and_nothing_is_guessed(bench: Bench) -> None:
    for size, shown in ((len(WEIGHTS), Progress(50, "3.4 KiB of 6.8 KiB", 3500)), (0, Progress(None, "3.4 KiB", 3500))):
        other = Bench(bench.path().parent.parent / str(size))
        await other.look(size_bytes=size)
        await settle()
        assert other.importer.progress(f"wheel/{SHA}") == shown
        await other.importer.close()
    await bench.look(sha256=SMOLLM2.digest.removeprefix("sha256:"))
    await settle()
    assert bench.importer.progress(f"wheel/{SMOLLM2.digest.removeprefix('sha256:')}").percent == 0
    await bench.importer.close()


async def test_it_outlives_who_asked(bench: Bench) -> None:
    async def ask() -> None:
        await bench.look()
        await asyncio.Event().wait()

    asker = asyncio.create_task(ask())
    await settle()
    asker.cancel()
    await asyncio.gather(asker, return_exceptions=True)
    bench.index.gate.set()
    await settle()
    assert await bench.look() is not None


async def test_an_error_is_told_once_and_then_it_is_tried_anew(bench: Bench) -> None:
    bench.index.refuse = DriverError("DiskFull", "no space")
    bench.index.gate.set()
    await bench.look()
    await settle()
    with pytest.raises(DriverError, match="no space"):
        await bench.look()
    bench.index.refuse = None
    assert await bench.look() is None
    await settle()
    assert await bench.look() is not None
    assert bench.index.calls == 2


async def test_what_is_no_model_is_refused(bench: Bench) -> None:
    bench.weights.refuse = refused("it has no tensors")
    bench.index.gate.set()
    await bench.look()
    await settle()
    with pytest.raises(DriverError, match="no tensors"):
        await bench.look()


@pytest.mark.parametrize("trouble", ["gone", "spoilt"])
async def test_content_that_was_lost_is_known_to_be_and_fetched_again(bench: Bench, trouble: str) -> None:
    bench.index.gate.set()
    await bench.look()
    await settle()
    assert await bench.look() is not None
    assert await bench.importer.holds(f"sha256:{SHA}")
    bench.path().unlink()
    if trouble == "spoilt":
        bench.path().write_bytes(b"something else")
    assert not await bench.importer.holds(f"sha256:{SHA}")
    assert await bench.look() is None
    await settle()
    assert await bench.look() is not None
    assert await bench.importer.holds(f"sha256:{SHA}")


async def test_an_image_is_built_with_its_progress(bench: Bench) -> None:
    assert await bench.importer.image("micro") is None
    while (built := await bench.importer.image("micro")) is None:
        await asyncio.sleep(0.001)
    assert await bench.importer.holds(built.digest)
    assert built.labels == {"kernel": "6.1.0-fake"}
    assert bench.importer.progress("image/micro") == Progress(99, "Done", 1_000_000)


async def test_the_end_ends_imports(bench: Bench) -> None:
    await bench.look()
    await settle()
    await bench.importer.close()
    assert [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("import ")] == []


async def test_an_import_is_under_no_fence_of_the_turn_that_asked_for_it(bench: Bench) -> None:
    """It outlives the turn, and maybe the lease; so what it writes is not refused for another's sake."""
    found: list[Fence | None] = []

    async def wheel(*_: object, **__: object) -> fetch.Imported:
        found.append(UNDER.get())
        return bench.content.adopt([WEIGHTS], digest=None)

    bench.index.wheel = wheel  # type: ignore[method-assign]
    under = UNDER.set(Fence("loop/Model", 1))
    try:
        await bench.look()
        await settle()
    finally:
        UNDER.reset(under)
    assert found == [None]


async def test_a_model_of_several_files_is_its_manifest(bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "models" / "m"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    (folder / "config.json").write_bytes(b"{}")
    place = fetch.PathPlace(path=str(folder))

    async def brought() -> Imported:
        while (found := await bench.importer.model("u-1", place)) is None:
            await asyncio.sleep(0.001)
        return found

    found = await brought()
    sizes = {file.path: file.size_bytes for file in found.files}
    assert sizes == {"config.json": 2, "model.safetensors": len(WEIGHTS)}
    assert found.size_bytes == sum(sizes.values())
    manifest = orjson.loads((await bench.content.verify(found.digest)).read_bytes())
    assert manifest == {"version": 1, "files": [file.dump() for file in found.files]}
    assert await bench.importer.holds(found.digest, *(file.digest for file in found.files))
    (await bench.content.verify(found.files[0].digest)).unlink()
    assert not await bench.importer.holds(found.digest, *(file.digest for file in found.files))
    assert await brought() == found
    assert await bench.importer.holds(found.digest, *(file.digest for file in found.files))
