"""Signing in to the portal by a real issuer, in a real browser: there, back, and out everywhere."""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import aiohttp
import orjson
import pytest
import pytest_asyncio
from playwright.async_api import Browser, ConsoleMessage, Page, expect
from yarl import URL

from bessemer.api import listen, server_tls
from bessemer.core.ports import Scope
from bessemer.drivers.oidc.real import HttpIssuers
from bessemer.portal import PortalSettings, make_portal
from bessemer.portal.outside import ATTEMPT, ATTEMPT_SECONDS
from bessemer.portal.visit import COOKIE
from tests.api.world import BASE, Served, World, named, served, tenant, world
from tests.issuer import CLIENT, PUBLIC, SECRET, Issuer, issuer
from tests.issuer.hands import Hands
from tests.portal.town import https

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

PROVIDER = {
    "displayName": "Example single sign-on",
    "oidc": {
        "clientId": CLIENT,
        "cliClientId": PUBLIC,
        "scopes": ["openid", "profile", "email", "groups"],
        "allowPrivateAddress": True,
        "allowLoopbackHttp": True,
    },
}


@dataclass
class Place:
    w: World
    api: Served
    url: str
    issuer: Issuer

    async def sessions(self) -> list[str]:
        page = await self.w.store.objects.list(Scope(kind="Session"))
        return [orjson.loads(one.body)["spec"]["user"] for one in page.items]


@asynccontextmanager
async def place(directory: Path) -> AsyncIterator[Place]:
    async with AsyncExitStack() as stack:
        bound = listen("127.0.0.1", 0)
        url = f"https://127.0.0.1:{bound.getsockname()[1]}"
        w = await stack.enter_async_context(world(issuers=HttpIssuers(), portal_url=url))
        api = await stack.enter_async_context(served(w, directory))
        ca, portal = api.path("ca.pem", w.ca.certificate), w.ca.issue("system:portal")
        tls = server_tls(w.ca.issue("portal", sans=["127.0.0.1"]), w.ca.certificate)
        tls.verify_mode = ssl.CERT_NONE
        pair = (api.path("portal.crt", portal.certificate), api.path("portal.key", portal.key))
        settings = PortalSettings(api_url=api.url, gateway_url=api.url, ca_path=ca, certificate=pair)
        await stack.enter_async_context(https(make_portal(settings), tls, bound))
        backchannel = f"{api.url}/login/providers/corp/logout"
        peer = await stack.enter_async_context(issuer(directory, url, backchannel=backchannel, ca=ca))
        oidc = {**PROVIDER["oidc"], "issuer": peer.url}
        await w.create(f"{BASE}/identityproviders", named("corp", **{**PROVIDER, "oidc": oidc}))
        reply = await w.call("POST", f"{BASE}/identityproviders/corp/clientsecret", {"secret": SECRET})
        assert reply.code == 200, reply.body
        await w.create(f"{BASE}/tenants", tenant("nord", **{"corp.ada": "member"}))
        await w.create(f"{BASE}/projects", named("nord--lab"))
        yield Place(w, api, url, peer)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def p() -> AsyncIterator[Place]:
    with tempfile.TemporaryDirectory(prefix="bsm-") as folder:
        async with place(Path(folder)) as made:
            yield made


async def at_the_issuer(page: Page, user: str) -> None:
    """Fill in its pages until they lead back."""
    await page.fill("input[name=login]", user)
    await page.fill("input[name=password]", "any")
    await page.click("button[type=submit]")
    await page.wait_for_selector("button[type=submit]")
    await page.click("button[type=submit]")


