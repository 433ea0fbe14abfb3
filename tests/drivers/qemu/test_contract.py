"""One contract for fake guests and real ones: the real ones boot Linux in it."""

from __future__ import annotations

import asyncio

import pytest

from bessemer.core.errors import DriverError
from bessemer.drivers.guest.protocol import MEMORY_SLACK_BYTES
from tests.drivers.qemu.rig import NONCE, Rig, read_until, whole_log


async def test_a_guest_lives_and_ends(rig: Rig) -> None:
    """Start, report, console, log, a restart of the agent in between, shutdown, and nothing left."""
    spec = await rig.spec()
    qemu = rig.new()
    assert await qemu.find(spec.uid) is None
    assert await qemu.report(spec.uid) is None

    guest = await qemu.start(spec)
    assert await qemu.start(spec) == guest
    assert guest.uid == spec.uid

    said = await rig.report(qemu, spec.uid)
    assert said["nonce"] == NONCE
    assert said["cpus"] == spec.cpus
    assert 0 <= spec.memory_bytes - said["memoryBytes"] <= MEMORY_SLACK_BYTES
    assert said["addresses"] == ["10.0.2.15"]
    assert said["hostname"] == "vm"

    again = rig.new()
    assert await again.find(spec.uid) == guest
    assert await again.start(spec) == guest
    assert await again.running() == (guest,)
    assert await again.report(spec.uid) == await qemu.report(spec.uid)
    state = await again.state(spec.uid)
    assert state is not None
    assert state.status == "running"
    assert state.uptime_seconds > 0

    console = await again.console(spec.uid)
    with pytest.raises(DriverError) as caught:
        await again.console(spec.uid)
    assert caught.value.reason == "ConsoleBusy"
    await console.write(b"echo hello-console\n")
    await read_until(console, b"hello-console")
    await console.close()
    await (await again.console(spec.uid)).close()

    await rig.during(again.shutdown(spec.uid, 20.0))
    assert await again.find(spec.uid) is None
    assert await again.state(spec.uid) is None
    assert b"hello-console" in await whole_log(again, spec.uid)
    assert await again.uids() == {spec.uid}

    await again.remove(spec.uid)
    assert await again.uids() == frozenset()
    assert await whole_log(again, spec.uid) == b""


async def test_a_killed_guest_is_seen_and_starts_anew(rig: Rig) -> None:
    spec = await rig.spec()
    qemu = rig.new()
    first = await qemu.start(spec)
    rig.kill_process(first)

    async def gone() -> bool:
        return await qemu.find(spec.uid) is None

    await rig.until(gone)
    assert await qemu.state(spec.uid) is None
    assert await qemu.report(spec.uid) is None
    with pytest.raises(DriverError) as caught:
        await qemu.console(spec.uid)
    assert caught.value.reason == "GuestNotRunning"

    await rig.tick()
    second = await qemu.start(spec)
    assert (second.pid, second.started_at) != (first.pid, first.started_at)
    assert (await rig.report(qemu, spec.uid))["nonce"] == NONCE
    await qemu.kill(spec.uid)
    await qemu.kill(spec.uid)
    assert await qemu.running() == ()
    await qemu.remove(spec.uid)
    await qemu.remove(spec.uid)


async def test_a_log_is_followed_to_the_guests_end(rig: Rig) -> None:
    spec = await rig.spec()
    qemu = rig.new()
    await qemu.start(spec)
    shown: list[bytes] = []

    async def follow() -> None:
        async for piece in qemu.log(spec.uid, follow=True):
            shown.append(piece)

    task = asyncio.create_task(follow())
    await rig.report(qemu, spec.uid)
    await rig.during(qemu.shutdown(spec.uid, 20.0))
    await rig.during(task)
    assert b"".join(shown) == await whole_log(qemu, spec.uid)
    assert b"eady" in b"".join(shown)


async def test_what_does_not_run_is_no_error(rig: Rig) -> None:
    qemu = rig.new()
    assert await qemu.running() == ()
    assert await qemu.uids() == frozenset()
    assert await qemu.state("nobody") is None
    assert await qemu.last_words("nobody") == ""
    await qemu.shutdown("nobody", 1.0)
    await qemu.kill("nobody")
    await qemu.remove("nobody")
