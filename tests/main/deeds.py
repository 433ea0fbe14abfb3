"""What people, programs and hosts do in a life of an installation: every secret there is comes into being, is used, is
used wrongly, and goes its way through all that listens."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import ssl
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import aiohttp
import orjson
import pytest

from bessemer.client import Client, an_object
from bessemer.core.errors import BessemerError
from bessemer.core.ports import Scope
from bessemer.core.resource import Key
from bessemer.core.tokens import replica_secret
from bessemer.drivers.fetch.real import HostContent
from bessemer.kinds.fleet.host import FAKE_TAINT
from bessemer.main.backups import PASSPHRASE
from bessemer.portal.outside import ATTEMPT
from bessemer.portal.visit import COOKIE
from tests.api.test_hosts import Agent
from tests.drivers.ldap import slapd
from tests.drivers.weights import made
from tests.issuer import CLIENT, PUBLIC, SECRET, issuer
from tests.issuer.hands import Hands
from tests.main.life import Life

MARK = "7f3a91c4e0"
PASSWORD, WRONG, NAME = (f"mark-{word}-{MARK}" for word in ("password", "wrong", "typed-as-name"))
ANNOTATION, LATE = f"mark-note-{MARK}", f"mark-late-note-{MARK}"
DATA, LATER, TYPED, UNFIT = (f"mark-secret-{word}-{MARK}" for word in ("data", "later", "applied", "unfit"))
DIRECTORY, DIRECTORY_WRONG = f"mark-directory-{MARK}", f"mark-directory-wrong-{MARK}"
BUCKET_KEYS = {"accessKey": "mark-bucket-access", "secretKey": f"mark-bucket-secret-{MARK}"}
WORDS = f"mark-words-of-a-backup-{MARK}"
COPY = "kubectl.kubernetes.io/last-applied-configuration"
PROJECT = "acme--lab"
TOLERATE = [{"key": FAKE_TAINT}]
_SERVES = '"readyReplicas":1'
WEIGHTS = made.gguf()
"""A model by its header, and none that an engine could serve."""


async def refused(work: Awaitable[Any]) -> None:
    with pytest.raises(BessemerError):
        await work


async def holds(said: Callable[[], Awaitable[bool]]) -> None:
    """Return once it is so. Raises TimeoutError after two minutes."""
    async with asyncio.timeout(120):
        while not await said():
            await asyncio.sleep(0.05)


def trusting(life: Life) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(life.paths.ca_certificate))


def as_admin(life: Life) -> ssl.SSLContext:
    made = trusting(life)
    made.load_cert_chain(*life.paths.certificate("admin"))
    return made


async def people(life: Life, admin: Client) -> None:
    await admin.create(an_object(Key("User", "", "ada"), {}))
    await admin.account.set_password("ada", life.know("password", PASSWORD, by="users/{name}/password"))
    await refused(admin.account.login("ada", life.know("a wrong password", WRONG)))
    await refused(admin.account.login(life.know("a password typed as a name", NAME), "x" * 12))
    signed = await admin.account.login("ada", PASSWORD)
    life.know("a session's bearer", signed.token.rpartition(".")[2])
    _, link = await admin.account.sign_in_link("ada")
    life.know("a link", link.rpartition(".")[2], by="users/{name}/signinlink")
    by_link = await admin.account.follow_link(link)
    life.know("a portal session's bearer", by_link.token.rpartition(".")[2])
    _, unused = await admin.account.sign_in_link("ada")
    life.know("a link that nobody used", unused.rpartition(".")[2])
    lost = life.client(life.know("a bearer that is nobody's", f"mark-lost-bearer-{MARK}"))
    await refused(lost.account.whoami())
    await lost.close()
    members = [{"user": "ada", "role": "tenant-admin"}]
    await admin.create(an_object(Key("Tenant", "", "acme"), {"members": members, "tolerations": TOLERATE}))
    await admin.create(an_object(Key("Project", "", PROJECT), {}))
    ada = life.client(signed.token)
    await ada.account.whoami()
    await credentials(life, ada)
    await ada.close()
    async with aiohttp.ClientSession(life.url("portal"), connector=aiohttp.TCPConnector(ssl=trusting(life))) as session:
        async with session.get(f"/signin?link={unused}") as answer:
            assert answer.status == 200
        form = {"user": "ada", "password": WRONG}
        async with session.post("/signin", data=form, headers={"Origin": life.url("portal")}) as answer:
            assert answer.status == 401


async def credentials(life: Life, ada: Client) -> None:
    """Made, used, rotated, used again and in the wrong place, the old one refused."""
    spec = {"expiresAt": "2999-01-01T00:00:00Z", "overlapSeconds": 0}
    await ada.create(an_object(Key("ApplicationCredential", PROJECT, "ci"), spec))
    first = await ada.account.credential_token(PROJECT, "ci")
    life.know("a credential's secret", first.rpartition(".")[2], by="applicationcredentials/{name}/token")
    program = life.client(first)
    await program.account.whoami()
    second = await ada.account.credential_token(PROJECT, "ci", overlap=0)
    life.know("a credential's next secret", second.rpartition(".")[2])
    await refused(program.account.whoami())
    await program.close()
    async with aiohttp.ClientSession(life.url("api"), connector=aiohttp.TCPConnector(ssl=trusting(life))) as session:
        for path in ("/whoami", f"/whoami?token={second}", f"/{second}"):
            for headers in ({}, {"Authorization": f"Bearer {second}"}, {"Authorization": f"Basic {second}"}):
                async with session.get(path, headers=headers) as answer:
                    await answer.read()


async def outside(life: Life, admin: Client, folder: Path) -> None:
    """By an issuer and by a directory, both real: rightly, with what is worth nothing, and with what is somebody's."""
    async with issuer(folder, life.url("portal")) as peer:
        oidc: dict[str, Any] = {"issuer": peer.url, "clientId": CLIENT, "cliClientId": PUBLIC, "groupsClaim": "groups"}
        oidc |= {"scopes": ["openid", "profile"], "allowPrivateAddress": True, "allowLoopbackHttp": True}
        await admin.create(an_object(Key("IdentityProvider", "", "corp"), {"oidc": oidc}))
        secret = life.know("a client's secret", SECRET, by="identityproviders/{name}/clientsecret")
        await admin.account.client_secret("corp", secret)
        await by_a_code(life)
        await by_a_token(life, peer.url)
    with slapd.running(folder, {"ada": DIRECTORY}, {}) as there:
        ldap = {"url": there.ldaps, "caBundle": there.authorities, "userBase": slapd.PEOPLE, "bindDn": slapd.US}
        await admin.create(an_object(Key("IdentityProvider", "", "dir"), {"ldap": ldap}))
        await admin.account.client_secret("dir", life.know("a directory's password", slapd.SECRET))

        async def signed_in() -> bool:
            try:
                signed = await admin.account.login("dir.ada", DIRECTORY)
            except BessemerError:
                return False
            life.know("the bearer of somebody of a directory", signed.token.rpartition(".")[2])
            return True

        await holds(signed_in)
        life.know("a password of a directory", DIRECTORY)
        await refused(admin.account.login("dir.ada", life.know("a wrong one", DIRECTORY_WRONG)))
    await refused(admin.account.login("dir.ada", DIRECTORY))


