"""Logs and consoles over real sockets: from the agent's outbound stream, through the api, to a reader."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from bessemer.api import listener
from bessemer.api.ca import Pair, Peer, peer_of
from bessemer.api.relay import TENANT_STREAMS_MAX, USER_STREAMS_MAX, Reader, Relay
from bessemer.client import Client, HttpTransport, plurals, tls_context
from bessemer.core.errors import DriverError, Expired, Forbidden, NotFound, TooMany, Unauthenticated, Unavailable
from bessemer.core.frames import Mux, Stream
from bessemer.core.ports import Scope
from bessemer.core.resource import Key
from tests.api.world import BASE, PATIENCE_SECONDS, Served, World, _scope, instance, served, world

VM = Key("Instance", "acme--lab", "vm")
Accept = Callable[[Stream], Awaitable[None]]


@asynccontextmanager
async def client(s: Served, pair: Pair | None = None, *, token: str = "") -> AsyncIterator[Client]:
    cert = (pair.certificate, pair.key) if pair else None
    made = Client(HttpTransport(s.url, tls=tls_context(s.world.ca.certificate, cert), token=token), plurals=plurals())
    try:
        yield made
    finally:
        await made.close()


async def agent_of(w: World, name: str) -> Pair:
    """A host's certificate, registered."""
    pair = w.ca.issue(f"system:agent:{name}", groups=["system:agents"])
    der = x509.load_pem_x509_certificate(pair.certificate).public_bytes(serialization.Encoding.DER)
    found = peer_of(der)
    assert isinstance(found, Peer)
    await w.host(name, peer=found)
    return pair


@pytest.fixture
async def s(tmp_path: Path) -> AsyncIterator[Served]:
    async with world() as w, served(w, tmp_path) as made:
        yield made


@asynccontextmanager
async def dialled(s: Served, pair: Pair, host: str, accept: Accept) -> AsyncIterator[None]:
    """An agent's stream socket, serving what the api opens."""
    async with client(s, pair) as agent, agent.agents.stream(host) as socket:
        task = asyncio.ensure_future(Mux(socket.send, dialled=True, accept=accept).run(aiter(socket)))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not s.world.api.state.relay.holds(host):
                await asyncio.sleep(0.01)
        try:
            yield
        finally:
            await socket.close()
            await task


async def running(s: Served) -> Pair:
    """Instance vm, claimed on host h1; h1's certificate."""
    pair = await agent_of(s.world, "h1")
    await s.world.create(f"{BASE}/namespaces/acme--lab/instances", instance("vm"))
    await s.world.claim("vm", "h1", "acme--lab")
    return pair


async def test_a_log_is_relayed_as_it_comes(s: Served) -> None:
    pair, asked, more = await running(s), [], asyncio.Event()

    async def accept(stream: Stream) -> None:
        asked.append(dict(stream.request))
        await stream.write(b"booting\n")
        await more.wait()
        await stream.write(b"x" * 600_000)

    claim = await s.world.store.objects.get(Key("Claim", "acme--lab", "instance-vm-0"))
    async with (
        dialled(s, pair, "h1", accept),
        client(s, s.admin) as admin,
        admin.workloads.log(VM, follow=True) as parts,
    ):
        assert await anext(parts) == b"booting\n"
        more.set()
        assert len(b"".join([part async for part in parts])) == 600_000
    assert asked == [{"claim": claim.uid, "verb": "log", "follow": True}]


async def test_a_reader_who_leaves_ends_the_stream(s: Served) -> None:
    pair, ended = await running(s), asyncio.Event()

    async def accept(stream: Stream) -> None:
        await stream.write(b"x")
        while await stream.read():
            pass
        ended.set()

    async with dialled(s, pair, "h1", accept), client(s, s.admin) as admin:
        async with admin.workloads.log(VM, follow=True) as parts:
            assert await anext(parts) == b"x"
        await admin.close()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await ended.wait()


async def test_a_console_goes_both_ways(s: Served) -> None:
    pair = await running(s)

    async def accept(stream: Stream) -> None:
        assert stream.request["verb"] == "console"
        await stream.write(b"login: ")
        async for typed in stream:
            await stream.write(typed.upper())

    mia = await s.world.login("mia")
    async with (
        dialled(s, pair, "h1", accept),
        client(s, token=mia) as member,
        member.workloads.console(VM) as socket,
    ):
        shown = aiter(socket)
        assert await anext(shown) == b"login: "
        await socket.send(b"root\n")
        assert await anext(shown) == b"ROOT\n"


