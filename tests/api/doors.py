"""All three listeners of an installation, as they are served: the api's, the gateway's and the portal's."""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import orjson

from bessemer.api import Limits, listen, serve, server_tls
from bessemer.api.listener import Application
from bessemer.core.errors import NotFound
from bessemer.core.resource import Key
from bessemer.core.tls import show
from bessemer.main.gateway import serve as serve_gateway
from bessemer.portal import PortalSettings, close_portal, make_portal
from bessemer.portal.visit import COOKIE
from tests.api.world import BASE, PATIENCE_SECONDS, Served, World, served, world
from tests.gateway.harness import Rig, rig

HEARING_SECONDS = 20.0
_CHAT = orjson.dumps({"model": "words", "messages": [{"role": "user", "content": "hello"}]})
_PROJECT = orjson.dumps({"metadata": {"name": "acme--smuggled"}, "spec": {}})


@dataclass(frozen=True)
class Door:
    """A listener. ``head`` begins a POST whose framing is what is tried and whose body, read as it stands, is refused;
    ``hidden`` is a request that whoever reads it carries out, which ``carried`` tells. ``paths`` are open to anybody,
    ``closed`` is what a stranger gets nothing of but ``refusal``, and who shows the ``credential`` all."""

    url: str
    tls: ssl.SSLContext
    head: bytes
    hidden: bytes
    done: bytes
    carried: Callable[[], Awaitable[bool]]
    paths: tuple[bytes, ...]
    closed: bytes
    refusal: bytes
    credential: bytes = b""

    def framed(self, *headers: bytes, body: bytes) -> bytes:
        return self.head + b"".join(header + b"\r\n" for header in headers) + b"\r\n" + body

    async def sent(self, raw: bytes, *, stranger: bool = False) -> bytes:
        """Everything that is answered until the server ends the connection. Raises TimeoutError where it does not."""
        tls = ssl.create_default_context() if stranger else self.tls
        if stranger:
            tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        host, _, port = self.url.removeprefix("https://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port), ssl=tls)
        answered = b""
        try:
            async with asyncio.timeout(HEARING_SECONDS):
                with suppress(ConnectionError):
                    writer.write(raw)
                    while part := await reader.read(1 << 16):
                        answered += part
        finally:
            writer.transport.abort()
        return answered


def post(path: str, body: bytes, *headers: str, kind: str = "application/json") -> bytes:
    return _head(path, *headers, "Connection: close", kind=kind) + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


def _head(path: str, *headers: str, kind: str = "application/json") -> bytes:
    lines = (f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Type: {kind}", *headers)
    return "".join(f"{line}\r\n" for line in lines).encode()


@asynccontextmanager
async def _listening(
    app: Application, tls: ssl.SSLContext, close: Callable[[], Awaitable[None]] | None = None
) -> AsyncIterator[str]:
    bound, stop, up = listen("127.0.0.1", 0), asyncio.Event(), asyncio.Event()
    task = asyncio.ensure_future(serve(app, on=bound, tls=tls, stop=stop, ready=up.set, close=close))
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await up.wait()
        yield f"https://127.0.0.1:{bound.getsockname()[1]}"
    finally:
        stop.set()
        await task


@asynccontextmanager
async def _fronted(r: Rig, tls: ssl.SSLContext) -> AsyncIterator[str]:
    """As the gateway's process has it."""
    bound, stop = listen("127.0.0.1", 0), asyncio.Event()
    task = asyncio.ensure_future(serve_gateway(r.gateway, clock=r.clock, on=bound, tls=tls, stop=stop))
    try:
        yield f"https://127.0.0.1:{bound.getsockname()[1]}"
    finally:
        stop.set()
        await task


@asynccontextmanager
async def doors() -> AsyncIterator[dict[str, Door]]:
    """By the name of whom they lead to."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bsm-")))
        w = await stack.enter_async_context(world(limits=Limits(login_burst=500)))
        s = await stack.enter_async_context(served(w, folder))
        r = await stack.enter_async_context(rig())
        uid = await r.replica("a", of="words")
        gateway = await stack.enter_async_context(_fronted(r, _tls(w)))
        portal = await stack.enter_async_context(_portal(s, gateway))
        client = ssl.create_default_context(cadata=w.ca.certificate.decode())
        yield {
            "api": _api(s),
            "gateway": _gateway(r, gateway, uid=uid, tls=client),
            "portal": await _at_portal(w, portal, tls=client),
        }


def _tls(w: World) -> ssl.SSLContext:
    return server_tls(w.ca.issue("door", sans=["127.0.0.1", "localhost"]))


@asynccontextmanager
async def _portal(s: Served, gateway: str) -> AsyncIterator[str]:
    pair = s.world.ca.issue("system:portal")
    files = (s.path("portal.crt", pair.certificate), s.path("portal.key", pair.key))
    ca = s.path("ca.pem", s.world.ca.certificate)
    app = make_portal(PortalSettings(api_url=s.url, gateway_url=gateway, ca_path=ca, certificate=files))
    async with _listening(app, _tls(s.world), lambda: close_portal(app)) as url:
        yield url


def _api(s: Served) -> Door:
    """Whoever asks is an administrator."""
    tls = ssl.create_default_context(cadata=s.world.ca.certificate.decode())
    show(tls, (s.admin.certificate, s.admin.key))

    async def carried() -> bool:
        try:
            await s.world.store.objects.get(Key("Project", "", "acme--smuggled"))
        except NotFound:
            return False
        return True

    return Door(
        url=s.url,
        tls=tls,
        head=_head(f"{BASE}/tenants?dryRun=All"),
        hidden=post(f"{BASE}/projects", _PROJECT),
        done=b"HTTP/1.1 201",
        carried=carried,
        paths=(b"/api", b"/whoami", b"/openapi/v3", b"/nowhere/", b"//elsewhere.example/%2e%2e"),
        closed=f"{BASE}/tenants/acme".encode(),
        refusal=b"HTTP/1.1 401",
    )


def _gateway(r: Rig, url: str, *, uid: str, tls: ssl.SSLContext) -> Door:
    """Whoever asks has a good key; what is carried out is answered by an engine."""
    path, key = "/v1/chat/completions", "Authorization: Bearer bsk_good"

    async def carried() -> bool:
        return r.engine.models[uid].counters.requests > 0

    return Door(
        url=url,
        tls=tls,
        head=_head(path, key),
        hidden=post(path, _CHAT, key),
        done=b"HTTP/1.1 200",
        carried=carried,
        paths=(b"/v1/models", b"/healthz", path.encode(), b"/v1/models/", b"/nowhere/", b"//elsewhere.example/%2e%2e"),
        closed=b"/v1/models",
        refusal=b"HTTP/1.1 401",
        credential=f"{key}\r\n".encode(),
    )


async def _at_portal(w: World, url: str, *, tls: ssl.SSLContext) -> Door:
    """Whoever asks has a session, which the hidden request ends."""
    bearer = await w.login("mia")
    ours = ("Origin: https://localhost", f"Cookie: {COOKIE}={bearer}")

    async def carried() -> bool:
        return (await w.call("GET", "/whoami", token=bearer)).code == 401

    form = "application/x-www-form-urlencoded"
    return Door(
        url=url,
        tls=tls,
        head=_head("/signin", ours[0], kind=form),
        hidden=post("/signout", b"", *ours, kind=form),
        done=b"HTTP/1.1 303",
        carried=carried,
        paths=(
            b"/",
            b"/signin",
            b"/signin/",
            b"/signin/with/none",
            b"/hosts/",
            b"/nowhere/",
            b"//elsewhere.example/%2e%2e",
        ),
        closed=b"/overview",
        refusal=b"HTTP/1.1 303",
        credential=f"{ours[1]}\r\n".encode(),
    )
