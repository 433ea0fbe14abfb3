"""User: a person, whose sessions end with the right to sign in."""

from __future__ import annotations

import pytest

from bessemer.core.resource import Metadata
from bessemer.kinds.tenancy.session import LABEL_USER, session_labels
from bessemer.kinds.tenancy.user import User, UserSpec, validate
from tests.kinds.five import (
    Case,
    check_converges,
    check_converges_after_a_crash_at_every_call,
    check_converges_when_run_twice,
    check_deletes_cleanly,
    check_is_denied_to_another_tenant,
)
from tests.kinds.world import USER, World, body

CASE = Case("User", "zoe", {"email": "zoe@example.org"}, namespace="")
SESSION = {"purpose": "cli", "digest": "ab" * 32, "expiresAt": "2030-01-01T00:00:00Z"}


async def test_converges() -> None:
    found = await check_converges(CASE)
    assert found["status"]["phase"] == "Active"


async def test_converges_when_run_twice() -> None:
    await check_converges_when_run_twice(CASE)


async def test_converges_after_a_crash_at_every_driver_call() -> None:
    await check_converges_after_a_crash_at_every_call(CASE)


async def test_deletes_cleanly() -> None:
    await check_deletes_cleanly(CASE)


async def test_is_denied_to_another_tenant() -> None:
    await check_is_denied_to_another_tenant(CASE)


@pytest.mark.parametrize("how", ["disabled", "deleted"])
async def test_sessions_end_with_the_right_to_sign_in(how: str) -> None:
    async with World() as world:
        for user in ("zoe", "max"):
            await world.create("User", user, {}, namespace="")
            session = body("Session", f"s-{user}", namespace="", spec={**SESSION, "user": user})
            session["metadata"]["labels"] = dict(session_labels(user))
            await world.store.objects.create(session, USER)
            await world.until_ready("User", user, namespace="")
        if how == "disabled":
            await world.patch("User", "zoe", namespace="", disabled=True)
        else:
            await world.delete("User", "zoe", namespace="")
        await world.until_gone("Session", "s-zoe", namespace="")
        assert await world.object("Session", "s-max", namespace="") is not None


async def test_who_is_deleted_leaves_every_tenant_before_the_name_is_free() -> None:
    async with World() as world:
        people = [{"user": "zoe", "role": "tenant-admin"}, {"user": "max", "role": "reader"}]
        for name in ("globex", "initech"):
            await world.create("Tenant", name, {"members": people}, namespace="")
        for name in ("zoe", "max"):
            await world.create("User", name, {}, namespace="")
            await world.until_ready("User", name, namespace="")
        await world.delete("User", "zoe", namespace="")
        await world.until_gone("User", "zoe", namespace="")
        for name in ("globex", "initech"):
            tenant = await world.object("Tenant", name, namespace="")
            assert tenant is not None
            assert tenant["spec"]["members"] == [{"user": "max", "role": "reader"}]


def test_a_session_is_found_by_any_users_name() -> None:
    names = ["zoe", "z" * 63, "z" * 64, "z" * 253]
    values = [session_labels(name)[LABEL_USER] for name in names]
    assert len(set(values)) == len(names)
    assert max(map(len, values)) == 63


async def test_a_disabled_user_is_not_ready() -> None:
    async with World() as world:
        await world.create("User", "zoe", {"disabled": True}, namespace="")
        said = await world.until_reason("User", "zoe", "Disabled", namespace="")
        assert said["status"] == "False"


def user(name: str = "zoe", email: str = "") -> User:
    return User(metadata=Metadata(name=name), spec=UserSpec(email=email))


def test_what_is_wrong_is_said_by_field() -> None:
    assert [c.field for c in validate(user("system-x"), None)] == ["metadata.name"]
    for email in ("zoe", "@x", "zoe@", "z oe@x.org"):
        assert [c.field for c in validate(user(email=email), None)] == ["spec.email"], email
    assert validate(user(email="zoe@example.org"), None) == []


async def test_a_user_who_goes_leaves_every_binding() -> None:
    """Else the next of that name would hold what this one held."""
    spec = {"role": "reader", "subjects": [{"kind": "User", "name": name} for name in ("zoe", "rob")]}
    async with World() as world:
        await world.create("User", "zoe", {}, namespace="")
        await world.create("RoleBinding", "some", spec, namespace="")
        await world.create("RoleBinding", "group", {"role": "reader", "subjects": [GROUP]}, namespace="")
        await world.delete("User", "zoe", namespace="")
        await world.until_gone("User", "zoe", namespace="")
        left = [body["spec"]["subjects"] for body in await world.bodies("RoleBinding")]
        assert left == [[GROUP], [{"kind": "User", "name": "rob"}]]


GROUP = {"kind": "Group", "name": "zoe"}
