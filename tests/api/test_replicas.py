"""Two apis over one PostgreSQL database, each with connections of its own: what is withdrawn through one is withdrawn
at the other, and where that cannot be, the other decides nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from bessemer.api import following
from bessemer.core.clock import SystemClock
from bessemer.core.errors import Unavailable
from bessemer.core.ports import Scope
from bessemer.drivers.oidc.fake import FakeIssuer, FakeIssuers
from bessemer.store.links import ANSWER_SECONDS
from tests.api.test_credentials import OURS, made
from tests.api.test_hosts import Agent, host_and_token, peer
from tests.api.test_oidc import ADA, ISSUER, oidc
from tests.api.test_streams import agent_of, dialled
from tests.api.world import ADMIN, BASE, World, named, served, world
from tests.failover.proxy import Proxy, Wire, proxied
from tests.store.server import Server, running

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

MERGE = "application/merge-patch+json"
BOUND_SECONDS = 20.0
"""Of what takes milliseconds: the machine may be busy with much else."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running() as found:
        yield found


@dataclass
class Pair:
    """Two replicas; the wire is the second's."""

    here: World
    there: World
    wire: Proxy
    issuer: FakeIssuer

    async def patch(self, path: str, **spec: Any) -> None:
        reply = await self.here.call("PATCH", f"{BASE}/{path}", {"spec": spec}, media=MERGE)
        assert reply.code == 200, reply.body


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(server: Server) -> AsyncIterator[Pair]:
    issuer = FakeIssuer(ISSUER, SystemClock(), people={"s-ada": ADA})
    server.database("pair")
    async with AsyncExitStack() as stack:
        wire = await stack.enter_async_context(proxied(server.folder))
        issuers = FakeIssuers(issuer)
        here = await stack.enter_async_context(world(place=server.url("pair"), issuers=issuers))
        there = await stack.enter_async_context(world(place=wire.url("pair"), people=False, issuers=issuers))
        yield Pair(here, there, wire, issuer)


async def code_of(w: World, token: str, path: str = "/whoami") -> int:
    return (await w.call("GET", path, token=token)).code


async def until(holds: Callable[[], Awaitable[bool]]) -> float:
    """The seconds that it takes."""
    began = time.monotonic()
    while not await holds():
        assert time.monotonic() - began < BOUND_SECONDS
        await asyncio.sleep(0.005)
    return time.monotonic() - began


# --- withdrawn rights -------------------------------------------------------------------------------------------------


async def role_lost(p: Pair, tmp: Path) -> float:
    """Its owner is no member any more: their credential may nothing there, and so may they."""
    token = await made(p.here, "mia")
    vms = f"{BASE}/namespaces/acme--lab/instances"
    await until(lambda: is_code(p.there, token, 200, vms))
    await p.patch("tenants/acme", members=[{"user": "ann", "role": "tenant-admin"}])
    assert await code_of(p.here, token, vms) != 200, "where it was written, before the answer"
    return await until(lambda: is_refused(p.there, token, vms))


async def credential_disabled(p: Pair, tmp: Path) -> float:
    token = await made(p.here, "ann", "nightly")
    await until(lambda: is_code(p.there, token, 200))
    await p.patch(f"{OURS}/nightly".removeprefix(f"{BASE}/"), disabled=True)
    return await until(lambda: is_code(p.there, token, 401))


async def host_revoked(p: Pair, tmp: Path) -> float:
    """Its certificate is worth nothing there, and its socket there is closed."""

    async def accept(stream: Any) -> None:
        await stream.close()

    took, relay = BOUND_SECONDS, p.there.api.state.relay
    async with served(p.there, tmp) as s:
        with suppress(Unavailable):  # the agent hears that its connection was lost
            async with dialled(s, await agent_of(p.there, "h1"), "h1", accept):
                assert relay.holds("h1")
                await p.patch("hosts/h1", revoked=True)
                took = await until(lambda: so(not relay.holds("h1")))
    return took


