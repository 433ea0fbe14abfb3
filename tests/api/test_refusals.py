"""The trail: each credential that is made, each sign-in that fails, and refusals in numbers that no asker can swell."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from bessemer.api import make_app, refusals
from bessemer.api.ca import Peer
from bessemer.api.refusals import NAME_CHARACTERS_MAX, ROWS_EACH, ROWS_STRANGERS, WINDOW_SECONDS, Refusal, Refusals
from bessemer.core.clock import FakeClock
from bessemer.core.ports import AuditRow, Writer
from bessemer.core.resource import Key
from tests.api.test_hosts import Agent, host_and_token
from tests.api.world import BASE, PASSWORD, PATIENCE_SECONDS, World, named, world

KEYS = f"{BASE}/namespaces/acme--lab/apikeys"
Make = Callable[[World], Awaitable[Any]]


async def by_request(w: World, request_id: str) -> list[AuditRow]:
    return [row for row in await w.store.audit.rows() if row.request_id == request_id]


async def post(w: World, path: str, body: Any, *, user: str = "", stranger: bool = False) -> int:
    token = await w.login(user) if user else ""
    headers = {"x-request-id": "the-one"}
    if stranger:
        return (await w.call("POST", path, body, peer=None, headers=headers)).code
    return (await w.call("POST", path, body, token=token, headers=headers)).code


async def join(w: World) -> int:
    body = {"token": await host_and_token(w), "csr": Agent().csr}
    return await post(w, f"{BASE}/hosts/h1/join", body, stranger=True)


async def renewal(w: World) -> int:
    agent = Agent()
    path, body = f"{BASE}/hosts/h1/join", {"token": await host_and_token(w), "csr": agent.csr}
    assert (await w.call("POST", path, body, peer=None)).code == 201
    csr = agent.csr
    return await post(w, path, {"csr": csr, "signature": agent.sign(csr)}, stranger=True)


async def join_token(w: World) -> int:
    await w.create(f"{BASE}/hosts", named("h1"))
    return await post(w, f"{BASE}/hosts/h1/token", {})


async def key_token(w: World) -> int:
    await w.create(KEYS, named("k"))
    return await post(w, f"{KEYS}/k/token", {}, user="mia")


async def link(w: World) -> int:
    secret = (await w.call("POST", f"{BASE}/users/mia/signinlink", {})).json["secret"]
    return await post(w, "/login", {"link": secret}, stranger=True)


@pytest.mark.parametrize(
    ("make", "row"),
    [
        (
            lambda w: post(w, f"{BASE}/users/mia/password", {"password": "a whole new one"}),
            "user:admin password User mia",
        ),
        (
            lambda w: post(w, f"{BASE}/users/mia/password", {"password": "a whole new one"}, user="mia"),
            "user:mia password User mia",
        ),
        (lambda w: post(w, f"{BASE}/users/mia/signinlink", {}), "user:admin signinlink User mia"),
        (lambda w: post(w, "/login", {"user": "mia", "password": PASSWORD}, stranger=True), "user:mia login User mia"),
        (link, "user:mia login User mia"),
        (join_token, "user:admin token Host h1"),
        (join, "agent:h1 join Host h1"),
        (renewal, "agent:h1 renew Host h1"),
        (key_token, "user:mia token ApiKey acme--lab/k"),
    ],
)
async def test_each_credential_that_is_made_leaves_a_row(w: World, make: Make, row: str) -> None:
    assert await make(w) in (200, 201)
    rows = await by_request(w, "the-one")
    first = next(row for row in rows if not row.writer.startswith("system:"))
    assert (f"{first.writer} {first.verb} {first.key}", first.allowed) == (row, True)
    assert first.uid
    assert first.source == "192.0.2.1"
    assert await w.store.audit.verify() is None


@pytest.mark.parametrize(
    ("path", "body", "key"),
    [
        ("/login", {"user": "mia", "password": "wrong wrong wrong"}, "login User mia"),
        ("/login", {"user": "my-own-password", "password": "wrong wrong wrong"}, "login User -"),
        ("/login", {"user": "Not A Name", "password": "wrong wrong wrong"}, "login User -"),
        ("/login", {"link": "bss_no.no"}, "login User -"),
        (f"{BASE}/hosts/h1/join", {"token": "bsj_wrong"}, "join Host h1"),
        (f"{BASE}/hosts/h1/join", {"signature": "AA=="}, "join Host h1"),
    ],
)
async def test_each_credential_that_is_worth_nothing_leaves_a_row(w: World, path: str, body: Any, key: str) -> None:
    said = {"csr": Agent().csr, **body} if path.endswith("join") else body
    assert await post(w, path, said, stranger=True) == 401
    [row] = await by_request(w, "the-one")
    assert (f"{row.verb} {row.key}", row.allowed, row.source) == (key, False, "192.0.2.1")
    assert "my-own-password" not in str(row)
    assert "wrong wrong" not in str(row)


async def test_a_password_that_is_refused_leaves_no_row_of_one_that_was_set(w: World) -> None:
    assert await post(w, f"{BASE}/users/mia/password", {"password": "short"}) == 422
    assert await by_request(w, "the-one") == []


async def test_a_name_that_no_database_keeps_spares_nobody_the_row(w: World) -> None:
    mia, before = await w.login("mia"), len(await w.store.audit.rows())
    for name in ("\x00", "\u202e", "\x00" * 500):
        for path in (f"{BASE}/users/{name}/signinlink", f"{BASE}/identityproviders/{name}/clientsecret"):
            assert (await w.call("POST", path, {}, token=mia)).code == 404
    rows = (await w.store.audit.rows())[before:]
    assert [row.key for row in rows][:3] == ["User \\x00", "IdentityProvider \\x00", "User \\u202e"]
    assert (len(rows), max(len(row.key) for row in rows)) == (6, len("IdentityProvider ") + NAME_CHARACTERS_MAX)
    assert await w.store.audit.verify() is None


async def test_whoever_asks_for_what_is_not_theirs_does_not_fill_the_trail() -> None:
    clock = FakeClock()
    async with world(clock) as w:
        mia, rob = await w.login("mia"), await w.login("rob")
        before = len(await w.store.audit.rows())
        for number in range(ROWS_EACH + 30):
            path = f"{BASE}/namespaces/other--lab/instances/x{number}"
            assert (await w.call("GET", path, token=mia)).code == 404
        assert (await w.call("DELETE", f"{BASE}/namespaces/acme--lab/apikeys/k", token=rob)).code == 403
        rows = (await w.store.audit.rows())[before:]
        assert [row.writer for row in rows] == ["user:mia"] * ROWS_EACH + ["user:rob"]
        await clock.advance(WINDOW_SECONDS)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not (later := (await w.store.audit.rows())[before + ROWS_EACH + 1 :]):
                await asyncio.sleep(0.01)  # a thread writes it
        [count] = later
        assert (count.writer, count.verb, count.key) == ("user:mia", "refused", "Instance other--lab/x49")
        assert count.reason.startswith("30 more refusals since 2025-")
        assert (count.allowed, count.source) == (False, "192.0.2.1")
        assert (await w.call("GET", f"{BASE}/namespaces/other--lab/instances/y", token=mia)).code == 404
        assert (await w.store.audit.rows())[-1].key == "Instance other--lab/y"  # a new window
        assert await w.store.audit.verify() is None


async def test_what_was_counted_is_written_when_the_server_stops(w: World) -> None:
    async with make_app(w.api.state.context).running() as api:
        there = World(api, w.store, w.ca, w.clock)
        mia = await there.login("mia")
        for _ in range(ROWS_EACH + 2):
            await there.call("GET", f"{BASE}/namespaces/other--lab/instances/x", token=mia)
        assert not (await w.store.audit.rows())[-1].reason.startswith("2 more refusals since ")
    assert (await w.store.audit.rows())[-1].reason.startswith("2 more refusals since ")


async def test_a_bearer_that_is_guessed_leaves_a_row(w: World) -> None:
    assert (await w.call("GET", "/whoami", token="bss_no.no", headers={"x-request-id": "the-one"})).code == 401
    [row] = await by_request(w, "the-one")
    assert (row.writer, row.verb, row.key) == ("system:api", "get", "Route /whoami")
    assert (row.allowed, row.source) == (False, "192.0.2.1")
    before = len(await w.store.audit.rows())
    for number in range(ROWS_EACH + 20):
        assert (await w.call("GET", f"{BASE}/users", token=f"bss_no.{number}")).code == 401
    assert len(await w.store.audit.rows()) == before + ROWS_EACH - 1
    await w.api.state.refusals.flush()
    assert (await w.store.audit.rows())[-1].reason.startswith("21 more refusals since ")


async def test_a_certificate_that_was_revoked_leaves_a_row(w: World) -> None:
    agent = await w.host("h1")
    reply = await w.call("PATCH", f"{BASE}/hosts/h1", {"spec": {"revoked": True}}, media="application/merge-patch+json")
    assert reply.code == 200
    headers = {"x-request-id": "the-one"}
    assert (await w.call("POST", f"{BASE}/hosts/h1/heartbeat", {}, peer=agent, headers=headers)).code == 401
    [row] = await by_request(w, "the-one")
    assert (row.verb, row.key, row.allowed) == ("post", f"Route {BASE}/hosts/h1/heartbeat", False)


async def test_who_shows_nothing_leaves_nothing(w: World) -> None:
    assert (await w.call("GET", "/whoami", peer=None, headers={"x-request-id": "the-one"})).code == 401
    assert await by_request(w, "the-one") == []


async def test_a_name_that_is_no_name_is_cut(w: World) -> None:
    """A path may be as long as a request's head, and each refusal would keep it."""
    mia, long, headers = await w.login("mia"), "x" * 50_000, {"x-request-id": "the-one"}
    for _ in range(ROWS_EACH + 1):
        path = f"{BASE}/namespaces/{long}/instances/{long}"
        assert (await w.call("GET", path, token=mia, headers=headers)).code == 404
    await w.call("POST", f"{BASE}/hosts/{long}/join", {"csr": Agent().csr, "token": "x"}, peer=None, headers=headers)
    await w.call("GET", f"/{long}", token="bss_no.no", headers=headers)
    await w.call("GET", f"{BASE}/{long}", token="bss_no.no", headers=headers)
    await w.api.state.refusals.flush()
    rows = await by_request(w, "the-one")
    assert len(rows) >= ROWS_EACH + 3
    assert max(len(row.key) for row in rows) == len("Instance ") + 253 + 1 + 253
    assert all(len(row.reason) <= 500 for row in rows)