async def by_a_code(life: Life) -> None:
    """The portal's way: once, and once more with the same code."""
    jar, connector = aiohttp.CookieJar(unsafe=True), aiohttp.TCPConnector(ssl=trusting(life))
    async with aiohttp.ClientSession(life.url("portal"), connector=connector, cookie_jar=jar) as session:
        found: list[str] = []

        async def begun() -> bool:
            async with session.get("/signin/with/corp", allow_redirects=False) as answer:
                found[:] = [answer.headers.get("location", "")] if answer.status == 303 else []
            return bool(found)

        await holds(begun)
        (value,) = [cookie.value for cookie in jar if cookie.key == ATTEMPT]
        kept = orjson.loads(base64.urlsafe_b64decode(value))
        for name in ("state", "nonce", "verifier"):
            life.know(f"{name} of a sign-in", kept[name])
        async with Hands("ada") as ada:
            back = await ada.agree(found[0])
        life.know("a code", parse_qs(urlsplit(back).query)["code"][0])
        path = back.removeprefix(life.url("portal"))
        async with session.get(path) as answer:
            assert answer.status == 200, await answer.text()
        (bearer,) = [cookie.value for cookie in jar if cookie.key == COOKIE]
        life.know("the bearer of somebody of an issuer", bearer.rpartition(".")[2])
        async with session.get(path, headers={"Cookie": f"{ATTEMPT}={value}"}) as answer:
            assert answer.status >= 400


