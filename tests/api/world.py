"""A whole api in a test: a real store in memory, the product's kinds, a CA, a few people, and an in-process caller."""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from argon2 import PasswordHasher

from bessemer.api import Api, ApiContext, Limits, Pair, Ports, Terms, create_ca, listen, make_app, serve, server_tls
from bessemer.api.ca import CertificateAuthority, Peer
from bessemer.core.clock import Clock, SystemClock
from bessemer.core.hosts import Inventory
from bessemer.core.ports import CONTROLLER, Stored
from bessemer.core.resource import API_VERSION, GROUP, VERSION, Key, Kind
from bessemer.drivers.ldap.fake import FakeDirectory
from bessemer.drivers.ldap.protocol import Directories
from bessemer.drivers.oidc.fake import FakeIssuers
from bessemer.drivers.oidc.protocol import Issuers
from bessemer.kinds import KINDS
from bessemer.kinds.fleet.inventory import FleetFeed
from bessemer.kinds.workload import LABEL_KIND, LABEL_NAME
from bessemer.store import Store, open_store, store_kinds

BASE = f"/apis/{GROUP}/{VERSION}"
ADMIN = Peer("admin", ("system:masters",), "")
GATEWAY = Peer("system:gateway", (), "")
GATEWAY_KEY = b"g" * 32
PASSWORD = "correct horse battery"
PATIENCE_SECONDS = 30.0
"""Of what takes milliseconds, and of which only a hang is to be told: a busy machine stalls for seconds."""


@dataclass
class Reply:
    """An answer read to its end."""

    code: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


