"""The client against the real api over TLS: it keeps the contract of `core.ports.Objects`, and reads errors back."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from bessemer.api.errors import TABLE, status_of
from bessemer.client import Client, HttpTransport, from_kubeconfig, plurals, read_kubeconfig, tls_context
from bessemer.client.objects import lines
from bessemer.client.status import error_of
from bessemer.client.transport import Ask
from bessemer.core import errors
from bessemer.core.clock import SystemClock
from bessemer.core.ports import Bookmark, Objects, Scope
from bessemer.core.resource import API_VERSION, Change, Key
from bessemer.core.values import UsageBatch, UsageRecord
from tests.api.world import PASSWORD, PATIENCE_SECONDS, Served, served, world

LAB = "acme--lab"
VM = Key("Instance", LAB, "vm")


def body(name: str = "vm", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": "Instance",
        "metadata": {"name": name, "namespace": LAB},
        "spec": {"flavor": "small", "image": "micro", **spec},
    }


@pytest.fixture
async def s(tmp_path: Path) -> AsyncIterator[Served]:
    async with world() as w, served(w, tmp_path) as made:
        yield made


def client_of(s: Served, *, token: str = "") -> Client:
    cert = None if token else (s.admin.certificate, s.admin.key)
    return Client(HttpTransport(s.url, tls=tls_context(s.world.ca.certificate, cert), token=token), plurals=plurals())


@pytest.fixture
async def client(s: Served) -> AsyncIterator[Client]:
    made = client_of(s)
    yield made
    await made.close()


def check_is_a_port(client: Client) -> Objects:
    """mypy reads this: the client is an `Objects`."""
    return client


async def test_objects_are_written_and_read_as_by_the_store(s: Served, client: Client) -> None:
    made = await client.create(body())
    assert made == await s.world.store.objects.get(VM)
    assert made == await client.get(VM)
    changed = await client.replace({**orjson.loads(made.body), "spec": {**body()["spec"], "running": False}})
    assert (changed.generation, changed.revision > made.revision) == (2, True)
    patched = await client.patch(VM, {"metadata": {"labels": {"a": "b"}}})
    assert patched.generation == 2
    operations = [{"op": "remove", "path": "/metadata/labels/a"}]
    assert b'"labels"' not in (await client.patch(VM, operations, kind="json")).body
    gone = await client.delete(VM, uid=made.uid)
    assert b"deletionTimestamp" in gone.body


async def test_replace_without_a_revision_replaces_what_is_there(client: Client) -> None:
    await client.create(body())
    await client.patch(VM, {"spec": {"running": False}})
    changed = await client.replace(body(restartPolicy="Never"))
    assert orjson.loads(changed.body)["spec"]["running"] is True


async def test_no_name_deletes_a_collection(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does the transport's reading of a path, should one come to it that is a collection's: the server refuses it,
    and before that its answer to the question what there is."""
    await client.create(body())
    collection = client.paths.collection("Instance", LAB)
    for name in (".", "..", "/"):
        with pytest.raises(errors.Malformed, match="is no name"):
            await client.delete(Key("Instance", LAB, name))
    with pytest.raises(errors.Malformed, match="deletes nothing"):
        await client.transport.request(Ask(method="DELETE", path=f"{collection}/."))
    monkeypatch.setattr(client.paths, "of", lambda key, sub="", version="": collection)
    with pytest.raises(errors.Malformed, match="nothing is deleted"):
        await client.delete(Key("Instance", LAB, "."))
    monkeypatch.undo()
    assert b"deletionTimestamp" not in (await client.get(VM)).body


async def test_lists_come_in_pages(client: Client) -> None:
    for i in range(5):
        await client.create(body(f"i{i}"))
    whole = await client.list(Scope(kind="Instance", namespace=LAB))
    assert [item.key.name for item in whole.items] == [f"i{i}" for i in range(5)]
    first = await client.list(Scope(kind="Instance"), limit=2)
    second = await client.list(Scope(kind="Instance"), limit=2, after=first.next)
    assert (first.remaining, [i.key.name for i in second.items]) == (3, ["i2", "i3"])
    assert first.items[0] == whole.items[0]
    one = await client.list(Scope(kind="Instance", name="i3"))
    assert [item.key.name for item in one.items] == ["i3"]
    bounded = await client.list(Scope(kind="Instance", namespaces=frozenset(["other--lab"])))
    assert bounded.items == []


