"""A rolling update of real engines under clients that ask all the time: the controller is killed midway, and not one
request fails."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest

from bessemer.core.resource import Key
from bessemer.kinds.inference.endpoint.revisions import LABEL
from bessemer.main.parts import CONTROL
from tests.faults.plant import ENDPOINT, PROJECT, Body, Plant, eventually, is_ready, running

pytestmark = [pytest.mark.real, pytest.mark.long]

SPEC: dict[str, Any] = {
    "model": "smollm2-135m",
    "flavor": "serve-small",
    "replicas": 2,
    "slots": 2,
    "contextTokens": 512,
    "update": {"drainSeconds": 10},
}
CLIENTS = 3
PEOPLE = (Key("Tenant", "", "acme"), Key("Project", "", PROJECT))


@dataclass
class Crowd:
    """Clients that ask one after the other: what came of it."""

    plant: Plant
    came: Counter[str] = field(default_factory=Counter)
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def ask(self, number: int) -> None:
        while not self.stop.is_set():
            stream = (sum(self.came.values()) + number) % 2 == 0
            wishes = {"max_tokens": 24, "ignore_eos": True, "stream": stream}
            async with self.plant.asking(**wishes) as response:
                body = await response.text()
            whole = response.status == 200 and ("[DONE]" in body and "error" not in body if stream else "usage" in body)
            self.came["whole" if whole else f"{response.status}: {body[-300:]}"] += 1


def rolled(body: Body) -> bool:
    status = body.get("status", {})
    replicas = status.get("replicas", ())
    same = all(one.get("revision") == status.get("revision") for one in replicas)
    updated = status.get("updatedReplicas", SPEC["replicas"])
    return is_ready(body) and same and len(replicas) == updated == SPEC["replicas"]


async def test_engines_are_rolled_and_no_request_fails() -> None:
    with running() as plant:
        for key in PEOPLE:
            await plant.create(key, {})
        await plant.create(Key("ApiKey", PROJECT, "app"), {})
        await plant.create(ENDPOINT, SPEC)
        await plant.new_token()
        await plant.until(ENDPOINT, rolled, seconds=200)
        await eventually(plant.answered, seconds=60, what="the gateway answers")
        crowd = Crowd(plant)
        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(crowd.ask(number))
            await roll(plant)
            crowd.stop.set()
        assert set(crowd.came) == {"whole"}, crowd.came
        assert crowd.came["whole"] > 10
        for claim in await plant.bodies("Claim"):
            plant.claims[claim["metadata"]["name"]] = claim["metadata"]["uid"]
            assert claim["spec"]["intent"]["slots"] == 3
        await plant.delete(ENDPOINT)
        await eventually(lambda: none_left(plant), seconds=60, what="the claims are gone")


async def roll(plant: Plant) -> None:
    """Change what replicas are made of, and kill the controller when the first of the new ones is there."""
    first = (await plant.bodies("Claim"))[0]["metadata"]["labels"][LABEL]
    body = await plant.body(ENDPOINT)
    body["spec"]["slots"] = 3
    await plant.ask(lambda client: client.replace(body))
    await eventually(lambda: begun(plant, first), seconds=60, what="a replica of the new revision")
    old = await plant.kill(CONTROL)
    await plant.restarted(CONTROL, old)
    await plant.until(ENDPOINT, rolled, seconds=200)
    said = plant.run("rollout", "status", "smol", "-n", PROJECT)
    assert "all of 2 replicas are of revision" in said
    assert [line.split()[0] for line in plant.run("rollout", "history", "smol", "-n", PROJECT).splitlines()][1:] == [
        "1",
        "2",
    ]


async def begun(plant: Plant, first: str) -> bool:
    return any(one["metadata"]["labels"].get(LABEL) != first for one in await plant.bodies("Claim"))


async def none_left(plant: Plant) -> bool:
    return not await plant.bodies("Claim")