@pytest.mark.parametrize("reason", ["somebody else is at the console", "g\u00e4ste " * 40])
async def test_why_a_console_ends_is_told(s: Served, reason: str) -> None:
    """Also where the host does not take what is typed: what it said before, and why, is read to its end."""
    pair = await running(s)

    async def accept(stream: Stream) -> None:
        await stream.write(b"x" * 300_000)
        raise DriverError("ConsoleBusy", reason)

    async with (
        dialled(s, pair, "h1", accept),
        client(s, s.admin) as admin,
        admin.workloads.console(VM) as socket,
    ):
        shown: list[int] = []

        async def show() -> None:
            async for part in socket:
                shown.append(len(part))

        await socket.send(b"root\n")
        with pytest.raises(Unavailable, match=reason[:60]):
            await show()
        assert sum(shown) == 300_000


async def test_a_console_that_ends_in_good_order_gives_no_reason(s: Served) -> None:
    pair = await running(s)

    async def accept(stream: Stream) -> None:
        await stream.write(b"bye\n")

    async with (
        dialled(s, pair, "h1", accept),
        client(s, s.admin) as admin,
        admin.workloads.console(VM) as socket,
    ):
        assert [part async for part in socket] == [b"bye\n"]


async def test_a_server_that_stops_says_so_at_its_consoles(s: Served) -> None:
    pair = await running(s)

    async def accept(stream: Stream) -> None:
        await stream.write(b"login: ")
        await stream.read()

    async with (
        dialled(s, pair, "h1", accept),
        client(s, s.admin) as admin,
        admin.workloads.console(VM) as socket,
    ):
        shown = aiter(socket)
        assert await anext(shown) == b"login: "
        s.world.api.close()
        with pytest.raises(Unavailable, match="the server stops"):
            await anext(shown)


async def test_who_may_not_gets_no_socket(s: Served) -> None:
    await running(s)
    other = await agent_of(s.world, "h2")
    cases = (("rob", Forbidden), ("eve", NotFound))
    for user, refusal in cases:
        async with client(s, token=await s.world.login(user)) as somebody:
            with pytest.raises(refusal):
                async with somebody.workloads.console(VM):
                    pass
    async with client(s) as stranger:
        with pytest.raises(Unauthenticated):
            async with stranger.workloads.console(VM):
                pass
    async with client(s, other) as agent:
        for open_socket in (agent.agents.stream("h1"), agent.workloads.console(VM)):
            with pytest.raises(NotFound):
                async with open_socket:
                    pass


async def test_what_the_host_refuses_is_told(s: Served) -> None:
    pair = await running(s)

    async def accept(stream: Stream) -> None:
        raise NotFound("it does not run on this host")

    async with client(s, s.admin) as admin:
        with pytest.raises(Unavailable, match="h1 is not connected"):
            async with admin.workloads.log(VM):
                pass
        async with dialled(s, pair, "h1", accept):
            with pytest.raises(Unavailable, match="does not run on this host"):
                async with admin.workloads.log(VM):
                    pass
        with pytest.raises(Unavailable, match="no place on a host"):
            async with admin.workloads.log(VM, replica=7):
                pass
        with pytest.raises(NotFound):
            async with admin.workloads.log(Key("Instance", "acme--lab", "none")):
                pass


async def test_the_lease_says_which_replica_holds_the_socket(s: Served) -> None:
    pair = await running(s)

    async def accept(stream: Stream) -> None:
        await stream.read()

    async with dialled(s, pair, "h1", accept):
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not (leases := await s.world.store.leases.held("host/h1")):
                await asyncio.sleep(0.01)  # it is written once the socket has joined
        assert [(lease.holder, lease.note) for lease in leases] == [("h1", "api")]
    async with asyncio.timeout(PATIENCE_SECONDS):
        while s.world.api.state.relay.holds("h1"):
            await asyncio.sleep(0.01)


