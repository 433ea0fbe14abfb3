"""Threads of one's own on this machine's kernel: who runs where, thread by thread, as the kernel says it."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from bessemer.core.cpus import show_cpus
from bessemer.drivers.guest.protocol import BuiltImage
from bessemer.drivers.jobs.protocol import MemberSpec
from bessemer.drivers.process.protocol import Confined
from bessemer.drivers.process.real import HostProcesses
from bessemer.drivers.qemu.kin import GuestHerd
from bessemer.drivers.threads.real import HostThreads
from bessemer.main.hostdrivers import local_drivers
from tests.drivers import micro_guest
from tests.drivers.qemu.rig import RealRig

pytestmark = pytest.mark.real

LAST = max(os.sched_getaffinity(0))
REST = show_cpus(os.sched_getaffinity(0) - {LAST})
ALL = show_cpus(os.sched_getaffinity(0))
FAMILY = "sleep 600 & taskset --cpu-list {} sleep 600 & wait"
"""A process with children, of which one sets out for where it was not put."""


def allowed(pids: frozenset[int]) -> set[str]:
    """Where the kernel lets each thread of these processes run."""
    found = set()
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            lines = (task / "status").read_text().splitlines()
            found |= {line.split()[1] for line in lines if line.startswith("Cpus_allowed_list")}
    return found


@dataclass
class Machine:
    """What runs here, and who keeps it apart. ``weak``: without control groups, as for an ordinary user."""

    state: Path
    weak: bool

    def __post_init__(self) -> None:
        self.processes = self.again()
        self.mine = os.sched_getaffinity(0)

    def again(self) -> HostProcesses:
        found = HostProcesses(self.state / "confined", users=self.state / "users")
        if self.weak:
            found._walls.cgroups = None
        return found

    def threads(self) -> HostThreads:
        """As a new agent has it."""
        return HostThreads([self.again().herd], mine=self.mine)

    async def run(self, uid: str, script: str, *, own: str = "") -> None:
        confined = Confined(
            uid,
            ("/bin/sh", "-c", script),
            cores_milli=1000,
            memory_bytes=48 << 20,
            env={"PATH": "/bin"},
            binds_ro=((Path("/usr/bin"), "/bin"),),
            own_cpus=own,
        )
        await self.processes.start(confined)
        async with asyncio.timeout(30):
            while len(self.inside(uid)) < 4:
                await asyncio.sleep(0.01)

    def inside(self, uid: str) -> frozenset[int]:
        (kin,) = [kin for kin in self.processes.herd.kin() if kin.uid == uid]
        return kin.inside

    def beside(self, uid: str) -> frozenset[int]:
        (kin,) = [kin for kin in self.processes.herd.kin() if kin.uid == uid]
        return kin.helpers


@pytest.fixture(params=["strong", "weak"])
async def machine(request: pytest.FixtureRequest) -> AsyncIterator[Machine]:
    state = Path(tempfile.mkdtemp(prefix="bsm-"))
    found = Machine(state, request.param == "weak")
    if not found.weak and found.processes._walls.cgroups is None:
        pytest.skip("control groups need root")
    try:
        yield found
    finally:
        for uid in ("owner", "other"):
            await found.processes.remove(uid)
        os.sched_setaffinity(0, found.mine)
        await found.threads().keep({})
        shutil.rmtree(state, ignore_errors=True)


async def test_a_thread_of_ones_own_is_nobody_elses(machine: Machine) -> None:
    await machine.run("other", FAMILY.format(ALL))
    assert allowed(machine.inside("other")) == {ALL}
    await machine.threads().keep({"owner": str(LAST)})
    await machine.run("owner", FAMILY.format(LAST), own=str(LAST))
    assert allowed(machine.inside("owner")) == {str(LAST)}
    assert allowed(machine.inside("other")) == {REST}
    assert allowed(machine.beside("other") | machine.beside("owner")) == {REST}, "the shims are ours"
    assert allowed(frozenset({os.getpid()})) == {REST}, "and so is the agent, with every thread of it"


async def test_what_begins_later_begins_elsewhere(machine: Machine) -> None:
    await machine.threads().keep({"owner": str(LAST)})
    await machine.run("other", "sleep 600 & sleep 600 & wait")
    assert allowed(machine.inside("other")) == {REST}


@pytest.mark.parametrize("machine", ["strong"], indirect=True)
async def test_a_tenant_does_not_leave_its_threads(machine: Machine) -> None:
    """Affinity alone is undone by whoever it binds, and is set again at the next look."""
    await machine.threads().keep({"owner": str(LAST)})
    await machine.run("other", f"taskset --cpu-list {ALL} sleep 600 & taskset --cpu-list {LAST} sleep 600; sleep 600")
    assert allowed(machine.inside("other")) == {REST}


async def test_a_new_agent_finds_and_gives_back_what_an_earlier_one_left(machine: Machine) -> None:
    await machine.run("other", "sleep 600 & sleep 600 & wait")
    await machine.threads().keep({"owner": str(LAST)})
    await machine.run("owner", "sleep 600 & sleep 600 & wait", own=str(LAST))
    os.sched_setaffinity(0, machine.mine)  # a new process begins as its supervisor is
    await machine.threads().keep({"owner": str(LAST)})
    assert (allowed(machine.inside("owner")), allowed(machine.inside("other"))) == ({str(LAST)}, {REST})
    await machine.processes.remove("owner")
    os.sched_setaffinity(0, machine.mine)
    await machine.threads().keep({})
    assert allowed(machine.inside("other")) == {ALL}
    assert allowed(frozenset({os.getpid()})) == {ALL}


async def test_what_chose_fewer_threads_keeps_them(machine: Machine) -> None:
    """As a reckoning library binds its own: it is left alone where it may stay, and comes back to the rest else."""
    threads = machine.threads()
    await threads.keep({})
    await machine.run("other", f"taskset --cpu-list {LAST} sleep 600 & sleep 600 & wait")
    async with asyncio.timeout(30):
        while allowed(machine.inside("other")) != {str(LAST), ALL}:
            await asyncio.sleep(0.01)
    await threads.keep({})
    assert allowed(machine.inside("other")) == {str(LAST), ALL}
    await threads.keep({"owner": str(LAST)})
    assert allowed(machine.inside("other")) == {REST}


async def test_what_owns_threads_lies_on_them_as_it_likes(machine: Machine) -> None:
    """As a guest's CPUs, one on each: also for an agent that did not see it begin."""
    await machine.run("owner", FAMILY.format(LAST), own=ALL)
    async with asyncio.timeout(30):
        while allowed(machine.inside("owner")) != {str(LAST), ALL}:
            await asyncio.sleep(0.01)
    for threads in (machine.threads(), machine.threads()):
        await threads.keep({"owner": ALL})
        assert allowed(machine.inside("owner")) == {str(LAST), ALL}


