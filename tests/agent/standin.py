"""A stand-in for the api: the few routes that an agent uses, in memory, behind `client.Transport`.

It can be away, refuse, forget its history and hold back answers. It proves nothing about the real api; what does stands
in `test_api.py`.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from bessemer.agent.identity import Identity
from bessemer.api.ca import create_ca, requested_key, signed_by
from bessemer.client import Ask, Client
from bessemer.core.clock import Clock, rfc3339
from bessemer.core.errors import Conflict, Expired, Forbidden, NotFound, Unauthenticated, Unavailable
from bessemer.core.frames import Mux, Stream
from bessemer.core.resource import API_VERSION
from bessemer.core.tasks import first_of

CA = create_ca("stand-in")
HOST = "h1"
TOKEN = "one-time"
BASE = "/apis/bessemer.dev/v1alpha1"

Body = dict[str, Any]


def claim(
    name: str = "instance-vm-0", uid: str = "uid-1", *, kind: str = "Instance", host: str = HOST, **intent: Any
) -> Body:
    """A Claim as the api serves it."""
    wanted = {
        "image": "sha256:" + "a" * 64,
        "cpus": 2,
        "memoryBytes": 512 << 20,
        "diskBytes": 1 << 30,
        "hostname": "vm",
        **intent,
    }
    return {
        "apiVersion": API_VERSION,
        "kind": "Claim",
        "metadata": {
            "name": name,
            "namespace": "acme--demo",
            "uid": uid,
            "generation": 1,
            "creationTimestamp": "2025-06-15T15:06:40Z",
            "finalizers": ["bessemer.dev/claim"],
        },
        "spec": {
            "host": host,
            "tenant": "acme",
            "workload": {"kind": kind, "name": "vm", "uid": "w-1", "replica": 0},
            "intent": wanted,
        },
        "status": {},
    }


def replica() -> Body:
    """A Claim of a replica of an Endpoint."""
    body = claim("endpoint-chat-0", "uid-e", kind="Endpoint")
    body["spec"]["intent"] = {
        "model": "sha256:" + "b" * 64,
        "alias": "chat",
        "slots": 2,
        "contextTokens": 1024,
        "coresMilli": 1000,
        "memoryBytes": 700 << 20,
    }
    return body


def host_body(name: str = HOST) -> Body:
    """A Host as an administrator made it."""
    return {
        "apiVersion": API_VERSION,
        "kind": "Host",
        "metadata": {"name": name, "uid": f"uid-{name}", "generation": 1},
        "spec": {},
        "status": {},
    }


@dataclass
class Api:
    """The stand-in. ``away`` fails every request; ``calls`` counts them by method and route."""

    clock: Clock
    away: bool = False
    calls: Counter[str] = field(default_factory=Counter)
    objects: dict[str, Body] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=lambda: {TOKEN})
    statuses: list[tuple[str, str]] = field(default_factory=list)
    certificate_seconds: float = 86_400.0
    content: dict[str, bytes] = field(default_factory=dict)
    refuse: dict[str, Exception] = field(default_factory=dict)
    hearts: bool = False
    """Whether heartbeats are taken over the socket."""
    deaf: bool = False
    """Whether those are taken and not answered."""

    def __post_init__(self) -> None:
        self.revision = 0
        self.oldest = 0
        self.history: list[tuple[int, str, Body]] = []
        self.keys: dict[str, EllipticCurvePublicKey] = {}
        self.changed = asyncio.Event()
        self.lost = asyncio.Event()
        self.muxes: list[Mux] = []
        self.left: list[str] = []
        """Hosts whose agents said that they end."""
        self.put(host_body())

    # --- what a test does ------------------------------------------------------------------------------------------

    def put(self, body: Body) -> Body:
        """Create or replace an object, and tell the watchers."""
        path = _path(body)
        what = "MODIFIED" if path in self.objects else "ADDED"
        self.revision += 1
        body = orjson.loads(orjson.dumps(body))
        body["metadata"]["resourceVersion"] = str(self.revision)
        self.objects[path] = body
        self._tell(what, body)
        return body

    def amend(self, body: Body, **intent: Any) -> Body:
        """New intent for a Claim."""
        now = self.objects[_path(body)]
        now["spec"]["intent"].update(intent)
        now["metadata"]["generation"] += 1
        return self.put(now)

    def retire(self, body: Body) -> Body:
        """Ask for the end of a Claim."""
        now = self.objects[_path(body)]
        now["metadata"]["deletionTimestamp"] = rfc3339(self.clock.now())
        now["metadata"]["generation"] += 1
        return self.put(now)

    def release(self, body: Body) -> None:
        """The Claim is gone, whatever its agent said."""
        gone = self.objects.pop(_path(body))
        self.revision += 1
        gone["metadata"]["resourceVersion"] = str(self.revision)
        self._tell("DELETED", gone)

    def status(self, body: Body) -> Body:
        """A Claim's status as the api has it."""
        return dict(self.objects[_path(body)].get("status", {}))

    def compact(self) -> None:
        """Forget the history: who watches from before has to list."""
        self.oldest = self.revision
        self.history.clear()

    def cut(self) -> None:
        """End every watch and socket, as a restart does."""
        lost, self.lost = self.lost, asyncio.Event()
        lost.set()

    def connect(self, identity: Identity, *, anonymous: bool = False) -> Client:
        transport = _Transport(self, identity.host, anonymous=anonymous)
        return Client(transport, plurals={"Claim": "claims", "Host": "hosts"}, clock=self.clock)

    # --- within ----------------------------------------------------------------------------------------------------

    def _tell(self, what: str, body: Body) -> None:
        self.history.append((self.revision, what, orjson.loads(orjson.dumps(body))))
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


