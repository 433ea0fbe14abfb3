"""An upgrade: an agent of today finds the state directory of an older release, and the guest that it speaks of."""

from __future__ import annotations

from pathlib import Path

import pytest

from bessemer.agent.intentfile import Intent, decode
from bessemer.drivers.qemu.protocol import MachineSpec, Running
from bessemer.kinds.compute.instance.spec import InstanceIntent
from tests.agent.conftest import Bench

RELEASES = sorted((Path(__file__).parent / "data").glob("*.intent"))


async def runs(bench: Bench, old: Intent) -> Running:
    """The guest of the intent runs, as the process that its status names."""
    asked = InstanceIntent.model_validate(old.claim["spec"]["intent"])
    disk = await bench.disks.create(old.uid, asked.disk_bytes)
    await bench.qemu.start(
        MachineSpec(
            uid=old.uid,
            name=asked.hostname,
            cpus=asked.cpus,
            memory_bytes=asked.memory_bytes,
            image=Path("/fake/image"),
            image_digest=asked.image,
            disks=(disk,),
        )
    )
    pid, _, started = old.status["detail"]["process"].partition(":")
    process = bench.qemu.world.guests[old.uid].process = Running(old.uid, int(pid), int(started))
    bench.qemu.world.starts = 0
    return process


def found(bench: Bench, path: Path) -> Intent:
    """The file lies where the older agent left it, and the api has the Claim with what that agent last said."""
    old = decode(path.read_bytes())
    claims = bench.directory / "claims"
    claims.mkdir(parents=True)
    (claims / f"{old.uid}.intent").write_bytes(path.read_bytes())
    bench.api.put({**old.claim, "status": dict(old.status)})
    return old


@pytest.mark.parametrize("path", RELEASES, ids=lambda path: path.stem)
async def test_a_guest_of_every_release_is_adopted(bench: Bench, path: Path) -> None:
    old = found(bench, path)
    process = await runs(bench, old)
    bench.start()
    await bench.expect(lambda: bench.api.calls["WATCH /claims"])
    await bench.clock.advance(60)
    assert await bench.qemu.find(old.uid) == process
    assert bench.qemu.world.starts == 0
    said, kept = bench.api.status(dict(old.claim)), ("phase", "phaseSince", "pid", "startedAt", "restarts", "detail")
    assert [said[name] for name in kept] == [old.status[name] for name in kept]
    # It looks after the guest from here on: a word that only a look can follow.
    bench.api.amend(dict(old.claim), running=False)
    await bench.expect(lambda: bench.api.status(dict(old.claim))["phase"] == "Stopped")
    assert (await bench.qemu.find(old.uid), bench.qemu.world.starts) == (None, 0)
    assert await bench.disks.uids() == {old.uid}, "a stopped guest keeps its disk"


@pytest.mark.parametrize("path", RELEASES, ids=lambda path: path.stem)
async def test_a_guest_of_every_release_that_died_meanwhile_is_lost_and_starts_once(bench: Bench, path: Path) -> None:
    old = found(bench, path)
    await runs(bench, old)
    bench.qemu.world.kill_process(old.uid)
    bench.start()
    await bench.expect(lambda: bench.api.status(dict(old.claim)).get("restarts") == 1)
    await bench.expect(lambda: bench.api.status(dict(old.claim))["phase"] == "Running")
    assert bench.qemu.world.starts == 1
    assert ("Lost" in [phase for uid, phase in bench.api.statuses]) == (old.phase == "Running")
