"""ApplicationCredential: what people see of what the api goes by."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bessemer.core.clock import rfc3339
from bessemer.core.ports import CONTROLLER
from bessemer.core.resource import Metadata
from bessemer.kinds.tenancy.credential import ApplicationCredential, CredentialSpec, validate
from bessemer.kinds.tenancy.session import session_labels
from tests.api.world import BASE
from tests.api.world import World as ApiWorld
from tests.kinds.five import (
    THEIRS,
    Case,
    check_converges,
    check_converges_after_a_crash_at_every_call,
    check_converges_when_run_twice,
    check_deletes_cleanly,
    check_is_denied_to_another_tenant,
    nothing,
)
from tests.kinds.world import World, body

NEVER = "2030-01-01T00:00:00Z"
SPEC = {"user": "zoe", "userUid": "u", "expiresAt": NEVER}


async def zoe(world: World) -> None:
    await world.create("User", "zoe", {}, namespace="")


CASE = Case("ApplicationCredential", "ci", SPEC, reason="NoSecret", before=zoe)


async def test_converges() -> None:
    found = await check_converges(CASE)
    assert found["status"]["phase"] == "Pending"


async def test_converges_when_run_twice() -> None:
    await check_converges_when_run_twice(CASE)


async def test_converges_after_a_crash_at_every_driver_call() -> None:
    await check_converges_after_a_crash_at_every_call(CASE)


async def test_deletes_cleanly() -> None:
    await check_deletes_cleanly(replace(CASE, spec={"expiresAt": NEVER}, before=nothing, reason="OwnerBarred"))


async def made(w: ApiWorld) -> str:
    """Whoever may sign in makes one: it acts for them."""
    path = f"{BASE}/namespaces/{THEIRS}/applicationcredentials"
    body = {"metadata": {"name": "theirs"}, "spec": {"expiresAt": NEVER}}
    return str((await w.create(path, body, token=await w.login("mia")))["metadata"]["name"])


async def test_is_denied_to_another_tenant() -> None:
    await check_is_denied_to_another_tenant(replace(CASE, spec={"expiresAt": NEVER}), make=made)


async def give_secrets(world: World, *ends: float | None) -> None:
    """What ``POST …/token`` leaves in the status."""
    secrets = [{"digest": "ab" * 32, "created": NEVER} | ({"until": rfc3339(end)} if end else {}) for end in ends]
    said = {**body("ApplicationCredential", "ci", spec={}), "status": {"secrets": secrets}}
    await world.store.objects.replace(said, CONTROLLER, part="status")


async def test_a_secret_whose_time_is_over_is_let_go() -> None:
    async with World() as world:
        await CASE.settle(world)
        await give_secrets(world, None, world.clock.now() + 200)
        await world.until_ready("ApplicationCredential", "ci")

        async def one() -> bool:
            found = await world.object("ApplicationCredential", "ci")
            return found is not None and len(found["status"]["secrets"]) == 1

        assert not await one()
        await world.until(one, seconds=250)


async def test_it_says_that_its_owner_is_barred_and_is_back() -> None:
    async with World() as world:
        await zoe(world)
        labels = dict(session_labels("zoe"))
        said = body("ApplicationCredential", "ci", spec=SPEC)
        said["metadata"]["labels"] = labels
        await world.store.objects.create(said, CONTROLLER)
        await world.until_reason("ApplicationCredential", "ci", "NoSecret")
        await give_secrets(world, None)
        await world.until_ready("ApplicationCredential", "ci")
        await world.patch("User", "zoe", namespace="", disabled=True)
        await world.until_reason("ApplicationCredential", "ci", "OwnerBarred")
        await world.patch("User", "zoe", namespace="", disabled=False)
        await world.until_ready("ApplicationCredential", "ci", seconds=5)
        assert await phase(world) == "Active"


async def phase(world: World) -> str:
    found = await world.object("ApplicationCredential", "ci")
    return str(found["status"]["phase"]) if found else ""


async def test_it_expires_and_can_be_disabled() -> None:
    async with World() as world:
        await zoe(world)
        spec = {**SPEC, "expiresAt": rfc3339(world.clock.now() + 100)}
        await world.create("ApplicationCredential", "ci", spec)
        await world.until_reason("ApplicationCredential", "ci", "NoSecret")
        await give_secrets(world, None)
        await world.until_ready("ApplicationCredential", "ci", seconds=5)
        await world.until_reason("ApplicationCredential", "ci", "Expired")
        assert await phase(world) == "Expired"
        await world.patch("ApplicationCredential", "ci", disabled=True)
        await world.until_reason("ApplicationCredential", "ci", "Disabled")


def problems(old: CredentialSpec | None = None, **spec: Any) -> list[str]:
    def one(spec: CredentialSpec) -> ApplicationCredential:
        return ApplicationCredential(metadata=Metadata(name="ci"), spec=spec)

    new = one(CredentialSpec(**{"expires_at": NEVER, **spec}))
    return [cause.field for cause in validate(new, None if old is None else one(old))]


def test_what_is_wrong_is_said_by_field() -> None:
    assert problems(networks=["192.0.2.0/24", "2001:db8::/48", "192.0.2.7"]) == []
    wrong = {"networks": ["192.0.2.1/24", "here"], "expires_at": "soon", "verbs": ["get", "get"]}
    assert problems(**wrong) == ["spec.expiresAt", "spec.networks[0]", "spec.networks[1]", "spec.verbs[1]"]


@pytest.mark.parametrize(
    "bound", [{"roles": ["reader"]}, {"verbs": ["get"]}, {"kinds": ["Instance"]}, {"names": ["a"]}]
)
def test_what_may_make_credentials_is_bounded_by_nothing_that_it_could_take_back(bound: dict[str, Any]) -> None:
    assert problems(unrestricted=True, reach="owner", networks=["192.0.2.0/24"]) == []
    assert problems(unrestricted=True) == ["spec.reach"]
    assert problems(unrestricted=True, reach="owner", **bound) == [f"spec.{next(iter(bound))}"]


def test_whose_it_is_stays() -> None:
    old = CredentialSpec(user="zoe", user_uid="u", expires_at=NEVER)
    assert problems(old) == problems(old, user="zoe", user_uid="u") == []
    assert problems(old, user="ann", user_uid="u") == problems(old, user="zoe", user_uid="v") == ["spec.user"]
