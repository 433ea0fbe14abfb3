"""People: passwords, sessions, one-time links, limits; and who somebody is."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest

from bessemer.api.ca import Peer
from bessemer.api.context import Limits
from bessemer.core.clock import FakeClock, settle
from bessemer.core.resource import Key
from tests.api.world import ADMIN, BASE, PASSWORD, World, hashed, named, world

MERGE = "application/merge-patch+json"


async def test_a_session_is_who_signed_in(w: World) -> None:
    reply = await w.call("POST", "/login", {"user": "ann", "password": PASSWORD, "purpose": "portal"}, peer=None)
    assert (reply.code, reply.json["user"], reply.headers["cache-control"]) == (201, "ann", "no-store")
    me = await w.call("GET", "/whoami", token=reply.json["token"])
    assert me.json == {"name": "ann", "admin": False, "tenants": {"acme": "tenant-admin"}, "projects": ["acme--lab"]}
    admin = await w.call("GET", "/whoami", peer=ADMIN)
    assert admin.json == {"name": "admin", "admin": True, "tenants": {}, "projects": ["acme--lab", "other--lab"]}


async def test_no_object_holds_a_secret(w: World) -> None:
    token = await w.login("ann")
    secret = token.partition(".")[2]
    for kind, plural in (("Session", "sessions"), ("User", "users")):
        body = (await w.call("GET", f"{BASE}/{plural}")).body
        assert kind.encode() in body
        assert secret.encode() not in body
        assert b"argon2" not in body


async def test_signing_out_ends_the_session(w: World) -> None:
    token = await w.login("ann")
    assert (await w.call("DELETE", "/login", token=token)).code == 200
    assert (await w.call("GET", "/whoami", token=token)).code == 401
    assert (await w.call("DELETE", "/login", peer=ADMIN)).code == 403


@pytest.mark.parametrize("user", ["ann", "nobody", "Not A Name", "a" * 5000, "ann\u202e"])
async def test_wrong_user_and_wrong_password_are_one_answer(w: World, user: str) -> None:
    reply = await w.call("POST", "/login", {"user": user, "password": "wrong wrong wrong"}, peer=None)
    assert (reply.code, reply.json["message"]) == (401, "wrong user or password")


async def theirs(w: World) -> None:
    """Somebody whom a provider vouches for, with a password of ours from before."""
    await w.create(f"{BASE}/users", named("theirs", identity={"issuer": "https://id.example.org", "subject": "s"}))
    made = await w.store.objects.get(Key("User", "", "theirs"))
    await w.store.sealed.put(made.uid, "password", hashed(PASSWORD))


async def test_a_wrong_user_and_a_wrong_password_differ_in_no_header(w: World) -> None:
    await theirs(w)
    said = []
    wrong = "wrong wrong wrong"
    for user, password in (
        ("ann", wrong),
        ("nobody", wrong),
        ("Not A Name", wrong),
        ("theirs", wrong),
        ("theirs", PASSWORD),
    ):
        reply = await w.call("POST", "/login", {"user": user, "password": password}, peer=None)
        headers = {name: value for name, value in reply.headers.items() if name != "x-request-id"}
        said.append((reply.code, headers, reply.body))
    assert said == [said[0]] * 5


@pytest.mark.parametrize("user", ["nobody", "off", "bare", "theirs"])
async def test_a_wrong_user_costs_what_a_wrong_password_does(
    w: World, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time is what is asked of the store and of argon2, so that is compared: nobody, somebody disabled, and somebody
    without a password, and somebody who comes by a provider do all that somebody who mistypes does."""
    await w.create(f"{BASE}/users", named("off", disabled=True))
    await w.create(f"{BASE}/users", named("bare"))
    await theirs(w)
    done: list[str] = []

    def counted(name: str, holder: Any, method: str) -> None:
        inner = getattr(holder, method)

        def call(*args: Any, **options: Any) -> Any:
            done.append(name)
            return inner(*args, **options)

        monkeypatch.setattr(holder, method, call)

    state = w.api.state
    for name, holder, method in (
        ("read", w.store.objects, "get"),
        ("unseal", w.store.sealed, "get"),
        ("argon2", state.passwords, "_verify"),
        ("hash", state.passwords, "_hash"),
        ("trail", w.store.audit, "deny"),
        ("trail", w.store.audit, "note"),
        ("write", w.store.objects, "replace"),
        ("wait", state.sign_ins, "admit"),
    ):
        counted(name, holder, method)

    async def works(name: str) -> list[str]:
        done.clear()
        reply = await w.call("POST", "/login", {"user": name, "password": "wrong wrong wrong"}, peer=None)
        assert (reply.code, reply.json["message"]) == (401, "wrong user or password")
        return list(done)

    first, again = await works(user), await works(user)
    assert again == await works("ann")
    assert "argon2" in again
    assert sorted(first) == sorted([*again, "hash"])  # the first of a process makes what stands in for a hash


