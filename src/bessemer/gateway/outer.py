"""Services elsewhere that answer for endpoints: whom to dial, what they are shown and asked.

Each is a replica like the others, under its endpoint's uid: its health is seen by its answers. Addresses are judged
when they are dialled, and those that were judged are dialled, so that a name which resolves differently the next time
gains nothing; TLS is verified against the name. What a client showed us goes no further: the service sees our secret,
or none. A service is in no pool before the secret that it wants has come.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import msgspec
import orjson
import structlog

from bessemer.core.clock import Clock
from bessemer.core.errors import BessemerError
from bessemer.core.resource import Key
from bessemer.drivers.addresses import Address, address_of, literal
from bessemer.gateway.lookups import Lookups
from bessemer.gateway.route import Pool, Replica

SECRET_MARK = "bessemer.dev/external-secret"
"""The annotation of an Endpoint that says that a secret was set, and another one when that changes."""

RETRY_SECONDS = 1.0

ELSEWHERE = frozenset((429, 500, 502, 503, 504))
"""By which a service says that it cannot now: whoever stands in for it is asked, where somebody does."""

_DECODER = msgspec.json.Decoder(dict[str, msgspec.Raw])
_log = structlog.get_logger("gateway.outer")

Allows = Callable[[str, Address | None], bool]
"""Whether a host at an address may be dialled; None asks whether the operator has named the host itself, which may be
asked without TLS."""


@dataclass(frozen=True, slots=True)
class Outer:
    """Where a service stands: below ``base`` are /chat/completions and the others. ``secret`` "" is none."""

    host: str
    port: int
    tls: bool
    base: str
    model: str
    secret: str = field(default="", repr=False)
    project: str = ""

    @classmethod
    def read(cls, said: Mapping[str, Any], secret: str, *, project: str = "") -> Outer:
        """Of ``spec.external`` of an endpoint of the project. Raises ValueError."""
        url = urlsplit(said["url"])
        tls = url.scheme == "https"
        host, port, base = url.hostname or "", url.port or (443 if tls else 80), url.path.rstrip("/")
        return cls(host, port, tls, base, said["model"], secret, project)

    def head(self, path: str) -> bytes:
        """Of a request for one of OpenAI's paths, as `upstream.head` has it for a replica."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        if self.port != (443 if self.tls else 80):
            host += f":{self.port}"
        shown = f"authorization: Bearer {self.secret}\r\n" if self.secret else ""
        return (
            f"POST {self.base}{path.removeprefix('/v1')} HTTP/1.1\r\nhost: {host}\r\n"
            f"content-type: application/json\r\naccept-encoding: identity\r\n{shown}"
        ).encode()

    def body(self, body: bytes, *, timings: bool, counts: bool) -> bytes:
        """A body that was read, as the service knows it: its name for the model, and none of what we ask engines for.
        ``timings`` and ``counts`` are what the client itself asked for."""
        fields = _DECODER.decode(body)
        ours: dict[str, bytes] = {"model": orjson.dumps(self.model)}
        options = orjson.loads(bytes(fields["stream_options"])) if "stream_options" in fields else None
        if isinstance(options, dict) and not counts:
            options.pop("continuous_usage_stats", None)
            ours["stream_options"] = orjson.dumps(options)
        left_out = ours.keys() if timings else ours.keys() | {"timings_per_token"}
        parts = [orjson.dumps(name) + b":" + bytes(value) for name, value in fields.items() if name not in left_out]
        parts += [orjson.dumps(name) + b":" + value for name, value in ours.items()]
        return b"{" + b",".join(parts) + b"}"


def no_answer(status: int, *, alone: bool) -> bool:
    """Whether what a service says is none: it sends us on; or is not able, and somebody stands in for it."""
    return 300 <= status < 400 or (status in ELSEWHERE and not alone)


async def connect(outer: Outer, make: Callable[[], asyncio.Protocol], *, by: Outward) -> asyncio.Protocol:
    """A connection to the first of its addresses that may be dialled and answers. Raises OSError, ValueError."""
    loop, allows, tls = asyncio.get_running_loop(), by.allows, by.tls
    literal(outer.host)  # what other readers take for an address is none
    if not outer.tls and not allows(outer.host, None):
        raise ValueError(f"{outer.host} is asked over https alone, unless the operator names it (externalsAllowed)")
    found = await by.lookups.find(outer.host, outer.port, project=outer.project)
    allowed = [address for address in found if allows(outer.host, address_of(address))]
    if not allowed:
        raise ValueError(f"{outer.host} stands at an inner address; the operator may name it (externalsAllowed)")
    last: OSError | None = None
    secured, name = (tls, outer.host) if outer.tls else (None, None)
    for address in allowed:
        try:
            return (await loop.create_connection(make, address, outer.port, ssl=secured, server_hostname=name))[1]
        except OSError as error:
            last = error
    raise last or OSError("nobody is there")


