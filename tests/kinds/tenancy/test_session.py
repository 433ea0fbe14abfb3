"""Session: worth nothing after its time, and gone soon after."""

from __future__ import annotations

from bessemer.core.clock import rfc3339
from bessemer.core.ports import CONTROLLER
from bessemer.core.resource import Metadata
from bessemer.kinds.tenancy.session import KIND, Session, SessionSpec, validate
from tests.api.world import World as ApiWorld
from tests.kinds.five import (
    Case,
    check_converges,
    check_converges_after_a_crash_at_every_call,
    check_converges_when_run_twice,
    check_deletes_cleanly,
    check_is_denied_to_another_tenant,
)
from tests.kinds.world import World, body

SPEC = {"user": "zoe", "purpose": "portal", "digest": "ab" * 32, "expiresAt": "2030-01-01T00:00:00Z"}
CASE = Case("Session", "s-1", SPEC, namespace="")


async def test_converges() -> None:
    found = await check_converges(CASE)
    assert found["status"]["phase"] == "Active"


async def test_converges_when_run_twice() -> None:
    await check_converges_when_run_twice(CASE)


async def test_converges_after_a_crash_at_every_driver_call() -> None:
    await check_converges_after_a_crash_at_every_call(CASE)


async def test_deletes_cleanly() -> None:
    await check_deletes_cleanly(CASE)


async def made(w: ApiWorld) -> str:
    """What the api makes in answer to a password."""
    stored = await w.store.objects.create(body("Session", "theirs", namespace="", spec=SPEC), CONTROLLER)
    return stored.key.name


async def test_is_denied_to_another_tenant() -> None:
    await check_is_denied_to_another_tenant(CASE, make=made)
    assert set(KIND.rights) == {"admin"}, "nobody else may know who is signed in"
    assert "create" not in KIND.rights["admin"], "the api makes sessions, in answer to a password or a link"


async def test_it_is_gone_when_its_time_is_over() -> None:
    async with World() as world:
        expires = rfc3339(world.clock.now() + 500)
        await world.create("Session", "short", {**SPEC, "expiresAt": expires}, namespace="")
        await world.until_ready("Session", "short", namespace="")
        began = world.clock.monotonic()
        await world.until_gone("Session", "short", namespace="")
        assert 495 < world.clock.monotonic() - began < 510


def test_a_session_never_becomes_somebody_elses() -> None:
    old = Session(metadata=Metadata(name="s"), spec=SessionSpec.model_validate(SPEC))
    new = old.model_copy(update={"spec": SessionSpec.model_validate({**SPEC, "user": "eve"})})
    assert [cause.field for cause in validate(new, old)] == ["spec"]
    odd = old.model_copy(update={"spec": SessionSpec.model_validate({**SPEC, "expiresAt": "soon"})})
    assert [cause.field for cause in validate(odd, None)] == ["spec.expiresAt"]