async def test_what_stands_in_for_a_hash_is_made_whoever_comes_first(w: World) -> None:
    made = w.api.state.passwords
    assert made._nobody is None
    await w.call("POST", "/login", {"user": "ann", "password": "wrong wrong wrong"}, peer=None)
    assert made._nobody is not None


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"user": "ann"},
        {"user": ["ann"], "password": "x"},
        {"user": "ann", "password": {"$ne": ""}},
        {"link": ""},
        [],
        "ann",
        {"user": "ann", "password": PASSWORD, "purpose": "link"},
    ],
)
async def test_what_is_no_sign_in_is_malformed(w: World, body: object) -> None:
    assert (await w.call("POST", "/login", body, peer=None)).code == 400


async def test_a_disabled_user_is_nobody_from_that_moment(w: World) -> None:
    token = await w.login("ann")
    assert (await w.call("PATCH", f"{BASE}/users/ann", {"spec": {"disabled": True}}, media=MERGE)).code == 200
    assert (await w.call("GET", "/whoami", token=token)).code == 401
    reply = await w.call("POST", "/login", {"user": "ann", "password": PASSWORD}, peer=None)
    assert reply.code == 401


async def test_an_administrator_by_session(w: World) -> None:
    token = await w.login("new")
    assert (await w.call("GET", f"{BASE}/users", token=token)).code == 403
    assert (await w.call("PATCH", f"{BASE}/users/new", {"spec": {"admin": True}}, media=MERGE)).code == 200
    assert (await w.call("GET", f"{BASE}/users", token=token)).code == 200


async def test_a_session_ends_by_itself() -> None:
    clock = FakeClock()
    async with world(clock, cli_session=100.0) as w:
        token = await w.login("ann")
        clock.jump(99)
        assert (await w.call("GET", "/whoami", token=token)).code == 200
        clock.jump(2)
        assert (await w.call("GET", "/whoami", token=token)).code == 401


@pytest.mark.parametrize("bearer", ["", "x", "bss_", "bss_.", "bss_a.b", "bsk_0000", "bss_../x.y", "bss_" + "a" * 9999])
async def test_other_bearers_are_worth_nothing(w: World, bearer: str) -> None:
    reply = await w.call("GET", "/whoami", peer=None, headers={"authorization": f"Bearer {bearer}"})
    assert reply.code == 401
    basic = await w.call("GET", "/whoami", peer=None, headers={"authorization": "Basic YTpi"})
    assert basic.code == 401


async def test_a_bad_bearer_is_refused_beside_a_good_certificate(w: World) -> None:
    reply = await w.call("GET", "/whoami", peer=ADMIN, headers={"authorization": "Bearer bss_no.no"})
    assert reply.code == 401


async def test_a_link_signs_in_once(w: World) -> None:
    made = await w.call("POST", f"{BASE}/users/mia/signinlink", {})
    assert made.json["url"] == "https://127.0.0.1:7444/signin?link=" + made.json["secret"]
    link = {"link": made.json["secret"]}
    assert (await w.call("GET", "/whoami", token=made.json["secret"])).code == 401
    replies = await asyncio.gather(*(w.call("POST", "/login", link, peer=None) for _ in range(4)))
    assert sorted(r.code for r in replies) == [201, 401, 401, 401]
    token = next(r.json["token"] for r in replies if r.code == 201)
    assert (await w.call("GET", "/whoami", token=token)).json["name"] == "mia"