async def test_the_server_stops_within_its_bound_whatever_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By ending what is open, and not because its bound is over."""
    monkeypatch.setattr(listener, "STOP_SECONDS", 10 * int(PATIENCE_SECONDS))
    loop = asyncio.get_running_loop()
    async with world() as w:
        async with served(w, tmp_path) as s:
            pair, begun = await running(s), asyncio.Event()

            async def accept(stream: Stream) -> None:
                begun.set()
                await stream.write(b"x")
                await stream.read()

            admin = Client(
                HttpTransport(s.url, tls=tls_context(w.ca.certificate, (s.admin.certificate, s.admin.key))),
                plurals=plurals(),
            )

            async def follow() -> None:
                async with admin.workloads.log(VM, follow=True) as parts:
                    async for _ in parts:
                        pass

            agent = asyncio.ensure_future(_hold(s, pair, accept))
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not w.api.state.relay.holds("h1"):
                    await asyncio.sleep(0.01)
            reader = asyncio.ensure_future(follow())
            async with asyncio.timeout(PATIENCE_SECONDS):
                await begun.wait()
            began = loop.time()
        assert loop.time() - began < PATIENCE_SECONDS
        results = await asyncio.gather(agent, reader, return_exceptions=True)
        assert all(r is None or isinstance(r, Unavailable) for r in results)
        await admin.close()


async def _hold(s: Served, pair: Pair, accept: Accept) -> None:
    async with client(s, pair) as agent, agent.agents.stream("h1") as socket:
        await Mux(socket.send, dialled=True, accept=accept).run(aiter(socket))


async def test_a_heart_beats_over_the_socket_and_only_one_of_them(s: Served) -> None:
    pair = await agent_of(s.world, "h1")
    async with client(s, pair) as agent, agent.agents.stream("h1") as socket:
        mux = Mux(socket.send, dialled=True)
        task = asyncio.ensure_future(mux.run(aiter(socket)))
        heart = await mux.open({"verb": "heartbeat"})
        async with asyncio.timeout(PATIENCE_SECONDS):
            await heart.write(b"\n")
            assert await heart.read() == b"60"
            (before,) = await s.world.store.leases.held("host/h1")
            await heart.write(b"\n")
            assert await heart.read() == b"60"
        (after,) = await s.world.store.leases.held("host/h1")
        assert (after.holder, after.expires_at > before.expires_at) == ("h1", True)
        second, other = await mux.open({"verb": "heartbeat"}), await mux.open({"verb": "log"})
        async with asyncio.timeout(PATIENCE_SECONDS):
            with pytest.raises(Unavailable, match="one heartbeat"):
                await second.read()
            with pytest.raises(Unavailable, match="nothing else"):
                await other.read()
            await heart.close()
            third = await mux.open({"verb": "heartbeat"})
            await third.write(b"\n")
            assert await third.read() == b"60"
        await socket.close()
        await task


async def test_a_revoked_host_loses_its_socket_and_its_watches_at_once(s: Served) -> None:
    pair, ended = await agent_of(s.world, "h1"), False
    with suppress(Unavailable):  # the agent hears that its socket is lost, unless it leaves first
        async with client(s, pair) as agent, dialled(s, pair, "h1", _nothing):
            watch = agent.watch(Scope(kind="Claim", host="h1"), since=s.world.store.revision)
            reading = asyncio.ensure_future(anext(watch))
            await watched(s, "claims")
            await s.world.call(
                "PATCH", f"{BASE}/hosts/h1", {"spec": {"revoked": True}}, media="application/merge-patch+json"
            )
            async with asyncio.timeout(PATIENCE_SECONDS):
                with pytest.raises(Expired):
                    await reading
                while s.world.api.state.relay.holds("h1"):
                    await asyncio.sleep(0.01)
            ended = True
    assert ended


async def test_who_signs_out_reads_no_further(s: Served) -> None:
    mia = await s.world.login("mia")
    async with client(s, token=mia) as member:
        watch = member.watch(Scope(kind="Instance", namespace="acme--lab"), since=s.world.store.revision)
        reading = asyncio.ensure_future(anext(watch))
        await watched(s, "instances")
        await member.account.logout()
        async with asyncio.timeout(PATIENCE_SECONDS):
            with pytest.raises((Expired, Unauthenticated)):
                await reading


async def _nothing(stream: Stream) -> None:
    del stream


async def watched(s: Served, plural: str) -> None:
    """Once a watch of these is open."""
    open_ = s.world.api.state.metrics.watches.labels(plural)._value
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not open_.get():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("what", ["console", "log"])
async def test_a_reader_who_leaves_before_the_answer_leaves_nothing_open(s: Served, what: str) -> None:
    """A console is one reader's at a time, and a host has so many streams: one that nobody closes is lost to all."""
    pair, begun, ended = await running(s), asyncio.Event(), asyncio.Event()
    token, path = await s.world.login("mia"), f"{BASE}/namespaces/acme--lab/instances/vm/{what}"

    async def accept(stream: Stream) -> None:
        begun.set()
        while await stream.read():
            pass
        ended.set()

    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect" if what == "console" else "http.disconnect"}

    async def send(_: object) -> None:
        if what == "console":
            raise OSError("the client has left")
        await asyncio.Event().wait()  # nothing more goes into its connection

    scope = _scope("GET", path, {"authorization": f"Bearer {token}"}, None)
    if what == "console":
        scope["type"] = "websocket"
    async with dialled(s, pair, "h1", accept), asyncio.timeout(PATIENCE_SECONDS):
        with suppress(OSError):
            await s.world.api(scope, receive, send)
        assert await begun.wait()
        assert await ended.wait()


