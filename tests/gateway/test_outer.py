"""Services elsewhere: who is dialled, what they are shown and asked, and what is billed of their answers."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson
import pytest
from aiohttp import web

from bessemer.api.ca import create_ca
from bessemer.core.clock import SystemClock
from bessemer.core.errors import Unavailable
from bessemer.core.resource import Change, Key
from bessemer.drivers.addresses import Address
from bessemer.gateway.outer import SECRET_MARK, Outer, Outward, Services, connect
from bessemer.main.gateway import outward
from bessemer.main.settings import Settings
from tests.gateway.harness import PROJECT, Rig, endpoint, rig

ASK = [{"role": "user", "content": "What is a converter?"}]
USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}


@dataclass
class Upstream:
    """A service that speaks OpenAI's API: what it was asked, and how it answers."""

    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    status: int = 200
    usage: bool = True
    wanted: str = ""
    """The secret that it wants to be shown."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        self.paths.append(request.path)
        strange = body.keys() - {"model", "messages", "max_tokens", "stream", "stream_options", "input"}
        if strange:
            return web.json_response({"error": {"message": f"Unrecognized request argument: {strange}"}}, status=400)
        if self.wanted and request.headers.get("authorization") != f"Bearer {self.wanted}":
            return web.json_response({"error": {"message": "who are you?"}}, status=401)
        if self.status != 200:
            return web.json_response({"error": {"message": "not now"}}, status=self.status)
        usage = {"usage": USAGE} if self.usage else {}
        if not body.get("stream"):
            choice = {"index": 0, "message": {"role": "assistant", "content": "steel"}, "finish_reason": "stop"}
            return web.json_response({"object": "chat.completion", "model": "big-1", "choices": [choice], **usage})
        out = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await out.prepare(request)
        chunks: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": {"content": w}}]} for w in ("st", "ee", "l")]
        if usage and body.get("stream_options", {}).get("include_usage"):
            chunks.append({"choices": [], **usage})
        for chunk in chunks:
            await out.write(b"data: " + orjson.dumps(chunk) + b"\n\n")
        await out.write(b"data: [DONE]\n\n")
        return out


@asynccontextmanager
async def upstream(tls: ssl.SSLContext | None = None) -> AsyncIterator[Upstream]:
    made, app = Upstream(), web.Application()
    app.router.add_post("/api/v1/{rest:.*}", made.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    port = runner.addresses[0][1]
    made.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}/api/v1"
    try:
        yield made
    finally:
        await runner.cleanup()


def anywhere(_host: str, _address: Address | None) -> bool:
    return True


@dataclass
class Kept:
    """The secrets that the api keeps, by name, for a service at ``url``."""

    secrets: dict[str, str] = field(default_factory=dict)
    url: str = ""
    away: bool = False
    asked: int = 0
    paths: bool = True
    """An api of an older release says none."""

    async def fetch(self, key: Key) -> tuple[str, str]:
        self.asked += 1
        if self.away:
            raise Unavailable("the api is away")
        parts = urlsplit(self.url)
        return self.secrets[key.name], f"{parts.scheme}://{parts.netloc}" + (parts.path if self.paths else "")


@asynccontextmanager
async def outer_rig(kept: Kept | None = None) -> AsyncIterator[Rig]:
    services = Services((kept or Kept()).fetch, SystemClock())
    running = asyncio.ensure_future(services.run())
    try:
        async with rig(services=services, outward=Outward(anywhere, ssl.create_default_context())) as to:
            yield to
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def outer(name: str, url: str, *, mark: str = "", gone: bool = False, **spec: Any) -> Change:
    made = endpoint(name, gone=gone, external={"url": url, "model": "big-1", "contextTokens": 4096}, slots=1, **spec)
    body = orjson.loads(made.body)
    del body["spec"]["model"]
    if mark:
        body["metadata"]["annotations"] = {SECRET_MARK: mark}
    return replace(made, body=orjson.dumps(body))


async def ask(to: Rig, model: str, path: str = "chat/completions", **words: Any) -> tuple[int, str]:
    headers = {"authorization": "Bearer bsk_good"}
    said: dict[str, Any] = {"input": "steel"} if path == "embeddings" else {"messages": ASK}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{to.url}/{path}", json={"model": model, **said, **words}, headers=headers) as answer,
    ):
        return answer.status, await answer.text()


def billed(to: Rig) -> list[tuple[str, str, int, int]]:
    pending = to.spool.pending()
    records = pending.records if pending else []
    records = [one for one in records if one.ended != "unpaid"]
    return [(r.endpoint, r.model, r.input_tokens, r.output_tokens) for r in records]


async def test_a_service_is_asked_in_its_own_words_and_billed_by_its_own_count() -> None:
    async with upstream() as there, outer_rig() as to:
        to.tables.apply(outer("big", there.url))
        status, text = await ask(to, "big", max_tokens=5)
        assert (status, orjson.loads(text)["choices"][0]["message"]["content"]) == (200, "steel")
        assert (await ask(to, "big", "embeddings"))[0] == 200
        assert there.paths == ["/api/v1/chat/completions", "/api/v1/embeddings"]
        assert [body["model"] for body in there.bodies] == ["big-1", "big-1"]
        for headers in there.headers:
            assert "bsk_good" not in str(headers), "what the client showed us stays here"
            assert "authorization" not in headers, "none was set"
            assert headers["host"].startswith("127.0.0.1:")
        assert billed(to)[0] == ("big", "external/big-1", 9, 3)
        assert to.tables.endpoints[PROJECT, "big"].context_tokens == 4096


async def test_a_stream_is_asked_for_its_usage_and_for_nothing_that_it_would_refuse() -> None:
    async with upstream() as there, outer_rig() as to:
        to.tables.apply(outer("big", there.url))
        for words, shown in (({}, False), ({"stream_options": {"include_usage": True}}, True)):
            status, text = await ask(to, "big", stream=True, **words)
            assert (status, "st" in text, '"usage"' in text) == (200, True, shown)
            assert there.bodies[-1]["stream_options"] == {"include_usage": True}
        assert billed(to) == [("big", "external/big-1", 9, 3)] * 2


async def test_what_tells_no_usage_is_billed_nothing() -> None:
    async with upstream() as there, outer_rig() as to:
        there.usage = False
        to.tables.apply(outer("big", there.url))
        assert (await ask(to, "big"))[0] == (await ask(to, "big", stream=True))[0] == 200
        assert billed(to) == [("big", "external/big-1", 0, 0)] * 2


async def test_many_are_asked_at_once_of_whom_nobody_knows_how_many_it_takes() -> None:
    async with upstream() as there, outer_rig() as to:
        to.tables.apply(outer("big", there.url))
        came = await asyncio.gather(*(ask(to, "big", stream=n % 2 == 0) for n in range(8)))
        assert [status for status, _ in came] == [200] * 8


async def test_its_secret_is_shown_once_it_has_come_and_never_before() -> None:
    kept = Kept({"big": "sk-one"}, away=True)
    async with upstream() as there, outer_rig(kept) as to:
        there.wanted, kept.url = "sk-one", there.url
        to.tables.apply(outer("big", there.url, mark="a"))
        assert (await ask(to, "big"))[0] == 503
        assert there.bodies == []
        kept.away = False
        async with asyncio.timeout(20):
            while not to.tables.endpoints[PROJECT, "big"].replicas:
                await asyncio.sleep(0.02)
        assert (await ask(to, "big"))[0] == 200
        asked = kept.asked
        to.tables.apply(outer("big", there.url, mark="a", fallbacks=["words"]))
        assert kept.asked == asked, "nothing new of it"
        there.wanted = kept.secrets["big"] = "sk-two"
        to.tables.apply(outer("big", there.url, mark="b"))
        async with asyncio.timeout(20):
            while (await ask(to, "big"))[0] != 200:
                await asyncio.sleep(0.02)
        assert "sk-" not in str(to.tables.endpoints[PROJECT, "big"].replicas)


async def test_a_secret_goes_nowhere_else() -> None:
    """Who moves the service has no secret of it there, until one is set for that place."""
    kept = Kept({"big": "sk-one"})
    async with upstream() as there, upstream() as thief, outer_rig(kept) as to:
        kept.url = there.url
        to.tables.apply(outer("big", there.url, mark="a"))
        async with asyncio.timeout(20):
            while not to.tables.endpoints[PROJECT, "big"].replicas:
                await asyncio.sleep(0.02)
        kept.secrets["big"] = ""  # what the api says of a secret that was set for another place
        to.tables.apply(outer("big", thief.url, mark="a"))
        assert (await ask(to, "big"))[0] == 503
        assert thief.bodies == []


async def test_a_secret_goes_nowhere_else_while_it_is_moved_to_and_fro() -> None:
    """Who moves the service and at once moves it back: the api says the secret again, and the gateway has heard of the
    first move alone."""
    kept = Kept({"big": "sk-one"})
    async with upstream() as there, upstream() as thief, outer_rig(kept) as to:
        kept.url = there.url
        to.tables.apply(outer("big", thief.url, mark="a"))
        async with asyncio.timeout(20):
            while not kept.asked:
                await asyncio.sleep(0.02)
        assert (await ask(to, "big"))[0] == 503
        assert thief.bodies == []
        to.tables.apply(outer("big", there.url, mark="a"))
        async with asyncio.timeout(20):
            while not to.tables.endpoints[PROJECT, "big"].replicas:
                await asyncio.sleep(0.02)
        assert (await ask(to, "big"))[0] == 200


@pytest.mark.parametrize("paths", [True, False])
async def test_a_secret_goes_to_nobody_elses_part_of_a_host(paths: bool) -> None:
    """Who moves it to another path, as of another account there, and at once back."""
    kept = Kept({"big": "sk-one"}, paths=paths)
    async with upstream() as there, outer_rig(kept) as to:
        kept.url = there.url
        to.tables.apply(outer("big", there.url, mark="a"))
        async with asyncio.timeout(20):
            while not to.tables.endpoints[PROJECT, "big"].replicas:
                await asyncio.sleep(0.02)
        asked = kept.asked
        to.tables.apply(outer("big", f"{there.url}/thief", mark="a"))
        assert not to.tables.endpoints[PROJECT, "big"].replicas, "nothing is sent there before it is known to be meant"
        async with asyncio.timeout(20):
            while kept.asked == asked:
                await asyncio.sleep(0.02)
        await asyncio.sleep(0)
        assert bool(to.tables.endpoints[PROJECT, "big"].replicas) is not paths


@pytest.mark.parametrize("status", [401, 403, 302])
async def test_one_that_does_not_know_us_or_sends_us_on_has_not_answered(status: int) -> None:
    async with upstream() as there, outer_rig() as to:
        there.status = status
        to.tables.apply(outer("big", there.url))
        said, text = await ask(to, "big")
        assert (said, "not now" in text) == (502, False)
        assert billed(to) == []


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_whoever_stands_in_for_it_is_asked_where_it_cannot(status: int) -> None:
    async with upstream() as there, upstream() as other, outer_rig() as to:
        there.status = status
        to.tables.apply(outer("big", there.url, fallbacks=["other"]))
        to.tables.apply(outer("other", other.url))
        assert (await ask(to, "big"))[0] == 200
        assert other.bodies[0]["model"] == "big-1"
        assert [one[0] for one in billed(to)] == ["other"]


async def test_one_that_is_gone_is_asked_nothing_more() -> None:
    async with upstream() as there, outer_rig() as to:
        to.tables.apply(outer("big", there.url))
        assert to.tables.endpoints[PROJECT, "big"].replicas
        to.tables.apply(endpoint("big"))
        assert not to.tables.endpoints[PROJECT, "big"].replicas, "it has replicas of its own now"
        to.tables.apply(outer("big", there.url))
        to.tables.apply(outer("big", there.url, gone=True))
        assert to.tables._homeless == {}
        to.tables.apply(outer("big", there.url))
        to.tables.forget("Endpoint", frozenset())
        assert to.tables.endpoints == {}
        assert (await ask(to, "big"))[0] == 404


# --- who is dialled ---------------------------------------------------------------------------------------------


async def dialled(url: str, *, allowed: str = "", tls: ssl.SSLContext | None = None) -> str:
    """What came of it: "" for a connection."""
    out = outward(Settings(externals_allowed=allowed))
    to = Outer.read({"url": url, "model": "m"}, "")
    try:
        made = await connect(to, asyncio.Protocol, by=replace(out, tls=tls or out.tls))
    except (OSError, ValueError) as error:
        return str(error) or type(error).__name__
    assert made is not None
    return ""


async def test_inner_addresses_are_dialled_where_the_operator_names_them_alone() -> None:
    async with upstream() as there:
        assert "https alone" in await dialled(there.url)
        assert "inner address" in await dialled(there.url.replace("http:", "https:"))
        named = there.url.replace("127.0.0.1", "localhost")
        assert "inner address" in await dialled(named.replace("http:", "https:"))
        assert await dialled(there.url, allowed="127.0.0.0/8") == ""
        assert await dialled(named, allowed="localhost") == ""
        for strange in ("http://127.1", "http://2130706433", "http://0x7f.1"):
            assert await dialled(strange, allowed="localhost") != ""


async def test_link_local_addresses_are_nobodys() -> None:
    for url in ("https://169.254.169.254/v1", "https://[fe80::1]/v1"):
        assert "inner address" in await dialled(url, allowed="169.254.0.0/16,fe80::/10")


async def test_a_service_is_who_its_certificate_says(tmp_path: Path) -> None:
    authority = create_ca("theirs")
    pair, server = authority.issue("there", sans=("127.0.0.1",)), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    for name, text in (("crt", pair.certificate), ("key", pair.key)):
        (tmp_path / name).write_bytes(text)
    server.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    believed = ssl.create_default_context(cadata=authority.certificate.decode())
    async with upstream(server) as there:
        assert "certificate" in await dialled(there.url, allowed="127.0.0.1")
        assert await dialled(there.url, allowed="127.0.0.1", tls=believed) == ""
        wrong = there.url.replace("127.0.0.1", "localhost")
        assert "certificate" in await dialled(wrong, allowed="localhost", tls=believed), "a name that it has not"
