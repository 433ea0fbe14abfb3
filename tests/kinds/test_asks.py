"""What a plan asks for is what the control side asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from bessemer.core.asking import Gang, Request
from bessemer.core.ports import Objects
from bessemer.core.resource import Metadata
from bessemer.kinds import HOST_SIDES, KINDS
from bessemer.kinds.asks import ASKS
from bessemer.kinds.fleet.inventory import FleetFeed
from tests.kinds.world import PROJECT, World

SPECS: dict[str, dict[str, Any]] = {
    "Instance": {"flavor": "small", "image": "micro", "tolerations": [{"key": "x"}]},
    "Job": {"flavor": "small", "members": 2, "script": "true", "tolerations": [{"key": "x"}]},
    "Endpoint": {"flavor": "serve", "model": "smol", "replicas": 2, "tolerations": [{"key": "*"}]},
    "Vetting": {"flavor": "serve", "model": "smol", "tolerations": [{"key": "*"}]},
}


@dataclass(frozen=True)
class Reader:
    objects: Objects


def test_every_kind_that_may_be_planned_is_tried_here() -> None:
    assert SPECS.keys() == ASKS.keys()


def test_every_kind_that_holds_claims_may_be_planned() -> None:
    assert ASKS.keys() == HOST_SIDES.keys()


@pytest.mark.parametrize("kind", SPECS)
async def test_a_plan_asks_what_the_control_side_asks(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Request | Gang] = []

    def heard(name: str) -> None:
        decide = getattr(FleetFeed, name)

        def tapped(feed: FleetFeed, wants: Request | Gang, *more: Any) -> Any:
            asked.append(wants)
            return decide(feed, wants, *more)

        monkeypatch.setattr(FleetFeed, name, tapped)

    heard("decide")
    heard("decide_gang")
    async with World() as world:
        planned = await ASKS[kind].of(Reader(world.store.objects), _made(kind))
        await world.create(kind, "x", SPECS[kind])

        async def placed() -> bool:
            return len(asked) >= planned.replicas

        await world.until(placed)
    assert planned.hindrances == []
    assert asked[: planned.replicas] == [planned.wants] * planned.replicas


@pytest.mark.parametrize("kind", SPECS)
async def test_a_plan_is_hindered_as_the_object_is(kind: str) -> None:
    """The first of what is in the way is the reason that the object's own status gives."""
    large = {"cores": 2, "memory": "16Mi", "offered": False}
    walled = {"flavors": {"names": ["none"]}}
    async with World() as world:
        await world.create("Flavor", "old", large, namespace="")
        for name, flavor in (("a", "none"), ("b", "old"), ("c", "small")):
            if name == "c":
                await world.patch("Tenant", "acme", namespace="", **walled)
            planned = await ASKS[kind].of(Reader(world.store.objects), _made(kind, name, flavor=flavor))
            await world.create(kind, name, {**SPECS[kind], "flavor": flavor})

            said = await world.until_reason(kind, name, planned.hindrances[0].reason)
            assert planned.hindrances[0].message in said["message"]


def _made(kind: str, name: str = "x", **spec: Any) -> Any:
    (shown,) = (one for one in KINDS if one.name == kind)
    metadata = Metadata(name=name, namespace=PROJECT).dump()
    return shown.resource.model_validate({"metadata": metadata, "spec": {**SPECS[kind], **spec}})