# --- a host's streams are shared ----------------------------------------------------------------------------------


class Sockets:
    """A host's socket on which whatever is opened stays open."""

    def __init__(self) -> None:
        self.sent = 0
        self.mux = Mux(self._send, dialled=False)
        self.relay = Relay()
        self.relay.join("h1", self.mux)

    async def _send(self, _: bytes) -> None:
        self.sent += 1
        await asyncio.sleep(0)

    async def open(self, tenant: str, user: str) -> Stream:
        return await self.relay.open("h1", {"verb": "log"}, reader=Reader(tenant, user))


async def test_one_user_does_not_take_a_hosts_streams() -> None:
    """At once or one after the other; others go on, and what is closed may be opened again."""
    host = Sockets()
    tried = await asyncio.gather(*(host.open("acme", "rob") for _ in range(1100)), return_exceptions=True)
    streams = [one for one in tried if isinstance(one, Stream)]
    assert len(streams) == USER_STREAMS_MAX
    with pytest.raises(TooMany, match="rob has 32 logs and consoles open there, as many as one user may on one host"):
        await host.open("acme", "rob")
    await host.open("acme", "ann")
    await host.open("rival", "eve")
    await streams[0].close()
    await host.open("acme", "rob")


async def test_one_tenant_does_not_take_a_hosts_streams() -> None:
    host = Sockets()
    for number in range(TENANT_STREAMS_MAX):
        await host.open("acme", f"user-{number}")
    with pytest.raises(TooMany, match="128 logs and consoles of tenant acme are open there"):
        await host.open("acme", "one-more")
    await host.open("rival", "eve")
    await host.open("rival", "user-0")


async def test_a_stream_that_was_not_opened_does_not_count() -> None:
    """Nor those of a socket that has ended."""
    host = Sockets()

    async def broken(_: bytes) -> None:
        await asyncio.sleep(0)
        raise Unavailable("gone")

    await host.open("acme", "rob")
    host.relay.join("h1", Mux(broken, dialled=False))
    tried = (host.open("acme", "rob") for _ in range(USER_STREAMS_MAX - 1))
    assert {type(one) for one in await asyncio.gather(*tried, return_exceptions=True)} == {Unavailable}
    again = Mux(host._send, dialled=False)
    host.relay.join("h1", again)
    for _ in range(USER_STREAMS_MAX - 1):
        await host.open("acme", "rob")
    host.relay.leave("h1", again)
    with pytest.raises(Unavailable, match="host h1 is not connected"):
        await host.open("acme", "rob")
    host.relay.join("h1", host.mux)
    for _ in range(USER_STREAMS_MAX):
        await host.open("acme", "rob")


async def test_too_many_logs_are_429(s: Served) -> None:
    pair = await running(s)

    async def accept(stream: Stream) -> None:
        while await stream.read():
            pass

    async with dialled(s, pair, "h1", accept):
        held = [
            await s.world.api.state.relay.open("h1", {"verb": "log"}, reader=Reader("acme", "admin"))
            for _ in range(USER_STREAMS_MAX)
        ]
        reply = await s.world.call("GET", f"{BASE}/namespaces/acme--lab/instances/vm/log")
        assert (reply.code, reply.headers["retry-after"], reply.json["reason"]) == (429, "5", "TooManyRequests")
        assert "close one" in reply.json["message"]
        for stream in held:
            await stream.close()