async def test_links_are_the_administrators_to_make(w: World) -> None:
    ann = await w.login("ann")
    assert (await w.call("POST", f"{BASE}/users/mia/signinlink", {}, token=ann)).code == 404
    assert (await w.call("POST", f"{BASE}/users/none/signinlink", {})).code == 404


async def test_ones_password_is_ones_own(w: World) -> None:
    ann = await w.login("ann")
    body = {"password": "a whole new password"}
    assert (await w.call("POST", f"{BASE}/users/ann/password", body, token=ann)).code == 200
    assert (await w.call("POST", f"{BASE}/users/mia/password", body, token=ann)).code == 404
    assert (await w.call("POST", f"{BASE}/users/none/password", body)).code == 404
    assert (await w.call("POST", "/login", {"user": "ann", **body}, peer=None)).code == 201
    kept = await w.store.sealed.get((await w.store.objects.get(Key("User", "", "ann"))).uid, "password")
    assert kept is not None
    assert kept.startswith(b"$argon2id$")
    weak = await w.call("POST", f"{BASE}/users/ann/password", {"password": "short"}, token=ann)
    assert (weak.code, weak.json["details"]["causes"][0]["field"]) == (422, "password")


async def attempt(w: World, user: str, password: str, source: str) -> int:
    """The answer to a sign-in by way of the portal, from somewhere."""
    headers, portal = {"x-bessemer-source": source}, Peer("system:portal", (), "")
    said = {"user": user, "password": password}
    return (await w.call("POST", "/login", said, peer=portal, headers=headers)).code


async def test_attempts_at_an_account_are_limited_by_source_and_come_back_with_time() -> None:
    clock = FakeClock()
    async with world(clock, limits=Limits(login_burst=3, login_seconds=10.0)) as w:
        wrong = {"user": "ann", "password": "wrong wrong wrong"}
        codes = [(await w.call("POST", "/login", wrong, peer=None)).code for _ in range(4)]
        assert codes == [401, 401, 401, 429]
        reply = await w.call("POST", "/login", wrong, peer=None)
        assert 1 <= int(reply.headers["retry-after"]) <= 10
        await clock.advance(10)
        await settle()
        good = {"user": "ann", "password": PASSWORD}
        assert (await w.call("POST", "/login", good, peer=None)).code == 201
        assert (await w.call("POST", "/login", good, peer=None)).code == 429


async def test_a_stranger_locks_nobody_out() -> None:
    """However often somebody else is wrong, from however many addresses: the right password is good from another."""
    async with world(FakeClock(), limits=Limits(login_burst=2, login_seconds=60.0)) as w:
        for number in range(20):
            source = f"203.0.113.{number}"
            codes = [await attempt(w, "ann", "wrong wrong wrong", source) for _ in range(3)]
            assert codes == [401, 401, 429]
        assert await attempt(w, "ann", PASSWORD, "198.51.100.7") == 201
        assert await attempt(w, "mia", PASSWORD, "203.0.113.1") == 201  # nor for whoever sits beside them


async def test_an_address_tries_so_many_accounts_and_no_more() -> None:
    async with world(FakeClock(), limits=Limits(login_burst=2, login_seconds=60.0)) as w:
        codes = [await attempt(w, f"user-{n}", "wrong wrong wrong", "203.0.113.1") for n in range(10)]
        assert codes == [401] * 8 + [429] * 2
        # Of an IPv6 network everybody has more addresses than can be counted: it is one.
        codes = [await attempt(w, f"user-{n}", "wrong wrong wrong", f"2001:db8::{n}") for n in range(10)]
        assert codes == [401] * 8 + [429] * 2
        assert await attempt(w, "ann", PASSWORD, "2001:db8:0:1::1") == 201