async def test_somebody_signs_in_looks_around_and_is_out_everywhere(p: Place, browser: Browser) -> None:
    context = await browser.new_context(ignore_https_errors=True)
    complaints: list[str] = []
    page = await context.new_page()

    def listen_to(message: ConsoleMessage) -> None:
        if message.type == "error" and message.location["url"].startswith(p.url):
            complaints.append(message.text)

    page.on("console", listen_to)
    await page.goto(f"{p.url}/signin?back=/in/nord--lab/instances")
    await page.click("text=Sign in with Example single sign-on")
    await page.wait_for_url(lambda url: url.startswith(p.issuer.url))
    await at_the_issuer(page, "ada")
    await page.wait_for_url(f"{p.url}/in/nord--lab/instances")
    cookies = {cookie["name"]: cookie for cookie in await context.cookies(p.url)}
    mine = cookies[COOKIE]
    assert (mine["httpOnly"], mine["secure"], mine["sameSite"]) == (True, True, "Strict")
    assert ATTEMPT not in cookies, "the attempt is over"
    assert await p.sessions() == ["corp.ada"]
    user = (await p.w.call("GET", f"{BASE}/users/corp.ada")).json
    assert user["spec"]["identity"] == {"issuer": p.issuer.url, "subject": "ada"}

    await page.goto(f"{p.url}/overview")
    assert not complaints
    await page.locator("form[action='/signout'] button").first.dispatch_event("click")
    await page.wait_for_url(lambda url: url.startswith(p.issuer.url))
    await page.click("button[name=logout]")
    await page.wait_for_url(f"{p.url}/signin")
    assert await p.sessions() == []
    await page.goto(f"{p.url}/overview")
    assert "/signin" in page.url
    await page.click("text=Sign in with Example single sign-on")
    await expect(page.locator("input[name=login]")).to_have_count(1)  # the issuer's own session has ended, too
    await context.close()


class Stranger:
    """Somebody without a browser at the portal's door, with their own cookies."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session = session
        self.url = url

    async def begin(self, path: str = "/signin/with/corp") -> str:
        answer = await self.get(path)
        assert answer.status == 303, await answer.text()
        return answer.headers["location"]

    async def get(self, path: str, **headers: str) -> aiohttp.ClientResponse:
        """An answer, read to its end."""
        async with self.session.get(
            self.url + path, allow_redirects=False, headers={"Accept": "text/html", **headers}
        ) as answer:
            await answer.read()
            return answer

    async def back(self, url: str, **headers: str) -> aiohttp.ClientResponse:
        assert url.startswith(self.url)
        return await self.get(url.removeprefix(self.url), **headers)

    @property
    def attempt(self) -> str:
        """What the browser keeps of it."""
        return self.session.cookie_jar.filter_cookies(URL(self.url))[ATTEMPT].value


@asynccontextmanager
async def stranger(p: Place) -> AsyncIterator[Stranger]:
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cadata=p.w.ca.certificate.decode()))
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=jar) as session:
        yield Stranger(session, p.url)


async def test_what_is_sent_along(p: Place) -> None:
    async with stranger(p) as somebody:
        url = await somebody.begin()
        query = parse_qs(urlsplit(url).query)
        assert query["code_challenge_method"] == ["S256"]
        assert query["redirect_uri"] == [f"{p.url}/signin/callback"]
        assert all(len(query[name][0]) >= 43 for name in ("state", "nonce", "code_challenge"))
        assert SECRET not in url
        assert SECRET not in somebody.attempt


async def test_the_cookies_on_the_way_are_for_this_host_and_for_nothing_else(p: Place) -> None:
    """The attempt's comes back from another site, so it is Lax; it goes as it came, or a browser would keep it."""
    async with stranger(p) as somebody, Hands("rob") as rob:
        begun = await somebody.get("/signin/with/corp")
        attempt = one(begun, ATTEMPT, "SameSite=lax", f"Max-Age={ATTEMPT_SECONDS}")
        assert len(attempt.partition(";")[0]) > len(ATTEMPT) + 100
        ended = await somebody.back(await rob.agree(begun.headers["location"]))
        one(ended, ATTEMPT, "SameSite=lax", "Max-Age=0")
        one(ended, COOKIE, "SameSite=strict")
        assert ATTEMPT not in somebody.session.cookie_jar.filter_cookies(URL(p.url))


def one(answer: aiohttp.ClientResponse, name: str, *words: str) -> str:
    """The cookie of that name that an answer sets, with all that keeps it here."""
    (header,) = [said for said in answer.headers.getall("Set-Cookie") if said.startswith(f"{name}=")]
    flags = [flag.strip() for flag in header.split(";")[1:]]
    for word in ("HttpOnly", "Secure", "Path=/", *words):
        assert flags.count(word) == 1, (word, header)
    assert not [flag for flag in flags if flag.lower().startswith("domain")]
    assert name.startswith("__Host-"), "which a browser takes with those flags alone"
    return header


