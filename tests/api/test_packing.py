"""gzip: for who asks, where it is worth it, and never where it would do harm."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
from starlette.requests import Request
from starlette.responses import StreamingResponse

from bessemer.api import packing
from bessemer.api.accept import takes_gzip
from bessemer.api.openapi2 import OBJECT_META
from bessemer.client.transport import Ask, HttpTransport, tls_context
from bessemer.core.ports import CONTROLLER
from bessemer.core.resource import API_VERSION
from tests.api.world import BASE, Reply, World, served

GZIP = {"accept-encoding": "gzip"}
COUNT = 60
FLAVORS = f"{BASE}/flavors"
TABLE = {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
PARTIAL = {"accept": "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"}


@pytest.fixture
async def many(w: World) -> World:
    """A world whose flavors are more than 128 KiB."""
    spec = {"description": "", "cpus": 1, "memory": "1Gi", "disk": "1Gi"}
    for i in range(COUNT):
        metadata = {"name": f"f{i:03}", "annotations": {"a": "x" * 4000}}
        await w.store.objects.create(
            {"apiVersion": API_VERSION, "kind": "Flavor", "metadata": metadata, "spec": spec}, CONTROLLER
        )
    return w


def opened(reply: Reply) -> bytes:
    assert reply.headers["content-encoding"] == "gzip"
    return gzip.decompress(reply.body)


@pytest.mark.parametrize(
    ("header", "taken"),
    [
        ([], False),
        ([""], False),
        (["gzip"], True),
        (["GZIP"], True),
        (["x-gzip"], True),
        (["gzip, deflate, br"], True),
        (["deflate", "gzip"], True),
        (["br;q=1.0, gzip;q=0.8, *;q=0.1"], True),
        (["*"], True),
        (["gzip;q=0.001"], True),
        (["gzip;q=0"], False),
        (["gzip;q=0.000, *"], False),
        (["*;q=0"], False),
        (["deflate, br, zstd"], False),
        (["identity"], False),
        (["identity;q=1, gzip;q=0.5"], False),
        (["identity;q=0.5, gzip"], True),
        (["gzip;q=x"], False),
        (["gzip;q=2"], False),
        (["gzip;q=-1"], False),
        (["gzip;q=nan"], False),
        (["gzip;q=1e9"], False),
        (["gzip;q=1.0000"], False),
        (["gzipx", "gzi"], False),
        ([";;;,,,=,;q=,gzip;"], True),
        (["g" * 10_000], False),
        (["gzip," * 2000], False),
        ([", " * 2000 + "gzip"], True),
        (["\x00\xff"], False),
    ],
)
def test_who_takes_gzip(header: list[str], taken: bool) -> None:
    assert takes_gzip(header) == taken


@pytest.mark.parametrize("shape", [{}, TABLE, PARTIAL])
async def test_a_long_list_is_packed_for_who_asks(many: World, shape: dict[str, str]) -> None:
    plain = await many.call("GET", FLAVORS, headers=shape)
    packed = await many.call("GET", FLAVORS, headers={**shape, **GZIP})
    assert "content-encoding" not in plain.headers
    assert plain.headers["vary"] == packed.headers["vary"] == "Accept-Encoding"
    assert packed.headers["content-type"] == plain.headers["content-type"] == "application/json"
    if shape:  # a row tells its age, which may turn meanwhile, so the shape is compared and not the bytes
        assert len(Reply(200, {}, opened(packed)).json["rows" if shape is TABLE else "items"]) == COUNT
    else:
        assert opened(packed) == plain.body
    assert len(packed.body) < len(plain.body) / 4


async def test_a_short_list_is_not(many: World) -> None:
    for path in (f"{FLAVORS}?limit=10", f"{BASE}/tenants", f"{FLAVORS}/f000", f"{FLAVORS}?labelSelector=a%3Db"):
        reply = await many.call("GET", path, headers=GZIP)
        assert "content-encoding" not in reply.headers
        assert int(reply.headers["content-length"]) == len(reply.body)
        assert reply.json.get("items") == (await many.call("GET", path)).json.get("items")


async def test_pages_are_packed_each_by_itself(many: World) -> None:
    first = await many.call("GET", f"{FLAVORS}?limit=40", headers=GZIP)
    token = Reply(200, {}, opened(first)).json["metadata"]["continue"]
    rest = await many.call("GET", f"{FLAVORS}?limit=40&continue={token}", headers=GZIP)
    assert "content-encoding" not in rest.headers
    assert len(rest.json["items"]) == 20


async def test_who_does_not_take_it_gets_none(many: World) -> None:
    for path in (FLAVORS, "/openapi/v2", "/apis"):
        for said in ("gzip;q=0", "identity", "br", "gzip;q=0, *;q=1", "", "gzip," * 2000):
            reply = await many.call("GET", path, headers={"accept-encoding": said})
            assert "content-encoding" not in reply.headers
            assert reply.json


async def test_what_is_refused_is_told_plainly(many: World) -> None:
    for path, code in (
        (f"{FLAVORS}?limit=x", 400),
        (f"{FLAVORS}/none", 404),
        (f"{FLAVORS}?resourceVersion=999999", 504),
    ):
        reply = await many.call("GET", path, headers=GZIP)
        assert (reply.code, reply.json["kind"]) == (code, "Status")
        assert "content-encoding" not in reply.headers


async def test_a_watch_is_never_packed(many: World) -> None:
    async with many.watch(f"{FLAVORS}?watch=1", headers=GZIP) as events:
        assert len(await events.names(COUNT)) == COUNT


async def test_documents_are_packed_once_and_have_a_tag_of_their_own(w: World) -> None:
    for path in ("/openapi/v2", "/openapi/v3", "/openapi/v3/apis/bessemer.dev/v1alpha1", "/apis", BASE):
        plain = await w.call("GET", path)
        packed = await w.call("GET", path, headers=GZIP)
        if len(plain.body) < 512:
            assert packed.body == plain.body
            continue
        assert opened(packed) == plain.body
        assert packed.headers["etag"] != plain.headers["etag"]
        for tag in (plain.headers["etag"], packed.headers["etag"]):
            for coding in ({}, GZIP):
                again = await w.call("GET", path, headers={**coding, "if-none-match": tag})
                assert (again.code, again.body, again.headers["etag"]) == (304, b"", tag)
                assert "content-encoding" not in again.headers
    made = w.api.state.discovery.openapi_v2()
    assert made.packed is w.api.state.discovery.openapi_v2().packed
    assert OBJECT_META.encode() in gzip.decompress(made.packed)


async def test_our_own_client_opens_what_is_packed(many: World, tmp_path: Path) -> None:
    async with served(many, tmp_path) as s:
        tls = tls_context(many.ca.certificate, (s.admin.certificate, s.admin.key))
        transport = HttpTransport(s.url, tls=tls)
        try:
            whole = await transport.request(Ask(method="GET", path=FLAVORS))
            async with transport.stream(Ask(method="GET", path=FLAVORS)) as coming:
                streamed = b"".join([part async for part in coming])
        finally:
            await transport.close()
    assert len(orjson.loads(whole)["items"]) == COUNT
    assert streamed == whole


# --- the stream itself ------------------------------------------------------------------------------------------------


async def parts(count: int, size: int, *, produced: list[int] | None = None) -> AsyncIterator[bytes]:
    for i in range(count):
        if produced is not None:
            produced.append(i)
        yield bytes([65 + i % 26]) * size


def asking(encoding: str) -> Request:
    return Request({"type": "http", "headers": [(b"accept-encoding", encoding.encode())] if encoding else []})


async def body_of(response: object) -> list[bytes]:
    assert isinstance(response, StreamingResponse)
    return [bytes(chunk) async for chunk in response.body_iterator if not isinstance(chunk, str)]


async def test_for_who_does_not_ask_nothing_is_held() -> None:
    produced: list[int] = []
    response = await packing.streamed(asking(""), parts(10, 100, produced=produced))
    assert produced == []
    assert await body_of(response) == [part async for part in parts(10, 100)]


async def test_no_more_is_held_than_tells_whether_it_is_long() -> None:
    produced: list[int] = []
    response = await packing.streamed(asking("gzip"), parts(1000, 10_000, produced=produced))
    assert len(produced) * 10_000 <= packing.PACKED_BYTES_MIN + 10_000
    whole = b"".join(await body_of(response))
    assert gzip.decompress(whole) == b"".join([part async for part in parts(1000, 10_000)])


async def test_what_holds_secrets_is_never_packed() -> None:
    response = await packing.streamed(asking("gzip"), parts(40, 10_000), secret=True)
    assert "content-encoding" not in response.headers
    assert len(b"".join(await body_of(response))) == 400_000


async def test_others_run_while_a_list_is_packed() -> None:
    """Also where a part is large: it is packed in slices."""
    turns = 0

    async def neighbour() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    other = asyncio.ensure_future(neighbour())
    await body_of(await packing.streamed(asking("gzip"), parts(1, 64 * packing.SLICE_BYTES)))
    other.cancel()
    assert turns >= 60
