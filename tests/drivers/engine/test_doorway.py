"""The way to an engine for a gateway on another machine."""

from __future__ import annotations

import asyncio
import datetime
import os
import signal
import socket
import ssl
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bessemer.core.errors import DriverError
from bessemer.drivers.engine.doorway import HostDoorway
from bessemer.drivers.engine.fake import FakeDoorway
from bessemer.drivers.engine.protocol import Doorway, Listen
from bessemer.drivers.process import procfs
from bessemer.drivers.process.protocol import Isolation
from tests.drivers.engine.conftest import SECRET, FakeHost, RealHost, ready

ASK = f"GET /v1/models HTTP/1.1\r\nHost: e\r\nAuthorization: Bearer {SECRET}\r\nConnection: close\r\n\r\n".encode()


class Authority:
    """A CA that writes certificates and keys as PEM files."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test CA")])
        basic = x509.BasicConstraints(ca=True, path_length=0)
        built = self._builder(self._name, self._key.public_key()).add_extension(basic, critical=True)
        self._certificate = built.sign(self._key, hashes.SHA256())
        self.path = folder / "ca.crt"
        self.path.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, file: str, *, usage: x509.ObjectIdentifier) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        host = x509.SubjectAlternativeName([x509.DNSName("host-a")])
        builder = self._builder(subject, key.public_key()).add_extension(host, critical=False)
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        built = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        certificate = built.add_extension(identifier, critical=False).sign(self._key, hashes.SHA256())
        paths = (self.folder / f"{file}.crt", self.folder / f"{file}.key")
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        paths[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return paths

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
        )


@pytest.fixture
def authority(state_dir: Path) -> Authority:
    return Authority(state_dir / "ca")


@pytest.fixture
def listen(authority: Authority) -> Listen:
    certificate, key = authority.issue("system:host:host-a", "host", usage=ExtendedKeyUsageOID.SERVER_AUTH)
    return Listen("127.0.0.1", 0, certificate, key, authority.path)


def client(authority: Authority, name: str | None) -> ssl.SSLContext:
    """A client's context, with a certificate of that name."""
    context = ssl.create_default_context(cafile=str(authority.path))
    if name is not None:
        certificate, key = authority.issue(name, "client", usage=ExtendedKeyUsageOID.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)
    return context


async def connect(address: str, context: ssl.SSLContext) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host, int(port), ssl=context, server_hostname="host-a")


async def models(address: str, context: ssl.SSLContext) -> bytes:
    """Ask for the models through the doorway; nothing if it closed without a word."""
    try:
        reader, writer = await connect(address, context)
        writer.write(ASK)
        async with asyncio.timeout(30):
            answer = await reader.read()
    except (ssl.SSLError, ConnectionError):
        return b""
    writer.close()
    return answer


@pytest.fixture
async def doorway(real_host: RealHost) -> HostDoorway:
    """This machine's, with an engine behind it."""
    await real_host.engine.start(real_host.spec())
    await ready(real_host)
    return HostDoorway(real_host.processes, real_host.state / "doors")


@pytest.mark.real
async def test_the_gateway_comes_through(doorway: HostDoorway, listen: Listen, authority: Authority) -> None:
    address = await doorway.open("a", listen)
    assert await doorway.open("a", listen) == address == await doorway.find("a")
    assert b'"smollm2"' in await models(address, client(authority, "system:gateway"))


@pytest.mark.real
@pytest.mark.parametrize("name", ["system:host:host-b", "alice", "system:gateway2", None])
async def test_nobody_else_does(doorway: HostDoorway, listen: Listen, authority: Authority, name: str | None) -> None:
    assert await models(await doorway.open("a", listen), client(authority, name)) == b""


@pytest.mark.real
async def test_another_authority_is_nobody(
    doorway: HostDoorway, listen: Listen, authority: Authority, state_dir: Path
) -> None:
    stranger = Authority(state_dir / "other")
    context = client(stranger, "system:gateway")
    context.load_verify_locations(authority.path)
    assert await models(await doorway.open("a", listen), context) == b""


@pytest.mark.real
async def test_it_dies_with_the_engine(doorway: HostDoorway, listen: Listen, real_host: RealHost) -> None:
    address = await doorway.open("a", listen)
    await real_host.engine.stop("a")
    assert await doorway.find("a") is None
    host, _, port = address.rpartition(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), 1)


@pytest.mark.real
async def test_another_agent_finds_it_and_can_close_it(
    doorway: HostDoorway, listen: Listen, real_host: RealHost
) -> None:
    address = await doorway.open("a", listen)
    other = HostDoorway(real_host.processes, real_host.state / "doors")
    assert await other.find("a") == address
    await other.close("a")
    await other.close("a")
    assert await doorway.find("a") is None
    await ready(real_host)


def status_of(pid: int) -> str:
    return Path(f"/proc/{pid}/status").read_text()


