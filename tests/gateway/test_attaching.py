"""What requests name by its address is fetched by the gateway, from whom it may; engines are sent what came."""

from __future__ import annotations

import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from bessemer.api.ca import create_ca
from bessemer.core.clock import SystemClock
from bessemer.gateway import Tables, attaching
from bessemer.gateway.lookups import Lookups
from bessemer.gateway.outer import Outward, Services
from bessemer.main.gateway import outward
from bessemer.main.settings import Settings
from tests.gateway.harness import PROJECT, Rig, endpoint, rig
from tests.gateway.test_outer import Kept, Upstream, anywhere, outer, upstream

PNG = b"\x89PNG\r\n\x1a\n"
DATA = "data:image/png;base64,iVBORw0KGgo="


@dataclass
class Pictures:
    """A host of images, and how it behaves: by path."""

    host: str = ""
    asked: list[str] = field(default_factory=list)
    heads: list[dict[str, str]] = field(default_factory=list)
    holds: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        self.heads.append({name.lower(): value for name, value in request.headers.items()})
        match request.path:
            case "/elsewhere":
                raise web.HTTPFound("https://127.0.0.1/inner")
            case "/packed":
                return web.Response(
                    body=gzip.compress(bytes(1 << 20)),
                    headers={"Content-Encoding": "gzip", "Content-Type": "image/png"},
                )
            case "/page":
                return web.Response(text="<html>")
            case "/drawing":
                return web.Response(body=b"<svg/>", content_type="image/svg+xml")
            case "/none":
                raise web.HTTPNotFound
            case "/large":
                return web.Response(body=bytes(attaching.BYTES_MAX + 1), content_type="image/png")
            case "/endless" | "/slow":
                return await self.endless(request)
            case "/sound":
                return web.Response(body=b"ID3", content_type="audio/mpeg")
        return web.Response(body=PNG, content_type="image/png")

    async def endless(self, request: web.Request) -> web.StreamResponse:
        out = web.StreamResponse(headers={"Content-Type": "image/png"})
        await out.prepare(request)
        while request.path == "/endless":
            await out.write(bytes(1 << 16))
            await asyncio.sleep(0)  # else it may never hear that its reader has gone
        await out.write(b"x")
        await self.holds.wait()
        return out


@dataclass
class There:
    """A gateway, a service that answers for ``gpt``, and a host of images."""

    to: Rig
    service: Upstream
    pictures: Pictures

    async def ask(self, *urls: str, model: str = "gpt", **words: Any) -> tuple[int, dict[str, Any]]:
        parts = [{"type": "image_url", "image_url": {"url": url.replace("@", self.pictures.host)}} for url in urls]
        said = {"model": model, "messages": [{"role": "user", "content": [*parts, {"type": "text", "text": "what?"}]}]}
        headers = {"authorization": "Bearer bsk_good"}
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.to.url}/chat/completions", json={**said, **words}, headers=headers) as answer,
        ):
            text = await answer.text()
            return answer.status, orjson.loads(text) if text.startswith("{") else {}

    async def refused(self, *urls: str) -> str:
        """The words of its error, which names the part; nobody was asked."""
        status, body = await self.ask(*urls)
        assert status == 400, body
        error = body["error"]
        assert error["type"] == "invalid_request_error"
        assert error["param"] == f"messages[0].content[{len(urls) - 1}].image_url"
        assert error["code"] == "invalid_image_url"
        assert self.service.bodies == []
        return str(error["message"])

    def got(self) -> list[str]:
        """The images of the last body that the service was sent."""
        parts = self.service.bodies[-1]["messages"][0]["content"]
        return [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]


@asynccontextmanager
async def there(folder: Path, to: Outward | None = None) -> AsyncIterator[There]:
    authority, server = create_ca("theirs"), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    pair = authority.issue("there", sans=("localhost",))
    for name, text in (("crt", pair.certificate), ("key", pair.key)):
        (folder / name).write_bytes(text)
    server.load_cert_chain(folder / "crt", folder / "key")
    pictures, app = Pictures(), web.Application()
    app.router.add_get("/{rest:.*}", pictures.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server).start()
    pictures.host = f"localhost:{runner.addresses[0][1]}"
    believed = ssl.create_default_context(cadata=authority.certificate.decode())
    dials = replace(to, tls=believed) if to is not None else Outward(anywhere, believed)
    try:
        async with upstream() as service, rig(services=Services(Kept().fetch, SystemClock()), outward=dials) as made:
            made.tables.apply(outer("gpt", service.url, addresses={"hosts": [pictures.host]}))
            yield There(made, service, pictures)
    finally:
        pictures.holds.set()
        await runner.cleanup()


async def test_none_is_fetched_where_the_endpoint_says_nothing() -> None:
    async with rig() as to:
        alone = There(to, Upstream(), Pictures(host="a.example"))
        status, body = await alone.ask("https://@/x.png", model="words")
    assert status == 400
    assert body == {
        "error": {
            "message": "`messages[0].content[0].image_url` is an address, and this endpoint lets none be fetched. Send "
            "what it is of as a `data:` URL.",
            "type": "invalid_request_error",
            "param": "messages[0].content[0].image_url",
            "code": "invalid_image_url",
        }
    }


async def test_data_goes_on_and_so_does_text_that_says_addresses() -> None:
    async with rig() as to:
        await to.replica("r0", of="words")
        status, body = await There(to, Upstream(), Pictures()).ask(DATA, model="words", user="https://a.example/")
    assert status == 200, body


