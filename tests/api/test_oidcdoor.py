"""Signing in and out by a provider, asked of the api itself: codes, secrets, and who may say that somebody left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson
import pytest
import pytest_asyncio

from bessemer.core.clock import settle
from bessemer.core.ports import CONTROLLER, Scope
from bessemer.core.resource import Key
from bessemer.drivers.oidc.verify import LOGOUT_EVENT
from tests.api.test_oidc import ADA, ISSUER, OTHER, Site, oidc, site
from tests.api.world import BASE, Reply, named

SECRET = "a secret that nobody sees again"
PATH = "/login/providers/corp"
NOT_IN = (401, "wrong user or password")


@pytest_asyncio.fixture
async def s() -> AsyncIterator[Site]:
    async with site() as made:
        reply = await made.w.call("POST", f"{BASE}/identityproviders/corp/clientsecret", {"secret": SECRET})
        assert reply.code == 200, reply.body
        made.issuer.clients = {"bessemer": SECRET}
        yield made


async def begun(s: Site) -> dict[str, Any]:
    reply = await s.w.call("POST", f"{PATH}/attempt", {}, peer=None)
    assert (reply.code, reply.headers["cache-control"]) == (201, "no-store")
    return dict(reply.json)


def agreed(s: Site, attempt: dict[str, Any], subject: str = "s-ada") -> str:
    query = {name: values[0] for name, values in parse_qs(urlsplit(attempt["url"]).query).items()}
    return s.issuer.agree(subject, query)


async def entered(s: Site, attempt: dict[str, Any], code: str, **change: str) -> Reply:
    said = {"code": code, "verifier": attempt["verifier"], "nonce": attempt["nonce"], **change}
    return await s.w.call("POST", PATH, said, peer=None)


async def signed_in(s: Site) -> str:
    attempt = await begun(s)
    reply = await entered(s, attempt, agreed(s, attempt))
    assert reply.code == 201, reply.body
    return str(reply.json["token"])


async def sessions(s: Site) -> list[dict[str, Any]]:
    page = await s.w.store.objects.list(Scope(kind="Session"))
    return [orjson.loads(stored.body)["spec"] for stored in page.items]


async def test_a_code_becomes_a_session_of_ours(s: Site) -> None:
    attempt = await begun(s)
    query = parse_qs(urlsplit(attempt["url"]).query)
    assert query["redirect_uri"] == ["https://127.0.0.1:7444/signin/callback"]
    assert (query["state"], query["nonce"]) == ([attempt["state"]], [attempt["nonce"]])
    assert attempt["verifier"] not in attempt["url"]
    token = await signed_in(s)
    assert token.startswith("bss_")
    assert (await s.whoami(token))[1]["name"] == "corp.ada"
    assert [g for g in await s.groups(token) if g.startswith("corp")] == ["corp:ops", "corp:staff"]
    spec = (await sessions(s))[0]
    assert (spec["provider"], spec["purpose"], spec["groups"]) == ("corp", "portal", ["corp:ops", "corp:staff"])
    assert (await s.w.call("GET", f"{BASE}/users/corp.ada")).json["status"]["lastSignIn"]


async def test_a_code_is_for_its_attempt_alone(s: Site) -> None:
    attempt, other = await begun(s), await begun(s)
    code = agreed(s, attempt)
    assert (await entered(s, other, code)).code == 401, "another verifier"
    code = agreed(s, attempt)
    assert (await entered(s, attempt, code, nonce=other["nonce"])).code == 401, "another nonce"
    code = agreed(s, attempt)
    assert (await entered(s, attempt, code)).code == 201
    assert (await entered(s, attempt, code)).code == 401, "a second time"
    assert len(await sessions(s)) == 1
    rows = [row for row in await s.w.store.audit.rows() if row.verb == "login"]
    assert [row.allowed for row in rows].count(True) == 1
    assert not any(code in row.reason for row in rows)


@pytest.mark.parametrize("body", [{}, {"code": "x"}, {"code": 1, "verifier": "v", "nonce": "n"}, [], "x"])
async def test_what_is_no_answer_is_malformed(s: Site, body: Any) -> None:
    assert (await s.w.call("POST", PATH, body, peer=None)).code == 400


async def test_attempts_are_bounded(s: Site) -> None:
    codes = [(await s.w.call("POST", f"{PATH}/attempt", {}, peer=None)).code for _ in range(210)]
    assert codes[0] == 201
    assert codes[-1] == 429


async def test_the_wrong_secret_signs_nobody_in_and_the_right_one_is_never_shown(s: Site) -> None:
    await signed_in(s)
    for path in ("identityproviders", "identityproviders/corp", "sessions", "users"):
        body = (await s.w.call("GET", f"{BASE}/{path}")).body
        assert SECRET.encode() not in body
        assert b"eyJ" not in body, "nor is an ID token"
    assert (await s.w.call("GET", f"{BASE}/identityproviders/corp/clientsecret")).code == 405
    shown = (await s.w.call("GET", "/login/providers", peer=None)).body
    assert SECRET.encode() not in shown
    for word in ("corp", "nobody"):
        path = f"{BASE}/identityproviders/{word}/clientsecret"
        assert (await s.w.call("POST", path, {"secret": "x"}, token=s.token())).code == 404
    assert (await s.w.call("POST", f"{BASE}/identityproviders/corp/clientsecret", {"secret": 1})).code == 400
    await s.w.call("POST", f"{BASE}/identityproviders/corp/clientsecret", {"secret": "another"})
    attempt = await begun(s)
    assert (await entered(s, attempt, agreed(s, attempt))).code == 401


async def test_a_silent_issuer_is_no_wrong_password(s: Site) -> None:
    attempt = await begun(s)
    code = agreed(s, attempt)
    s.issuer.down = True
    reply = await entered(s, attempt, code)
    assert (reply.code, reply.headers["retry-after"]) == (503, "10")
    assert ISSUER in reply.json["message"]


async def test_a_token_for_the_command_line_does_not_open_the_portal(s: Site) -> None:
    attempt = await begun(s)
    code = agreed(s, attempt)
    s.issuer.people["s-ada"] = {**ADA, "aud": "bessemer-cli"}
    assert (await entered(s, attempt, code)).code == 401


async def test_signing_out_is_everywhere(s: Site) -> None:
    first, second, bearer = await signed_in(s), await signed_in(s), s.token()
    assert (await s.whoami(bearer))[0] == 200
    reply = await s.w.call("DELETE", "/login", token=first)
    query = parse_qs(urlsplit(reply.json["endSession"]).query)
    assert (query["client_id"], len(query["id_token_hint"])) == (["bessemer"], 1)
    assert query["post_logout_redirect_uri"] == ["https://127.0.0.1:7444/signin"]
    for token in (first, second, bearer):
        assert (await s.whoami(token))[0] == 401
    assert await sessions(s) == []


async def test_who_signs_out_by_a_bearer_leaves_the_portal_too(s: Site) -> None:
    first, second, bearer = await signed_in(s), await signed_in(s), s.token()
    reply = await s.w.call("DELETE", "/login", token=bearer)
    assert reply.code == 200
    assert "id_token_hint" not in reply.json["endSession"], "a bearer has no session to hint at"
    for token in (first, second, bearer):
        assert (await s.whoami(token))[0] == 401
    assert await sessions(s) == []
    await s.w.clock.advance(2)  # type: ignore[attr-defined]
    assert (await s.whoami(s.token(jti="later")))[0] == 200, "who signs in again is in again"


async def test_a_provider_that_comes_back_under_its_name_knows_none_of_its_sessions(s: Site) -> None:
    token = await signed_in(s)
    key = Key("IdentityProvider", "", "corp")
    await s.patch("identityproviders/corp", disabled=True)
    await s.check_until(token, 401)
    await s.patch("identityproviders/corp", disabled=False)
    await s.check_until(token, 200)
    stored = await s.w.store.objects.get(key)
    body = orjson.loads(stored.body)
    body["metadata"]["finalizers"] = []
    await s.w.store.objects.replace(body, CONTROLLER)
    await s.w.store.objects.delete(key, CONTROLLER)
    await s.w.create(f"{BASE}/identityproviders", named("corp", oidc=oidc()))
    await settle()
    assert (await s.whoami(token))[0] == 401


def leaving(s: Site, **change: Any) -> str:
    now = int(s.w.clock.now())
    said = {"iss": ISSUER, "aud": "bessemer", "iat": now, "exp": now + 120, "jti": "j1", "events": {LOGOUT_EVENT: {}}}
    said |= {"sub": "s-ada", **change}
    return s.issuer.sign({k: v for k, v in said.items() if v is not None}, header={"typ": "logout+jwt"})


async def told(s: Site, token: str, provider: str = "corp") -> int:
    form = f"logout_token={token}".encode()
    kind = "application/x-www-form-urlencoded"
    return (await s.w.call("POST", f"/login/providers/{provider}/logout", form, peer=None, media=kind)).code


@pytest.mark.parametrize("by", ["sub", "sid", "both"])
async def test_an_issuer_says_that_somebody_left(s: Site, by: str) -> None:
    token, bearer = await signed_in(s), s.token()
    assert (await s.whoami(bearer))[0] == 200
    change = {"sub": {}, "sid": {"sub": None, "sid": "sid-s-ada"}, "both": {"sid": "sid-s-ada"}}[by]
    assert await told(s, leaving(s, **change)) == 200
    assert (await s.whoami(token))[0] == 401
    assert (await s.whoami(bearer))[0] == 401


async def test_nobody_else_can_say_so(s: Site) -> None:
    token = await signed_in(s)
    await s.w.create(f"{BASE}/identityproviders", named("partner", oidc=oidc(OTHER)))
    await settle()
    forged = s.other.sign({**_claims(leaving(s)), "iss": ISSUER})
    theirs = s.other.sign({**_claims(leaving(s)), "iss": OTHER})
    wrong = [
        forged,
        theirs,
        s.token(),
        leaving(s, nonce="n"),
        leaving(s, events={}),
        leaving(s, aud="x"),
        "",
        "x" * 70000,
    ]
    for one in wrong:
        assert await told(s, one) == 400
    assert await told(s, theirs, "partner") == 200, "of its own people it may"
    assert await told(s, leaving(s, sub="somebody-else")) == 200
    assert await told(s, leaving(s), "nobody") == 400
    assert await told(s, "&a=b" * 20) == 400
    assert (await s.whoami(token))[0] == 200


def _claims(token: str) -> dict[str, Any]:
    from bessemer.drivers.oidc.verify import read

    return dict(read(token).claims)


async def test_two_at_once_become_one_user(s: Site) -> None:
    """First sight, many times at once: one User, and everybody is let in."""
    tokens = [s.token(jti=str(number)) for number in range(8)]
    found = await asyncio.gather(*(s.whoami(token) for token in tokens))
    assert [code for code, _ in found] == [200] * 8
    page = await s.w.store.objects.list(Scope(kind="User", name="corp.ada"))
    assert len(page.items) == 1


async def test_a_disabled_user_signs_in_by_no_code(s: Site) -> None:
    await signed_in(s)
    await s.patch("users/corp.ada", disabled=True)
    attempt = await begun(s)
    assert (await entered(s, attempt, agreed(s, attempt))).code == 401


async def test_who_signs_in_by_an_issuer_has_no_password(s: Site) -> None:
    await signed_in(s)
    for password, told in (("", (400, "password must be text")), ("x" * 12, NOT_IN), ("password1234", NOT_IN)):
        reply = await s.w.call("POST", "/login", {"user": "corp.ada", "password": password}, peer=None)
        assert (reply.code, reply.json["message"]) == told