async def by_a_token(life: Life, url: str) -> None:
    """A command line's way: it asks the issuer itself, and shows us what the issuer signed."""
    verifier, home = "v" * 43 + MARK, "http://127.0.0.1/callback"
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    query = {"client_id": PUBLIC, "response_type": "code", "redirect_uri": home, "scope": "openid profile"}
    query |= {"code_challenge": challenge, "code_challenge_method": "S256", "state": "s", "nonce": "n"}
    async with Hands("rob") as rob, aiohttp.ClientSession() as session:
        back = await rob.agree(f"{url}/auth?{urlencode(query)}")
        said = {"grant_type": "authorization_code", "client_id": PUBLIC, "redirect_uri": home}
        said |= {"code": parse_qs(urlsplit(back).query)["code"][0], "code_verifier": verifier}
        async with session.post(f"{url}/token", data=said) as answer:
            tokens = await answer.json()
    signature = life.know("an issuer's signature", tokens["id_token"].rpartition(".")[2])
    life.know("an access token", tokens["access_token"])
    for token, good in (
        (tokens["id_token"], True),
        (tokens["id_token"].replace(".", ".e30", 1), False),
        (f"e30.e30.{signature}", False),
        (tokens["access_token"], False),
    ):
        somebody = life.client(token)
        await (somebody.account.whoami() if good else refused(somebody.account.whoami()))
        await somebody.close()


async def programs(life: Life, admin: Client) -> None:
    await admin.create(an_object(Key("ApiKey", PROJECT, "app"), {"endpoints": []}))
    token = life.know("an api key", await admin.account.key_token(PROJECT, "app"), by="apikeys/{name}/token")
    thing = an_object(Key("Instance", PROJECT, "vm"), {"flavor": "small", "image": "none-such"})
    thing["metadata"]["annotations"] = {COPY: ANNOTATION}
    await admin.create(thing)
    await admin.patch(Key("Instance", PROJECT, "vm"), {"spec": {"running": False}})
    await engine(life, admin)
    await gateway(life, admin, token=token)
    await admin.create(an_object(Key("Host", "", "h1"), {}))
    joins = life.know("a join token", await admin.account.host_token("h1"), by="hosts/{name}/token")
    agent = Agent()
    await admin.agents.join("h1", agent.csr, token=joins)
    await refused(admin.agents.join("h1", agent.csr, token=joins))
    life.know("a join token that nobody used", await admin.account.host_token("h1"))


