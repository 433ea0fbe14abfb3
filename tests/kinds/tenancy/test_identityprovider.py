"""IdentityProvider: what may be named as one, and that it is the administrator's alone."""

from __future__ import annotations

from typing import Any

import pytest

from bessemer.core.ports import CONTROLLER
from bessemer.core.resource import Key, Metadata
from bessemer.kinds.tenancy.identityprovider import (
    KIND,
    IdentityProvider,
    IdentityProviderSpec,
    validate,
)
from bessemer.kinds.tenancy.session import LABEL_PROVIDER
from tests.api.world import World as ApiWorld
from tests.kinds.five import (
    Case,
    check_converges,
    check_converges_after_a_crash_at_every_call,
    check_converges_when_run_twice,
    check_deletes_cleanly,
    check_is_denied_to_another_tenant,
)
from tests.kinds.world import ISSUER, World, body

OIDC = {"issuer": ISSUER, "clientId": "bessemer"}
SESSION = {"user": "zoe", "purpose": "portal", "digest": "ab" * 32, "expiresAt": "2030-01-01T00:00:00Z"}
CASE = Case("IdentityProvider", "corp", {"oidc": OIDC}, namespace="")


async def test_converges() -> None:
    found = await check_converges(CASE)
    status = found["status"]
    assert (status["phase"], status["keys"], status["algorithms"]) == ("Active", 1, ["RS256", "ES256"])
    assert (status["deviceFlow"], status["singleLogout"], status["lastError"]) == (True, True, "")


async def test_converges_when_run_twice() -> None:
    await check_converges_when_run_twice(CASE)


async def test_converges_after_a_crash_at_every_driver_call() -> None:
    await check_converges_after_a_crash_at_every_call(CASE)


async def test_deletes_cleanly() -> None:
    await check_deletes_cleanly(CASE)


async def made(w: ApiWorld) -> str:
    stored = await w.store.objects.create(body("IdentityProvider", "corp", namespace="", spec=CASE.spec), CONTROLLER)
    return stored.key.name


async def test_is_denied_to_another_tenant() -> None:
    await check_is_denied_to_another_tenant(CASE, make=made)
    assert set(KIND.rights) == {"admin"}, "who vouches for people is the administrator's to say"


def provider(name: str = "corp", *, prefix: str = "", **oidc: Any) -> IdentityProvider:
    spec = IdentityProviderSpec.model_validate({"prefix": prefix, "oidc": {**OIDC, **oidc}})
    return IdentityProvider(metadata=Metadata(name=name), spec=spec)


def wrong(new: IdentityProvider, old: IdentityProvider | None = None) -> list[str]:
    return [cause.field for cause in validate(new, old)]


@pytest.mark.parametrize(
    "issuer",
    [
        "http://id.example.org",
        "ftp://id.example.org",
        "https://",
        "https://ada:pw@id.example.org",
        "https://id.example.org?x=1",
        "https://id.example.org#x",
        "https://id.example.org\\@evil.example",
        "https://id.example.org:99999",
        "https://id.example.org:0",
        "https://[::1",
        "https://id.example.org/ä",
        "id.example.org",
    ],
)
def test_an_issuer_is_asked_by_https_alone(issuer: str) -> None:
    assert wrong(provider(issuer=issuer)) == ["spec.oidc.issuer"]


def test_plain_http_is_for_loopback_by_explicit_permission() -> None:
    allowed = {"allowLoopbackHttp": True, "allowPrivateAddress": True}
    assert wrong(provider(issuer="http://127.0.0.1:8000", **allowed)) == []
    assert wrong(provider(issuer="http://127.0.0.1:8000")) == ["spec.oidc.issuer"]
    assert wrong(provider(issuer="http://127.0.0.1:8000", allowLoopbackHttp=True)) == ["spec.oidc.issuer"]
    assert wrong(provider(issuer="http://localhost:8000", **allowed)) == ["spec.oidc.issuer"]
    assert wrong(provider(issuer="http://10.0.0.1:8000", **allowed)) == ["spec.oidc.issuer"]


def test_names_that_are_the_platforms_stand_before_nothing() -> None:
    assert wrong(provider("system")) == ["metadata.name"]
    assert wrong(provider(prefix="system-x")) == ["spec.prefix"]
    assert wrong(provider("a.b")) == ["metadata.name"]


def test_what_people_are_known_by_stays() -> None:
    assert wrong(provider(prefix="other"), provider()) == ["spec.prefix"]
    assert wrong(provider(prefix="corp"), provider()) == [], "its name is its prefix"
    assert wrong(provider(issuer="https://id.example.com"), provider()) == ["spec.oidc.issuer"]


def test_scopes_and_how_it_vouches() -> None:
    assert wrong(provider(scopes=["profile"])) == ["spec.oidc.scopes"]
    assert wrong(provider(scopes=["openid", "openid"])) == ["spec.oidc.scopes[1]"]
    assert wrong(provider(caBundle="none")) == ["spec.oidc.caBundle"]
    bare = IdentityProvider(metadata=Metadata(name="corp"), spec=IdentityProviderSpec())
    assert wrong(bare) == ["spec.oidc"]


async def test_an_issuer_that_is_silent_is_told_in_words_and_asked_again() -> None:
    async with World() as world:
        world.issuer.down = True
        await world.create("IdentityProvider", "corp", CASE.spec, namespace="")
        told = await world.until_reason("IdentityProvider", "corp", "IssuerFailed", namespace="")
        assert told["message"] == f"{ISSUER} cannot be reached"
        world.issuer.down = False
        await world.until_ready("IdentityProvider", "corp", namespace="")


async def test_of_two_with_one_prefix_or_issuer_the_older_counts() -> None:
    async with World() as world:
        await world.create("IdentityProvider", "corp", CASE.spec, namespace="")
        world.clock.jump(5)
        await world.create("IdentityProvider", "other", CASE.spec, namespace="")
        third = {"prefix": "corp", "oidc": {**OIDC, "issuer": f"{ISSUER}/x"}}
        await world.create("IdentityProvider", "third", third, namespace="")
        await world.until_ready("IdentityProvider", "corp", namespace="")
        other = await world.until_reason("IdentityProvider", "other", "IssuerTaken", namespace="")
        assert "issuer" in other["message"]
        await world.until_reason("IdentityProvider", "third", "PrefixTaken", namespace="")


@pytest.mark.parametrize("how", ["disabled", "deleted"])
async def test_its_sessions_end_when_it_does(how: str) -> None:
    async with World() as world:
        await world.create("IdentityProvider", "corp", CASE.spec, namespace="")
        key = Key("IdentityProvider", "", "corp")
        uid = (await world.store.objects.get(key)).uid
        for name, whose in (("theirs", uid), ("anothers", "of-another")):
            spec = {**SESSION, "provider": "corp", "providerUid": whose}
            session = body("Session", name, namespace="", spec=spec)
            session["metadata"]["labels"] = {LABEL_PROVIDER: "corp"}
            await world.store.objects.create(session, CONTROLLER)
        if how == "disabled":
            await world.patch("IdentityProvider", "corp", namespace="", disabled=True)
        else:
            await world.store.objects.delete(key, CONTROLLER)
        await world.until_gone("Session", "theirs", namespace="")
        assert await world.object("Session", "anothers", namespace="") is not None
