"""What bad luck does to real parts: one factory, broken in one way after the other, and whole again each time.

The tests share the factory and run in the order in which they stand; each leaves it converged.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bessemer.core.errors import BessemerError
from bessemer.core.resource import Key
from bessemer.main.parts import AGENT, CONTROL, GATEWAY
from tests.faults.plant import (
    ENDPOINT,
    GUEST,
    INSTANCE,
    PROJECT,
    REPLICA,
    Body,
    Plant,
    eventually,
    is_ready,
    phase_of,
    reason,
    running,
)

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def plant() -> Iterator[Plant]:
    """Up, with a guest and an engine."""
    with running() as made:
        asyncio.run(made.furnish())
        yield made


async def test_kill_9_of_the_control_plane_cuts_no_stream_and_touches_no_guest(plant: Plant) -> None:
    before, times = await plant.look(), []
    streaming = asyncio.create_task(plant.stream(times))
    await eventually(lambda: _true(len(times) > 5), seconds=90, what="the stream begins")
    killed_at, old = time.monotonic(), await plant.kill(CONTROL)
    await plant.restarted(CONTROL, old)
    await plant.converged()
    back_at = time.monotonic()
    assert await streaming == 900, "the stream was cut"
    while_away = [t for t in times if killed_at < t < back_at]
    assert len(while_away) > 10, "tokens came while the control plane was away"
    after = await plant.look()
    assert (after.guest, after.engine) == (before.guest, before.engine)
    assert after.uptime_seconds > before.uptime_seconds
    await plant.new_token()
    await eventually(plant.answered, seconds=90, what="the gateway watches the new control plane")


async def test_kill_9_of_the_gateway_loses_no_usage_that_was_answered(plant: Plant) -> None:
    before = await plant.look()
    await eventually(lambda: _settled(plant), seconds=90, what="usage is settled")
    requests, tokens = await plant.billed()
    assert requests == plant.answers
    usage = await plant.answered(tokens=8)
    old = await plant.kill(GATEWAY)
    assert usage is not None
    await plant.restarted(GATEWAY, old)
    await eventually(lambda: _settled(plant), seconds=90, what="the spool is settled")
    assert await plant.billed() == (requests + 1, tokens + usage["completion_tokens"]), "once and no more"
    await eventually(plant.answered, seconds=90, what="the new gateway answers")
    after = await plant.look()
    assert (after.guest, after.engine) == (before.guest, before.engine)


async def test_kill_9_of_agent_and_supervisor_then_up_adopts_all_that_runs(plant: Plant) -> None:
    before, old = await plant.look(), [await plant.part(name) for name in (CONTROL, GATEWAY)]
    os.kill(plant.supervisor(), signal.SIGKILL)
    gone = await plant.kill(AGENT)
    assert await plant.answered(), "nobody supervises, and the rest works"
    await asyncio.to_thread(plant.up)
    assert [await plant.part(name) for name in (CONTROL, GATEWAY)] == old, "adopted, not restarted"
    agent = await plant.restarted(AGENT, gone)
    os.kill(agent.pid, signal.SIGKILL)
    await plant.restarted(AGENT, agent)
    await plant.converged()
    after = await plant.look()
    assert (after.guest, after.engine) == (before.guest, before.engine)
    assert after.uptime_seconds > before.uptime_seconds
    await eventually(lambda: _log(plant), seconds=90, what="logs are relayed through the new agent")
    assert (await plant.rows(GUEST.name)).count("lost") == 0, "a host that is silent changes no row"


async def test_a_silent_host_is_said_to_be_and_what_runs_there_goes_on(plant: Plant) -> None:
    before, agent = await plant.look(), await plant.part(AGENT)
    assert agent is not None
    os.kill(agent.pid, signal.SIGSTOP)
    try:
        host = Key("Host", "", (await plant.body(INSTANCE))["status"]["host"])
        found = await plant.until(host, lambda body: not is_ready(body), seconds=90)
        assert found["status"]["phase"] == "Unreachable"
        await plant.until(INSTANCE, lambda body: body["status"]["phase"] == "Unknown")
        assert await plant.answered(), "its engine is asked all the same"
    finally:
        os.kill(agent.pid, signal.SIGCONT)
    await plant.converged()
    after = await plant.look()
    assert (after.guest, after.engine) == (before.guest, before.engine)
    assert after.uptime_seconds > before.uptime_seconds


async def test_kill_9_of_qemu_and_engine_restarts_them_and_the_gap_is_lost_time(plant: Plant) -> None:
    before = await plant.look()
    for pid in (before.guest[0], before.engine[0]):
        os.kill(pid, signal.SIGKILL)
    await asyncio.gather(*(plant.until(key, _restarted(1)) for key in (GUEST, REPLICA)))
    await plant.converged()
    after = await plant.look()
    assert after.guest != before.guest
    assert after.engine != before.engine
    for claim in (GUEST.name, REPLICA.name):
        rows = await plant.rows(claim)
        assert rows.count("open") + rows.count("deploying") >= 1
        assert "lost" in rows
        assert rows[-1] == "running"
    await eventually(plant.answered, seconds=90, what="the gateway finds the new engine")


async def test_an_image_cut_short_and_a_model_replaced_on_disk_are_fetched_anew(plant: Plant) -> None:
    claims = [await plant.body(key) for key in (GUEST, REPLICA)]
    image, model = (claim["spec"]["intent"][field] for claim, field in zip(claims, ("image", "model"), strict=True))
    content = plant.paths.agent / "content"
    for digest, damage in ((image, _cut_short), (model, _altered)):
        damage(content / digest.removeprefix("sha256:"))
    before = await plant.look()
    said = asyncio.gather(*(plant.until(key, lambda b: reason(b) == "DigestMismatch") for key in (GUEST, REPLICA)))
    for pid in (before.guest[0], before.engine[0]):
        os.kill(pid, signal.SIGKILL)
    await said
    await asyncio.gather(*(plant.until(key, _restarted(2)) for key in (GUEST, REPLICA)))
    await plant.converged()
    assert {await plant.drivers.content.verify(digest) for digest in (image, model)}


async def test_down_after_kill_9_of_everything_leaves_nothing_and_up_works_again(plant: Plant) -> None:
    await _stopped_and_started(plant)
    restarts = [(await plant.body(key))["status"].get("restarts", 0) for key in (GUEST, REPLICA)]
    os.kill(plant.supervisor(), signal.SIGKILL)
    for name in (CONTROL, GATEWAY, AGENT):
        await plant.kill(name)
    before = await plant.look()
    began = int(time.time())
    said = await asyncio.to_thread(plant.down)
    assert f"(pid {before.guest[0]}) stopped" in said
    assert f"(pid {before.engine[0]}) stopped" in said
    assert plant.residue() == []
    ended = int(time.time())
    await asyncio.to_thread(plant.up)
    # What was said last before the end still stands: only a new start says that they are back.
    for key, times in zip((GUEST, REPLICA), restarts, strict=True):
        await plant.until(key, _restarted(times + 1), seconds=90)
    await plant.converged()
    after = await plant.look()
    assert after.guest != before.guest
    await eventually(plant.answered, seconds=90, what="the gateway finds the engine")
    # Nobody pays for the time between: it is lost from the end on, and not from when an agent finds nothing.
    rows = (await plant.ledger())["rows"]
    for claim in (GUEST.name, REPLICA.name):
        last = [row for row in rows if row.get("claimUid") == plant.claims[claim]][-3:]
        assert [row["state"] for row in last] == ["lost", "deploying", "running"]
        assert began <= last[0]["at"] <= ended


async def test_deleted_they_leave_nothing_on_the_machine(plant: Plant) -> None:
    for key in (INSTANCE, ENDPOINT):
        await plant.delete(key)

    async def gone() -> bool:
        drivers = plant.drivers
        return not (await drivers.qemu.uids() or await drivers.engine.running() or await drivers.disks.uids())

    await eventually(gone, seconds=90, what="guest and engine are cleared away")
    for claim in (GUEST.name, REPLICA.name):

        async def closed(claim: str = claim) -> bool:
            return (await plant.rows(claim))[-1] == "close"

        await eventually(closed, seconds=90, what="the interval is closed")
        assert (await plant.rows(claim)).count("close") == 1


# --- small ones ---


async def _true(value: bool) -> bool:
    return value


async def _settled(plant: Plant) -> bool:
    """Whether the ledger knows of every request that was answered."""
    return (await plant.billed())[0] >= plant.answers


async def _log(plant: Plant) -> bool:
    try:
        async with plant.client() as client, client.workloads.log(INSTANCE) as parts:
            return bool(b"".join([part async for part in parts]))
    except BessemerError:
        return False


async def _stopped_and_started(plant: Plant) -> None:
    """A person's word: without it a guest that ended three times within minutes is not started again."""
    for verb, holds in (("stop", lambda body: phase_of(body) == "Stopped"), ("start", is_ready)):
        await asyncio.to_thread(plant.run, verb, INSTANCE.name, "-n", PROJECT)
        await plant.until(INSTANCE, holds, seconds=90)


def _restarted(times: int):  # type: ignore[no-untyped-def]
    def holds(body: Body) -> bool:
        status = body["status"]
        return bool(status.get("restarts", 0) >= times and status["phase"] == "Running")

    return holds


def _cut_short(path: Path) -> None:
    half = path.with_suffix(".half")
    half.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    half.replace(path)


def _altered(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    other = path.with_suffix(".other")
    other.write_bytes(data)
    other.replace(path)