async def signed_out(p: Pair, tmp: Path) -> float:
    """A bearer's own sign-out: it, and every session of that person by that provider."""
    await p.here.create(f"{BASE}/identityproviders", named("corp", oidc=oidc()))
    token = p.issuer.token("s-ada", audience="bessemer")
    await until(lambda: is_code(p.there, token, 200))
    await until(lambda: is_code(p.here, token, 200))
    reply = await p.here.call("DELETE", "/login", token=token)
    assert reply.code == 200
    assert await code_of(p.here, token) == 401
    return await until(lambda: is_code(p.there, token, 401))


async def is_code(w: World, token: str, code: int, path: str = "/whoami") -> bool:
    return await code_of(w, token, path) == code


async def is_refused(w: World, token: str, path: str) -> bool:
    return await code_of(w, token, path) in (403, 404)


async def so(what: bool) -> bool:
    return what


@pytest.mark.parametrize("withdrawn", [role_lost, credential_disabled, host_revoked, signed_out])
async def test_what_is_withdrawn_at_one_is_withdrawn_at_the_other(
    pair: Pair,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    withdrawn: Callable[[Pair, Path], Awaitable[float]],
) -> None:
    took = await withdrawn(pair, tmp_path)
    assert took < BOUND_SECONDS
    with capsys.disabled():
        print(f"\n  {withdrawn.__name__}: at the other replica after {took * 1000:.0f} ms")  # noqa: T201


async def test_who_hears_nothing_decides_nothing(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The feed of one fails while its reads work: what was withdrawn at the other cannot be known there."""
    token, vms = await pair.here.login("eve"), f"{BASE}/namespaces/other--lab/instances"
    await until(lambda: is_code(pair.there, token, 200, vms))

    def broken(_: object) -> bool:
        raise Unavailable("the network is gone")

    monkeypatch.setattr(following, "STALE_SECONDS", 600.0)
    feed: Any = pair.there.store._feed
    with monkeypatch.context() as patched:
        patched.setattr(feed, "_read", broken)
        await pair.patch("tenants/other", members=[])
        assert await code_of(pair.there, token, vms) == 200, "not long ago, it was so"
        patched.setattr(following, "STALE_SECONDS", 2.5)
        await until(lambda: is_code(pair.there, token, 503, vms))
        assert (await pair.there.store.objects.list(Scope(kind="Tenant"))).items, "its reads work"
    await until(lambda: is_refused(pair.there, token, vms))


async def test_who_is_cut_off_says_so_at_once(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    token = await pair.here.login("rob")
    await until(lambda: is_code(pair.there, token, 200))
    monkeypatch.setattr(following, "STALE_SECONDS", 2.5)
    pair.wire.cut(Wire.DROP)
    await until(lambda: so(not pair.there.api.state.following.current))
    began = time.monotonic()
    reply = await pair.there.call("GET", "/whoami", token=token)
    assert (reply.code, reply.headers["retry-after"]) == (503, str(following.AGAIN_SECONDS))
    assert time.monotonic() - began < ANSWER_SECONDS / 2, "without asking the database"
    assert (await pair.there.call("GET", "/whoami", peer=ADMIN)).code == 200
    pair.wire.cut(Wire.OPEN)
    await until(lambda: is_code(pair.there, token, 200))


# --- joins ------------------------------------------------------------------------------------------------------------


async def test_of_many_that_join_with_one_token_through_two_replicas_one_does(pair: Pair) -> None:
    token, path = await host_and_token(pair.here, "h2"), f"{BASE}/hosts/h2"
    doors = [pair.here, pair.there] * 4
    replies = await asyncio.gather(
        *(door.call("POST", f"{path}/join", {"token": token, "csr": Agent().csr}, peer=None) for door in doors)
    )
    codes = sorted(reply.code for reply in replies)
    assert codes[0] == 201
    assert set(codes[1:]) <= {401, 409}
    winner = next(peer(reply.json["certificate"]) for reply in replies if reply.code == 201)
    for door in (pair.here, pair.there):
        status = (await door.call("GET", path)).json["status"]
        assert status["keyFingerprint"] == winner.fingerprint
        assert (await door.call("GET", path, peer=winner)).code == 200
        late = await door.call("POST", f"{path}/join", {"token": token, "csr": Agent().csr}, peer=None)
        assert late.code == 401