async def test_a_code_of_another_browser_is_not_taken(p: Place) -> None:
    async with stranger(p) as mallory, stranger(p) as victim, Hands("rob") as rob:
        theirs = await rob.agree(await mallory.begin())
        answer = await victim.back(theirs)
        assert answer.status == 400, "no attempt at all"
        await victim.begin()
        answer = await victim.back(theirs)
        assert answer.status == 400, "another attempt's state"
        assert COOKIE not in answer.cookies


@pytest.mark.parametrize("change", ["iss", "no iss", "code", "error", "no code"])
async def test_what_comes_back_changed_is_refused(p: Place, change: str) -> None:
    async with stranger(p) as somebody, Hands("rob") as rob:
        back = urlsplit(await rob.agree(await somebody.begin()))
        query = {name: values[0] for name, values in parse_qs(back.query).items()}
        changed = {
            "iss": query | {"iss": "https://evil.example"},
            "no iss": {name: value for name, value in query.items() if name != "iss"},
            "code": query | {"code": "made-up"},
            "error": {"state": query["state"], "iss": query["iss"], "error": "access_denied"},
            "no code": {"state": query["state"], "iss": query["iss"]},
        }[change]
        url = back._replace(query="&".join(f"{name}={value}" for name, value in changed.items())).geturl()
        answer = await somebody.back(url)
        assert answer.status in (400, 401)
        assert not answer.cookies.get(COOKIE)
        again = await somebody.back(back.geturl())
        assert again.status == 400, "an attempt is over at its first answer, right or wrong"


async def test_nobody_is_led_elsewhere(p: Place) -> None:
    for evil in ("https://evil.example", "//evil.example", "/\\evil.example", "/%0d%0aSet-Cookie:x"):
        async with stranger(p) as somebody, Hands("rob") as rob:
            back = await rob.agree(await somebody.begin(f"/signin/with/corp?back={evil}"))
            answer = await somebody.back(back)
            text = await answer.text()
            assert answer.status == 200
            assert "evil.example" not in text
            assert '0;url=/"' in text


async def test_a_code_is_good_once(p: Place) -> None:
    async with stranger(p) as somebody, Hands("rob") as rob:
        back = await rob.agree(await somebody.begin())
        kept = somebody.attempt
        assert (await somebody.back(back)).status == 200
        answer = await somebody.back(back, Cookie=f"{ATTEMPT}={kept}")
        assert answer.status in (400, 401)


async def test_a_provider_that_is_not_there_is_no_page_of_an_issuer(p: Place) -> None:
    async with stranger(p) as somebody:
        for name in ("nobody", "..%2f..%2flogin", "a" * 300):
            answer = await somebody.get(f"/signin/with/{name}")
            assert answer.status == 404


async def test_the_issuer_says_that_somebody_left(p: Place) -> None:
    """Its own sign-out page tells our api over TLS (back-channel logout), and the session here is over."""
    async with stranger(p) as somebody, Hands("rob") as rob:
        assert (await somebody.back(await rob.agree(await somebody.begin()))).status == 200
        assert (await somebody.get("/overview")).status == 200
        await rob.agree(f"{p.issuer.url}/session/end")
        async with asyncio.timeout(30):
            while "corp.rob" in await p.sessions():
                await asyncio.sleep(0.02)
            while (await somebody.get("/overview")).status != 303:
                await asyncio.sleep(0.02)


async def test_a_provider_removed_ends_its_sessions_and_its_button(p: Place) -> None:
    async with stranger(p) as somebody, Hands("rob") as rob:
        assert (await somebody.back(await rob.agree(await somebody.begin()))).status == 200
        assert "Example single sign-on" in await (await somebody.get("/signin")).text()
        reply = await p.w.call("DELETE", f"{BASE}/identityproviders/corp")
        assert reply.code == 200
        async with asyncio.timeout(30):
            while (await somebody.get("/overview")).status != 303:
                await asyncio.sleep(0.02)
        assert "Example single sign-on" not in await (await somebody.get("/signin")).text()