async def test_what_is_allowed_is_fetched_and_put_in_its_place(tmp_path: Path) -> None:
    async with there(tmp_path) as it:
        status, _ = await it.ask("https://@/a.png?x=1", DATA, "https://@/sound", stream=True)
        assert status == 200
        assert it.got() == [DATA, DATA, "data:audio/mpeg;base64,SUQz"]
        assert sorted(it.pictures.asked) == ["/a.png", "/sound"]
        for head in it.pictures.heads:
            assert head.keys() == {"host", "accept", "accept-encoding", "user-agent", "connection"}, (
                "nothing of who asks"
            )
        assert it.service.bodies[-1]["stream"] is True


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://@/elsewhere", "sends elsewhere with status 302"),
        ("https://@/packed", "packs what it sends"),
        ("https://@/page", "no image and no sound"),
        ("https://@/drawing", "no image and no sound"),
        ("https://@/none", "status 404"),
        ("https://@/large", "more than 8388608 bytes"),
        ("https://@/endless", "more than 8388608 bytes"),
        ("http://@/a.png", "not written as https"),
        ("https://user@@/a.png", "not written as https"),
        ("https://@\\@inner/a.png", "not written as https"),
        ("https://@#@inner/", "not written as https"),
        ("HTTPS://@/a.png", "not written as https"),
        ("//@/a.png", "not written as https"),
        ("https://localhost/a.png", "none of those"),
        ("https://localhost.:1/a.png", "none of those"),
        ("https://127.0.0.1/a.png", "none of those"),
        ("https://[::1]/a.png", "not written as https"),
        ("https://ｌocalhost/a.png", "not written as https"),
        ("file:///etc/passwd", "not written as https"),
    ],
)
async def test_who_behaves_otherwise_is_refused(tmp_path: Path, url: str, words: str) -> None:
    async with there(tmp_path) as it:
        assert words in await it.refused(url)


async def test_a_name_that_stands_inside_is_not_dialled(tmp_path: Path) -> None:
    async with there(tmp_path, outward(Settings())) as it:
        assert "cannot be reached" in await it.refused("https://@/a.png")
        assert it.pictures.asked == []


async def test_a_name_is_resolved_once_and_what_was_judged_is_dialled(tmp_path: Path) -> None:
    asked = []

    def resolve(host: str, _port: int) -> list[str]:
        if host != "localhost":
            return [host]
        asked.append(host)
        return ["127.0.0.1" if len(asked) == 1 else "169.254.169.254"]

    judged = []

    def allows(_host: str, address: object) -> bool:
        judged.append(str(address))
        return str(address) != "169.254.169.254"

    async with there(tmp_path, Outward(allows, ssl.create_default_context(), Lookups(resolve))) as it:
        assert (await it.ask("https://@/a.png"))[0] == 200
        assert asked == ["localhost"]
        it.service.bodies.clear()
        assert "cannot be reached" in await it.refused("https://@/b.png")
        assert it.pictures.asked == ["/a.png"]
        assert "169.254.169.254" in judged


async def test_a_slow_host_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attaching, "SECONDS_MAX", 0.2)
    async with there(tmp_path) as it:
        assert "did not come within" in await it.refused("https://@/slow")


async def test_at_most_so_many_are_fetched(tmp_path: Path) -> None:
    async with there(tmp_path) as it:
        urls = [f"https://@/{at}" for at in range(attaching.COUNT_MAX + 1)]
        status, body = await it.ask(*urls)
        assert status == 400
        assert "at most 16" in body["error"]["message"]
        assert it.pictures.asked == []
        assert (await it.ask(*urls[:-1]))[0] == 200
        assert it.got() == [DATA] * attaching.COUNT_MAX


async def test_a_client_that_leaves_ends_what_is_fetched(tmp_path: Path) -> None:
    async with there(tmp_path) as it:
        asking = asyncio.ensure_future(it.ask("https://@/slow"))
        async with asyncio.timeout(10):
            while not it.pictures.asked:
                await asyncio.sleep(0.01)
        assert it.to.gateway._attaching._busy.total() == 1
        asking.cancel()
        async with asyncio.timeout(10):
            while it.to.gateway._attaching._busy:
                await asyncio.sleep(0.01)
        assert it.service.bodies == []


async def test_a_project_fetches_for_so_many_requests_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attaching, "OF_ONE_MAX", 1)
    async with there(tmp_path) as it:
        asking = asyncio.ensure_future(it.ask("https://@/slow"))
        async with asyncio.timeout(10):
            while not it.pictures.asked:
                await asyncio.sleep(0.01)
        status, body = await it.ask("https://@/a.png")
        assert (status, body["error"]["code"]) == (503, "gateway_busy")
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


async def test_what_comes_counts_as_the_body_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bessemer.gateway.request.BODY_BYTES_MAX", 4096)
    async with there(tmp_path) as it:
        status, body = await it.ask("https://@/endless")
        assert status == 413, body


def test_the_tables_know_the_hosts_of_an_endpoint() -> None:
    tables = Tables()
    tables.apply(endpoint("words", addresses={"hosts": ["a.example"]}))
    assert tables.endpoints[PROJECT, "words"].hosts == {"a.example"}
    tables.apply(endpoint("words"))
    assert tables.endpoints[PROJECT, "words"].hosts == frozenset()
