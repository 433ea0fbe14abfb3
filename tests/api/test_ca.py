"""What the authority signs, held against verifiers that take X.509 by the letter (`ssl.VERIFY_X509_STRICT`, which is
Python's own from 3.13 on): as a server's certificate and as a client's."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from bessemer.api.ca import Pair, create_ca, load_ca
from bessemer.core.hosts import door_name
from bessemer.core.tls import show
from bessemer.main import identities
from bessemer.main.settings import Paths, Settings
from tests.api.test_hosts import JOIN, Agent, joined
from tests.api.world import World

LOCAL = ("127.0.0.1", "localhost")


def handshake(server: Pair, client: Pair, *, ca: bytes, name: str) -> str:
    """Of two strict sides, in memory: who the client is to the server. Raises ssl.SSLError where one disbelieves."""
    sides = (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    for side, pair in zip(sides, (server, client), strict=True):
        side.verify_mode = ssl.CERT_REQUIRED
        side.verify_flags |= ssl.VERIFY_X509_STRICT
        side.load_verify_locations(cadata=ca.decode())
        show(side, (pair.certificate, pair.key))
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        sides[0].wrap_bio(there, back, server_side=True),
        sides[1].wrap_bio(back, there, server_hostname=name),
    )
    waiting = set(ends)
    for _ in range(8):
        for end in list(waiting):
            try:
                end.do_handshake()
                waiting.discard(end)
            except ssl.SSLWantReadError:
                continue
    assert not waiting
    ends[1].write(b"known")
    assert ends[0].read(8) == b"known"  # TLS 1.3 tells a client that it is refused only here
    names = dict(part[0] for part in (ends[0].getpeercert() or {})["subject"])
    return str(names["commonName"])


@pytest.mark.parametrize("name", LOCAL)
def test_what_an_authority_issues_is_believed_to_the_letter(name: str) -> None:
    ca = load_ca(create_ca("test").pair)
    server = ca.issue("api", sans=LOCAL)
    for whose, client in (("admin", ca.issue("admin", groups=["system:masters"])), ("api", server)):
        assert handshake(server, client, ca=ca.certificate, name=name) == whose


def test_a_certificate_without_names_is_no_servers_and_anothers_is_nobodys() -> None:
    ca, other = create_ca("test"), create_ca("other")
    admin, server = ca.issue("admin"), ca.issue("api", sans=LOCAL)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(admin, admin, ca=ca.certificate, name="localhost")
    with pytest.raises(ssl.SSLError):
        handshake(server, other.issue("admin"), ca=ca.certificate, name="localhost")


async def test_what_joins_and_renewals_issue_is(w: World) -> None:
    """An agent shows its certificate to the api, and at its doorway to the gateway."""
    agent = await joined(w)
    renewal = {"csr": (csr := agent.csr), "signature": agent.sign(csr)}
    server, gateway = w.ca.issue("api", sans=LOCAL), w.ca.issue("system:gateway", sans=LOCAL)
    again = await w.call("POST", JOIN, renewal, peer=None)
    assert again.code == 201
    token = (await w.call("POST", f"{JOIN.removesuffix('join')}token", {})).json["token"]
    other = Agent()
    anew = await w.call("POST", JOIN, {"token": token, "csr": other.csr}, peer=None)
    for reply, key in ((again, agent.pem), (anew, other.pem)):
        assert reply.code == 201
        mine, ca = Pair(reply.json["certificate"].encode(), key), reply.json["ca"].encode()
        assert handshake(server, mine, ca=ca, name="localhost") == "system:agent:h1"
        assert handshake(mine, gateway, ca=ca, name=door_name("h1")) == "system:gateway"


def test_what_an_installation_begins_with_is(tmp_path: Path) -> None:
    paths = Paths(tmp_path / "state")
    ca = identities.prepare(paths, Settings()).certificate
    pairs = {}
    for name in (identities.SERVER, identities.ADMIN, identities.PORTAL, identities.GATEWAY, identities.REPLICA):
        certificate, key = paths.certificate(name)
        pairs[name] = Pair(certificate.read_bytes(), key.read_bytes())
    for server in (identities.SERVER, identities.GATEWAY):
        found = [handshake(pairs[server], pair, ca=ca, name="localhost") for pair in pairs.values()]
        assert found == ["bessemer", "admin", "system:portal", "system:gateway", "system:replica"]
