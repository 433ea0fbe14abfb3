"""People of a directory: their password, their name here, their groups; and what is withdrawn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bessemer.api.limit import SignIns
from bessemer.core.clock import FakeClock, settle
from bessemer.core.errors import NotFound
from bessemer.core.resource import Key
from bessemer.drivers.ldap.fake import FakeDirectory, FakePerson, group_dn, person_dn
from bessemer.drivers.ldap.protocol import Directories
from bessemer.drivers.ldap.real import LibLdap
from bessemer.kinds.tenancy.identityprovider import LdapSpec, place_of
from tests.api.world import BASE, PASSWORD, PATIENCE_SECONDS, World, hashed, named, tenant, world
from tests.drivers.ldap import slapd

MERGE = "application/merge-patch+json"
SPEC = {"url": "ldaps://directory.example.org", "userBase": slapd.PEOPLE, "groupBase": slapd.GROUPS, "bindDn": slapd.US}
PLACE = place_of(LdapSpec.model_validate(SPEC))
WRONG = "wrong user or password"


def directory() -> FakeDirectory:
    people = [
        FakePerson("ada", PASSWORD, "id-ada", "Ada", "ada@example.org"),
        FakePerson("no name!", PASSWORD, "id-no"),
    ]
    groups = {"ops": [person_dn(PLACE, "ada")], "staff": [group_dn(PLACE, "ops")]}
    return FakeDirectory(people, groups, secret="ours")


@asynccontextmanager
async def site(found: Directories | None = None, secret: str = "ours", **spec: Any) -> AsyncIterator[World]:
    async with world(FakeClock(), directories=found or directory()) as w:
        await w.create(f"{BASE}/identityproviders", named("corp", ldap={**SPEC, **spec}))
        reply = await w.call("POST", f"{BASE}/identityproviders/corp/clientsecret", {"secret": secret})
        assert reply.code == 200, reply.body
        await settle()
        yield w


async def enter(w: World, user: str, password: str = PASSWORD) -> tuple[int, str, str]:
    """(code, token, message) of a sign-in."""
    reply = await w.call("POST", "/login", {"user": user, "password": password, "purpose": "portal"}, peer=None)
    return reply.code, reply.json.get("token", ""), reply.json.get("message", "")


async def groups(w: World, token: str) -> list[str]:
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    reply = await w.call("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", body, token=token)
    return [group for group in reply.json["status"]["userInfo"]["groups"] if group.startswith("corp:")]


async def test_somebody_of_the_directory_is_a_user_at_first_sight_with_groups() -> None:
    async with site() as w:
        code, token, _ = await enter(w, "corp.ada")
        assert code == 201
        assert (await w.call("GET", "/whoami", token=token)).json["name"] == "corp.ada"
        assert await groups(w, token) == ["corp:ops", "corp:staff"]
        user = (await w.call("GET", f"{BASE}/users/corp.ada")).json
        assert user["spec"]["identity"]["subject"] == "id-ada"
        assert (user["spec"]["displayName"], user["spec"]["email"]) == ("Ada", "ada@example.org")
        assert user["status"]["lastSignIn"]
        await w.create(f"{BASE}/tenants", tenant("nord", **{"corp.ada": "member"}))
        assert (await w.call("GET", "/whoami", token=token)).json["tenants"] == {"nord": "member"}


async def test_a_wrong_password_and_a_wrong_user_are_one_answer() -> None:
    async with site() as w:
        said = []
        for user, password in (("corp.ada", "wrong"), ("corp.nobody", PASSWORD), ("corp.", PASSWORD)):
            reply = await w.call("POST", "/login", {"user": user, "password": password}, peer=None)
            said.append((reply.code, reply.json["message"], sorted(reply.headers)))
        assert said == [(401, WRONG, said[0][2])] * 3
        with pytest.raises(NotFound):
            await w.store.objects.get(Key("User", "", "corp.nobody"))


async def test_a_password_of_ours_is_shown_to_no_directory() -> None:
    found = directory()
    async with site(found) as w:
        for user in ("ann", "nobody", "ann.corp"):
            await enter(w, user, "wrong wrong wrong")
        assert (await enter(w, "ann"))[0] == 201
        assert found.asked == []


async def test_a_directory_that_is_away_is_no_wrong_password() -> None:
    found = directory()
    async with site(found) as w:
        found.down = True
        code, _, message = await enter(w, "corp.ada")
        assert (code, "cannot be reached" in message) == (503, True)
        found.down = False
        assert (await enter(w, "corp.ada"))[0] == 201


async def test_our_own_name_that_is_not_taken_lets_nobody_in() -> None:
    async with site(secret="another") as w:
        assert (await enter(w, "corp.ada"))[0] == 503


async def test_a_name_belongs_to_one_person() -> None:
    """Who gets a name that was another's in the directory does not get what was theirs here; who is called otherwise
    than before is who they were."""
    found = directory()
    async with site(found) as w:
        assert (await enter(w, "corp.ada"))[0] == 201
        found.people = [FakePerson("ada", PASSWORD, "id-another"), FakePerson("countess", PASSWORD, "id-ada")]
        code, _, message = await enter(w, "corp.ada")
        assert (code, message) == (401, "the name corp.ada is somebody else's here")
        code, token, _ = await enter(w, "corp.countess")
        assert (code, (await w.call("GET", "/whoami", token=token)).json["name"]) == (201, "corp.ada")


async def test_what_cannot_be_a_name_is_none() -> None:
    async with site() as w:
        code, _, message = await enter(w, "corp.no name!")
        assert (code, "cannot be a name here" in message) == (401, True)


async def test_only_who_is_there_where_nobody_is_made() -> None:
    async with site(createUsers=False) as w:
        code, _, message = await enter(w, "corp.ada")
        assert (code, message) == (401, "an administrator has to let you in first")


async def test_sessions_end_with_their_provider() -> None:
    async with site() as w:
        _, token, _ = await enter(w, "corp.ada")
        spec = {"spec": {"disabled": True}}
        assert (await w.call("PATCH", f"{BASE}/identityproviders/corp", spec, media=MERGE)).code == 200
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (await w.call("GET", "/whoami", token=token)).code != 401:
                await asyncio.sleep(0.005)
        assert (await enter(w, "corp.ada"))[2] == WRONG


async def test_nothing_of_ours_lets_somebody_of_a_provider_in() -> None:
    """A password that they set, or one from before, would outlive the provider; so would a link."""
    async with site() as w:
        _, token, _ = await enter(w, "corp.ada")
        uid = (await w.call("GET", f"{BASE}/users/corp.ada")).json["metadata"]["uid"]
        said = {"password": "a password of my own"}
        assert (await w.call("POST", f"{BASE}/users/corp.ada/password", said, token=token)).code == 403
        assert (await w.call("POST", f"{BASE}/users/corp.ada/password", said)).code == 403
        assert (await w.call("POST", f"{BASE}/users/corp.ada/signinlink", {})).code == 403
        await w.store.sealed.put(uid, "password", hashed(PASSWORD))
        user = Key("User", "", "corp.ada")
        old = await w.api.state.sessions.make(user, uid, purpose="cli", seconds=60)
        link = await w.api.state.sessions.make(user, uid, purpose="link", seconds=60)
        assert (await w.call("DELETE", f"{BASE}/identityproviders/corp")).code == 200
        await settle()
        assert (await enter(w, "corp.ada"))[::2] == (401, WRONG)
        assert (await w.call("GET", "/whoami", token=old.token)).code == 401
        assert (await w.call("POST", "/login", {"link": link.token}, peer=None)).code == 401


@pytest.mark.parametrize("spellings", [("corp.ada", "corp.ADA", "corp. ada ", "corp.\u00e1d\u200ba")])
async def test_another_spelling_is_no_other_account(spellings: tuple[str, ...]) -> None:
    async with site() as w:
        w.api.state.sign_ins = SignIns(w.clock, burst=3, seconds=60)
        said = [(await enter(w, user, "wrong"))[0] for user in spellings]
        assert said == [401, 401, 401, 429]


async def test_no_session_is_longer_than_a_day_of_work() -> None:
    """Since groups are asked for at sign-in alone."""
    async with site() as w:
        reply = await w.call("POST", "/login", {"user": "corp.ada", "password": PASSWORD, "purpose": "cli"}, peer=None)
        token = reply.json["token"]
        assert (await w.call("GET", "/whoami", token=token)).code == 200
        w.clock.jump(12 * 3600 + 1)  # type: ignore[attr-defined]
        assert (await w.call("GET", "/whoami", token=token)).code == 401


async def test_where_local_users_are_off_one_directory_has_every_name() -> None:
    found = directory()
    async with site(found) as w:
        _, token, _ = await enter(w, "corp.ada")
        await w.call("PATCH", f"{BASE}/users/corp.ada", {"spec": {"admin": True}}, media=MERGE)
        await settle()
        await w.create(f"{BASE}/signinpolicies", named("sign-in", localUsers=False), token=token)
        await settle()
        assert (await enter(w, "ada"))[0] == 201
        assert (await enter(w, "ann"))[2] == WRONG


async def test_the_secret_of_ours_is_nowhere_to_be_read() -> None:
    async with site(secret="a very own secret") as w:
        assert b"a very own secret" not in (await w.call("GET", f"{BASE}/identityproviders/corp")).body


async def test_rights_upon_people_and_providers_give_no_way_in() -> None:
    """Who may write those could else be whoever they like: they do not say who signs in."""
    async with site() as w:
        rules = [{"kinds": ["User", "IdentityProvider", "SignInPolicy"], "verbs": ["*"]}]
        await w.create(f"{BASE}/roles", named("keeper", rules=rules))
        keeper = [{"kind": "User", "name": "ann"}]
        await w.create(f"{BASE}/rolebindings", named("ann-keeps", role="keeper", subjects=keeper))
        ann, identity = await w.login("ann"), {"issuer": "https://id.example.org", "subject": "ann"}

        async def code(method: str, path: str, body: Any = None) -> int:
            return (await w.call(method, f"{BASE}/{path}", body, token=ann, media=MERGE)).code

        assert await code("PATCH", "users/mia", {"spec": {"displayName": "Mia"}}) == 200
        assert await code("PATCH", "users/mia", {"spec": {"identity": identity}}) == 403
        assert await code("PATCH", "identityproviders/corp", {"spec": {"ldap": {"url": "ldaps://evil"}}}) == 403
        assert await code("DELETE", "identityproviders/corp") == 403
        for path, body in (
            ("users", named("own", identity=identity)),
            ("identityproviders", named("own", ldap=SPEC)),
            ("signinpolicies", named("sign-in", localUsers=True)),
        ):
            assert (await w.call("POST", f"{BASE}/{path}", body, token=ann)).code == 403
        user = {"spec": {"identity": identity}}
        assert (await w.call("PATCH", f"{BASE}/users/mia", user, media=MERGE)).code == 200


async def test_a_provider_that_is_pointed_elsewhere_forgets_its_secret() -> None:
    async with site() as w:
        path = f"{BASE}/identityproviders/corp"
        uid = (await w.call("GET", path)).json["metadata"]["uid"]

        async def kept(change: dict[str, Any], query: str = "") -> bool:
            reply = await w.call("PATCH", f"{path}{query}", {"spec": {"ldap": change}}, media=MERGE)
            assert reply.code == 200, reply.body
            return bool(await w.store.sealed.get(uid, "client-secret"))

        assert await kept({"timeoutSeconds": 7})
        assert await kept({"url": "ldaps://another.example.org"}, "?dryRun=All")
        assert not await kept({"url": "ldaps://another.example.org"})
        assert (await w.call("POST", f"{path}/clientsecret", {"secret": "ours"})).code == 200
        assert not await kept({"caBundle": "-----BEGIN CERTIFICATE-----"})


async def test_what_is_no_directory_is_said_by_field() -> None:
    async with world() as w:
        wrong = {
            "url": "https://directory.example.org",
            "userFilter": "(uid=ada)",
            "caBundle": "x",
        }
        for field, value in wrong.items():
            body = named("corp", ldap={**SPEC, field: value})
            reply = await w.call("POST", f"{BASE}/identityproviders", body)
            assert [cause["field"] for cause in reply.json["details"]["causes"]] == [f"spec.ldap.{field}"]
        both = named("corp", ldap=SPEC, oidc={"issuer": "https://id.example.org", "clientId": "b"})
        assert (await w.call("POST", f"{BASE}/identityproviders", both)).code == 422
        assert (await w.call("POST", f"{BASE}/identityproviders", named("corp"))).code == 422


@pytest.mark.real
async def test_a_real_directory_lets_people_in(tmp_path: Path) -> None:
    said = {"ops": [slapd.dn_of("ada")], "staff": [slapd.group_of("ops")]}
    with slapd.running(tmp_path, {"ada": PASSWORD}, said) as server:
        for url in (server.ldaps, server.ldap):
            async with site(LibLdap(), slapd.SECRET, url=url, caBundle=server.authorities) as w:
                code, token, message = await enter(w, "corp.ada")
                assert code == 201, message
                assert await groups(w, token) == ["corp:ops", "corp:staff"]
                assert (await enter(w, "corp.ada", "wrong wrong wrong"))[2] == WRONG
                assert (await enter(w, "corp.*"))[2] == WRONG
