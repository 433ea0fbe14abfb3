"""Models from a bucket, and the signatures that it is asked with."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pytest

from bessemer.drivers.fetch import sigv4
from bessemer.drivers.fetch.protocol import S3Place
from tests.drivers.fetch.test_models import FILES, TAKEN, WEIGHTS, Bench, contents
from tests.hub.bucket import Bucket

# Amazon's documentation of S3, "Examples: Signature Calculations in AWS Signature Version 4": keys, time and results.
EXAMPLE = sigv4.Keys(
    access="AKIAIOSFODNN7EXAMPLE", secret="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", region="us-east-1"
)
EXAMPLE_TIME = 1369353600.0  # 2013-05-24T00:00:00Z
HOST = "examplebucket.s3.amazonaws.com"

OBJECTS = {f"llama/8b/{path}": data for path, data in FILES.items()} | {"llama/8b2/config.json": b"[]"}


@pytest.mark.parametrize(
    ("path", "query", "headers", "signature"),
    [
        ("/test.txt", [], {"Range": "bytes=0-9"}, "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"),
        ("/", [("lifecycle", "")], {}, "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
        (
            "/",
            [("prefix", "J"), ("max-keys", "2")],
            {},
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ],
)
def test_signatures_are_those_of_the_published_examples(
    path: str, query: list[tuple[str, str]], headers: Mapping[str, str], signature: str
) -> None:
    text = sigv4.query_of(query)
    question = sigv4.Question(host=HOST, path=path, query=text, headers=headers)
    said = sigv4.signed(EXAMPLE, question, now=EXAMPLE_TIME)
    assert said["Authorization"].endswith(f"Signature={signature}")
    assert said["x-amz-date"] == "20130524T000000Z"


def test_the_signature_of_a_body_is_that_of_the_published_example() -> None:
    headers = {"Date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"}
    payload = hashlib.sha256(b"Welcome to Amazon S3.").hexdigest()
    question = sigv4.Question(method="PUT", host=HOST, path="/test%24file.text", headers=headers, payload=payload)
    said = sigv4.signed(EXAMPLE, question, now=EXAMPLE_TIME)
    signature = "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"
    assert said["Authorization"].endswith(f"Signature={signature}")


async def test_a_model_below_a_prefix(tmp_path: Path) -> None:
    async with Bucket("models", OBJECTS, access="AKIA", page=3) as bucket:
        bench = Bench(tmp_path)
        place = S3Place(bucket="models", prefix="llama/8b", endpoint=bucket.url)
        assert (await bench.refusal(place)).reason == "SourceGated"
        model = await bench.bring(place, accessKey="AKIA", secretKey="word")
        assert contents(model) == {path: FILES[path] for path in TAKEN}
        assert model.revision == ""


async def test_one_object_goes_on_where_it_was_cut_unless_it_has_changed(tmp_path: Path) -> None:
    async with Bucket("models", OBJECTS) as bucket:
        place = S3Place(bucket="models", prefix="llama/8b/model.safetensors", endpoint=bucket.url)
        bench = Bench(tmp_path)
        bucket.cut = 100_000
        assert contents(await bench.bring(place)) == {"model.safetensors": WEIGHTS}
        assert len(bucket.ranges) == 2
        assert bucket.ranges[0] == ""
        assert int(bucket.ranges[1].removeprefix("bytes=").removesuffix("-")) > 0
        other = Bench(tmp_path / "other")
        bucket.cut, bucket.ranges = 100_000, []
        bucket.swap = WEIGHTS[:-1] + b"\x01"
        assert contents(await other.bring(place)) == {"model.safetensors": bucket.swap}, "of one version, all of it"
        assert len(bucket.ranges) == 3


@pytest.mark.parametrize(
    "body",
    [
        b"<",
        b"[]",
        b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>',
        '<!DOCTYPE a [<!ENTITY b "c">]><ListBucketResult>&b;</ListBucketResult>'.encode("utf-16"),
        b"<a><Contents><Key>k</Key><Size>x</Size></Contents></a>",
        b"<a><Contents><Key>k</Key><Size>-1</Size></Contents></a>",
        b"<a><Contents><Key>k</Key><Size>99999999999999999999999</Size></Contents></a>",
        b"<a><Contents><Size>1</Size></Contents></a>",
    ],
)
async def test_a_list_that_cannot_be_read_is_refused(tmp_path: Path, body: bytes) -> None:
    async with Bucket("models", OBJECTS) as bucket:
        bucket.list = body
        refusal = await Bench(tmp_path).refusal(S3Place(bucket="models", endpoint=bucket.url))
        assert refusal.reason == "ImportFailed"


async def test_no_such_bucket(tmp_path: Path) -> None:
    async with Bucket("models", OBJECTS) as bucket:
        refusal = await Bench(tmp_path).refusal(S3Place(bucket="others", endpoint=bucket.url))
        assert refusal.reason == "SourceNotFound"