class Rows:
    """A trail in memory."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str]] = []

    async def deny(self, writer: Writer, verb: str, key: Key, reason: str) -> None:
        self.rows.append((f"{writer.kind}:{writer.name}", reason))


def refusal(name: str = "api", source: str = "192.0.2.1") -> Refusal:
    return Refusal(Writer("user", name, source=source), "get", Key("User", "", "x"), "no")


async def test_strangers_share_what_strangers_may() -> None:
    trail = Rows()
    told = Refusals(trail, FakeClock())  # type: ignore[arg-type]
    for number in range(1000):
        await told.stranger(refusal(source=f"198.51.{number // 250}.{number % 250}"))
    assert len(trail.rows) == ROWS_STRANGERS
    await told.known(refusal("mia"))  # and take nothing from those who are known
    assert len(trail.rows) == ROWS_STRANGERS + 1
    await told.flush()
    assert trail.rows[-1][0] == "system:strangers"
    assert trail.rows[-1][1].startswith("800 more refusals")
    for _ in range(100):
        await told.stranger(refusal(source="192.0.2.1"))
    assert len(trail.rows) == ROWS_STRANGERS + 2 + ROWS_EACH
    await told.stranger(refusal(source="192.0.2.2"))
    assert len(trail.rows) == ROWS_STRANGERS + 2 + ROWS_EACH + 1


async def test_askers_beyond_what_is_kept_are_counted_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "ASKERS_MAX", 5)
    trail = Rows()
    told = Refusals(trail, FakeClock())  # type: ignore[arg-type]
    for number in range(5 + ROWS_EACH + 7):
        await told.known(refusal(f"u{number}"))
    assert len(trail.rows) == 5 + ROWS_EACH
    await told.flush()
    assert trail.rows[-1][0] == "system:others"
    assert trail.rows[-1][1].startswith("7 more refusals")


async def test_the_portal_is_believed_about_where_its_people_are(w: World) -> None:
    portal = Peer("system:portal", (), "")
    headers = {"x-bessemer-source": "198.51.100.9", "x-request-id": "the-one"}
    said = {"user": "mia", "password": "wrong wrong wrong"}
    assert (await w.call("POST", "/login", said, peer=portal, headers=headers)).code == 401
    [row] = await by_request(w, "the-one")
    assert row.source == "198.51.100.9"