@pytest.mark.real
async def test_it_is_no_root_and_has_no_door_but_one(doorway: HostDoorway, listen: Listen, real_host: RealHost) -> None:
    if await real_host.processes.isolation() is not Isolation.STRONG:
        pytest.skip("giving up root needs root")
    await doorway.open("a", listen)
    [(part, _)] = await real_host.processes.companions("a")
    relay, engine = procfs.entry(part.pid), await real_host.engine.find("a")
    assert relay is not None
    assert engine is not None
    inside = procfs.entry(engine.pid)
    assert inside is not None
    assert 0 != relay.user != inside.user
    assert "CapEff:\t0000000000000000" in status_of(part.pid)


@pytest.mark.real
async def test_a_renewed_certificate_takes_over_and_streams_go_on(
    doorway: HostDoorway, listen: Listen, authority: Authority, real_host: RealHost
) -> None:
    address = await doorway.open("a", listen)
    context = client(authority, "system:gateway")
    reader, writer = await connect(address, context)
    [(old, _)] = await real_host.processes.companions("a")
    authority.issue("system:host:host-a", "host", usage=ExtendedKeyUsageOID.SERVER_AUTH)
    assert await doorway.open("a", listen) == address
    assert b'"smollm2"' in await models(address, context)
    assert procfs.entry(old.pid) is not None
    writer.write(ASK)
    assert b'"smollm2"' in await reader.read()
    writer.close()
    async with asyncio.timeout(30):
        while procfs.entry(old.pid) is not None:
            await asyncio.sleep(0.01)
    assert len(await real_host.processes.companions("a")) == 1


@pytest.mark.real
async def test_whoever_knocks_amid_a_renewal_is_answered(
    doorway: HostDoorway, listen: Listen, authority: Authority, real_host: RealHost
) -> None:
    address = await doorway.open("a", listen)
    context = client(authority, "system:gateway")
    assert b'"smollm2"' in await models(address, context)
    [(old, _)] = await real_host.processes.companions("a")
    os.kill(old.pid, signal.SIGSTOP)
    before = [asyncio.create_task(models(address, context)) for _ in range(8)]
    await asyncio.sleep(0.2)
    authority.issue("system:host:host-a", "host", usage=ExtendedKeyUsageOID.SERVER_AUTH)
    assert await doorway.open("a", listen) == address
    for _ in range(8):
        assert b'"smollm2"' in await models(address, context)
    os.kill(old.pid, signal.SIGCONT)
    assert [answer for answer in await asyncio.gather(*before) if b'"smollm2"' not in answer] == []


@pytest.mark.real
async def test_certificates_that_are_none_are_told(doorway: HostDoorway, listen: Listen) -> None:
    listen.key.write_text("not a key")
    with pytest.raises(DriverError) as refusal:
        await doorway.open("a", listen)
    assert refusal.value.reason == "ProcessFailed"
    assert await doorway.find("a") is None


@pytest.mark.real
async def test_an_ordinary_user_cannot_take_the_port_too(doorway: HostDoorway, listen: Listen) -> None:
    if os.geteuid() != 0:
        pytest.skip("being somebody else needs root")
    address = await doorway.open("a", listen)
    knock = (
        "import socket; s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1);"
        f"s.bind(('127.0.0.1', {address.rpartition(':')[2]}))"
    )
    stranger = await asyncio.create_subprocess_exec(
        "/usr/bin/setpriv", "--reuid=65534", "--clear-groups", "/usr/bin/python3", "-c", knock,
        stderr=asyncio.subprocess.PIPE, cwd="/",
    )  # fmt: skip
    _, said = await stranger.communicate()
    assert b"Address already in use" in said


@pytest.fixture
async def fake_doorway(fake_host: FakeHost) -> FakeDoorway:
    """A fake host's, with an engine behind it."""
    await fake_host.engine.start(fake_host.spec())
    return FakeDoorway(fake_host.engine)


@pytest.fixture(params=["fake_doorway", pytest.param("doorway", marks=pytest.mark.real)])
def either(request: pytest.FixtureRequest) -> Doorway:
    """Doorways with an engine called ``a`` and none called ``b``."""
    either: Doorway = request.getfixturevalue(request.param)
    return either


async def test_one_is_open_until_it_is_closed(either: Doorway, listen: Listen) -> None:
    assert await either.find("a") is None
    address = await either.open("a", listen)
    assert address.startswith("127.0.0.1:")
    assert await either.open("a", listen) == await either.find("a") == address
    await either.close("a")
    await either.close("a")
    assert await either.find("a") is None


async def test_without_an_engine_there_is_none(either: Doorway, listen: Listen) -> None:
    with pytest.raises(DriverError) as refusal:
        await either.open("b", listen)
    assert refusal.value.reason == "EngineExited"
    assert await either.find("b") is None


async def test_a_taken_port_is_told(either: Doorway, listen: Listen) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        if isinstance(either, FakeDoorway):
            either.taken.add(port)
        with pytest.raises(DriverError) as refusal:
            await either.open("a", replace(listen, port=port))
    assert refusal.value.reason == "PortTaken"
