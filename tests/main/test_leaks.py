"""A real installation is lived in with secrets that can be known again, and then all that it ever wrote is searched.

Database with its log, logs, state directory, metrics, events, audit: each secret stands where it is said to be."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import resource
import signal
import sqlite3
import ssl
import stat
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from bessemer.client import Client, an_object, connect
from bessemer.core.errors import BessemerError
from bessemer.core.resource import Key
from bessemer.drivers.process.parts import HostParts
from bessemer.main import identities
from bessemer.main.down import stop_all
from bessemer.main.parts import CONTROL, ORDER, command
from bessemer.main.settings import Paths, load
from bessemer.main.storage import keys_of
from tests.api.test_hosts import Agent
from tests.main.starting import is_up, start, until

pytestmark = pytest.mark.real

PASSWORD, WRONG, NAME, ANNOTATION = (
    f"mark-{word}-7f3a91c4e0" for word in ("password", "wrong", "typed-as-name", "note")
)
LOST = "mark-lost-bearer-7f3a91c4e0"
DATA, LATER, TYPED, UNFIT = (f"mark-secret-{word}-7f3a91c4e0" for word in ("data", "later", "applied", "unfit"))
COPY = "kubectl.kubernetes.io/last-applied-configuration"


@dataclass
class Life:
    """Secrets by what they are called, and what was written beside files."""

    paths: Paths
    secrets: dict[str, bytes] = field(default_factory=dict)
    told: dict[str, bytes] = field(default_factory=dict)

    def know(self, name: str, secret: str | bytes) -> str:
        self.secrets[name] = secret if isinstance(secret, bytes) else secret.encode()
        return secret if isinstance(secret, str) else ""

    def written(self) -> Iterator[tuple[str, bytes]]:
        """Every file of the state directory, and what was asked for over the network."""
        for file in sorted(self.paths.state.rglob("*")):
            if stat.S_ISREG(file.lstat().st_mode):
                yield str(file.relative_to(self.paths.state)), file.read_bytes()
        yield from self.told.items()

    def places(self, secret: bytes) -> set[str]:
        """Where it stands, in any of the forms in which one writes bytes."""
        forms = {secret, secret.hex().encode(), base64.b64encode(secret), base64.urlsafe_b64encode(secret)}
        forms |= {base64.b64encode(secret).rstrip(b"="), quote(secret, safe="").encode(), repr(secret)[2:-1].encode()}
        return {name for name, data in self.written() if any(form in data for form in forms)}


@pytest.fixture
async def life(state_dir: Path) -> AsyncIterator[Life]:
    paths = Paths(state_dir)
    up = await start(paths, fake_hosts=1)
    try:
        await until(lambda: is_up(paths))
        yield Life(paths)
    finally:
        await stop_all(paths)
        await up.wait()


def client_of(life: Life, token: str = "") -> Client:
    url = identities.urls(load(life.paths))["api"]
    return connect(
        url, ca=life.paths.ca_certificate, cert=None if token else life.paths.certificate("admin"), token=token
    )


async def tried(work: Any) -> None:
    """Something that is refused."""
    with pytest.raises(BessemerError):
        await work


async def people(life: Life, admin: Client) -> None:
    await admin.create(an_object(Key("User", "", "ada"), {}))
    await admin.account.set_password("ada", life.know("password", PASSWORD))
    await tried(admin.account.login("ada", life.know("a wrong password", WRONG)))
    await tried(admin.account.login(life.know("a password typed as a name", NAME), "x" * 12))
    signed = await admin.account.login("ada", PASSWORD)
    life.know("a session's bearer", signed.token.rpartition(".")[2])
    _, link = await admin.account.sign_in_link("ada")
    life.know("a link", link.rpartition(".")[2])
    by_link = await admin.account.follow_link(link)
    life.know("a portal session's bearer", by_link.token.rpartition(".")[2])
    _, unused = await admin.account.sign_in_link("ada")
    life.know("a link that nobody used", unused.rpartition(".")[2])
    ada = client_of(life, signed.token)
    await ada.account.whoami()
    await ada.close()
    lost = client_of(life, life.know("a bearer that is nobody's", LOST))
    await tried(lost.account.whoami())
    await lost.close()


async def programs(life: Life, admin: Client) -> None:
    await admin.create(an_object(Key("Tenant", "", "acme"), {"members": [{"user": "ada", "role": "tenant-admin"}]}))
    await admin.create(an_object(Key("Project", "", "acme--lab"), {}))
    await admin.create(an_object(Key("ApiKey", "acme--lab", "app"), {"endpoints": []}))
    token = await admin.account.key_token("acme--lab", "app")
    life.know("an api key", token)
    life.know("what an annotation says", ANNOTATION)
    thing = an_object(Key("Instance", "acme--lab", "vm"), {"flavor": "small", "image": "none-such"})
    thing["metadata"]["annotations"] = {COPY: ANNOTATION}
    await admin.create(thing)
    await admin.patch(Key("Instance", "acme--lab", "vm"), {"spec": {"running": False}})
    await admin.create(an_object(Key("Host", "", "h1"), {}))
    joins = await admin.account.host_token("h1")
    life.know("a join token", joins)
    agent = Agent()
    await admin.agents.join("h1", agent.csr, token=joins)
    await tried(admin.agents.join("h1", agent.csr, token=joins))
    life.know("a join token that nobody used", await admin.account.host_token("h1"))
    await gateway(life, token)


async def secrets(life: Life, admin: Client) -> None:
    """Made, applied, changed, read, listed, watched over, refused, and deleted, alone and with their collection."""
    for name, mark in (
        ("a Secret's data", DATA),
        ("its next data", LATER),
        ("data of a Secret that is refused", UNFIT),
    ):
        life.know(name, mark)
    key, typed = Key("Secret", "acme--lab", "kept"), life.know("what kubectl repeats of a Secret", TYPED)
    said = {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "stringData": {"k": DATA}}
    for name in ("kept", "gone", "swept"):
        metadata = {"name": name, "namespace": "acme--lab", "annotations": {COPY: f'{{"data": "{typed}"}}'}}
        await admin.create({**said, "metadata": metadata})
    await admin.patch(key, {"stringData": {"k": LATER}})
    await admin.delete(key._replace(name="gone"))
    bad = {**said, "stringData": {f"{UNFIT} !": UNFIT}, "metadata": {"name": "Bad", "namespace": "acme--lab"}}
    await tried(admin.create(bad))
    await tried(admin.create({**said, "type": UNFIT * 99, "metadata": {"name": "kept", "namespace": "acme--lab"}}))
    url, tls = (
        identities.urls(load(life.paths))["api"],
        ssl.create_default_context(cafile=str(life.paths.ca_certificate)),
    )
    tls.load_cert_chain(*life.paths.certificate("admin"))
    place = f"{url}/api/v1/namespaces/acme--lab/secrets"
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{place}?watch=1&timeoutSeconds=1", ssl=tls) as answer:
            assert base64.b64decode(_first_data(await answer.read(), "kept")) == LATER.encode()
        async with session.delete(f"{place}?fieldSelector=metadata.name%3Dswept", ssl=tls) as answer:
            assert answer.status == 200


def _first_data(lines: bytes, name: str) -> str:
    found = [json.loads(line)["object"] for line in lines.splitlines()]
    return next(str(body["data"]["k"]) for body in found if body["metadata"]["name"] == name)


async def gateway(life: Life, token: str) -> None:
    """Asked with a good key for what is not there, and with it in all the wrong places."""
    url = identities.urls(load(life.paths))["gateway"]
    tls = ssl.create_default_context(cafile=str(life.paths.ca_certificate))
    said = {"model": "none", "messages": [{"role": "user", "content": "hello"}]}
    async with aiohttp.ClientSession() as session:
        for headers, query in (
            ({"Authorization": f"Bearer {token}"}, ""),
            ({}, f"?key={token}"),
            ({"X-Api-Key": token}, ""),
        ):
            async with session.post(f"{url}/chat/completions{query}", json=said, headers=headers, ssl=tls) as answer:
                assert answer.status >= 400


async def listen(life: Life, admin: Client) -> None:
    """What it tells whoever asks."""
    url = identities.urls(load(life.paths))["api"]
    tls = ssl.create_default_context(cafile=str(life.paths.ca_certificate))
    tls.load_cert_chain(*life.paths.certificate("admin"))
    async with aiohttp.ClientSession() as session:
        for path in ("/metrics", "/api/v1/events", "/audit/export", "/audit?limit=1000", "/sealed", "/openapi/v2"):
            async with session.get(url + path, ssl=tls) as answer:
                assert answer.status == 200, path
                life.told[path] = await answer.read()
        for plural in ("users", "sessions", "hosts", "apikeys", "claims"):
            async with session.get(f"{url}/apis/bessemer.dev/v1alpha1/{plural}", ssl=tls) as answer:
                life.told[plural] = await answer.read()
    for name, folder in (("gateway", life.paths.state / "gateway"), ("fake", life.paths.fake)):
        connector = aiohttp.UnixConnector(str(folder / "metrics.sock"))
        async with aiohttp.ClientSession(connector=connector) as session, session.get("http://x/metrics") as answer:
            life.told[f"metrics of {name}"] = await answer.read()


async def data_keys(life: Life) -> None:
    """With the store to ourselves: each data key, unwrapped."""
    connection = sqlite3.connect(life.paths.store)
    rows = connection.execute("SELECT id, kek, wrapped FROM data_keys").fetchall()
    hashes = connection.execute("SELECT count(*) FROM sealed").fetchone()
    connection.close()
    assert rows
    assert hashes[0] >= 2
    for name, kek, wrapped in rows:
        key = await keys_of(life.paths).unwrap(wrapped, name=kek, context=b"bessemer data key " + name.encode())
        life.know(f"data key {name}", key)


NOWHERE: set[str] = set()


async def test_each_secret_stands_where_it_is_said_to_be_and_nowhere_else(life: Life) -> None:
    admin = client_of(life)
    await people(life, admin)
    await programs(life, admin)
    await secrets(life, admin)
    await listen(life, admin)
    await admin.close()
    for part in [part for name in ORDER for part in await HostParts().find(command(life.paths, name).marker)]:
        assert resource.prlimit(part.pid, resource.RLIMIT_CORE) == (0, 0)
    (control,) = await HostParts().find(command(life.paths, CONTROL).marker)
    os.kill(control.pid, signal.SIGABRT)  # as a crash of its own would be
    await asyncio.sleep(0)
    await stop_all(life.paths)
    await data_keys(life)
    keys = {name: (life.paths.keys / name).read_bytes() for name in ("seal.key", "gateway.key", "audit.key")}
    assert len(life.secrets) >= 16
    for name, secret in life.secrets.items():
        if name != "what an annotation says":
            assert life.places(secret) == NOWHERE, name
    assert life.places(ANNOTATION.encode()) == {"store.db"}, "in the object's body, and neither in audit nor logs"
    for name, key in keys.items():
        assert life.places(key) == {f"keys/{name}"}
    for folder in (life.paths.ca, life.paths.certs):
        for file in folder.glob("*.key"):
            secret = b"".join(file.read_bytes().splitlines()[1:3])
            assert life.places(secret) <= {str(file.relative_to(life.paths.state))}
            assert file.stat().st_mode & 0o077 == 0
    cores = [name for name, _ in life.written() if Path(name).name.startswith("core")]
    assert cores == []
    assert not [name for name, data in life.written() if data[:4] == b"\x7fELF" and b"CORE" in data[:4096]]
