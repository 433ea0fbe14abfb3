"""Buckets: the fake, and what asks S3 servers, against a server of the tests."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from bessemer.core.errors import DriverError
from bessemer.drivers.bucket import expiry, real
from bessemer.drivers.bucket.fake import FakeBuckets
from bessemer.drivers.bucket.protocol import INNER, REASONS, UNREACHED, Bucket
from bessemer.drivers.bucket.real import S3Buckets
from bessemer.drivers.fetch.protocol import S3Place
from bessemer.drivers.fetch.reach import Reach
from tests.drivers.bucket import suite
from tests.drivers.bucket.server import KEYS, SPACE, Server
from tests.ports import held_port

TLS = ssl.create_default_context()
OTHERS = (KEYS | {"accessKey": "AKIAOTHER"}, {})


def buckets(allowed: str = "127.0.0.1", *, seconds: float = 5.0) -> S3Buckets:
    return S3Buckets(Reach.of(allowed), TLS, seconds=seconds)


@asynccontextmanager
async def opened() -> AsyncIterator[tuple[Server, Bucket]]:
    async with Server("logs") as server:
        yield server, buckets().open(S3Place(bucket="logs", endpoint=server.url), KEYS)


async def reason(call: object) -> str:
    with pytest.raises(DriverError) as refused:
        await call  # type: ignore[misc]
    assert refused.value.reason in REASONS
    return refused.value.reason


async def test_the_fake_is_a_bucket() -> None:
    known = FakeBuckets()
    place = S3Place(bucket="logs", endpoint="https://s3.example.org")
    known.make(place, KEYS["accessKey"]).page = 2
    wrong = [known.open(place, keys) for keys in OTHERS]
    await suite.holds(known.open(place, KEYS), wrong=wrong, nowhere=[known.open(replace(place, bucket="no"), KEYS)])


async def test_what_asks_a_server_is_a_bucket() -> None:
    async with Server("logs", page=2) as server:
        place = S3Place(bucket="logs", endpoint=server.url)
        wrong = [buckets().open(place, keys) for keys in (*OTHERS, KEYS | {"secretKey": "x"})]
        nowhere = [buckets().open(replace(place, bucket="no-such"), KEYS)]
        await suite.holds(buckets().open(place, KEYS), wrong=wrong, nowhere=nowhere)


async def test_nobody_is_sent_inside_unless_the_operator_says_so() -> None:
    async with Server("logs") as server:
        for endpoint, allowed in (
            (server.url, ""),
            (server.url.replace("127.0.0.1", "localhost"), ""),
            (server.url.replace("http:", "https:").replace("127.0.0.1", "localhost"), "10.0.0.0/8"),
            ("http://169.254.169.254", "169.254.169.254"),
            ("http://s3.example.org", ""),
        ):
            assert await reason(buckets(allowed).open(S3Place(bucket="logs", endpoint=endpoint), KEYS).listed("")) == (
                INNER
            ), endpoint
        assert await reason(buckets().open(S3Place(bucket="logs", endpoint="http://2130706433"), KEYS).listed("")) == (
            UNREACHED
        )
        assert server.asked == []


async def test_a_place_that_misbehaves_is_not_believed() -> None:
    async with opened() as (server, bucket):
        for status in (302, 307, 500, 503):
            server.status = status
            assert await reason(bucket.put("k", b"x")) == UNREACHED, "nobody is sent elsewhere"
        server.status = 200
        assert await reason(bucket.listed("p/")) == UNREACHED, "that is no list"
        server.status, server.hangs = 0, True
        slow = buckets(seconds=0.2).open(S3Place(bucket="logs", endpoint=server.url), KEYS)
        assert await reason(slow.put("k", b"x")) == UNREACHED
    with held_port() as port:
        gone = S3Place(bucket="logs", endpoint=f"http://127.0.0.1:{port}")
        assert await reason(buckets().open(gone, KEYS).put("k", b"x")) == UNREACHED


RULES = (
    f'<LifecycleConfiguration xmlns="{SPACE}"><Rule><ID>theirs</ID><Status>Enabled</Status><Filter><And><Prefix>p/'
    "</Prefix><Tag><Key>k</Key><Value>v</Value></Tag></And></Filter><Transition><Days>3</Days><StorageClass>COLD"
    "</StorageClass></Transition></Rule></LifecycleConfiguration>"
)


async def test_rules_of_others_stay_and_ours_is_said_once() -> None:
    async with opened() as (server, bucket):
        server.rules = RULES.encode()
        for days in (3, 3, 5):
            assert await bucket.expire("p/", days=days)
        puts = [one for one in server.asked if one.startswith("PUT")]
        assert len(puts) == 2, "what stands is not written again"
        assert server.rules is not None
        text = server.rules.decode()
        assert RULES[RULES.index("<Rule>") : RULES.index("</LifecycleConfiguration>")] in text
        assert text.count("<Rule>") == 2
        assert "<Filter><Prefix>p/</Prefix></Filter><Expiration><Days>5</Days></Expiration>" in text


DEEP = b"<LifecycleConfiguration><Rule>" + b"<a>" * 9000 + b"</a>" * 9000 + b"</Rule></LifecycleConfiguration>"
LARGE = b"<LifecycleConfiguration>" + b"<Rule/>" * 70_000 + b"</LifecycleConfiguration>"


@pytest.mark.parametrize(
    "rules", [b"<a/>", b"<!DOCTYPE x>", b"no XML", b'<LifecycleConfiguration xmlns="a"><b/>', DEEP, LARGE]
)
async def test_rules_that_cannot_be_read_are_left_alone(rules: bytes) -> None:
    async with opened() as (server, bucket):
        server.rules = rules
        assert not await bucket.expire("p/", days=3)
        assert server.rules == rules
        server.lifecycle = False
        assert not await bucket.expire("p/", days=3)
        server.status = 403
        assert not await bucket.expire("p/", days=3)


@pytest.mark.parametrize(
    "list_",
    [b"<a>" + b"<Contents/>" * 70_000 + b"</a>", b"<a " + b" ".join(b'a%d=""' % at for at in range(70_000)) + b"/>"],
)
async def test_a_list_of_more_than_a_list_has_is_not_read(list_: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bytes] = []
    monkeypatch.setattr(real, "parsed", read.append)
    async with opened() as (_, bucket):
        monkeypatch.setattr(bucket, "_ask", lambda _: answered(list_))
        assert await reason(bucket.listed("p/")) == UNREACHED
    assert read == []


async def answered(body: bytes) -> real._Said:
    return real._Said(200, {}, body)


def test_rules_of_several_spaces_are_not_written_anew() -> None:
    rules = expiry.read(200, f'<LifecycleConfiguration xmlns="{SPACE}"><x xmlns=""/></LifecycleConfiguration>'.encode())
    assert rules is not None
    assert expiry.written(rules, "p/", days=1) is None
