"""What stands between tenants, strangers and hosts that lie, seen from outside: each test is an attack that fails."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bessemer.api import Limits, make_app
from bessemer.api.context import Identity
from bessemer.api.following import Following
from bessemer.api.standing import KINDS, Standing
from bessemer.client import tls_context
from bessemer.core.asking import Request
from bessemer.core.clock import FakeClock, settle
from bessemer.core.errors import BessemerError, Expired, NotFound, Unavailable
from bessemer.core.frames import Stream
from bessemer.core.ports import CONTROLLER, Page, Scope
from bessemer.core.resource import Change, Key
from bessemer.core.values import TOKENS_MAX
from bessemer.kinds.fleet.inventory import FleetFeed
from tests.api.test_streams import VM, client, dialled, running
from tests.api.world import (
    BASE,
    GATEWAY,
    PATIENCE_SECONDS,
    Served,
    World,
    instance,
    named,
    served,
    tenant,
    usage_batch,
    usage_record,
    world,
)

MERGE, JSON = "application/merge-patch+json", "application/json-patch+json"
INSTANCES = f"{BASE}/namespaces/acme--lab/instances"
P256 = bytes.fromhex("06082a8648ce3d030107")


@pytest.fixture
async def s(tmp_path: Path) -> AsyncIterator[Served]:
    """Nobody is looked at again by the clock: what ends amid a test ends for what was withdrawn."""
    async with world(limits=Limits(login_burst=50, recheck_seconds=600.0)) as w, served(w, tmp_path) as made:
        yield made


async def leave(w: World, *names: str) -> None:
    """Take people out of tenant acme."""
    roles = {"ann": "tenant_admin", "mia": "member", "rob": "reader"}
    left = tenant("acme", **{name: role for name, role in roles.items() if name not in names})
    reply = await w.call("PATCH", f"{BASE}/tenants/acme", {"spec": left["spec"]}, media=MERGE)
    assert reply.code == 200, reply.body


# --- strangers ----------------------------------------------------------------------------------------------------


def csr() -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    signed = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return signed.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(
        serialization.Encoding.DER
    )


def pem(der: bytes) -> str:
    text = base64.encodebytes(der).decode()
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{text}-----END CERTIFICATE REQUEST-----\n"


@pytest.mark.parametrize("vouches", [{"signature": "AA=="}, {"token": "bsj_x"}, {}, {"signature": "?", "csr": "x"}])
async def test_a_stranger_learns_of_no_host_by_joining(w: World, vouches: dict[str, str]) -> None:
    await w.host("there")
    body = {"csr": pem(csr()), **vouches}
    answers = []
    for name in ("there", "nowhere"):
        reply = await w.call("POST", f"{BASE}/hosts/{name}/join", body, peer=None)
        answers.append((reply.code, reply.body.replace(name.encode(), b"NAME")))
    assert answers[0] == answers[1]
    assert answers[0][0] in (401, 422)


async def test_a_certificate_request_of_a_kind_that_nobody_knows(w: World) -> None:
    await w.host("h1")
    for strange in (csr().replace(P256, P256[:-1] + b"\x63"), csr().replace(b"\x02\x01\x00", b"\x02\x01\x63", 1)):
        body = {"csr": pem(strange), "signature": "AA=="}
        reply = await w.call("POST", f"{BASE}/hosts/h1/join", body, peer=None)
        assert reply.code == 422, reply.body


@pytest.mark.parametrize(
    ("head", "part"),
    [
        (b"GET /healthz HTTP/1.1\r\nhost: x\r\n", b"h: " + b"a" * 8192 + b"\r\n"),
        (b"GET /healthz HTTP/1.1\r\nhost: x\r\nx: ", b"a" * 8192),
        (b"GET /", b"a" * 8192),
        (b"POST /login HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1;", b"a" * 8192),
        (b"POST /login HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", b"t: " + b"a" * 8192 + b"\r\n"),
    ],
)
async def test_headers_without_end_end_the_connection(s: Served, head: bytes, part: bytes) -> None:
    port = int(s.url.rpartition(":")[2])
    tls = tls_context(s.world.ca.certificate, None)
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname="localhost")
    sent = 0
    writer.write(head)
    with suppress(OSError):
        while sent < 32 << 20:
            writer.write(part)
            await writer.drain()
            sent += len(part)
    writer.close()
    assert sent < 16 << 20  # what the sockets held


# --- those who were let in once -----------------------------------------------------------------------------------


async def test_a_watch_ends_with_the_membership_that_it_was_made_by() -> None:
    async with world(FakeClock()) as w:
        mia, ann = await w.login("mia"), await w.login("ann")
        path = f"{INSTANCES}?watch=1"
        async with w.watch(path, token=mia) as hers, w.watch(path, token=ann) as others, w.watch(path) as whole:
            await leave(w, "mia")
            told = await hers.next()
            assert (told["type"], told["object"]["code"]) == ("ERROR", 410)  # whoever lists again sees what is left
            assert await hers.next() is None
            await w.create(INSTANCES, instance("secret"))
            assert await others.names(1) == await whole.names(1) == [("ADDED", "secret")]


async def test_a_slow_watch_says_nothing_more_once_its_reader_may_not(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(FakeClock()) as w:
        mia, go = await w.login("mia"), asyncio.Event()
        async with w.watch(f"{INSTANCES}?watch=1&resourceVersion={w.store.revision}", token=mia) as hers:
            tell = hers.send

            async def slowly(message: Any) -> None:
                if message["type"] == "http.response.body":
                    await go.wait()
                await tell(message)

            monkeypatch.setattr(hers, "send", slowly)
            await w.create(INSTANCES, instance("first"))
            await leave(w, "mia")
            await w.create(INSTANCES, instance("secret"))
            await asyncio.sleep(0.05)  # threads look who she is
            go.set()
            assert (await hers.next())["type"] == "ERROR"
            assert await hers.next() is None


class Slow:
    """A request's body that begins, and goes on when it is let."""

    def __init__(self, body: Any) -> None:
        self.begun = asyncio.Event()
        self.rest = asyncio.Event()
        self._body = orjson.dumps(body)

    async def parts(self) -> AsyncIterator[bytes]:
        yield b" "
        self.begun.set()
        await self.rest.wait()
        yield self._body


