"""What a plan asks for is what the control side asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from bessemer.core.asking import Decision, Refusal, Request
from bessemer.core.ports import Objects
from bessemer.core.resource import Metadata
from bessemer.kinds import KINDS
from bessemer.kinds.asks import ASKS
from bessemer.kinds.fleet.inventory import FleetFeed
from tests.kinds.world import PROJECT, World

SPECS: dict[str, dict[str, Any]] = {
    "Instance": {"flavor": "small", "image": "micro", "tolerations": [{"key": "x"}]},
    "Endpoint": {"flavor": "serve", "model": "smol", "replicas": 2, "tolerations": [{"key": "*"}]},
}


@dataclass(frozen=True)
class Reader:
    objects: Objects


def test_every_kind_that_may_be_planned_is_tried_here() -> None:
    assert SPECS.keys() == ASKS.keys()


@pytest.mark.parametrize("kind", SPECS)
async def test_a_plan_asks_what_the_control_side_asks(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Request] = []
    decide = FleetFeed.decide

    def heard(feed: FleetFeed, request: Request, *more: Any) -> Decision | Refusal:
        asked.append(request)
        return decide(feed, request, *more)

    monkeypatch.setattr(FleetFeed, "decide", heard)
    (shown,) = (one for one in KINDS if one.name == kind)
    async with World() as world:
        made = shown.resource.model_validate(
            {"metadata": Metadata(name="x", namespace=PROJECT).dump(), "spec": SPECS[kind]}
        )
        planned = await ASKS[kind](Reader(world.store.objects), made)
        await world.create(kind, "x", SPECS[kind])
        await world.until_ready(kind, "x")
    assert planned.hindrances == []
    assert asked[: planned.replicas] == [planned.request] * planned.replicas