@dataclass(frozen=True, slots=True)
class Outward:
    """How a gateway dials services: whom it may, whose certificates it believes, and how it finds where they are."""

    allows: Allows
    tls: ssl.SSLContext
    lookups: Lookups = field(default_factory=Lookups)

    async def connect(self, outer: Outer, make: Callable[[], asyncio.Protocol]) -> Any:
        """The protocol of a new connection. Raises OSError, ValueError."""
        return await connect(outer, make, by=self)


class Services:
    """The services of all endpoints, in their endpoints' pools. ``fetch`` asks for what one is shown, and where."""

    def __init__(self, fetch: Callable[[Key], Awaitable[tuple[str, str]]], clock: Clock) -> None:
        self._fetch = fetch
        self._clock = clock
        self._known: dict[str, tuple[Mapping[str, Any], str]] = {}
        """By uid of the endpoint, as it is in its pool: what was said of it, and the mark of its secret."""
        self._wanted: dict[str, _Wanted] = {}
        self._news = asyncio.Event()

    def follow(self, uid: str, body: Mapping[str, Any], *, pool: Pool) -> None:
        """An Endpoint as it is now: one that has no service, or had one, too."""
        metadata, said = body["metadata"], body["spec"].get("external")
        if said is None:
            self.forget(uid, pool)
            return
        mark = (metadata.get("annotations") or {}).get(SECRET_MARK, "")
        key = Key("Endpoint", metadata["namespace"], metadata["name"])
        known = self._known.get(uid)
        if known == (said, mark):
            return
        self._wanted.pop(uid, None)
        if not mark:
            self._put(uid, _Wanted(key, said, mark, pool), secret="")
            return
        if known is not None and _place(known[0]) != _place(said):
            # What it is shown is bound to where it stands: nothing is sent there before that is known.
            self.forget(uid, pool)
        self._wanted[uid] = _Wanted(key, said, mark, pool)
        self._news.set()

    def forget(self, uid: str, pool: Pool) -> None:
        """It has none any more."""
        self._wanted.pop(uid, None)
        if self._known.pop(uid, None) is not None:
            pool.drop(uid)

    async def run(self) -> None:
        """Fetch what is wanted, until cancelled; what fails is tried again."""
        while True:
            await self._news.wait()
            self._news.clear()
            for uid, wanted in list(self._wanted.items()):
                await self._bring(uid, wanted)
            if self._wanted:
                await self._clock.sleep(RETRY_SECONDS)
                self._news.set()

    async def _bring(self, uid: str, wanted: _Wanted) -> None:
        try:
            secret, at = await self._fetch(wanted.key)
        except BessemerError as error:
            _log.warning("no secret for a service", key=str(wanted.key), error=error.message)
            return
        if self._wanted.get(uid) is not wanted:
            return
        if secret and at not in _names(wanted.said):
            return  # the api knows of another place than was heard of here, and the secret is for that one
        del self._wanted[uid]
        if secret:
            self._put(uid, wanted, secret=secret)
        else:
            _log.warning("the secret was set for another place", key=str(wanted.key))

    def _put(self, uid: str, of: _Wanted, *, secret: str) -> None:
        outer = Outer.read(of.said, secret, project=of.key.namespace)
        self._known[uid] = (of.said, of.mark)
        of.pool.add(Replica(uid, outer.host, of.said["url"], outer=outer))


@dataclass(frozen=True, slots=True, eq=False)
class _Wanted:
    key: Key
    said: Mapping[str, Any]
    mark: str
    pool: Pool


def _place(said: Mapping[str, Any]) -> tuple[str, str]:
    """``https://host:port`` and ``/path``."""
    url = urlsplit(said["url"])
    return f"{url.scheme}://{url.netloc.lower()}", url.path.rstrip("/") or "/"


def _names(said: Mapping[str, Any]) -> tuple[str, str]:
    """What the api calls that place, and what an older one calls it, which knows no path."""
    at, path = _place(said)
    return at + path, at