class Events:
    """The lines of an open watch, and the outlet of its connection (`listener.Outlet`), which is slow while it is not
    ``ready``: whoever sends waits then."""

    def __init__(self) -> None:
        self.lines: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.code = 0
        self.handed = 0
        """Parts that came by the outlet."""
        self.closed = False
        self.when_lost: Callable[[], None] | None = None
        self._ready = asyncio.Event()
        self._ready.set()

    @property
    def ready(self) -> bool:
        return self._ready.is_set()

    @ready.setter
    def ready(self, ready: bool) -> None:
        (self._ready.set if ready else self._ready.clear)()

    def write(self, part: bytes) -> None:
        self.handed += 1
        while part:
            size, _, rest = part.partition(b"\r\n")
            body, part = rest[: int(size, 16)], rest[int(size, 16) :].removeprefix(b"\r\n")
            self._take(body)

    async def send(self, message: Any) -> None:
        await self._ready.wait()
        if message["type"] == "http.response.start":
            self.code = message["status"]
        self._take(message.get("body", b""))

    def _take(self, body: bytes) -> None:
        for line in body.splitlines():
            self.lines.put_nowait(line)

    async def next(self) -> Any:
        """The next event; None at the stream's end."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            line = await self.lines.get()
        return None if line is None else orjson.loads(line)

    async def names(self, count: int) -> list[tuple[str, str]]:
        """(type, name) of the next events that are no bookmarks."""
        found: list[tuple[str, str]] = []
        while len(found) < count:
            event = await self.next()
            if event["type"] != "BOOKMARK":
                found.append((event["type"], event["object"]["metadata"]["name"]))
        return found


@dataclass
class World:
    """The api and everything under it. `call` asks in process, as a certificate's holder or with a bearer."""

    api: Api
    store: Store
    ca: CertificateAuthority
    clock: Clock
    content: dict[str, Path] = field(default_factory=dict)
    fleet: FleetFeed | None = None
    """Which knows nothing until somebody runs it."""

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        peer: Peer | None = ADMIN,
        token: str = "",
        headers: Mapping[str, str] | None = None,
        media: str = "application/json",
    ) -> Reply:
        raw = body if isinstance(body, bytes | AsyncIterator) else b"" if body is None else orjson.dumps(body)
        given = dict(headers or {})
        if raw and media:
            given.setdefault("content-type", media)
        if token:
            given["authorization"] = f"Bearer {token}"
        return await _ask(self.api, _scope(method, path, given, None if token else peer), raw)

    async def dial(
        self, path: str, *, peer: Peer | None = ADMIN, token: str = "", headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Ask for a socket in process: what refuses it, or 101 where it was accepted; then we hang up."""
        socket = {
            "type": "websocket",
            "scheme": "wss",
            "subprotocols": [],
            "extensions": {"websocket.http.response": {}},
        }
        code, told, parts = 0, {}, []
        coming = iter(("websocket.connect",))

        async def receive() -> dict[str, Any]:
            return {"type": next(coming, "websocket.disconnect"), "code": 1000}

        async def send(message: Any) -> None:
            nonlocal code, told
            if message["type"] == "websocket.accept":
                code = 101
            elif message["type"] == "websocket.http.response.start":
                code, told = message["status"], {k.decode(): v.decode() for k, v in message["headers"]}
            elif message["type"] == "websocket.http.response.body":
                parts.append(message.get("body", b""))

        shown = {**(headers or {}), **({"authorization": f"Bearer {token}"} if token else {})}
        await self.api({**_scope("GET", path, shown, None if token else peer), **socket}, receive, send)
        return Reply(code, told, b"".join(parts))

    @asynccontextmanager
    async def watch(
        self, path: str, *, peer: Peer | None = ADMIN, token: str = "", headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[Events]:
        """An open watch; leaving it is the client's going away."""
        given = {**(headers or {}), **({"authorization": f"Bearer {token}"} if token else {})}
        gone = asyncio.Event()
        events = Events()

        async def receive() -> dict[str, Any]:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def serve() -> None:
            scope = _scope("GET", path, given, None if token else peer)
            scope["state"]["outlet"] = events
            await self.api(scope, receive, events.send)
            events.lines.put_nowait(None)

        task = asyncio.ensure_future(serve())
        try:
            yield events
        finally:
            gone.set()
            await task

    async def create(self, path: str, body: Mapping[str, Any], **options: Any) -> Any:
        reply = await self.call("POST", path, body, **options)
        assert reply.code == 201, reply.body
        return reply.json

    async def host(self, name: str, *, peer: Peer | None = None) -> Peer:
        """A joined Host, and its agent."""
        agent = peer or Peer(f"system:agent:{name}", ("system:agents",), f"{name:0>64}")
        body = {"apiVersion": API_VERSION, "kind": "Host", "metadata": {"name": name}, "spec": {}}
        stored = await self.store.objects.create(body, CONTROLLER)
        joined = {**orjson.loads(stored.body), "status": {"keyFingerprint": agent.fingerprint}}
        await self.store.objects.replace(joined, CONTROLLER, part="status")
        return agent

    async def claim(self, name: str, host: str, project: str, *, kind: str = "Instance", **intent: Any) -> Stored:
        """A Claim of a workload on a host, straight through the port."""
        await self.store.capacity.declare(host, Inventory())
        from bessemer.core.values import ClaimSpec, WorkloadRef

        owner = await self.store.objects.get(Key(kind, project, name))
        spec = ClaimSpec(
            host=host,
            tenant=project.partition("--")[0],
            workload=WorkloadRef(kind=kind, name=name, uid=owner.uid),
            intent=intent,
        )
        key = Key("Claim", project, f"{kind.lower()}-{name}-0")
        labels = {LABEL_KIND: kind, LABEL_NAME: name}
        taken = await self.store.capacity.take([(key, spec, {"labels": labels})], CONTROLLER)
        return taken[0]

    async def login(self, user: str) -> str:
        reply = await self.call("POST", "/login", {"user": user, "password": PASSWORD}, peer=None)
        assert reply.code == 201, reply.body
        return str(reply.json["token"])


@functools.cache
def hashed(password: str) -> bytes:
    """A real hash costs 30 ms, so the people of the tests share one."""
    return PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1).hash(password).encode()


def tenant(name: str, **members: str) -> dict[str, Any]:
    people = [{"user": user, "role": role.replace("_", "-")} for user, role in members.items()]
    return {"metadata": {"name": name}, "spec": {"members": people}}