async def test_errors_come_back_as_what_they_were(s: Served, client: Client) -> None:
    with pytest.raises(errors.NotFound, match=r'instances\.bessemer\.dev "vm" not found'):
        await client.get(VM)
    made = await client.create(body())
    with pytest.raises(errors.AlreadyExists):
        await client.create(body())
    with pytest.raises(errors.Invalid) as invalid:
        await client.create(body("other", restartPolicy="Often"))
    assert invalid.value.causes[0].field == "spec.restartPolicy"
    with pytest.raises(errors.Malformed, match="unknown field"):
        await client.create(body("other", typo=1))
    with pytest.raises(errors.Malformed, match="no kind"):
        await client.get(Key("Gadget", "", "x"))
    await client.patch(VM, {"spec": {"running": False}})
    with pytest.raises(errors.Conflict):
        await client.replace(orjson.loads(made.body))
    with pytest.raises(errors.Conflict):
        await client.delete(VM, uid="other")
    with pytest.raises(errors.Conflict):
        await client.delete(VM, uid=made.uid, revision=str(made.revision))
    stranger = Client(HttpTransport(s.url, tls=tls_context(s.world.ca.certificate, None)), plurals=plurals())
    with pytest.raises(errors.Unauthenticated):
        await stranger.get(VM)
    await stranger.close()


async def test_a_server_that_is_not_there_is_unavailable(s: Served) -> None:
    nobody = Client(HttpTransport("https://127.0.0.1:1", tls=tls_context(None, None)), plurals=plurals())
    distrusting = Client(HttpTransport(s.url, tls=tls_context(None, None)), plurals=plurals())
    for client in (nobody, distrusting):
        with pytest.raises(errors.Unavailable):
            await client.get(VM)
        await client.close()


async def test_a_watch_begins_with_what_there_is_and_goes_on(client: Client) -> None:
    await client.create(body("a"))
    found: list[str] = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for event in client.watch(Scope(kind="Instance", namespace=LAB)):
            if isinstance(event, Bookmark):
                await client.create(body("b"))
                continue
            found.append(f"{event.type} {event.key.name}")
            if event.key.name == "b":
                break
    assert found == ["ADDED a", "ADDED b"]


async def test_a_watch_from_a_lost_revision_is_expired(client: Client) -> None:
    with pytest.raises(errors.Expired):
        async for _ in client.watch(Scope(kind="Instance"), since=10**9):
            pass


async def test_a_watch_of_what_one_may_not_see_raises(s: Served) -> None:
    eve = client_of(s, token=await s.world.login("eve"))
    with pytest.raises(errors.NotFound):
        async for _ in eve.watch(Scope(kind="Instance", namespace=LAB), since=1):
            pass
    await eve.close()


async def test_a_watch_resumes_where_its_connection_was_lost(tmp_path: Path) -> None:
    """The server goes and comes back on the same port: every change arrives, once, in order."""
    async with world() as w:
        proxy = _Proxy()
        async with served(w, tmp_path) as s:
            proxy.target = int(s.url.rpartition(":")[2])
            await proxy.start()
            tls = tls_context(w.ca.certificate, (s.admin.certificate, s.admin.key))
            client = Client(HttpTransport(f"https://127.0.0.1:{proxy.port}", tls=tls), plurals=plurals(), clock=Quick())
            direct = client_of(s)
            found: list[str] = []

            async def follow() -> None:
                async for event in client.watch(Scope(kind="Instance", namespace=LAB)):
                    if isinstance(event, Change):
                        found.append(event.key.name)

            task = asyncio.ensure_future(follow())
            for i in range(6):
                await direct.create(body(f"i{i}"))
                await _until(lambda i=i: len(found) >= i)
                proxy.cut()
            await _until(lambda: len(found) == 6)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await client.close()
            await direct.close()
            await proxy.stop()
        assert found == [f"i{i}" for i in range(6)]


