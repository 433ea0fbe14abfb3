"""Who gets in, what stays out, and what every answer forbids: asked without a browser."""

from __future__ import annotations

import asyncio
import gzip
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.cookies import SimpleCookie
from typing import Any

import aiohttp
import pytest
from starlette.requests import Request

from bessemer.client import Client
from bessemer.core.ports import Scope
from bessemer.core.resource import Key
from bessemer.portal import door
from bessemer.portal.guard import POLICY
from bessemer.portal.visit import COOKIE
from tests.api.world import BASE, PASSWORD
from tests.portal.town import CHAT, LAB, REAL, VM, Town

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATHS = (
    "/",
    "/fleet",
    "/overview",
    "/hosts",
    f"/hosts/{REAL}",
    f"/in/{LAB}/instances",
    f"/in/{LAB}/instances/{VM.name}",
    f"/in/{LAB}/endpoints/{CHAT.name}/usage",
    f"/in/{LAB}/invoice",
    f"/in/{LAB}/keys",
    f"/in/{LAB}/quota",
    "/models",
    "/users",
    "/live?tab=x:0",
    "/search?q=a",
)


@dataclass(frozen=True)
class Answer:
    """An answer read to its end; no redirect is followed."""

    status: int
    headers: Mapping[str, str]
    cookies: SimpleCookie
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


class Caller:
    """Somebody without a browser, who shows the cookie that signing in gave."""

    def __init__(self, session: aiohttp.ClientSession, origin: str) -> None:
        self.session = session
        self.origin = origin
        self.cookie = ""

    async def get(self, path: str, **headers: str) -> Answer:
        return await self._ask("GET", path, headers)

    async def post(self, path: str, data: Any = None, *, headers: Mapping[str, str] | None = None) -> Answer:
        given = {"Origin": self.origin} if headers is None else headers
        body = {"json": data} if isinstance(data, dict) and "messages" in data else {"data": data}
        return await self._ask("POST", path, given, **body)

    async def sign_in(self, user: str, **more: str) -> Answer:
        answer = await self.post("/signin", {"user": user, "password": PASSWORD, **more})
        if COOKIE in answer.cookies:
            self.cookie = answer.cookies[COOKIE].value
        return answer

    async def _ask(self, method: str, path: str, headers: Mapping[str, str], **body: Any) -> Answer:
        shown = {"Cookie": f"{COOKIE}={self.cookie}"} if self.cookie else {}
        given = {"Accept": "text/html", **shown, **headers}
        async with self.session.request(method, path, headers=given, allow_redirects=False, **body) as response:
            return Answer(response.status, response.headers, response.cookies, await response.read())


@asynccontextmanager
async def caller(t: Town, user: str = "", **options: Any) -> AsyncIterator[Caller]:
    """Somebody over HTTPS; signed in where a user is named."""
    connector = aiohttp.TCPConnector(ssl=False)
    jar = aiohttp.DummyCookieJar()
    async with aiohttp.ClientSession(t.url, connector=connector, cookie_jar=jar, **options) as session:
        made = Caller(session, t.url)
        if user:
            await made.sign_in(user)
        yield made


async def test_the_cookie_is_for_this_host_and_for_nothing_else(t: Town) -> None:
    async with caller(t) as session:
        answer = await session.sign_in("ada")
        assert answer.status == 303
        header = answer.headers["Set-Cookie"]
        assert header.startswith(f"{COOKIE}=bss_")
        for word in ("HttpOnly", "Secure", "SameSite=strict", "Path=/", "Max-Age="):
            assert word in header
        assert "Domain" not in header


async def test_the_cookie_goes_as_it_came(t: Town) -> None:
    async with caller(t, "ada") as session:
        answer = await session.post("/signout")
        header = answer.headers["Set-Cookie"]
        assert header.startswith(f'{COOKIE}="";')
        for word in ("HttpOnly", "Secure", "SameSite=strict", "Path=/", "Max-Age=0"):
            assert word in header
        assert "Domain" not in header


async def test_a_stranger_is_sent_to_the_door(t: Town) -> None:
    async with caller(t) as session:
        for path in PATHS:
            answer = await session.get(path)
            assert answer.status in (303, 404), path
            if answer.status == 303:
                assert answer.headers["Location"].startswith("/signin"), path
            assert (await session.get(path, Accept="*/*")).status in (401, 404)


async def test_every_answer_forbids_what_no_page_needs(t: Town) -> None:
    async with caller(t, "ada") as session:
        for path in (*PATHS[:-2], "/signin", "/nowhere", "/static/x/tokens.css", "/healthz"):
            answer = await session.get(path)
            assert answer.headers["Content-Security-Policy"] == POLICY, path
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Cache-Control"] in ("no-store", "no-cache"), path
    assert "unsafe" not in POLICY
    assert POLICY.startswith("default-src 'none'")