async def nothing_came_of_it(w: World, made: Any) -> None:
    """Instance vm is as it was made, and there is none called late."""
    found = await w.store.objects.get(Key("Instance", "acme--lab", "vm"))
    assert found.revision == int(made["metadata"]["resourceVersion"])
    with pytest.raises(NotFound):
        await w.store.objects.get(Key("Instance", "acme--lab", "late"))


WRITES = [
    ("POST", INSTANCES, instance("late"), "application/json"),
    ("POST", f"{BASE}/instances", {**instance("late")}, "application/json"),
    ("PUT", f"{INSTANCES}/vm", instance("vm"), "application/json"),
    ("PATCH", f"{INSTANCES}/vm", {"metadata": {"labels": {"a": "b"}}}, MERGE),
    ("DELETE", f"{INSTANCES}/vm", {}, "application/json"),
]


async def held_back(
    w: World, method: str, path: str, body: Any, *, media: str, made: dict[str, Any], token: str
) -> tuple[asyncio.Future[Any], Slow]:
    """A write that is under way, with the rest of its body to come."""
    raw = {**body, "metadata": {**body.get("metadata", {}), "resourceVersion": made["metadata"]["resourceVersion"]}}
    if path == f"{BASE}/instances":
        raw["metadata"]["namespace"] = "acme--lab"
    slow = Slow(raw if method != "DELETE" else {})
    asking = asyncio.ensure_future(w.call(method, path, slow.parts(), token=token, media=media))
    await slow.begun.wait()
    return asking, slow


@pytest.mark.parametrize(("method", "path", "body", "media"), WRITES)
async def test_a_body_that_takes_its_time_outlives_no_membership(
    w: World, method: str, path: str, body: Any, media: str
) -> None:
    made, mia = await w.create(INSTANCES, instance("vm")), await w.login("mia")
    asking, slow = await held_back(w, method, path, body, media=media, made=made, token=mia)
    await leave(w, "mia")
    slow.rest.set()
    assert (await asking).code == 404
    await nothing_came_of_it(w, made)