class Quick(SystemClock):
    """Backoff without the waiting."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.01))


async def _until(holds: Any) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not holds():
            await asyncio.sleep(0.01)


class _Proxy:
    """Bytes to a port and back, until cut."""

    def __init__(self) -> None:
        self.target = 0
        self.port = 0
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        for writer in self._open:
            writer.transport.abort()
        self._open.clear()

    async def stop(self) -> None:
        self.cut()
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.target)
        self._open |= {writer, back}

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            try:
                while data := await source.read(65536):
                    sink.write(data)
                    await sink.drain()
            except ConnectionError:
                pass
            sink.close()

        await asyncio.gather(pump(reader, back), pump(there, writer))


async def test_signing_in_by_the_client(s: Served) -> None:
    stranger = client_of(s, token="")
    signed = await stranger.account.login("mia", PASSWORD)
    mia = client_of(s, token=signed.token)
    me = await mia.account.whoami()
    assert (me.name, me.admin, me.tenants, me.projects) == ("mia", False, {"acme": "member"}, (LAB,))
    _, secret = await stranger.account.sign_in_link("mia")
    assert (await mia.account.follow_link(secret)).user == "mia"
    await stranger.create({"kind": "ApiKey", "metadata": {"name": "k", "namespace": LAB}, "spec": {}})
    assert (await mia.account.key_token(LAB, "k")).startswith("bsk_")
    await mia.account.set_password("mia", "another good password")
    await mia.account.logout()
    with pytest.raises(errors.Unauthenticated):
        await mia.account.whoami()
    await mia.close()
    await stranger.close()


async def test_usage_is_settled_once_and_becomes_an_invoice(s: Served, client: Client) -> None:
    gateway_pair = s.world.ca.issue("system:gateway")
    tls = tls_context(s.world.ca.certificate, (gateway_pair.certificate, gateway_pair.key))
    gateway = Client(HttpTransport(s.url, tls=tls), plurals=plurals())
    now = int(s.world.clock.now())
    record = UsageRecord(
        at=now,
        request_id="r1",
        project=LAB,
        endpoint="chat",
        endpoint_uid="e1",
        api_key="k",
        model="m",
        status=200,
        input_tokens=1_000_000,
        output_tokens=2_000_000,
    )
    batch = UsageBatch(gateway_uid="g", spool_uid="s", first_sequence=1, records=[record])
    assert [await gateway.agents.usage(batch) for _ in range(2)] == [1, 1]
    rates = {"millionInputTokens": 1_000_000, "millionOutputTokens": 3_000_000}
    plan = {"kind": "PricePlan", "metadata": {"name": "standard"}, "spec": {"rates": rates}}
    await client.create(plan)
    invoice = await client.projects.invoice(LAB, since=now - 60, until=now + 60)
    assert (invoice["totalMicro"], invoice["currency"], invoice["project"]) == (7_000_000, "EUR", LAB)
    exported = await client.projects.ledger(LAB, since=now - 60, until=now + 60)
    assert exported["pricePlan"]["rates"]["millionInputTokens"] == 1_000_000
    assert [row["kind"] for row in exported["rows"]] == ["tokens"]
    assert {meter["scope"] for meter in await client.projects.use(LAB)} <= {f"project/{LAB}", "tenant/acme"}
    with pytest.raises(errors.Malformed):
        await client.projects.invoice(LAB, since=now + 60, until=now)
    with pytest.raises(errors.Forbidden):
        await client.agents.usage(batch)
    given = await gateway.agents.share(LAB, meter="tokens_per_minute", amount=5)
    assert (given["amount"], given["left"], given["words"]) == (5, None, "")
    assert await gateway.agents.held("g1") == []
    with pytest.raises(errors.Forbidden):
        await client.agents.share(LAB, meter="tokens_per_minute", amount=5)
    await gateway.close()


@pytest.mark.parametrize("inline", [True, False])
async def test_a_kubeconfig_is_read(s: Served, inline: bool) -> None:
    ca, crt, key = s.world.ca.certificate, s.admin.certificate, s.admin.key
    for name, data in (("ca.crt", ca), ("a.crt", crt), ("a.key", key)):
        s.path(name, data)

    def field(name: str, file: str, data: bytes) -> dict[str, str]:
        return {f"{name}-data": base64.b64encode(data).decode()} if inline else {name: file}

    user = {**field("client-certificate", "a.crt", crt), **field("client-key", "a.key", key)}
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "b", "user": "u", "namespace": LAB}}],
        "clusters": [{"name": "b", "cluster": {"server": s.url, **field("certificate-authority", "ca.crt", ca)}}],
        "users": [{"name": "u", "user": user}],
    }
    path = s.path("kubeconfig", yaml.safe_dump(config).encode())
    assert read_kubeconfig(path).namespace == LAB
    client = from_kubeconfig(path)
    assert (await client.account.whoami()).admin
    await client.close()
    mia = from_kubeconfig(path, token=await s.world.login("mia"))
    assert not (await mia.account.whoami()).admin
    await mia.close()


@pytest.mark.parametrize("text", ["", "[]", "a: b", "{", "current-context: x", "clusters: 5\ncurrent-context: c"])
def test_what_is_no_kubeconfig_is_malformed(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(errors.Malformed):
        read_kubeconfig(path)
    with pytest.raises(errors.Malformed):
        read_kubeconfig(tmp_path / "none")


@pytest.mark.parametrize(
    ("code", "raw", "kind"),
    [
        (500, b"oops", errors.Unavailable),
        (502, b"<html>", errors.Unavailable),
        (404, b"404 page not found", errors.NotFound),
        (418, b"{}", errors.Malformed),
        (429, b'{"kind":"Status","details":{"retryAfterSeconds":7}}', errors.TooMany),
        (409, b'{"kind":"Status","reason":"Conflict","details":{"causes":[{"reason":"Taken"}]}}', errors.Taken),
        (403, b'{"kind":"Status","details":{"causes":[{"reason":"QuotaExceeded"}]}}', errors.QuotaExceeded),
    ],
)
def test_answers_of_others_are_errors_too(code: int, raw: bytes, kind: type[errors.BessemerError]) -> None:
    assert type(error_of(code, raw)) is kind


def _errors() -> list[errors.BessemerError]:
    """One of each that the api tells; those that only HTTP can refuse, and defects, have no class of their own here."""
    ours = [kind for kind in TABLE if kind.__module__ == errors.__name__]
    return [kind("no") for kind in ours if kind not in (errors.DriverError, errors.BessemerError)]


@pytest.mark.parametrize("error", _errors(), ids=lambda error: type(error).__name__)
def test_every_error_comes_back_as_it_was_raised(error: errors.BessemerError) -> None:
    told = status_of(error)
    back = error_of(told["code"], orjson.dumps(told))
    assert (type(back), str(back)) == (type(error), "no")


def test_where_a_lost_list_may_go_on_comes_back_too() -> None:
    told = status_of(errors.Expired("no", proceed="from here"))
    back = error_of(410, orjson.dumps(told))
    assert isinstance(back, errors.Expired)
    assert back.proceed == "from here"


async def test_a_watch_that_is_closed_closes_its_connection(s: Served) -> None:
    client = client_of(s)
    async with aclosing(client.watch(Scope(kind="Instance"))) as events:
        assert isinstance(await anext(events), Bookmark)
        reading = asyncio.ensure_future(anext(events))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not _watches(s):
                await asyncio.sleep(0.01)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while _watches(s):
            await asyncio.sleep(0.01)
    await client.close()


def _watches(s: Served) -> bool:
    return b'bessemer_api_watches{resource="instances"} 1.0' in s.world.api.state.metrics.text()


async def test_lines_survive_any_cut() -> None:
    whole = b"one\ntwo\n\nthree\nlost"

    async def parts(size: int) -> AsyncIterator[bytes]:
        for i in range(0, len(whole), size):
            yield whole[i : i + size]

    for size in range(1, len(whole) + 1):
        assert [line async for line in lines(parts(size))] == [b"one", b"two", b"three"]
