"""Each part killed in each phase of a real guest and a real engine: the deep half of `test_real`."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bessemer.core.resource import Key
from bessemer.main.parts import AGENT, CONTROL, GATEWAY
from tests.faults.plant import ENDPOINT, INSTANCE, PROJECT, Body, Plant, eventually, is_ready, phase_of

pytestmark = [pytest.mark.real, pytest.mark.long]

SPECS = {
    "Instance": {"flavor": "micro", "image": "micro-guest"},
    "Endpoint": {"model": "smollm2-135m", "flavor": "serve-small", "slots": 1},
}
PHASES = ("created", "Preparing", "Starting", "Ready", "deleted")


@pytest.fixture(scope="module")
def plant() -> Iterator[Plant]:
    """Up and furnished once, so that image and model are there; empty between the tests."""
    made = Plant(Path(tempfile.mkdtemp(prefix="bsm-")))
    try:
        made.up()
        asyncio.run(made.furnish())
        asyncio.run(_clear(made, INSTANCE, ENDPOINT))
        yield made
    finally:
        made.down()
        left = made.residue()
        shutil.rmtree(made.state, ignore_errors=True)
        assert left == []


@pytest.fixture(scope="module", params=PHASES)
def phase(plant: Plant, request: pytest.FixtureRequest) -> str:
    """Each under a supervisor of its own: one that saw a part die again and again would wait longer each time."""
    plant.new_supervisor()
    return str(request.param)


@pytest.mark.parametrize("kind", sorted(SPECS))
@pytest.mark.parametrize("part", [CONTROL, GATEWAY, AGENT])
async def test_killed_in_any_phase_it_converges(plant: Plant, part: str, kind: str, phase: str) -> None:
    """A real part, killed with -9 in a phase of a real guest or engine: it converges, once, and leaves nothing."""
    key = Key(kind, PROJECT, f"{part}-{phase.lower()}")
    await plant.create(key, SPECS[kind])
    claim = Key("Claim", PROJECT, f"{kind.lower()}-{key.name}-0")
    if phase in ("Preparing", "Starting"):
        # Phases pass quickly: who comes too late for one kills in the next.
        await plant.until(claim, lambda body: phase_of(body) not in ("", "Pending", *_before(phase)))
    elif phase != "created":
        await plant.until(key, is_ready)
    if phase == "deleted":
        await plant.delete(key)
    old = await plant.kill(part)
    await plant.restarted(part, old, seconds=60)
    if phase != "deleted":
        await plant.until(key, is_ready, seconds=120)
        assert await _processes(plant) == 1, "one of it runs, and no second"
    await _clear(plant, key)


def _before(phase: str) -> tuple[str, ...]:
    return ("Preparing",) if phase == "Starting" else ()


async def _processes(plant: Plant) -> int:
    return len(await plant.drivers.qemu.running()) + len(await plant.drivers.engine.running())


async def _clear(plant: Plant, *keys: Key) -> None:
    """Delete, and see the machine empty and every claim gone."""

    async def gone() -> bool:
        drivers = plant.drivers
        left: list[Body] = await plant.bodies("Claim")
        return not (left or await drivers.qemu.uids() or await drivers.engine.running() or await drivers.disks.uids())

    for key in keys:
        await plant.delete(key)
    await eventually(gone, seconds=90, what="nothing is left of it")
