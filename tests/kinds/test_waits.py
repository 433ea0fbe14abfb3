"""Who waits for a person says so when the phase's deadline has passed, and what the person can do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from bessemer.kinds import KINDS
from tests.kinds.world import PROJECT, World

BY_NAME = {kind.name: kind for kind in KINDS}

Wait = tuple[str, str, str, str]
"""Kind, name and phase of who waits, and words of what would help."""


async def project_without_tenant(world: World) -> Wait:
    await world.create("Project", "late--lab", {}, namespace="")
    return "Project", "late--lab", "Pending", "Create Tenant late"


async def project_with_something_in_it(world: World) -> Wait:
    await world.create("ApiKey", "app", {})
    await world.delete("Project", PROJECT, namespace="")
    return "Project", PROJECT, "Terminating", "Delete what is left"


async def tenant_with_a_project(world: World) -> Wait:
    await world.delete("Tenant", "acme", namespace="")
    return "Tenant", "acme", "Terminating", "Delete its projects"


async def plan_that_bills_somebody(world: World) -> Wait:
    await world.create("PricePlan", "standard", {}, namespace="")
    await world.until_ready("PricePlan", "standard", namespace="")
    await world.delete("PricePlan", "standard", namespace="")
    return "PricePlan", "standard", "Terminating", "another plan"


async def key_without_a_token(world: World) -> Wait:
    await world.create("ApiKey", "app", {})
    return "ApiKey", "app", "Pending", "Delete it"


async def host_that_answers_though_it_is_to_be_fenced(world: World) -> Wait:
    await world.patch("Host", "h1", namespace="", unschedulable=True)
    await world.until_reason("Host", "h1", "Cordoned", namespace="")
    await world.patch("Host", "h1", namespace="", fenced=True)
    return "Host", "h1", "Fencing", "take spec.fenced back"


async def host_that_nobody_joined(world: World) -> Wait:
    await world.create("Host", "h9", {}, namespace="")
    return "Host", "h9", "Enrolling", "join token"


WAITS: tuple[Callable[[World], Awaitable[Wait]], ...] = (
    project_without_tenant,
    project_with_something_in_it,
    tenant_with_a_project,
    plan_that_bills_somebody,
    key_without_a_token,
    host_that_answers_though_it_is_to_be_fenced,
    host_that_nobody_joined,
)


@pytest.mark.parametrize("begin", WAITS, ids=lambda begin: begin.__name__)
async def test_it_says_that_it_is_stuck_and_what_would_help(begin: Callable[[World], Awaitable[Wait]]) -> None:
    async with World() as world:
        kind, name, phase, words = await begin(world)
        began, deadline = world.clock.monotonic(), BY_NAME[kind].deadlines[phase]
        namespace = PROJECT if BY_NAME[kind].namespaced else ""

        async def stuck() -> str:
            status = (await world.object(kind, name, namespace=namespace) or {}).get("status", {})
            said = next((c for c in status.get("conditions", ()) if c["type"] == "Stuck"), {"status": "False"})
            assert said["status"] == "False" or status["phase"] == phase
            return str(said["message"]) if said["status"] == "True" else ""

        await world.until(stuck, seconds=deadline + 60)
        assert words in await stuck()
        assert world.clock.monotonic() - began >= deadline - 5