class _Transport:
    def __init__(self, api: Api, host: str, *, anonymous: bool) -> None:
        self._api = api
        self._host = host
        self._anonymous = anonymous
        self._closed = asyncio.Event()

    async def request(self, ask: Ask) -> bytes:
        await asyncio.sleep(0)
        if self._api.away:
            raise Unavailable("the api is away")
        route = re.sub(r"/namespaces/[^/]+|sha256:.*", "", ask.path.removeprefix(BASE))
        self._api.calls[f"{ask.method} {route}"] += 1
        if route in self._api.refuse:
            raise self._api.refuse[route]
        body = orjson.loads(ask.body) if ask.body else {}
        if route == f"/hosts/{self._host}/join":
            return orjson.dumps(self._join(body))
        if self._anonymous or self._host not in self._api.keys:
            raise Unauthenticated("no certificate")
        return orjson.dumps(self._answer(ask, route, body))

    def _join(self, body: Body) -> Body:
        key = requested_key(body["csr"])
        if "token" in body:
            if body["token"] not in self._api.tokens:
                raise Forbidden("the token is worth nothing")
            self._api.tokens.discard(body["token"])
            self._api.keys[self._host] = key
        else:
            known, signature = self._api.keys.get(self._host), base64.b64decode(body["signature"])
            if known is None or not signed_by(known, body["csr"].encode(), signature=signature):
                raise Forbidden("not signed by the registered key")
        signed = CA.sign(key, f"system:agent:{self._host}", seconds=self._api.certificate_seconds)
        return {"certificate": signed.decode(), "ca": CA.certificate.decode()}

    def _answer(self, ask: Ask, route: str, body: Body) -> Body:
        api = self._api
        if route == f"/hosts/{self._host}/heartbeat":
            if body.get("leaving"):
                api.left.append(self._host)
            return {"leaseSeconds": 45}
        if ask.path.startswith("/content/") and ask.path.endswith("/size"):
            data = api.content.get(ask.path.split("/")[2])
            if data is None:
                raise NotFound("no such content")
            return {"sizeBytes": len(data)}
        if route.endswith("/secrets"):
            return {"secrets": {"replica": "s3cret"}}
        if ask.method == "PUT" and route.endswith("/status"):
            return self._status(ask.path, body)
        if ask.method == "GET" and route in ("/claims", "/hosts"):
            return {"metadata": {"resourceVersion": str(api.revision)}, "items": self._items(ask)}
        raise NotFound(f"no route {ask.method} {route}")

    def _items(self, ask: Ask) -> list[Body]:
        return [body for body in self._api.objects.values() if self._within(ask, body)]

    def _within(self, ask: Ask, body: Body) -> bool:
        fields = dict(part.split("=") for part in ask.query.get("fieldSelector", "").split(",") if part)
        if not ask.path.endswith("claims" if body["kind"] == "Claim" else "hosts"):
            return False
        named = fields.get("metadata.name", body["metadata"]["name"]) == body["metadata"]["name"]
        return named and fields.get("spec.host", body["spec"].get("host")) == body["spec"].get("host")

    def _status(self, path: str, body: Body) -> Body:
        api = self._api
        now = api.objects.get(path.removesuffix("/status"))
        if now is None:
            raise NotFound("no such object")
        if body["metadata"].get("uid", now["metadata"]["uid"]) != now["metadata"]["uid"]:
            raise Conflict("another uid")
        if body["kind"] == "Host":
            now["status"]["report"] = body["status"]["report"]
        else:
            api.statuses.append((now["metadata"]["uid"], body["status"].get("phase", "")))
            now["status"] = body["status"]
        return api.put(now)

    @asynccontextmanager
    async def stream(self, ask: Ask, *, silence: float | None = None) -> AsyncIterator[AsyncIterator[bytes]]:
        await asyncio.sleep(0)
        if self._api.away:
            raise Unavailable("the api is away")
        if ask.path.startswith("/content/"):
            yield self._content(ask)
            return
        since = int(ask.query["resourceVersion"])
        if since < self._api.oldest:
            raise Expired("history is gone")
        self._api.calls[f"WATCH {ask.path.removeprefix(BASE)}"] += 1
        yield self._lines(ask, since)

    async def _lines(self, ask: Ask, since: int) -> AsyncIterator[bytes]:
        lost = self._api.lost
        while not lost.is_set():
            changed = self._api.changed
            for revision, what, body in list(self._api.history):
                if revision > since and self._within(ask, body):
                    since = revision
                    yield orjson.dumps({"type": what, "object": body}) + b"\n"
            await first_of(changed.wait(), lost.wait(), self._closed.wait())
            if self._closed.is_set():
                break
        raise Unavailable("the connection was lost")

    async def _content(self, ask: Ask) -> AsyncIterator[bytes]:
        data = self._api.content.get(ask.path.removeprefix("/content/"))
        if data is None:
            raise NotFound("no such content")
        start = int(ask.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        for at in range(start, len(data), 1000):
            yield data[at : at + 1000]

    async def _heart(self, stream: Stream) -> None:
        assert stream.request == {"verb": "heartbeat"}
        while await stream.read():
            self._api.calls[f"BEAT {self._host}"] += 1
            if not self._api.deaf:
                await stream.write(b"60")

    @asynccontextmanager
    async def socket(self, path: str, query: Mapping[str, str]) -> AsyncIterator[_Socket]:
        if self._api.away:
            raise Unavailable("the api is away")
        ours, theirs = _Socket.pair(self._api.lost)
        mux = Mux(theirs.send, dialled=False, accept=self._heart if self._api.hearts else None)
        running = asyncio.create_task(mux.run(aiter(theirs)))
        self._api.muxes.append(mux)
        try:
            yield ours
        finally:
            self._api.muxes.remove(mux)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def close(self) -> None:
        self._closed.set()


class _Socket:
    """One end of a message socket."""

    def __init__(self, inbox: asyncio.Queue[bytes], outbox: asyncio.Queue[bytes], lost: asyncio.Event) -> None:
        self._inbox, self._outbox, self._lost = inbox, outbox, lost

    @staticmethod
    def pair(lost: asyncio.Event) -> tuple[_Socket, _Socket]:
        a: asyncio.Queue[bytes] = asyncio.Queue()
        b: asyncio.Queue[bytes] = asyncio.Queue()
        return _Socket(a, b, lost), _Socket(b, a, lost)

    async def send(self, message: bytes) -> None:
        if self._lost.is_set():
            raise Unavailable("the connection was lost")
        self._outbox.put_nowait(message)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async def receive() -> None:
            got.append(await self._inbox.get())

        while not self._lost.is_set():
            got: list[bytes] = []
            await first_of(receive(), self._lost.wait())
            for message in got:
                yield message

    async def close(self) -> None:
        self._lost.set()


def _path(body: Body) -> str:
    namespace = body["metadata"].get("namespace")
    place = f"/namespaces/{namespace}" if namespace else ""
    return f"{BASE}{place}/{body['kind'].lower()}s/{body['metadata']['name']}"
