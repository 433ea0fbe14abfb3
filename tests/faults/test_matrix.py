"""Each part killed in each phase of a real guest and a real engine: the deep half of `test_real`.

In which phase it was killed is read off the agent's own intent files, at once after the kill: an agent stores what it
comes to before it says so. A kill that came too late for its phase does not count, and is tried again.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from bessemer.agent.intentfile import decode
from bessemer.core.resource import Key
from bessemer.main.parts import AGENT, CONTROL, GATEWAY
from tests.faults.plant import ENDPOINT, INSTANCE, PROJECT, Body, Plant, eventually, is_ready, phase_of, running

pytestmark = [pytest.mark.real, pytest.mark.long]

SPECS: Mapping[str, Mapping[str, Any]] = {
    "Instance": {"flavor": "micro", "image": "micro-guest"},
    "Endpoint": {"model": "smollm2-135m", "flavor": "serve-small", "slots": 1},
}
STOPPED: Mapping[str, Mapping[str, Any]] = {"Instance": {"running": False}, "Endpoint": {"replicas": 0}}
AGAIN: Mapping[str, Mapping[str, Any]] = {"Instance": {"running": True}, "Endpoint": {"replicas": 1}}
PHASES: Mapping[str, tuple[str, ...]] = {
    "Instance": ("created", "Preparing", "Starting", "Running", "Stopping", "Stopped", "Lost", "deleted"),
    "Endpoint": ("created", "Preparing", "Starting", "Running", "Degraded", "Stopped", "Lost", "deleted"),
}
"""Those of the Claim that lies on the host; Degraded is an Endpoint of which one replica of two is Lost."""

TRIES = 4


@pytest.fixture(scope="module")
def plant() -> Iterator[Plant]:
    """Up and furnished once, so that image and model are there; empty between the tests."""
    with running() as made:
        asyncio.run(made.furnish())
        asyncio.run(_clear(made, INSTANCE, ENDPOINT))
        yield made


@pytest.fixture(scope="module", params=[(kind, phase) for kind in PHASES for phase in PHASES[kind]], ids="-".join)
def case(plant: Plant, request: pytest.FixtureRequest) -> tuple[str, str]:
    """Each under a supervisor of its own: one that saw a part die again and again would wait longer each time."""
    plant.new_supervisor()
    kind, phase = request.param
    return kind, phase


@pytest.mark.parametrize("part", [CONTROL, GATEWAY, AGENT])
async def test_killed_in_any_phase_it_converges(plant: Plant, part: str, case: tuple[str, str]) -> None:
    """A real part, killed with -9 in a phase of a real guest or engine: it converges, once, and leaves nothing."""
    (kind, phase), seen = case, []
    for attempt in range(TRIES):
        key = Key(kind, PROJECT, f"{part}-{phase.lower()}-{attempt}")
        old = await plant.part(part)
        assert old is not None
        await _bring(plant, key, phase=phase)
        os.kill(old.pid, signal.SIGKILL)
        seen.append(_phases(plant))
        await plant.restarted(part, old, seconds=60)
        await _converges(plant, key, phase=phase)
        await _clear(plant, key)
        if _hit(kind, phase, killed_in=seen[-1]):
            return
    raise AssertionError(f"{part} was never killed in {phase}, but in {seen}")


def _hit(kind: str, phase: str, *, killed_in: list[str]) -> bool:
    """Whether these phases of the claims, at the kill, are what was meant."""
    match phase:
        case "created":
            return "Running" not in killed_in
        case "deleted":
            return bool(killed_in) and "Gone" not in killed_in
        case "Degraded":
            return killed_in == ["Lost", "Running"]
        case "Stopped" if kind == "Endpoint":
            return killed_in == []
        case _:
            return killed_in == [phase]


async def _bring(plant: Plant, key: Key, *, phase: str) -> None:
    """Make it, and return at the moment when it is in the phase."""
    replicas = {"replicas": 2} if phase == "Degraded" else {}
    await plant.create(key, {**SPECS[key.kind], **replicas})
    if phase == "created":
        return
    if phase not in ("Preparing", "Starting"):
        await _whole(plant, key, processes=replicas.get("replicas", 1))
    if phase in ("Stopping", "Stopped"):
        await plant.ask(lambda client: client.patch(key, {"spec": STOPPED[key.kind]}))
    elif phase in ("Lost", "Degraded"):
        os.kill((await _processes(plant))[0], signal.SIGKILL)
    elif phase == "deleted":
        await plant.delete(key)
        return
    if phase == "Degraded" or (phase, key.kind) == ("Stopped", "Endpoint"):
        await plant.until(key, lambda body: phase_of(body) == phase)
    await _at_once(lambda: _hit(key.kind, phase, killed_in=_phases(plant)) or _passed(phase, _phases(plant)))


async def _converges(plant: Plant, key: Key, *, phase: str) -> None:
    """It comes to what was asked for, with no process too many; what was stopped comes up again when it is asked to."""
    if phase == "deleted":
        return
    if phase in ("Stopping", "Stopped"):
        await plant.until(key, lambda body: phase_of(body) == "Stopped")
        assert await _processes(plant) == []
        await plant.ask(lambda client: client.patch(key, {"spec": AGAIN[key.kind]}))
    await _whole(plant, key, processes=2 if phase == "Degraded" else 1)


async def _whole(plant: Plant, key: Key, *, processes: int) -> None:
    async def whole() -> bool:
        return len(await _processes(plant)) == processes and is_ready(await plant.body(key))

    await eventually(whole, seconds=120, what=f"{key} is ready, with {processes} processes and no more{plant.logs()}")


def _phases(plant: Plant) -> list[str]:
    """In what phases the claims of this host are, as its agent has stored it."""
    found = []
    for path in (plant.paths.agent / "claims").glob("*.intent"):
        try:
            found.append(decode(path.read_bytes()).phase)
        except FileNotFoundError:
            continue  # its claim was let go just now
    return sorted(found)


def _passed(phase: str, now: list[str]) -> bool:
    """Whether what comes quickly is over before it was seen."""
    later = {"Preparing": ("Starting", "Running"), "Starting": ("Running",), "Stopping": ("Stopped",)}
    return any(word in later.get(phase, ()) for word in now)


async def _at_once(holds: Callable[[], bool], *, seconds: float = 60.0) -> None:
    """Return within a millisecond or two of its being so."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came to it"
        await asyncio.sleep(0.001)


async def _processes(plant: Plant) -> list[int]:
    """The pids of all guests and engines."""
    drivers = plant.drivers
    return [one.pid for one in (*await drivers.qemu.running(), *await drivers.engine.running())]


async def _clear(plant: Plant, *keys: Key) -> None:
    """Delete, and see the machine empty and every claim gone."""

    async def gone() -> bool:
        drivers = plant.drivers
        left: list[Body] = await plant.bodies("Claim")
        effects = await drivers.qemu.uids() or await drivers.engine.running() or await drivers.disks.uids()
        return not (left or effects or _phases(plant))

    for key in keys:
        await plant.delete(key)
    await eventually(gone, seconds=90, what="nothing is left of it")