async def engine(life: Life, admin: Client) -> None:
    """A replica whose engine ends at such weights, on this machine, and one that serves, on a fake host: the agents of
    both fetched the secret that the engine asks for."""
    found = await asyncio.to_thread(HostContent(life.paths.content).adopt, [WEIGHTS], digest=None)
    wheel = {"package": "no-such", "version": "1.0", "member": "m.gguf"}
    model = {"source": {"wheel": wheel}, "sha256": found.digest.removeprefix("sha256:"), "memory": "64Mi"}
    await admin.create(an_object(Key("Model", "", "m"), model))
    token = life.know("a hub's token", f"mark-hub-token-{MARK}", by="models/{name}/token")
    inner = {"source": {"http": {"url": "https://127.0.0.1:9/m.gguf"}}}  # where nobody is sent
    await admin.create(an_object(Key("Model", "", "shown"), inner))
    await admin.account.source_secret(Key("Model", "", "shown"), {"token": token})
    await refused(admin.account.source_secret(Key("Model", "", "shown"), {"token": token, "other": token}))
    await refused(admin.account.source_secret(Key("Model", "", "m"), {"token": token}))
    own = Key("ProjectModel", PROJECT, "shown")
    await admin.create(an_object(own, inner))
    theirs = life.know("a project's token", f"mark-own-token-{MARK}", by="projectmodels/{name}/token")
    await admin.account.source_secret(own, {"token": theirs})
    # Its gateways ask for it at once, and never get to who it is for.
    outer, shown = Key("Endpoint", PROJECT, "outer"), f"mark-outer-secret-{MARK}"
    await admin.create(an_object(outer, {"external": {"url": "https://127.0.0.1:9/v1", "model": "m"}}))
    await admin.workloads.endpoint_secret(outer, life.know("a service's secret", shown, by="endpoints/{name}/secret"))
    # What it is asked is to be logged where nobody is sent.
    await refused(admin.workloads.logging_keys(outer, BUCKET_KEYS))
    bucket = {"bucket": "logs", "endpoint": "https://127.0.0.1:9"}
    await admin.patch(outer, {"spec": {"logging": {"s3": bucket}}})
    life.know("the secret of a bucket's keys", BUCKET_KEYS["secretKey"])
    await admin.workloads.logging_keys(outer, BUCKET_KEYS)
    hosts = [orjson.loads(host.body) for host in (await admin.list(Scope(kind="Host"))).items]
    (real,) = [host["metadata"]["name"] for host in hosts if not host["spec"].get("taints")]
    await serving(life, admin, "ends", said="the engine ended")
    await admin.patch(Key("Host", "", real), {"spec": {"unschedulable": True}})
    await serving(life, admin, "chat")


async def serving(life: Life, admin: Client, name: str, *, said: str = _SERVES) -> None:
    """An endpoint, until that is said of it, or that it serves (where this machine's engines are not let in)."""
    key = Key("Endpoint", PROJECT, name)
    await admin.create(an_object(key, {"model": "m", "flavor": "serve-small", "tolerations": TOLERATE}))

    async def is_said() -> bool:
        body = (await admin.get(key)).body.decode()
        return said in body or _SERVES in body

    await holds(is_said)
    claim = await admin.get(Key("Claim", PROJECT, f"endpoint-{name}-0"))
    gateway_key = (life.paths.keys / "gateway.key").read_bytes()
    life.know(f"the secret of the engine of {name}", replica_secret(gateway_key, claim.uid))


async def gateway(life: Life, admin: Client, *, token: str) -> None:
    """Asked with a good key, and with it in all the wrong places."""
    good = {"Authorization": f"Bearer {token}"}
    tries: tuple[tuple[dict[str, str], str, str], ...] = (
        (good, "", "none"),
        ({}, f"?key={token}", "chat"),
        ({"X-Api-Key": token}, "", "chat"),
        ({"Authorization": f"Bearer {token}x"}, "", "chat"),
    )
    prompt, heads = life.know("a prompt", f"mark-prompt-{MARK}"), set[str]()
    async with aiohttp.ClientSession() as session:

        async def ask(headers: dict[str, str], query: str, model: str) -> int:
            said = {"model": model, "messages": [{"role": "user", "content": prompt}]}
            url = f"{life.url('gateway')}/chat/completions{query}"
            async with session.post(url, json=said, headers=headers, ssl=trusting(life)) as answer:
                await answer.read()
                heads.update(name.lower() for name in answer.headers)
                return answer.status

        async def answered() -> bool:
            return await ask(good, "", "chat") == 200

        await holds(answered)
        for headers, query, model in tries:
            assert await ask(headers, query, model) >= 400
        # Of a prompt that is to be logged, nothing is anywhere on this machine.
        chat, bucket = Key("Endpoint", PROJECT, "chat"), {"bucket": "logs", "endpoint": "https://127.0.0.1:9"}
        await admin.patch(chat, {"spec": {"logging": {"s3": bucket}}})
        await admin.workloads.logging_keys(chat, BUCKET_KEYS)

        async def logged() -> bool:
            return await ask(good, "", "chat") == 200 and "x-bessemer-logged" in heads

        await holds(logged)
        assert await ask(good, "", "outer") >= 500