@pytest.mark.parametrize("headers", [{}, {"Origin": "https://evil.example"}, {"Origin": "null"}])
async def test_a_write_from_elsewhere_changes_nothing(t: Town, headers: dict[str, str]) -> None:
    async with caller(t, "ada") as session:
        for act in ("stop", "delete"):
            answer = await session.post(f"/in/{LAB}/instances/{VM.name}/{act}", headers=headers)
            assert answer.status == 403
            assert "Nothing was changed" in answer.text
        assert (await session.post("/signout", headers=headers)).status == 403
        assert (await session.get("/overview")).status == 200
    stored = await t.w.store.objects.get(VM)
    assert b'"running":false' not in stored.body


async def test_an_invoice_of_long_ago_is_empty(t: Town) -> None:
    async with caller(t, "ada") as session:
        for scope in (LAB, "all"):
            answer = await session.get(f"/in/{scope}/invoice?month=0001-01")
            assert answer.status == 200
            assert "February 1970" in answer.text


async def test_another_tenants_pages_are_not_there(t: Town) -> None:
    async with caller(t, "rita") as session:
        for path in (
            f"/in/{LAB}/instances",
            f"/in/{LAB}/instances/{VM.name}",
            f"/in/{LAB}/endpoints/{CHAT.name}",
            f"/in/{LAB}/endpoints/{CHAT.name}/usage",
            f"/in/{LAB}/invoice",
            f"/in/{LAB}/invoice/rows?rows=1&from=0&to=2000000000",
            f"/in/{LAB}/keys",
            "/fleet",
            "/hosts",
            f"/hosts/{REAL}",
            "/users",
        ):
            answer = await session.get(path)
            assert answer.status == 404, path
            assert "micro" not in answer.text
        own = await session.get("/overview")
        assert own.status == 200
        assert "acme" not in own.text
        found = await session.get("/search?q=", Accept="application/json")
        assert "acme" not in found.text
        for path in (f"/in/{LAB}/instances/{VM.name}/delete", f"/in/{LAB}/endpoints/{CHAT.name}/chat"):
            body = {"messages": [{"role": "user", "content": "hello"}]}
            answer = await session.post(path, body)
            assert answer.status == 404, path


async def test_a_wrong_password_says_no_more_than_that(t: Town) -> None:
    async with caller(t) as session:
        texts = []
        for user in ("ada", "nobody-of-that-name"):
            answer = await session.sign_in(user, password="wrong horse battery")
            assert answer.status == 401
            assert COOKIE not in answer.cookies
            texts.append(answer.text.replace(user, "USER"))
        assert texts[0] == texts[1]


async def test_attempts_are_counted_by_whoever_makes_them(t: Town) -> None:
    taken: list[tuple[str, str]] = []
    sign_ins = t.w.api.state.sign_ins
    original = sign_ins.admit

    async def admit(source: str, account: str = "") -> None:
        taken.append((source, account))

    sign_ins.admit = admit  # type: ignore[method-assign]
    try:
        async with caller(t) as session:
            await session.sign_in("ada", password="wrong horse battery")
    finally:
        sign_ins.admit = original  # type: ignore[method-assign]
    assert taken == [("127.0.0.1", "ada")]


@pytest.mark.parametrize("path", ["/signin", "/signin/link"])
async def test_a_form_that_is_none_is_refused_and_is_no_fault_of_ours(t: Town, path: str) -> None:
    async with caller(t) as session:
        many = "&".join(f"f{number}=x" for number in range(99))
        for data, status in ((many, 400), ("user=" + "x" * (64 << 10), 413), (b"\xff=\xff", 400)):
            answer = await session.post(path, data)
            assert answer.status == status
            assert COOKIE not in answer.cookies


async def test_a_form_that_breaks_off_is_nothing_to_log(t: Town, caplog: pytest.LogCaptureFixture) -> None:
    tls = ssl.create_default_context()
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    host, _, port = t.url.removeprefix("https://").partition(":")
    _, writer = await asyncio.open_connection(host, int(port), ssl=tls)
    head = f"POST /signin HTTP/1.1\r\nHost: {host}:{port}\r\nOrigin: {t.url}\r\nContent-Length: 9\r\n\r\n"
    came, ended = asyncio.Event(), asyncio.Event()
    original = door._form

    async def noted(request: Request) -> dict[str, str]:
        came.set()
        try:
            return await original(request)
        finally:
            ended.set()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(door, "_form", noted)
        writer.write(head.encode() + b"user")
        await asyncio.wait_for(came.wait(), 30)
        writer.transport.abort()
        await asyncio.wait_for(ended.wait(), 30)
        async with caller(t) as session:
            assert (await session.get("/signin")).status == 200
    assert caplog.records == []


