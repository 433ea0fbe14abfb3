"""Bearers of outside issuers: whose they are, what is refused, and what is withdrawn at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
import pytest_asyncio

from bessemer.core.clock import FakeClock, settle
from bessemer.core.ports import CONTROLLER
from bessemer.core.resource import Key
from bessemer.drivers.oidc.fake import FakeIssuer, FakeIssuers
from tests.api.world import BASE, PATIENCE_SECONDS, World, named, tenant, world

ISSUER, OTHER = "https://id.example.org", "https://id.example.com"
MERGE = "application/merge-patch+json"
ADA = {"preferred_username": "ada", "groups": ["staff", "ops"], "name": "Ada", "email": "ada@example.org"}


class Site:
    """A world that trusts one issuer, under the name corp."""

    def __init__(self, w: World, issuer: FakeIssuer, other: FakeIssuer) -> None:
        self.w = w
        self.issuer = issuer
        self.other = other

    def token(self, subject: str = "s-ada", **options: Any) -> str:
        return self.issuer.token(subject, audience=options.pop("audience", "bessemer"), **options)

    async def whoami(self, token: str) -> tuple[int, Any]:
        reply = await self.w.call("GET", "/whoami", token=token)
        return reply.code, reply.json

    async def groups(self, token: str) -> list[str]:
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        reply = await self.w.call("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", body, token=token)
        assert reply.code == 201, reply.body
        return list(reply.json["status"]["userInfo"].get("groups", []))

    async def patch(self, path: str, **spec: Any) -> None:
        reply = await self.w.call("PATCH", f"{BASE}/{path}", {"spec": spec}, media=MERGE)
        assert reply.code == 200, reply.body
        await settle()

    async def check_until(self, token: str, code: int) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (await self.whoami(token))[0] != code:
                await asyncio.sleep(0.005)


def oidc(issuer: str = ISSUER, **more: Any) -> dict[str, Any]:
    return {"issuer": issuer, "clientId": "bessemer", "cliClientId": "bessemer-cli", **more}


@asynccontextmanager
async def site(**spec: Any) -> AsyncIterator[Site]:
    clock = FakeClock()
    issuer = FakeIssuer(ISSUER, clock, people={"s-ada": ADA})
    other = FakeIssuer(OTHER, clock, people={"s-eve": {"preferred_username": "ada"}})
    async with world(clock, people=False, issuers=FakeIssuers(issuer, other)) as w:
        made = Site(w, issuer, other)
        await w.create(f"{BASE}/identityproviders", named("corp", oidc=oidc(**spec)))
        await settle()
        yield made


@pytest_asyncio.fixture
async def s() -> AsyncIterator[Site]:
    async with site() as made:
        yield made


async def test_a_bearer_is_somebody_and_becomes_a_user_at_first_sight(s: Site) -> None:
    code, me = await s.whoami(s.token())
    assert (code, me["name"], me["admin"], me["tenants"]) == (200, "corp.ada", False, {})
    user = (await s.w.call("GET", f"{BASE}/users/corp.ada")).json
    assert user["spec"]["identity"] == {"issuer": ISSUER, "subject": "s-ada"}
    assert (user["spec"]["displayName"], user["spec"]["email"]) == ("Ada", "ada@example.org")
    assert [g for g in await s.groups(s.token()) if g.startswith("corp")] == ["corp:ops", "corp:staff"]


async def test_membership_is_by_name(s: Site) -> None:
    await s.w.create(f"{BASE}/tenants", tenant("nord", **{"corp.ada": "member"}))
    assert (await s.whoami(s.token()))[1]["tenants"] == {"nord": "member"}


async def test_a_known_bearer_asks_neither_the_store_nor_the_issuer(s: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    token = s.token()
    await s.whoami(token)
    asked = s.issuer.asked
    s.issuer.down = True

    async def nothing(*_: Any, **__: Any) -> Any:
        raise AssertionError("the store was asked")

    for verb in ("get", "list", "create"):
        monkeypatch.setattr(s.w.store.objects, verb, nothing)
    assert (await s.whoami(token))[0] == 200
    assert s.issuer.asked == asked


async def test_a_token_ends_when_it_says_and_a_little_for_clocks_that_differ(s: Site) -> None:
    token = s.token()
    assert (await s.whoami(token))[0] == 200
    await s.w.clock.advance(600 + 59)  # type: ignore[attr-defined]
    assert (await s.whoami(token))[0] == 200
    await s.w.clock.advance(2)  # type: ignore[attr-defined]
    assert (await s.whoami(token))[0] == 401


async def test_a_disabled_user_is_refused_from_that_moment(s: Site) -> None:
    token = s.token()
    await s.whoami(token)
    await s.patch("users/corp.ada", disabled=True)
    await s.check_until(token, 401)
    await s.patch("users/corp.ada", disabled=False)
    await s.check_until(token, 200)


@pytest.mark.parametrize("how", ["disabled", "deleted", "other audience"])
async def test_a_provider_that_is_withdrawn_vouches_for_nobody(s: Site, how: str) -> None:
    token = s.token()
    await s.whoami(token)
    if how == "disabled":
        await s.patch("identityproviders/corp", disabled=True)
    elif how == "deleted":
        assert (await s.w.call("DELETE", f"{BASE}/identityproviders/corp")).code == 200
    else:
        await s.patch("identityproviders/corp", oidc={"clientId": "another"})
    await s.check_until(token, 401)


async def test_a_stream_ends_with_what_vouched_for_its_reader(s: Site) -> None:
    await s.w.create(f"{BASE}/tenants", tenant("nord", **{"corp.ada": "reader"}))
    await s.w.create(f"{BASE}/projects", named("nord--lab"))
    async with s.w.watch(f"{BASE}/namespaces/nord--lab/instances?watch=true", token=s.token()) as events:
        await settle()
        await s.patch("identityproviders/corp", disabled=True)
        while (event := await events.next()) is not None:
            assert event["type"] == "ERROR" or event["type"] == "BOOKMARK"


async def test_a_name_is_never_taken_over(s: Site) -> None:
    assert (await s.whoami(s.token()))[0] == 200
    again = s.issuer.token("s-new", audience="bessemer", preferred_username="ada")
    code, said = await s.whoami(again)
    assert (code, said["message"]) == (401, "the name corp.ada is somebody else's here"), "a subject made anew"
    await s.w.create(f"{BASE}/users", named("corp.bob"))
    await settle()
    bob = s.issuer.token("s-bob", audience="bessemer", preferred_username="bob")
    assert (await s.whoami(bob))[0] == 401, "a local user of that name"
    await s.w.create(f"{BASE}/identityproviders", named("corp2", prefix="corp", oidc=oidc(OTHER)))
    await settle()
    assert (await s.whoami(s.other.token("s-eve", audience="bessemer")))[0] == 401, "another issuer under the prefix"
    reply = await s.w.call("PATCH", f"{BASE}/users/corp.ada", {"spec": {"identity": {"subject": "s-new"}}}, media=MERGE)
    assert reply.code == 422, "nor does an administrator hand it on"


async def test_two_issuers_have_people_of_one_name_each(s: Site) -> None:
    await s.w.create(f"{BASE}/identityproviders", named("partner", oidc=oidc(OTHER)))
    await settle()
    assert (await s.whoami(s.token()))[1]["name"] == "corp.ada"
    assert (await s.whoami(s.other.token("s-eve", audience="bessemer")))[1]["name"] == "partner.ada"
    forged = s.other.token("s-ada", audience="bessemer", iss=ISSUER, preferred_username="ada")
    assert (await s.whoami(forged))[0] == 401, "the wrong issuer's key"


CLAIMS: list[tuple[Any, str]] = [
    ("ada", "corp.ada"),
    ("ada.l", "corp.ada.l"),
    ("ada@example.org", "corp.ada--at--example.org"),
    ("a_b", "corp.a--us--b"),
    ("a+b", "corp.a--plus--b"),
    ("Ada", ""),
    ("a--at--b", ""),
    ("a..b", ""),
    ("-ada", ""),
    ("ada@", ""),
    ("../ada", ""),
    ("ada/x", ""),
    ("ada\u202e", ""),
    ("аda", ""),
    ("a" * 129, ""),
    ("", ""),
    (["ada"], ""),
    (None, ""),
]


async def test_no_two_claims_have_one_name(s: Site) -> None:
    for number, (claim, name) in enumerate(CLAIMS):
        code, said = await s.whoami(s.token(f"s-{number}", preferred_username=claim))
        assert (code, said.get("name", "")) == ((200, name) if name else (401, "")), claim
    names = [name for _, name in CLAIMS if name]
    assert len(set(names)) == len(names)


async def test_rules_of_the_provider() -> None:
    required = [{"claim": "org", "value": "acme"}]
    async with site(requiredClaims=required, usernameClaim="email", foldCase=True, createUsers=False) as s:
        given = {"email": "Ada@Example.org", "email_verified": True, "org": ["acme", "x"]}
        code, said = await s.whoami(s.token(**given))
        assert (code, said["message"]) == (401, "an administrator has to let you in first")
        user = named("corp.ada--at--example.org", identity={"issuer": ISSUER, "subject": "s-ada"})
        await s.w.create(f"{BASE}/users", user)
        await settle()
        assert (await s.whoami(s.token(**given)))[0] == 200
        assert (await s.whoami(s.token(**{**given, "org": "other"})))[0] == 401
        assert (await s.whoami(s.token(**{**given, "org": None})))[0] == 401
        assert (await s.whoami(s.token(**{**given, "email_verified": False})))[0] == 401


async def test_groups_are_words_of_the_issuer_under_its_prefix(s: Site) -> None:
    for odd in ([1], ["x" * 300], [f"g{n}" for n in range(300)], {"a": "b"}, ["a\nb"], [""]):
        assert (await s.whoami(s.token(groups=odd)))[0] == 401
    assert "corp:system:masters" in await s.groups(s.token(groups="system:masters"))
    assert not (await s.whoami(s.token(groups="system:masters")))[1]["admin"]


async def test_an_administrator_may_be_one_by_an_issuer(s: Site) -> None:
    token = s.token()
    await s.whoami(token)
    await s.patch("users/corp.ada", admin=True)
    await settle()
    assert (await s.whoami(token))[1]["admin"]


async def test_keys_rotate(s: Site) -> None:
    clock: Any = s.w.clock
    old = s.token()
    assert (await s.whoami(old))[0] == 200
    asked = s.issuer.asked
    await clock.advance(20)
    s.issuer.rotate()
    assert (await s.whoami(s.token()))[0] == 200, "an unknown key leads to one more reading"
    assert s.issuer.asked == asked + 1
    for number in range(20):
        assert (await s.whoami(s.token(header={"kid": f"made-up-{number}"})))[0] == 401
    assert s.issuer.asked == asked + 1, "a flood of made-up keys asks nobody"
    assert (await s.whoami(old))[0] == 200, "a key that is still listed counts"
    await clock.advance(20)
    s.issuer.rotate(keep=False)
    assert (await s.whoami(s.token()))[0] == 200
    assert (await s.whoami(old))[0] == 401, "a key that is gone does not, nor what was verified by it"


async def test_an_issuer_that_is_silent_hurts_nobody_whose_key_is_known(s: Site) -> None:
    clock: Any = s.w.clock
    assert (await s.whoami(s.token()))[0] == 200
    s.issuer.down = True
    await clock.advance(7200)
    assert (await s.whoami(s.token()))[0] == 200
    await clock.advance(86_400)
    assert (await s.whoami(s.token()))[0] == 401, "a day later nobody knows what it would say"
    s.issuer.down = False
    await clock.advance(3600)
    assert (await s.whoami(s.token()))[0] == 200


async def test_a_bearer_that_signed_out_is_worth_nothing_and_a_new_one_is(s: Site) -> None:
    clock: Any = s.w.clock
    token = s.token()
    assert (await s.whoami(token))[0] == 200
    reply = await s.w.call("DELETE", "/login", token=token)
    assert reply.code == 200
    assert reply.json["endSession"].startswith(f"{ISSUER}/end?client_id=bessemer&post_logout_redirect_uri=")
    assert (await s.whoami(token))[0] == 401
    await clock.advance(1)
    assert (await s.whoami(s.token()))[0] == 200


async def test_what_a_person_is_told_never_names_a_key_or_a_claim_of_another(s: Site) -> None:
    secret = s.token() + "x"
    code, said = await s.whoami(secret)
    assert code == 401
    assert secret not in orjson.dumps(said).decode()
    rows = await s.w.store.audit.rows()
    assert not any(secret in f"{row.reason}{row.key}" for row in rows)


async def test_a_user_who_is_being_deleted_may_not_come_in(s: Site) -> None:
    token = s.token()
    await s.whoami(token)
    assert (await s.w.call("DELETE", f"{BASE}/users/corp.ada")).code == 200
    await s.check_until(token, 401)


async def test_a_provider_of_another_release_vouches_for_nobody_and_stops_nothing(s: Site) -> None:
    token = s.token()
    assert (await s.whoami(token))[0] == 200
    stored = await s.w.store.objects.get(Key("IdentityProvider", "", "corp"))
    body = orjson.loads(stored.body)
    body["spec"]["riddle"] = {}
    await s.w.store.objects.replace(body, CONTROLLER)
    await s.check_until(token, 401)
    del body["spec"]["riddle"]
    body["metadata"]["resourceVersion"] = ""
    await s.w.store.objects.replace(body, CONTROLLER)
    await s.check_until(token, 200)
