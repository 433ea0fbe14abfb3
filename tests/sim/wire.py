"""The api as agents meet it, without HTTP: the calls of `client.Client` that an agent makes, straight to the ports.

While the control plane is away every call is Unavailable and every watch ends, as over a network. What an agent may do
is held by the ports (its `Writer`), as everywhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import orjson

from bessemer.agent.identity import Identity
from bessemer.api.ca import create_ca, fingerprint, requested_key
from bessemer.client import Client, Joined
from bessemer.core.errors import Conflict, NotFound, Unauthenticated, Unavailable
from bessemer.core.frames import DATA, Frame, decode, encode
from bessemer.core.ports import Bookmark, Page, Part, Scope, Stored, Writer
from bessemer.core.resource import Change, Key
from bessemer.store import Store
from tests.sim.clock import Traffic, drained

SYSTEM = Writer("system", "api")
LEASE_SECONDS = 900.0
_CERTIFICATE_SECONDS = 30 * 86_400.0


class Wire:
    """One api for all agents. ``store`` is None while it is away."""

    def __init__(self, traffic: Traffic) -> None:
        self.store: Store | None = None
        self.cut: set[str] = set()
        """Hosts whose way to the api is cut."""
        self._traffic = traffic
        self._ca = create_ca("simulated")
        self._watches: set[_Watch] = set()
        self.tokens: set[str] = set()

    def connect(self, identity: Identity, *, anonymous: bool = False) -> Client:
        """Implements `agent.link.Connect`."""
        return cast(Client, _HostClient(self, identity.host))

    def hang_up(self) -> None:
        """Every connection ends."""
        for watch in set(self._watches):
            watch.end(Unavailable("the connection was lost"))

    async def ask(self, host: str, work: Callable[[Store], Any]) -> Any:
        """One request. Raises Unavailable."""
        store = self.store
        if store is None or host in self.cut:
            raise Unavailable("the server cannot be reached")
        return await self._traffic.call(lambda: work(store))

    def watch(self, host: str, scope: Scope, since: int | None) -> _Watch:
        store = self.store
        if store is None or host in self.cut:
            raise Unavailable("the server cannot be reached")
        made = _Watch(host, store.objects.watch(scope, since=since), self._watches.discard)
        self._watches.add(made)
        return made

    def cut_off(self, host: str) -> None:
        """This host's way is cut: its connections end."""
        self.cut.add(host)
        for watch in [watch for watch in self._watches if watch.host == host]:
            watch.end(Unavailable("the connection was lost"))

    async def join(self, host: str, csr: str, token: str) -> Joined:
        if token not in self.tokens:
            raise Unauthenticated("the token is worth nothing")
        self.tokens.discard(token)
        key = requested_key(csr)
        await self.ask(host, lambda store: _register(store, host, fingerprint(key)))
        certificate = self._ca.sign(key, f"system:agent:{host}", groups=(), seconds=_CERTIFICATE_SECONDS)
        return Joined(certificate.decode(), self._ca.certificate.decode())


async def _register(store: Store, host: str, key: str) -> None:
    for _ in range(10):
        body = orjson.loads((await store.objects.get(Key("Host", "", host))).body)
        body["status"] = {**body.get("status", {}), "keyFingerprint": key}
        try:
            await store.objects.replace(body, SYSTEM, part="status")
            return
        except Conflict:
            continue


class _Watch:
    """A watch on the server's side, and the connection that carries it."""

    def __init__(self, host: str, source: AsyncIterator[Change | Bookmark], closed: Callable[[_Watch], None]) -> None:
        self.host = host
        self._queue: asyncio.Queue[Any] = asyncio.Queue()
        self._closed = closed
        self._pump = asyncio.create_task(drained(source, self._queue.put_nowait))

    def end(self, error: Exception | None = None) -> None:
        self._pump.cancel()
        self._closed(self)
        if error is not None:
            self._queue.put_nowait(error)

    async def items(self) -> AsyncIterator[Change | Bookmark]:
        try:
            while True:
                item = await self._queue.get()
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.end()


class _HostClient:
    """What an agent uses of a `Client`."""

    def __init__(self, wire: Wire, host: str) -> None:
        self._wire = wire
        self._host = host
        self.agents = self

    async def list(self, scope: Scope, *, limit: int = 0, after: str = "") -> Page:
        page: Page = await self._wire.ask(self._host, lambda s: s.objects.list(scope, limit=limit, after=after))
        return page

    async def watch(self, scope: Scope, *, since: int | None = None) -> AsyncIterator[Change | Bookmark]:
        watch = self._wire.watch(self._host, scope, since)
        try:
            async for item in watch.items():
                yield item
        finally:
            watch.end()

    async def replace(self, body: Mapping[str, Any], writer: Writer, *, part: Part = "main") -> Stored:
        stored: Stored = await self._wire.ask(self._host, lambda s: s.objects.replace(body, writer, part=part))
        return stored

    async def close(self) -> None: ...

    # --- ``agents`` ---

    async def join(self, host: str, csr: str, *, token: str = "", signature: str = "") -> Joined:
        return await self._wire.join(host, csr, token)

    async def heartbeat(self, host: str) -> int:
        await self._wire.ask(host, lambda s: s.leases.acquire(f"host/{host}", host, LEASE_SECONDS))
        return int(LEASE_SECONDS)

    async def secrets(self, claim: Key) -> dict[str, str]:
        stored = await self._wire.ask(self._host, lambda s: s.objects.get(claim))
        if stored.host != self._host:
            raise NotFound("it is not on this host")
        return {"replica": f"secret of {stored.uid}"}

    @asynccontextmanager
    async def content(self, digest: str, *, offset: int = 0) -> AsyncIterator[AsyncIterator[bytes]]:
        raise Unavailable("fake content needs no bytes")
        yield  # type: ignore[unreachable]

    @asynccontextmanager
    async def stream(self, host: str) -> AsyncIterator[Any]:
        yield _Socket(lambda: self.heartbeat(host))


class _Socket:
    """A socket over which nobody asks for anything; it answers the heart that beats over it."""

    def __init__(self, beat: Callable[[], Awaitable[int]]) -> None:
        self._beat = beat
        self._answers: asyncio.Queue[bytes] = asyncio.Queue()

    async def send(self, message: bytes) -> None:
        frame = decode(message)
        if frame.type == DATA:
            self._answers.put_nowait(encode(Frame(DATA, frame.stream, b"%d" % await self._beat())))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            yield await self._answers.get()