@pytest.mark.parametrize(("method", "path", "body", "media"), WRITES)
async def test_a_body_that_takes_its_time_outlives_no_session(
    w: World, method: str, path: str, body: Any, media: str
) -> None:
    made, mia = await w.create(INSTANCES, instance("vm")), await w.login("mia")
    asking, slow = await held_back(w, method, path, body, media=media, made=made, token=mia)
    assert (await w.call("DELETE", "/login", token=mia)).code == 200
    slow.rest.set()
    assert (await asking).code == 401
    await nothing_came_of_it(w, made)


async def test_a_password_is_not_set_by_a_session_that_has_ended(w: World) -> None:
    """Else whoever stole it could keep the account after its owner has shut them out."""
    stolen, slow = await w.login("mia"), Slow({"password": "a password of the thief"})
    path = f"{BASE}/users/mia/password"
    asking = asyncio.ensure_future(w.call("POST", path, slow.parts(), token=stolen))
    await slow.begun.wait()
    assert (await w.call("POST", path, {"password": "another long password"})).code == 200
    slow.rest.set()
    assert (await asking).code == 401
    said = {"user": "mia", "password": "another long password"}
    assert (await w.call("POST", "/login", said, peer=None)).code == 201


@pytest.mark.parametrize(
    ("method", "what"),
    [("PUT", "host"), ("PATCH", "host"), ("PUT", "claim"), ("PATCH", "claim"), ("POST", "heartbeat")],
)
async def test_an_agent_that_is_revoked_reports_no_more(w: World, method: str, what: str) -> None:
    agent = await w.host("h1")
    await w.create(INSTANCES, instance("vm"))
    claim = await w.claim("vm", "h1", "acme--lab")
    paths = {
        "host": (f"{BASE}/hosts/h1/status", {"report": {"numa": [{**NODE, "threads": 8}]}}),
        "claim": (f"{BASE}/namespaces/acme--lab/claims/{claim.key.name}/status", {"phase": "Running"}),
        "heartbeat": (f"{BASE}/hosts/h1/heartbeat", {}),
    }
    path, status = paths[what]
    name = "h1" if what == "host" else claim.key.name
    slow = Slow({"metadata": {"name": name}, "spec": {}, "status": status} if status else {})
    media = MERGE if method == "PATCH" else "application/json"
    asking = asyncio.ensure_future(w.call(method, path, slow.parts(), peer=agent, media=media))
    await slow.begun.wait()
    assert (await w.call("PATCH", f"{BASE}/hosts/h1", {"spec": {"revoked": True}}, media=MERGE)).code == 200
    slow.rest.set()
    assert (await asking).code == 401
    assert "report" not in orjson.loads((await w.store.objects.get(Key("Host", "", "h1"))).body).get("status", {})
    assert (await w.store.objects.get(claim.key)).revision == claim.revision
    assert await w.store.leases.held("host/h1") == []


async def test_a_host_says_nothing_of_a_claim_that_is_anothers_by_now(w: World) -> None:
    agent = await w.host("h1")
    await w.host("h2")
    await w.create(INSTANCES, instance("vm"))
    claim = await w.claim("vm", "h1", "acme--lab")
    path = f"{BASE}/namespaces/acme--lab/claims/{claim.key.name}/status"
    slow = Slow({"metadata": {"name": claim.key.name}, "spec": {}, "status": {"phase": "Running"}})
    asking = asyncio.ensure_future(w.call("PUT", path, slow.parts(), peer=agent))
    await slow.begun.wait()
    await w.store.capacity.release(claim.key, CONTROLLER, fenced=True)
    moved = await w.claim("vm", "h2", "acme--lab")
    slow.rest.set()
    assert (await asking).code == 404
    assert (await w.store.objects.get(claim.key)).revision == moved.revision