def named(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": spec}


def instance(name: str, **spec: Any) -> dict[str, Any]:
    return named(name, **{"flavor": "small", "image": "micro", **spec})


def usage_record(**fields: Any) -> dict[str, Any]:
    """A settled request as a gateway tells it."""
    who = {"project": "acme--lab", "endpoint": "e", "endpointUid": "u", "apiKey": "k", "model": "m"}
    return {"at": 1, "requestId": "r", **who, "status": 200, "inputTokens": 1, **fields}


def usage_batch(records: list[dict[str, Any]], *, first: int = 1) -> dict[str, Any]:
    return {"gatewayUid": "g", "spoolUid": "s", "firstSequence": first, "records": records}


@asynccontextmanager
async def world(
    clock: Clock | None = None,
    *,
    limits: Limits | None = None,
    people: bool = True,
    more: Sequence[Kind[Any, Any]] = (),
    issuers: Issuers | None = None,
    place: str = ":memory:",
    directories: Directories | None = None,
    **terms: Any,
) -> AsyncIterator[World]:
    """Two tenants (acme, other), a project each, an administrator, and a person of each role in acme; without
    ``people`` none of them, as after the first start. ``more`` kinds than the product has. ``issuers`` are those that
    can be asked. ``place`` is the store's."""
    clock = clock or SystemClock()
    opened = functools.partial(open_store, clock=clock, kinds=store_kinds([*KINDS, *more]), seal_key=b"s" * 32)
    remote = place.startswith("postgresql:")  # perhaps by a wire that this loop carries
    store = await asyncio.to_thread(opened, place) if remote else opened(place)
    ca = create_ca("test")
    content: dict[str, Path] = {}

    async def find(digest: str) -> Path | None:
        return content.get(digest)

    ports = Ports(
        objects=store.objects,
        capacity=store.capacity,
        ledger=store.ledger,
        bounds=store.bounds,
        figures=store.figures,
        leases=store.leases,
        audit=store.audit,
        sealed=store.sealed,
        events=store.events,
    )
    context = ApiContext(
        ports=ports,
        kinds={kind.name: kind for kind in [*KINDS, *more]},
        clock=clock,
        ca=ca,
        gateway_key=GATEWAY_KEY,
        content=find,
        unheard=store.unheard,
        limits=limits or Limits(login_burst=50),
        terms=Terms(**terms),
        issuers=issuers or FakeIssuers(),
        directories=directories or FakeDirectory(),
        fleet=(fleet := FleetFeed(store.objects, clock)),
    )
    try:
        async with make_app(context).running() as api:
            made = World(api, store, ca, clock, content, fleet)
            if people:
                await _people(made)
            yield made
    finally:
        if remote:
            await asyncio.to_thread(store.close)
        else:
            store.close()


async def _people(w: World) -> None:
    await w.create(f"{BASE}/tenants", tenant("acme", ann="tenant_admin", mia="member", rob="reader"))
    await w.create(f"{BASE}/tenants", tenant("other", eve="tenant_admin"))
    for project in ("acme--lab", "other--lab"):
        await w.create(f"{BASE}/projects", named(project))
    for user in ("ann", "mia", "rob", "eve", "new"):
        await w.create(f"{BASE}/users", named(user))
        made = await w.store.objects.get(Key("User", "", user))
        await w.store.sealed.put(made.uid, "password", hashed(PASSWORD))


@dataclass
class Served:
    """The same api on a TLS socket."""

    world: World
    url: str
    admin: Pair
    directory: Path

    def path(self, name: str, data: bytes) -> Path:
        file = self.directory / name
        file.write_bytes(data)
        return file


@asynccontextmanager
async def served(w: World, directory: Path, tls: ssl.SSLContext | None = None) -> AsyncIterator[Served]:
    """Serve a world's api on a free port of loopback. The world's own ``running`` keeps the directory."""
    pair = w.ca.issue("api", sans=["127.0.0.1", "localhost"])
    bound = listen("127.0.0.1", 0)
    stop, up = asyncio.Event(), asyncio.Event()
    context = tls or server_tls(pair, w.ca.certificate)
    task = asyncio.ensure_future(serve(w.api, on=bound, tls=context, stop=stop, ready=up.set, close=w.api.close))
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await up.wait()
        admin = w.ca.issue("admin", groups=["system:masters"])
        yield Served(w, f"https://127.0.0.1:{bound.getsockname()[1]}", admin, directory)
    finally:
        stop.set()
        await task


def _scope(method: str, path: str, headers: Mapping[str, str], peer: Peer | None) -> dict[str, Any]:
    place, _, query = path.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "https",
        "path": place,
        "raw_path": place.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(k.lower().encode(), v.encode()) for k, v in {"host": "test", **headers}.items()],
        "client": ("192.0.2.1", 40000),
        "server": ("test", 443),
        "state": {"peer": peer},
    }


async def _once(raw: bytes) -> AsyncIterator[bytes]:
    yield raw


async def _ask(api: Api, scope: dict[str, Any], raw: bytes | AsyncIterator[bytes]) -> Reply:
    pieces, sent = raw if isinstance(raw, AsyncIterator) else _once(raw), False
    code, headers, parts = 0, {}, []

    async def receive() -> dict[str, Any]:
        nonlocal sent
        if sent:
            await asyncio.Event().wait()
        try:
            return {"type": "http.request", "body": await anext(pieces), "more_body": True}
        except StopAsyncIteration:
            sent = True
            return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        nonlocal code, headers
        if message["type"] == "http.response.start":
            code = message["status"]
            headers = {k.decode(): v.decode() for k, v in message["headers"]}
        else:
            parts.append(message.get("body", b""))

    await api(scope, receive, send)
    return Reply(code, headers, b"".join(parts))