async def test_a_link_is_used_by_a_click_and_once(t: Town) -> None:
    made = await t.w.call("POST", f"{BASE}/users/ada/signinlink", {})
    secret = made.json["secret"]
    async with caller(t) as session:
        for _ in range(3):  # whatever merely follows links
            shown = await session.get(f"/signin?link={secret}")
            assert shown.status == 200
            assert COOKIE not in shown.cookies
        first = await session.post("/signin/link", data={"link": secret}, headers={"Origin": t.url})
        assert (first.status, first.headers["Location"]) == (303, "/")
        assert COOKIE in first.cookies
        again = await session.post("/signin/link", data={"link": secret}, headers={"Origin": t.url})
        assert again.status == 401
        assert "A link works once" in again.text


@pytest.mark.parametrize("back", ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)"])
async def test_nobody_is_sent_on_to_elsewhere(t: Town, back: str) -> None:
    async with caller(t) as session:
        answer = await session.sign_in("ada", back=back)
        assert answer.headers["Location"] == "/"
        kept = await session.sign_in("ada", back="/in/all/instances")
        assert kept.headers["Location"] == "/in/all/instances"


async def test_signing_out_ends_the_session_at_the_api(t: Town) -> None:
    async with caller(t, "ada") as session:
        bearer = session.cookie
        assert (await t.w.call("GET", "/whoami", token=bearer)).code == 200
        answer = await session.post("/signout")
        assert answer.status == 303
        assert (await t.w.call("GET", "/whoami", token=bearer)).code == 401
        assert (await session.get("/overview")).status == 303


async def test_a_session_that_was_revoked_sees_nothing_more(t: Town) -> None:
    async with caller(t, "ada") as session:
        assert (await session.get("/overview")).status == 200
        name = session.cookie.removeprefix("bss_").partition(".")[0]
        desk = await t.portal.state.site.desks.of(session.cookie)
        stream = asyncio.ensure_future(session.get("/live?tab=x:0"))
        async with asyncio.timeout(30):
            while not desk.streams:
                await asyncio.sleep(0.01)
        await t.w.call("DELETE", f"{BASE}/sessions/{name}")
        assert '"x":"signedout"' in (await stream).text
        assert (await session.get("/overview")).status == 303


async def test_tabs_of_a_session_share_one_watch(t: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[tuple[Client, str]] = []
    watch = Client.watch

    def noted(client: Client, scope: Scope, *rest: Any, **more: Any) -> Any:
        begun.append((client, scope.kind))
        return watch(client, scope, *rest, **more)

    monkeypatch.setattr(Client, "watch", noted)
    async with caller(t, "ada") as session:
        for path in ("/overview", f"/in/{LAB}/instances", "/overview"):
            assert (await session.get(path)).status == 200
        # Not what the api counts: sessions of tests before, whose end it hears of by and by, have watches too.
        ours = (await t.portal.state.site.desks.of(session.cookie)).client
        assert [client is ours for client, kind in begun if kind == "Instance"].count(True) == 1
        await session.post("/signout")


async def test_hostile_names_stay_words(t: Town) -> None:
    key = Key("Instance", LAB, "quoted")
    spec = {"flavor": "micro", "image": "micro-guest"}
    await t.put({"kind": "Instance", "metadata": {"name": key.name, "namespace": LAB}, "spec": spec})
    await t.phase(key, "Booting", message='<script>alert("x")</script> & <img src=x onerror=y>')
    async with caller(t, "ada") as session:
        for path in ("/overview", f"/in/{LAB}/instances/quoted"):
            text = (await session.get(path)).text
            assert "<script>alert" not in text
            assert "<img src=x" not in text
    await t.w.call("DELETE", f"{BASE}/namespaces/{LAB}/instances/quoted")


async def test_the_overview_is_small(t: Town) -> None:
    """What is transferred of a page and all that it needs, without its fonts: at most 100 kB."""
    async with caller(t, "root", auto_decompress=False) as session:
        page = await session.get("/fleet", **{"Accept-Encoding": "gzip"})
        size = len(page.body)
        text = gzip.decompress(page.body).decode()
        for name in set(re.findall(r'(?:href|src)="(/static/[^"]+\.(?:css|js|svg))"', text)):
            asset = await session.get(name, **{"Accept-Encoding": "gzip"})
            assert "immutable" in asset.headers["Cache-Control"]
            assert (await session.get(name, **{"If-None-Match": asset.headers["ETag"]})).status == 304
            size += len(asset.body)
    assert size < 100_000, size