async def test_ipv4_addresses_over_an_ipv6_socket_are_many() -> None:
    """Else all the world would share one bucket where the api listens on ``::``, and one could empty it for all."""
    async with world(FakeClock(), limits=Limits(login_burst=2, login_seconds=60.0)) as w:
        codes = [await attempt(w, f"user-{n}", "wrong wrong wrong", f"::ffff:203.0.113.{n}") for n in range(20)]
        assert codes == [401] * 20
        codes = [await attempt(w, f"user-{n}", "wrong wrong wrong", "::ffff:203.0.113.99") for n in range(9)]
        assert codes == [401] * 8 + [429]
        assert await attempt(w, "user-10", "wrong wrong wrong", "203.0.113.99") == 429


async def test_a_sign_in_by_the_old_password_does_not_outlive_the_new_one(
    w: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the new one is set between the look at the old one and the session that it opens."""
    sessions = w.api.state.sessions
    make = sessions.make

    async def late(*args: Any, **options: Any) -> Any:
        monkeypatch.undo()
        path = f"{BASE}/users/mia/password"
        assert (await w.call("POST", path, {"password": "another long password"})).code == 200
        return await make(*args, **options)

    monkeypatch.setattr(sessions, "make", late)
    reply = await w.call("POST", "/login", {"user": "mia", "password": PASSWORD}, peer=None)
    assert (reply.code, reply.json["message"]) == (401, "wrong user or password")
    assert (await w.call("GET", f"{BASE}/sessions")).json["items"] == []


async def test_where_many_fail_all_wait_a_little() -> None:
    """Right and wrong alike, so that the wait says nothing; and no longer than it takes to be patient."""
    clock = FakeClock()
    async with world(clock) as w:
        for _ in range(500):
            w.api.state.sign_ins.failed("203.0.113.9")
        for user, password, code in (("ann", PASSWORD, 201), ("ann", "wrong wrong wrong", 401), ("no", PASSWORD, 401)):
            coming = asyncio.ensure_future(attempt(w, user, password, "198.51.100.7"))
            await clock.advance(1.9)
            assert not coming.done()
            await clock.advance(0.2)
            assert await coming == code
        await clock.advance(500)
        assert w.api.state.sign_ins.delay == 0.0


async def test_a_key_token_is_shown_once_and_kept_as_its_hash(w: World) -> None:
    keys = f"{BASE}/namespaces/acme--lab/apikeys"
    await w.create(keys, named("k"))
    mia, rob, eve = [await w.login(user) for user in ("mia", "rob", "eve")]
    assert (await w.call("POST", f"{keys}/k/token", {}, token=rob)).code == 403
    assert (await w.call("POST", f"{keys}/k/token", {}, token=eve)).code == 404
    first = await w.call("POST", f"{keys}/k/token", {}, token=mia)
    second = await w.call("POST", f"{keys}/k/token", {}, token=mia)
    assert first.json["token"].startswith("bsk_")
    assert first.json["token"] != second.json["token"]
    status = (await w.call("GET", f"{keys}/k")).json["status"]
    assert status["digest"] == hashlib.sha256(second.json["token"].encode()).hexdigest()
    assert second.json["token"].startswith(status["hint"])
    stored = await w.store.objects.get(Key("ApiKey", "acme--lab", "k"))
    assert second.json["token"].encode() not in stored.body


async def test_the_portal_says_for_whom_it_asks() -> None:
    clock = FakeClock()
    async with world(clock, limits=Limits(login_burst=1, login_seconds=100.0)) as w:
        portal, wrong = Peer("system:portal", (), ""), {"user": "x", "password": "wrong wrong wrong"}

        async def code(user: str, peer: Peer | None, source: str) -> int:
            headers = {"x-bessemer-source": source}
            return (await w.call("POST", "/login", {**wrong, "user": user}, peer=peer, headers=headers)).code

        assert [await code("u", portal, f"198.51.100.{i}") for i in range(3)] == [401, 401, 401]
        assert await code("u", portal, "198.51.100.1") == 429
        assert [await code("v", None, f"198.51.100.{i}") for i in range(3)] == [401, 429, 429]


async def test_a_sign_in_is_noted_at_the_user(w: World) -> None:
    await w.login("ann")
    assert (await w.call("GET", f"{BASE}/users/ann")).json["status"]["lastSignIn"]