@pytest.mark.parametrize("what", ["member", "reader"])
async def test_a_log_ends_with_the_membership(s: Served, what: str) -> None:
    pair, name = await running(s), {"member": "mia", "reader": "rob"}[what]
    token = await s.world.login(name)

    async def accept(stream: Stream) -> None:
        await stream.write(b"booting\n")
        while await stream.read():
            pass

    async with (
        dialled(s, pair, "h1", accept),
        client(s, token=token) as reader,
        asyncio.timeout(PATIENCE_SECONDS),
        reader.workloads.log(VM, follow=True) as parts,
    ):
        assert await anext(parts) == b"booting\n"
        await leave(s.world, name)
        assert [part async for part in parts] == []


async def test_a_console_ends_with_the_right_to_type(s: Served) -> None:
    pair, token = await running(s), await s.world.login("mia")
    over = asyncio.Event()

    async def accept(stream: Stream) -> None:
        await stream.write(b"login: ")
        while await stream.read():
            pass
        over.set()

    async with dialled(s, pair, "h1", accept), client(s, token=token) as member, member.workloads.console(VM) as socket:
        shown = aiter(socket)
        assert await anext(shown) == b"login: "
        now = tenant("acme", ann="tenant_admin", mia="reader", rob="reader")
        assert (await s.world.call("PATCH", f"{BASE}/tenants/acme", {"spec": now["spec"]}, media=MERGE)).code == 200
        async with asyncio.timeout(PATIENCE_SECONDS):
            await over.wait()
            with pytest.raises(Unavailable, match="you may not type here any more"):
                await anext(shown)


async def test_the_socket_of_a_revoked_host_is_closed(tmp_path: Path) -> None:
    clock = FakeClock()
    async with world(clock) as w, served(w, tmp_path) as s:
        pair = await running(s)

        async def accept(stream: Stream) -> None:
            await stream.write(b"x")

        with suppress(BessemerError, OSError):
            async with dialled(s, pair, "h1", accept):
                reply = await w.call("PATCH", f"{BASE}/hosts/h1", {"spec": {"revoked": True}}, media=MERGE)
                assert reply.code == 200
                await clock.advance(11.0)
                async with asyncio.timeout(PATIENCE_SECONDS):
                    while w.api.state.relay.holds("h1"):
                        await asyncio.sleep(0.01)
        assert not w.api.state.relay.holds("h1")


class Forgetful:
    """A store whose history is gone, and which cannot say at once where it is now."""

    def __init__(self) -> None:
        self.asked = 0
        self.since: list[int | None] = []

    async def list(self, scope: Scope, *, limit: int = 0, after: str = "") -> Page:
        self.asked += 1
        if self.asked <= len(KINDS):
            raise Unavailable("the store is busy")
        return Page((), 7)

    async def watch(self, scope: Scope, *, since: int | None = None, **_: Any) -> AsyncIterator[Change]:
        self.since.append(since)
        if since == 1:
            raise Expired("history is gone")
        await asyncio.Event().wait()
        yield Change(8, "MODIFIED", Key("User", "", "x"), "", "", b"")