async def secrets(life: Life, admin: Client) -> None:
    """Made, applied, changed, read, listed, watched over, refused, and deleted, alone and with their collection."""
    marks = {"a Secret's data": DATA, "its next data": LATER, "data of a Secret that is refused": UNFIT}
    for name, mark in marks.items():
        life.know(name, mark)
    key, typed = Key("Secret", PROJECT, "kept"), life.know("what kubectl repeats of a Secret", TYPED)
    said = {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "stringData": {"k": DATA}}
    for name in ("kept", "gone", "swept"):
        metadata = {"name": name, "namespace": PROJECT, "annotations": {COPY: f'{{"data": "{typed}"}}'}}
        await admin.create({**said, "metadata": metadata})
    await admin.patch(key, {"stringData": {"k": LATER}})
    await admin.delete(key._replace(name="gone"))
    bad = {**said, "stringData": {f"{UNFIT} !": UNFIT}, "metadata": {"name": "Bad", "namespace": PROJECT}}
    await refused(admin.create(bad))
    await refused(admin.create({**said, "type": UNFIT * 99, "metadata": {"name": "kept", "namespace": PROJECT}}))
    place = f"{life.url('api')}/api/v1/namespaces/{PROJECT}/secrets"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=as_admin(life))) as session:
        async with session.get(f"{place}?watch=1&timeoutSeconds=1") as answer:
            assert base64.b64decode(_first_data(await answer.read(), "kept")) == LATER.encode()
        async with session.delete(f"{place}?fieldSelector=metadata.name%3Dswept") as answer:
            assert answer.status == 200


def _first_data(lines: bytes, name: str) -> str:
    found = [json.loads(line)["object"] for line in lines.splitlines()]
    return next(str(body["data"]["k"]) for body in found if body["metadata"]["name"] == name)


async def backup(life: Life) -> None:
    """Written while all runs, under a passphrase, and read again; of another passphrase it says nothing."""
    file = life.outside / "backup"
    state = ("--state", str(life.paths.state))
    words = life.know("a backup's passphrase", WORDS)
    assert await _said(life, "a backup", "backup", str(file), *state, words=words) == 0
    assert await _said(life, "a backup that is read", "backup", "--verify", str(file), words=words) == 0
    other = life.know("a wrong passphrase", f"mark-other-words-{MARK}")
    assert await _said(life, "a backup that is not read", "backup", "--verify", str(file), words=other) != 0


async def _said(life: Life, name: str, *command: str, words: str) -> int:
    given = {**os.environ, PASSPHRASE: words}
    pipe = asyncio.subprocess.PIPE
    argv = (sys.executable, "-m", "bessemer", *command)
    process = await asyncio.create_subprocess_exec(*argv, stdout=pipe, stderr=asyncio.subprocess.STDOUT, env=given)
    life.told[name], _ = await process.communicate()
    return process.returncode or 0


async def listen(life: Life) -> None:
    """What it tells whoever asks."""
    plurals = ("users", "sessions", "hosts", "apikeys", "claims", "applicationcredentials", "identityproviders")
    paths = ["/metrics", "/api/v1/events", "/audit/export", "/audit?limit=1000", "/sealed", "/openapi/v2"]
    paths += [f"/apis/bessemer.dev/v1alpha1/{plural}" for plural in plurals]
    async with aiohttp.ClientSession(life.url("api"), connector=aiohttp.TCPConnector(ssl=as_admin(life))) as session:
        for path in paths:
            async with session.get(path) as answer:
                assert answer.status == 200, path
                life.told[path] = await answer.read()
    for name, folder in (("gateway", life.paths.state / "gateway"), ("fake", life.paths.fake)):
        connector = aiohttp.UnixConnector(str(folder / "metrics.sock"))
        async with aiohttp.ClientSession(connector=connector) as session, session.get("http://x/metrics") as answer:
            life.told[f"metrics of {name}"] = await answer.read()


async def note(life: Life, admin: Client) -> None:
    """The last that is written: what is no secret."""
    await admin.patch(Key("Instance", PROJECT, "vm"), {"metadata": {"annotations": {"note": LATE}}})


def environment(pid: int) -> dict[str, str]:
    """What a process was started with."""
    said = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return {line.partition(b"=")[0].decode(): line.partition(b"=")[2].decode() for line in said if line}
