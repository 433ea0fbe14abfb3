"""Local users switched off: by whom, for whom, and what opens all the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from bessemer.core.clock import FakeClock, settle
from bessemer.drivers.oidc.fake import FakeIssuer, FakeIssuers
from tests.api.world import ADMIN, BASE, PASSWORD, PATIENCE_SECONDS, World, named, world

MERGE = "application/merge-patch+json"
ISSUER = "https://id.example.org"

POLICIES = f"{BASE}/signinpolicies"
OFF = named("sign-in", localUsers=False)


class Site:
    """A world of local people that trusts one issuer, too."""

    def __init__(self, w: World, issuer: FakeIssuer) -> None:
        self.w = w
        self._issuer = issuer

    def token(self) -> str:
        return self._issuer.token("s-ada", audience="bessemer")

    async def whoami(self, token: str) -> tuple[int, Any]:
        reply = await self.w.call("GET", "/whoami", token=token)
        return reply.code, reply.json

    async def patch(self, path: str, **spec: Any) -> None:
        reply = await self.w.call("PATCH", f"{BASE}/{path}", {"spec": spec}, media=MERGE)
        assert reply.code == 200, reply.body
        await settle()


@asynccontextmanager
async def site() -> AsyncIterator[Site]:
    clock = FakeClock()
    issuer = FakeIssuer(ISSUER, clock, people={"s-ada": {"preferred_username": "ada"}})
    async with world(clock, issuers=FakeIssuers(issuer)) as w:
        await w.create(f"{BASE}/identityproviders", named("corp", oidc={"issuer": ISSUER, "clientId": "bessemer"}))
        await settle()
        yield Site(w, issuer)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await holds():
            await asyncio.sleep(0.005)


async def administrator(s: Site) -> str:
    """The bearer of an administrator who came in by an issuer."""
    token = s.token()
    await s.whoami(token)
    await s.patch("users/corp.ada", admin=True)
    await until(lambda: _admin(s, token))
    return token


async def _admin(s: Site, token: str) -> bool:
    return bool((await s.whoami(token))[1].get("admin"))


async def switched_off(s: Site) -> str:
    token = await administrator(s)
    await s.w.create(POLICIES, OFF, token=token)
    await until(lambda: _closed(s.w))
    return token


async def _closed(w: World) -> bool:
    return not await w.api.state.door.opens()


async def test_nobody_switches_them_off_who_has_no_other_way_in(w: World) -> None:
    await w.call("PATCH", f"{BASE}/users/ann", {"spec": {"admin": True}}, media=MERGE)
    for who in ({"peer": ADMIN}, {"token": await w.login("ann")}):
        reply = await w.call("POST", POLICIES, OFF, **who)  # type: ignore[arg-type]
        assert (reply.code, "sign in by an IdentityProvider as an administrator" in reply.json["message"]) == (
            403,
            True,
        )
    await w.create(POLICIES, named("sign-in"))
    patch = {"spec": {"localUsers": False}}
    assert (await w.call("PATCH", f"{POLICIES}/sign-in", patch, media=MERGE)).code == 403
    assert (await w.call("POST", POLICIES, named("another"))).code == 422


async def test_who_is_no_administrator_does_not_either() -> None:
    async with site() as s:
        token = s.token()
        assert (await s.whoami(token))[0] == 200
        assert (await s.w.call("POST", POLICIES, OFF, token=token)).code == 403


async def test_what_is_our_own_is_worth_nothing_from_that_moment() -> None:
    async with site() as s:
        w, ann = s.w, await s.w.login("ann")
        link = (await w.call("POST", f"{BASE}/users/mia/signinlink", {})).json["secret"]
        lab = f"{BASE}/namespaces/acme--lab"
        await w.create(f"{lab}/applicationcredentials", named("ci", expiresAt="2099-01-01T00:00:00Z"), token=ann)
        program = (await w.call("POST", f"{lab}/applicationcredentials/ci/token", {}, token=ann)).json["token"]
        assert (await w.call("GET", "/whoami", token=program)).code == 200
        async with w.watch(f"{lab}/instances?watch=true", token=ann) as events:
            theirs = await switched_off(s)
            while (event := await events.next()) is not None:
                assert event["type"] in ("BOOKMARK", "ERROR")
        for said in ({"user": "ann", "password": PASSWORD}, {"user": "nobody", "password": "x"}, {"link": link}):
            reply = await w.call("POST", "/login", said, peer=None)
            assert (reply.code, reply.json["message"].startswith("passwords and sign-in links")) == (403, True)
        for token in (ann, program):
            assert (await w.call("GET", "/whoami", token=token)).code == 401
        assert (await s.whoami(theirs))[0] == 200


async def test_the_certificate_opens_always_and_the_trail_says_so() -> None:
    async with site() as s:
        w = s.w
        assert (await w.call("GET", f"{BASE}/users")).code == 200
        await switched_off(s)
        before = len(await w.store.audit.rows())
        for _ in range(3):
            assert (await w.call("GET", f"{BASE}/users", peer=ADMIN)).code == 200
        await w.create(f"{BASE}/users", named("zoe"), peer=ADMIN)
        rows = [(row.writer, row.verb) for row in (await w.store.audit.rows())[before:]]
        assert rows == [("user:admin/break-glass", "break-glass"), ("user:admin/break-glass", "create")]
        assert (await w.call("DELETE", f"{POLICIES}/sign-in", peer=ADMIN)).code == 200
        await until(w.api.state.door.opens)
        assert (await w.login("mia")).startswith("bss_")


async def test_a_credential_of_whom_nobody_vouches_for_any_more_is_dead() -> None:
    async with site() as s:
        w, theirs = s.w, await administrator(s)
        lab = f"{BASE}/namespaces/acme--lab/applicationcredentials"
        spec = {"expiresAt": "2099-01-01T00:00:00Z", "reach": "owner"}
        await w.create(lab, named("ci", **spec), token=theirs)
        program = (await w.call("POST", f"{lab}/ci/token", {}, token=theirs)).json["token"]
        assert (await w.call("GET", "/whoami", token=program)).code == 200
        await s.patch("identityproviders/corp", disabled=True)
        await settle()

        async def dead() -> bool:
            return (await w.call("GET", "/whoami", token=program)).code == 401

        await until(dead)