async def test_who_may_stand_otherwise_is_told_also_where_history_was_lost() -> None:
    clock, store = FakeClock(), Forgetful()
    standing = Standing(store, Following(store, clock))  # type: ignore[arg-type]
    turn = standing.turn(Identity("user", "mia"))
    running = asyncio.ensure_future(standing.run(1))
    await settle()
    assert not running.done()
    assert not turn.is_set()
    await clock.advance(2.0)
    assert turn.is_set()
    assert store.since == [1] * len(KINDS) + [7] * len(KINDS)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_where_nobody_follows_who_may_stand_otherwise_no_stream_stays_open(
    w: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dies(*_: object) -> None:
        raise ValueError("a defect")

    monkeypatch.setattr(Standing, "run", dies)
    async with make_app(w.api.state.context).running() as api, asyncio.timeout(PATIENCE_SECONDS):
        await api.state.closing.wait()
        there = World(api, w.store, w.ca, w.clock)
        async with there.watch(f"{INSTANCES}?watch=1&resourceVersion={w.store.revision}") as events:
            assert await events.next() is None


async def test_a_new_password_ends_what_the_old_one_began(w: World) -> None:
    here, stolen = await w.login("mia"), await w.login("mia")
    link = (await w.call("POST", f"{BASE}/users/mia/signinlink", {})).json["secret"]
    other = await w.login("ann")
    reply = await w.call("POST", f"{BASE}/users/mia/password", {"password": "another long password"}, token=here)
    assert reply.code == 200
    codes = [(await w.call("GET", "/whoami", token=token)).code for token in (here, stolen, other)]
    assert codes == [200, 401, 200]
    assert (await w.call("POST", "/login", {"link": link}, peer=None)).code == 201


async def test_the_trail_says_for_whom_a_secret_was_made(w: World) -> None:
    mia = await w.login("mia")
    keys = f"{BASE}/namespaces/acme--lab/apikeys"
    await w.create(keys, named("k"), token=mia)
    assert (await w.call("POST", f"{keys}/k/token", {}, token=mia, headers={"x-request-id": "the-key"})).code == 201
    await w.call("POST", f"{BASE}/users/mia/signinlink", {}, headers={"x-request-id": "the-link"})
    trail = {row.request_id: row for row in await w.store.audit.rows()}
    assert (trail["the-key"].writer, trail["the-key"].key) == ("system:api for mia", "ApiKey acme--lab/k")
    assert trail["the-link"].writer == "system:api for admin"
    assert trail["the-link"].source == "192.0.2.1"


async def test_a_log_that_says_nothing_yet_begins_and_is_let_go_of(s: Served) -> None:
    """Else each reader who came and went would leave a stream behind, of which a host has so many and no more."""
    pair, ended = await running(s), asyncio.Event()

    async def accept(stream: Stream) -> None:
        while await stream.read():
            pass
        ended.set()

    async with dialled(s, pair, "h1", accept), client(s, s.admin) as admin:
        async with asyncio.timeout(PATIENCE_SECONDS), admin.workloads.log(VM, follow=True):
            pass
        await admin.close()
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await ended.wait()


# --- hosts and gateways that lie ----------------------------------------------------------------------------------


NODE = {"id": 0, "cores": 1, "threads": 1, "memoryBytes": 1}
GPU = {"id": "a", "kind": "gpu", "model": "x"}


@pytest.mark.parametrize(
    "report",
    [
        {"numa": [{**NODE, "memoryBytes": 1 << 63}]},
        {"numa": [{**NODE, "memoryBytes": -1}]},
        {"numa": [{**NODE, "threads": -4}]},
        {"numa": [{**NODE, "id": 1 << 63}]},
        {"numa": [{**NODE, "hugepages": {"2097152": -1}}]},
        {"numa": [{**NODE, "id": number} for number in range(65)]},
        {"devices": [{**GPU, "numaNode": -1}]},
        {"devices": [{**GPU, "memoryBytes": 1 << 63, "rail": 1 << 63}]},
        {"devices": [{**GPU, "id": str(number)} for number in range(257)]},
        {"devices": [{**GPU, "id": str(number), "model": f"x{number}"} for number in range(17)]},
        {"kernel": "x" * 1000},
    ],
)
async def test_a_report_that_cannot_be_is_refused(w: World, report: dict[str, Any]) -> None:
    agent = await w.host("h1")
    body = {"metadata": {"name": "h1"}, "spec": {}, "status": {"report": report}}
    reply = await w.call("PUT", f"{BASE}/hosts/h1/status", body, peer=agent)
    assert reply.code == 422
    assert reply.json["details"]["causes"][0]["field"].startswith("status.report.")


@pytest.mark.parametrize(
    "report",
    [
        {"numa": [{**NODE, "memoryBytes": 1 << 48, "threads": 1 << 20, "cores": 1 << 20}] * 2},
        {"devices": [{**GPU, "numaNode": 99, "rail": 1 << 20}, GPU]},
    ],
)
async def test_the_largest_lie_harms_no_other_host(w: World, report: dict[str, Any]) -> None:
    """One agent's word is read by all who look for a place."""
    liar, honest = await w.host("liar"), await w.host("honest")
    feed = FleetFeed(w.store.objects, w.clock)
    following = asyncio.ensure_future(feed.run())
    while not feed.ready():
        await asyncio.sleep(0.01)
    good = {"numa": [{**NODE, "threads": 8, "memoryBytes": 1 << 33}]}
    for name, agent, said in (("liar", liar, report), ("honest", honest, good)):
        body = {"metadata": {"name": name}, "spec": {}, "status": {"report": said}}
        reply = await w.call("PUT", f"{BASE}/hosts/{name}/status", body, peer=agent)
        assert reply.code == 200, reply.body
    await asyncio.sleep(0.05)
    assert not following.done()
    feed.decide(Request(tenant="acme", milli_cores=1000, memory_bytes=1 << 30))
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


def batch(**counts: int) -> dict[str, Any]:
    return usage_batch([usage_record(**counts)] * 100)


@pytest.mark.parametrize(
    "counts",
    [{"inputTokens": -5}, {"outputTokens": -1}, {"cachedInputTokens": -1}, {"inputTokens": TOKENS_MAX + 1}],
)
async def test_a_gateway_gives_nothing_back_and_counts_nothing_absurd(w: World, counts: dict[str, int]) -> None:
    assert (await w.call("POST", f"{BASE}/usage", batch(**counts), peer=GATEWAY)).code == 422
    assert await w.store.ledger.entries() == []


async def test_the_most_that_a_gateway_may_say_is_stored(w: World) -> None:
    reply = await w.call("POST", f"{BASE}/usage", batch(inputTokens=TOKENS_MAX, outputTokens=TOKENS_MAX), peer=GATEWAY)
    assert reply.code == 200, reply.body
    [entry] = await w.store.ledger.entries()
    assert entry.output_tokens == 100 * TOKENS_MAX


# --- a tenant's own administrator ---------------------------------------------------------------------------------


@pytest.mark.parametrize("quota", [{"milliCores": 1 << 63}, {"devices": {"*": (1 << 64) - 1}}, {"claims": -1}])
async def test_a_quota_that_no_database_holds(w: World, quota: dict[str, Any]) -> None:
    reply = await w.call("POST", f"{BASE}/projects", named("acme--q", quota=quota), token=await w.login("ann"))
    assert reply.code == 422
    assert reply.json["details"]["causes"][0]["field"].startswith("spec.quota.")


async def test_what_is_the_platforms_to_say_stays_so(w: World) -> None:
    ann = await w.login("ann")
    for path, spec in (
        ("tenants/acme", {"pricePlan": "free"}),
        ("tenants/acme", {"quota": {}}),
        ("tenants/acme", {"members": [{"user": "ann", "role": "tenant-admin"}]}),
        ("users/ann", {"admin": True}),
        ("projects/other--lab", {"displayName": "mine"}),
    ):
        reply = await w.call("PATCH", f"{BASE}/{path}", {"spec": spec}, token=ann, media=MERGE)
        assert reply.code in (403, 404), (path, reply.body)
    for path in ("projects", "namespaces/other--lab/instances", "namespaces/other--lab/apikeys"):
        reply = await w.call("POST", f"{BASE}/{path}", {**instance("x"), "metadata": {"name": "other--x"}}, token=ann)
        assert reply.code in (403, 404), (path, reply.body)


async def test_nobody_writes_the_digest_of_a_key(w: World) -> None:
    mia = await w.login("mia")
    keys = f"{BASE}/namespaces/acme--lab/apikeys"
    forged = {"digest": "a" * 64, "hint": "bsk_forged"}
    made = await w.create(keys, {**named("k"), "status": forged}, token=mia)
    assert "status" not in made
    token = (await w.call("POST", f"{keys}/k/token", {}, token=mia)).json["token"]
    now = (await w.call("GET", f"{keys}/k", token=mia)).json
    for method, path, body, media in (
        ("PUT", f"{keys}/k", {**now, "status": forged}, "application/json"),
        ("PATCH", f"{keys}/k", {"status": forged}, MERGE),
        ("PATCH", f"{keys}/k", [{"op": "replace", "path": "/status/digest", "value": "a" * 64}], JSON),
        ("PUT", f"{keys}/k/status", {**now, "status": forged}, "application/json"),
        ("PATCH", f"{keys}/k/status", {"status": forged}, MERGE),
    ):
        await w.call(method, path, body, token=mia, media=media)
        assert orjson.loads((await w.call("GET", f"{keys}/k", token=mia)).body)["status"] == now["status"], method
    assert token not in str(now)
