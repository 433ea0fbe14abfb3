"""ApiKey: what people see of what the gateway goes by."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from bessemer.core.clock import rfc3339
from bessemer.core.ports import CONTROLLER
from bessemer.core.resource import Metadata
from bessemer.kinds.tenancy.apikey import KIND, ApiKey, ApiKeySpec, validate
from tests.kinds.five import (
    Case,
    check_converges,
    check_converges_after_a_crash_at_every_call,
    check_converges_when_run_twice,
    check_deletes_cleanly,
    check_is_denied_to_another_tenant,
)
from tests.kinds.world import World, body

CASE = Case("ApiKey", "app", {"endpoints": ["chat"]}, reason="NoToken")


async def test_converges() -> None:
    found = await check_converges(CASE)
    assert found["status"]["phase"] == "Pending"


async def test_converges_when_run_twice() -> None:
    await check_converges_when_run_twice(CASE)


async def test_converges_after_a_crash_at_every_driver_call() -> None:
    await check_converges_after_a_crash_at_every_call(CASE)


async def test_deletes_cleanly() -> None:
    await check_deletes_cleanly(CASE)


async def test_is_denied_to_another_tenant() -> None:
    await check_is_denied_to_another_tenant(CASE)


async def give_token(world: World, name: str) -> None:
    """What ``POST …/token`` leaves in the status."""
    said = {**body("ApiKey", name, spec={}), "status": {"digest": "ab" * 32, "hint": "bsk_ab"}}
    await world.store.objects.replace(said, CONTROLLER, part="status")


async def test_with_a_token_it_is_good_until_it_expires() -> None:
    async with World() as world:
        await world.create("ApiKey", "app", {"expiresAt": rfc3339(world.clock.now() + 100)})
        await world.until_reason("ApiKey", "app", "NoToken")
        await give_token(world, "app")
        await world.until_ready("ApiKey", "app", seconds=5)
        await world.until_reason("ApiKey", "app", "Expired")
        assert 95 < world.clock.monotonic() < 120
        found = await world.object("ApiKey", "app")
        assert found is not None
        assert found["status"]["digest"] == "ab" * 32


async def test_disabling_says_so() -> None:
    async with World() as world:
        await world.create("ApiKey", "app", {})
        await world.until_reason("ApiKey", "app", "NoToken")
        await give_token(world, "app")
        await world.until_ready("ApiKey", "app")
        await world.patch("ApiKey", "app", disabled=True)
        said = await world.until_reason("ApiKey", "app", "Disabled")
        assert said["status"] == "False"


def test_the_gateway_reads_keys_and_writes_none() -> None:
    assert set(KIND.rights["gateway"]) == {"get", "list", "watch"}


def test_what_is_wrong_is_said_by_field() -> None:
    key = ApiKey(metadata=Metadata(name="k"), spec=ApiKeySpec(endpoints=["a", "b", "a"], expires_at="never"))
    assert [cause.field for cause in validate(key, None)] == ["spec.endpoints[2]", "spec.expiresAt"]


@pytest.mark.parametrize(
    "opened", ["chat:", ":poems", "chat:poems:prose", "chat:Poems", "chat/poems", "a--b/chat:x", "chat: x"]
)
def test_what_it_opens_is_an_endpoint_or_one_adapter(opened: str) -> None:
    assert ApiKeySpec(endpoints=["chat", "chat:poems", "a.b:c.d"]).endpoints == ["chat", "chat:poems", "a.b:c.d"]
    with pytest.raises(ValidationError):
        ApiKeySpec(endpoints=[opened])