async def test_where_all_are_owned_we_run_somewhere(machine: Machine) -> None:
    await machine.threads().keep({"owner": ALL})
    assert allowed(frozenset({os.getpid()})) == {ALL}


async def test_a_guest_has_its_threads_to_itself(tmp_path: Path) -> None:
    """Two guests and all of QEMU's threads: one with a thread of its own, one that shares the others."""
    image: BuiltImage = micro_guest.build(tmp_path / "micro-guest.tar")
    rig, mine = RealRig(tmp_path, image), os.sched_getaffinity(0)
    try:
        qemu = rig.new()
        shared = await qemu.start(await rig.spec(cpus=2, uid=f"a-{uuid.uuid4()}"))
        own = await rig.spec(cpus=1)
        threads = HostThreads([GuestHerd(rig.root / "guests", cgroups=rig.cgroups)], mine=mine)
        await threads.keep({own.uid: str(LAST)})
        guest = await qemu.start(replace(own, own_cpus=str(LAST)))
        assert allowed(frozenset({guest.pid})) == {str(LAST)}
        assert allowed(frozenset({shared.pid})) == {REST}
        assert len(os.listdir(f"/proc/{shared.pid}/task")) > 2, "main, and one of each CPU"
        await qemu.remove(own.uid)
        await threads.keep({})
        assert allowed(frozenset({shared.pid})) == {ALL}
    finally:
        os.sched_setaffinity(0, mine)
        await HostThreads([], mine=mine).keep({})
        await rig.close()


async def test_an_agents_drivers_are_all_kept_off(tmp_path: Path) -> None:
    """As the agent of this machine has them: a member of a job that shares, one with a thread of its own, an engine's
    process, and a guest."""
    state = Path(tempfile.mkdtemp(prefix="bsm-"))
    image, mine = await asyncio.to_thread(micro_guest.build, tmp_path / "micro-guest.tar"), os.sched_getaffinity(0)
    drivers = local_drivers(state)
    rig = RealRig(tmp_path, image)
    words = ("/bin/sleep", "600")
    try:
        guest = await drivers.qemu.start(await rig.spec(cpus=1))
        shared = await drivers.jobs.start(MemberSpec("shared", words, cores_milli=1000, memory_bytes=48 << 20))
        binds = ((Path("/usr/bin"), "/bin"),)
        engine = await drivers.processes.start(
            Confined("engine", words, cores_milli=1000, memory_bytes=48 << 20, binds_ro=binds)
        )
        await drivers.threads.keep({"own": str(LAST)})
        own = await drivers.jobs.start(
            MemberSpec("own", words, cores_milli=1000, memory_bytes=48 << 20, own_cpus=str(LAST))
        )
        for running in (guest, shared, engine):
            assert allowed(frozenset({running.pid})) == {REST}, running
        assert allowed(frozenset({own.pid})) == {str(LAST)}
        # A new agent of the same directory finds all of them.
        os.sched_setaffinity(0, mine)
        await local_drivers(state).threads.keep({})
        for running in (guest, shared, engine):
            assert allowed(frozenset({running.pid})) == {ALL}, running
    finally:
        os.sched_setaffinity(0, mine)
        await drivers.threads.keep({})
        for uid in ("own", "shared"):
            await drivers.jobs.remove(uid)
        await drivers.processes.remove("engine")
        for uid in await drivers.qemu.uids():
            await drivers.qemu.remove(uid)
        await rig.close()
        shutil.rmtree(state, ignore_errors=True)
