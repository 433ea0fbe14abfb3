"""An agent's way in: one-time token, certificate, renewal after expiry, revocation; the heartbeat and the secrets."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import time
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from bessemer.api.ca import Peer, peer_of
from bessemer.api.hosts import LEAVING_SECONDS
from bessemer.client import Client, HttpTransport, tls_context
from bessemer.core.clock import FakeClock
from bessemer.core.errors import Forbidden, Unauthenticated, Unavailable
from bessemer.core.hosts import Inventory
from bessemer.core.ports import CONTROLLER
from bessemer.core.resource import Key
from bessemer.core.values import ClaimSpec, WorkloadRef
from tests.api.world import ADMIN, BASE, GATEWAY_KEY, World, instance, named, served, world

JOIN = f"{BASE}/hosts/h1/join"
MERGE = "application/merge-patch+json"


class Agent:
    """A key, and the requests that it signs."""

    def __init__(self, key: Any = None, name: str = "system:agent:h1") -> None:
        self.key = key or ec.generate_private_key(ec.SECP256R1())
        self.name = name

    @property
    def csr(self) -> str:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        signed = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(self.key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM).decode()

    def sign(self, text: str) -> str:
        return base64.b64encode(self.key.sign(text.encode(), ec.ECDSA(hashes.SHA256()))).decode()

    @property
    def pem(self) -> bytes:
        form = serialization.PrivateFormat.PKCS8
        raw: bytes = self.key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
        return raw


def peer(certificate: str) -> Peer:
    loaded = x509.load_pem_x509_certificate(certificate.encode())
    found = peer_of(loaded.public_bytes(serialization.Encoding.DER))
    assert found is not None
    return found


async def host_and_token(w: World, name: str = "h1") -> str:
    await w.create(f"{BASE}/hosts", named(name))
    return str((await w.call("POST", f"{BASE}/hosts/{name}/token", {})).json["token"])


async def test_a_token_joins_once(w: World) -> None:
    agent = Agent()
    body = {"token": await host_and_token(w), "csr": agent.csr}
    reply = await w.call("POST", JOIN, body, peer=None)
    assert reply.code == 201, reply.body
    mine = peer(reply.json["certificate"])
    assert (mine.name, mine.groups) == ("system:agent:h1", ("system:agents",))
    assert reply.json["ca"] == w.ca.certificate.decode()
    assert (await w.call("GET", f"{BASE}/hosts/h1", peer=mine)).code == 200
    status = (await w.call("GET", f"{BASE}/hosts/h1")).json["status"]
    assert status["keyFingerprint"] == mine.fingerprint
    assert status["joinedAt"]
    assert (await w.call("POST", JOIN, {**body, "csr": Agent().csr}, peer=None)).code == 401


async def test_of_two_that_join_with_one_token_one_does(w: World) -> None:
    token = await host_and_token(w)
    agents = [Agent(), Agent(), Agent()]
    replies = await asyncio.gather(*(w.call("POST", JOIN, {"token": token, "csr": a.csr}, peer=None) for a in agents))
    assert sorted(r.code for r in replies)[0] == 201
    assert all(r.code in (401, 409) for r in sorted(replies, key=lambda r: r.code)[1:])
    winner = next(peer(r.json["certificate"]) for r in replies if r.code == 201)
    assert (await w.call("GET", f"{BASE}/hosts/h1", peer=winner)).code == 200


async def test_a_token_runs_out_and_is_replaced() -> None:
    clock = FakeClock()
    async with world(clock, join_token=60.0) as w:
        old = await host_and_token(w)
        new = (await w.call("POST", f"{BASE}/hosts/h1/token", {})).json["token"]
        assert (await w.call("POST", JOIN, {"token": old, "csr": Agent().csr}, peer=None)).code == 401
        clock.jump(61)
        assert (await w.call("POST", JOIN, {"token": new, "csr": Agent().csr}, peer=None)).code == 401


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"token": "bsj_wrong"},
        {"signature": "AAAA"},
        {"signature": "\u202e"},
        {"token": "x" * 100_000},
    ],
)
async def test_nobody_joins_without_what_vouches(w: World, body: dict[str, str]) -> None:
    await host_and_token(w)
    assert (await w.call("POST", JOIN, {"csr": Agent().csr, **body}, peer=None)).code == 401
    assert (await w.call("POST", JOIN.replace("h1", "none"), {"csr": Agent().csr, **body}, peer=None)).code == 401


async def test_only_p256_requests_are_signed(w: World) -> None:
    token = await host_and_token(w)
    rsa_key = rsa.generate_private_key(65537, 2048)
    for csr in ("", "no pem", Agent(ec.generate_private_key(ec.SECP384R1())).csr, Agent(rsa_key).csr, "x" * 9000):
        assert (await w.call("POST", JOIN, {"token": token, "csr": csr}, peer=None)).code == 422
    good = await w.call("POST", JOIN, {"token": token, "csr": Agent(name="system:masters").csr}, peer=None)
    assert peer(good.json["certificate"]).name == "system:agent:h1"


async def test_only_the_administrator_makes_tokens(w: World) -> None:
    await host_and_token(w)
    agent = await w.host("h2")
    assert (await w.call("POST", f"{BASE}/hosts/h1/token", {}, peer=agent)).code == 404
    ann = await w.login("ann")
    assert (await w.call("POST", f"{BASE}/hosts/h1/token", {}, token=ann)).code in (403, 404)


async def joined(w: World) -> Agent:
    agent = Agent()
    reply = await w.call("POST", JOIN, {"token": await host_and_token(w), "csr": agent.csr}, peer=None)
    assert reply.code == 201
    return agent


async def test_the_registered_key_renews_and_no_other(w: World) -> None:
    agent, other = await joined(w), Agent()
    csr = agent.csr
    good = await w.call("POST", JOIN, {"csr": csr, "signature": agent.sign(csr)}, peer=None)
    assert good.code == 201
    assert peer(good.json["certificate"]).fingerprint == peer(good.json["certificate"]).fingerprint
    for request, signature in (
        (csr, other.sign(csr)),
        (other.csr, agent.sign(csr)),
        (other.csr, other.sign(other.csr)),
        (csr, agent.sign(csr + " ")),
    ):
        reply = await w.call("POST", JOIN, {"csr": request, "signature": signature}, peer=None)
        assert reply.code == 401


async def test_a_revoked_host_renews_nothing_until_that_is_taken_back(w: World) -> None:
    agent = await joined(w)
    renewal = {"csr": (csr := agent.csr), "signature": agent.sign(csr)}
    assert (await w.call("PATCH", f"{BASE}/hosts/h1", {"spec": {"revoked": True}}, media=MERGE)).code == 200
    assert (await w.call("POST", JOIN, renewal, peer=None)).code == 403
    token = (await w.call("POST", f"{BASE}/hosts/h1/token", {})).json["token"]
    assert (await w.call("POST", JOIN, {"csr": csr, "token": token}, peer=None)).code == 403
    assert (await w.call("PATCH", f"{BASE}/hosts/h1", {"spec": {"revoked": False}}, media=MERGE)).code == 200
    assert (await w.call("POST", JOIN, renewal, peer=None)).code == 201


async def test_a_joined_host_goes_on_while_its_controller_writes_its_status(w: World) -> None:
    token = await host_and_token(w)
    key = Key("Host", "", "h1")

    async def controller() -> None:
        for phase in ("Pending", "Joining") * 5:
            body = orjson.loads((await w.store.objects.get(key)).body)
            del body["metadata"]["resourceVersion"]
            status = {**body.get("status", {}), "phase": phase}
            await w.store.objects.replace({**body, "status": status}, CONTROLLER, part="status")

    agent = Agent()
    reply, _ = await asyncio.gather(w.call("POST", JOIN, {"token": token, "csr": agent.csr}, peer=None), controller())
    assert reply.code in (201, 409)


async def test_the_heartbeat_renews_a_lease_and_changes_no_object(w: World) -> None:
    agent = await w.host("h1")
    before = w.store.revision
    reply = await w.call("POST", f"{BASE}/hosts/h1/heartbeat", {}, peer=agent)
    assert reply.json == {"leaseSeconds": 60.0}
    assert w.store.revision == before
    (lease,) = await w.store.leases.held("host/h1")
    assert (lease.holder, lease.expires_at > time.time()) == ("h1", True)
    assert (await w.call("POST", f"{BASE}/hosts/h1/heartbeat", {}, peer=ADMIN)).code == 403


async def test_an_agents_last_word_cuts_its_lease_to_what_a_new_start_takes(w: World) -> None:
    agent = await w.host("h1")
    path = f"{BASE}/hosts/h1/heartbeat"
    await w.call("POST", path, {}, peer=agent)
    assert (await w.call("POST", path, {"leaving": True}, peer=agent)).json == {"leaseSeconds": LEAVING_SECONDS}
    (lease,) = await w.store.leases.held("host/h1")
    assert lease.expires_at - time.time() <= LEAVING_SECONDS
    assert (await w.call("POST", path, {"leaving": True}, peer=ADMIN)).code == 403
    await w.call("POST", path, {}, peer=agent)
    (lease,) = await w.store.leases.held("host/h1")
    assert lease.expires_at - time.time() > LEAVING_SECONDS, "it is back"


async def test_a_replicas_secret_is_derived_for_its_agent(w: World) -> None:
    agent = await w.host("h1")
    await w.create(f"{BASE}/namespaces/acme--lab/endpoints", named("chat", model="m", flavor="f"))
    owner = await w.store.objects.get(Key("Endpoint", "acme--lab", "chat"))
    await w.store.capacity.declare("h1", Inventory())
    spec = ClaimSpec(host="h1", tenant="acme", workload=WorkloadRef(kind="Endpoint", name="chat", uid=owner.uid))
    (claim,) = await w.store.capacity.take([(Key("Claim", "acme--lab", "endpoint-chat-0"), spec, {})], CONTROLLER)
    path = f"{BASE}/namespaces/acme--lab/claims/endpoint-chat-0/secrets"
    secret = hmac.new(GATEWAY_KEY, claim.uid.encode(), hashlib.sha256).hexdigest()
    reply = await w.call("GET", path, peer=agent)
    assert (reply.json, reply.headers["cache-control"]) == ({"secrets": {"replica": secret}}, "no-store")


async def test_content_is_for_whose_claims_name_it(w: World, tmp_path: Path) -> None:
    a, b = await w.host("a"), await w.host("b")
    data = b"0123456789" * 1000
    file = tmp_path / "content"
    file.write_bytes(data)
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    w.content[digest] = file
    await w.create(f"{BASE}/namespaces/acme--lab/instances", instance("vm"))
    await w.claim("vm", "b", "acme--lab", image=digest)
    path = f"/content/{digest}"
    assert (await w.call("GET", path, peer=b)).body == data
    part = await w.call("GET", path, peer=b, headers={"range": "bytes=9990-"})
    assert (part.code, part.body, part.headers["content-range"]) == (206, b"0123456789", "bytes 9990-9999/10000")
    assert (await w.call("GET", path, peer=a)).code == 404
    assert (await w.call("GET", path, peer=ADMIN)).code == 200
    assert (await w.call("GET", path, token=await w.login("ann"))).code == 404
    said = await w.call("GET", f"{path}/size", peer=b)
    assert (said.code, said.json) == (200, {"sizeBytes": len(data)})
    assert (await w.call("GET", f"{path}/size", peer=a)).code == 404
    for bad in ("sha256:" + "0" * 64, "sha256:..%2f..%2fetc", "md5:0", "sha256:" + "A" * 64):
        assert (await w.call("GET", f"/content/{bad}", peer=ADMIN)).code == 404


async def test_what_an_agent_writes_into_a_status_opens_no_content(w: World, tmp_path: Path) -> None:
    b = await w.host("b")
    digest = "sha256:" + "1" * 64
    w.content[digest] = tmp_path
    await w.create(f"{BASE}/namespaces/acme--lab/instances", instance("vm"))
    await w.claim("vm", "b", "acme--lab")
    status = {"metadata": {}, "status": {"phase": "Running", "detail": {"image": digest}}}
    path = f"{BASE}/namespaces/acme--lab/claims/instance-vm-0/status"
    assert (await w.call("PUT", path, status, peer=b)).code == 200
    assert (await w.call("GET", f"/content/{digest}", peer=b)).code == 404


async def test_a_certificate_is_renewed_after_it_ran_out(tmp_path: Path) -> None:
    """One that has run out is made here: those of the api live long enough for a machine that stalls amid the test."""
    async with world(agent_certificate=600.0) as w, served(w, tmp_path) as s:
        ca = w.ca.certificate

        def client(cert: tuple[bytes, bytes] | None) -> Client:
            tls = tls_context(ca, cert)
            return Client(HttpTransport(s.url, tls=tls), plurals={"Host": "hosts", "Claim": "claims"})

        agent, stranger = Agent(), client(None)
        first = await stranger.agents.join("h1", agent.csr, token=await host_and_token(w))
        mine = client((first.certificate.encode(), agent.pem))
        assert await mine.agents.heartbeat("h1") == 60
        await mine.close()
        end = x509.load_pem_x509_certificate(first.certificate.encode()).not_valid_after_utc.timestamp()
        assert end <= time.time() + 600, "it lives as long as the terms say"
        sign = partial(w.ca.sign, agent.key.public_key(), agent.name, groups=["system:agents"])
        good, late = (client((sign(seconds=seconds), agent.pem)) for seconds in (600.0, -1.0))
        assert await good.agents.heartbeat("h1") == 60
        await good.close()
        with pytest.raises(Unavailable):
            await late.agents.heartbeat("h1")
        await late.close()
        csr = agent.csr
        second = await stranger.agents.join("h1", csr, signature=agent.sign(csr))
        fresh = client((second.certificate.encode(), agent.pem))
        assert await fresh.agents.heartbeat("h1") == 60
        assert (await w.call("PATCH", f"{BASE}/hosts/h1", {"spec": {"revoked": True}}, media=MERGE)).code == 200
        with pytest.raises(Unauthenticated):
            await fresh.agents.heartbeat("h1")
        with pytest.raises(Forbidden):
            await stranger.agents.join("h1", csr, signature=agent.sign(csr))
        await fresh.close()
        await stranger.close()
