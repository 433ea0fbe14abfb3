"""What every driver of members of jobs promises, on a fake host and on this machine."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest

from bessemer.core.clock import FakeClock
from bessemer.core.errors import Invalid
from bessemer.drivers.jobs.fake import FakeJobs, Fate
from bessemer.drivers.jobs.kept import Kept
from bessemer.drivers.jobs.nodes import nodes_of
from bessemer.drivers.jobs.protocol import HOSTFILE, SCRIPT, Jobs, MemberSpec
from bessemer.drivers.jobs.real import HostJobs, _confined
from bessemer.drivers.process import procfs
from bessemer.drivers.process.protocol import End, Ended
from bessemer.drivers.process.real import HostProcesses

MEMORY = 64 << 20


class World(Protocol):
    """A host, and members with a known fate."""

    jobs: Jobs

    def another(self) -> Jobs:
        """The driver as a second agent has it, that knows nothing of the first."""
        ...

    def waits(self, uid: str) -> MemberSpec: ...

    def leaves(self, uid: str, code: int) -> MemberSpec: ...

    def exhausts(self, uid: str) -> MemberSpec: ...

    async def pause(self) -> None: ...


def shell(uid: str, script: str, *args: str, memory_bytes: int = MEMORY, **env: str) -> MemberSpec:
    words = ("/bin/sh", SCRIPT, *args)
    return MemberSpec(uid, words, 1000, memory_bytes, script=script, hosts="192.0.2.1 slots=2\n", env=env)


class FakeWorld:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.jobs = FakeJobs(self.clock)
        self.jobs.fate = lambda member: self.fates[member.uid]
        self.fates: dict[str, Fate] = {}

    def another(self) -> Jobs:
        return self.jobs

    def waits(self, uid: str) -> MemberSpec:
        return self._member(uid, Fate(1e6))

    def leaves(self, uid: str, code: int) -> MemberSpec:
        return self._member(uid, Fate(0.5, code))

    def exhausts(self, uid: str) -> MemberSpec:
        return self._member(uid, Fate(0.5, 137, End.OUT_OF_MEMORY))

    async def pause(self) -> None:
        await self.clock.advance(0.1)

    def _member(self, uid: str, fate: Fate) -> MemberSpec:
        self.fates[uid] = fate
        return shell(uid, "")


class RealWorld:
    def __init__(self, state: Path) -> None:
        self.state = state
        self.jobs: Jobs = self.another()

    def another(self) -> Jobs:
        return HostJobs(HostProcesses(self.state / "jobs", users=self.state / "users"), Kept(self.state / "outputs"))

    def waits(self, uid: str) -> MemberSpec:
        return shell(uid, "echo waits; exec sleep 600")

    def leaves(self, uid: str, code: int) -> MemberSpec:
        return shell(uid, "echo leaves; sleep 0.3; exit $1", str(code))

    def exhausts(self, uid: str) -> MemberSpec:
        return shell(uid, "sleep 0.3; x=a; while :; do x=$x$x$x; done")

    async def pause(self) -> None:
        await asyncio.sleep(0.05)


@pytest.fixture
async def real() -> AsyncIterator[RealWorld]:
    """This machine. Nothing is left behind."""
    with tempfile.TemporaryDirectory(prefix="bsm-") as folder:
        made = RealWorld(Path(folder))
        try:
            yield made
        finally:
            for uid in await made.jobs.uids():
                await made.jobs.remove(uid)


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.real)])
def world(request: pytest.FixtureRequest) -> World:
    found: World = FakeWorld() if request.param == "fake" else request.getfixturevalue("real")
    return found


async def until_ended(world: World, uid: str) -> Ended:
    """How it ended, as whoever asks first is told."""
    for _ in range(400):
        if await world.jobs.find(uid) is None:
            end = await world.jobs.ended(uid)
            assert end is not None
            return end
        await world.pause()
    raise AssertionError(f"{uid} does not end")


async def printed(jobs: Jobs, uid: str) -> str:
    return b"".join([chunk async for chunk in jobs.log(uid)]).decode()


async def test_it_is_started_once_and_found_by_whoever_comes(world: World) -> None:
    member = await world.jobs.start(world.waits("m-1"))
    assert await world.jobs.start(world.waits("m-1")) == member
    assert await world.another().find("m-1") == member
    assert await world.another().running() == (member,)
    assert await world.jobs.ended("m-1") is None


@pytest.mark.parametrize("code", [0, 3])
async def test_how_it_ended_is_told_to_each_who_asks(world: World, code: int) -> None:
    await world.jobs.start(world.leaves("m-1", code))
    end = await until_ended(world, "m-1")
    assert (end.reason, end.code) == (End.CRASHED if code else End.EXITED, code)
    assert await world.another().ended("m-1") == end
    assert await world.another().ended("m-1") == end
    assert await world.jobs.running() == ()
    assert await world.jobs.uids() == {"m-1"}


async def test_want_of_memory_is_told_apart(world: World) -> None:
    await world.jobs.start(world.exhausts("m-1"))
    assert (await until_ended(world, "m-1")).reason is End.OUT_OF_MEMORY


async def test_what_was_killed_can_still_be_read(world: World) -> None:
    await world.jobs.start(world.waits("m-1"))
    for _ in range(100):
        if await printed(world.jobs, "m-1"):
            break
        await world.pause()
    before = await printed(world.jobs, "m-1")
    assert before
    await world.jobs.kill("m-1")
    assert (await until_ended(world, "m-1")).reason is End.KILLED
    assert await printed(world.another(), "m-1") == before


async def test_removed_it_leaves_nothing(world: World) -> None:
    for uid in ("m-1", "m-2"):
        await world.jobs.start(world.waits(uid))
    await world.jobs.remove("m-1")
    await world.jobs.remove("m-1")
    await world.jobs.remove("never")
    assert await world.jobs.uids() == {"m-2"}
    assert await world.jobs.ended("m-1") is None
    assert await printed(world.jobs, "m-1") == ""


async def test_what_it_printed_is_kept_when_it_is_removed(world: World) -> None:
    await world.jobs.start(world.leaves("m-1", 3))
    await until_ended(world, "m-1")
    before = await printed(world.jobs, "m-1")
    await world.jobs.keep("m-1", "job.0.0")
    await world.jobs.remove("m-1")
    await world.jobs.keep("m-1", "job.0.0")
    assert before
    assert await kept(world.another(), "job.0.0") == before, "also where it is kept once more, and nothing is left"
    assert await kept(world.jobs, "job.0.1") == ""
    assert await world.jobs.uids() == frozenset()


async def kept(jobs: Jobs, name: str) -> str:
    return b"".join([chunk async for chunk in jobs.kept(name)]).decode()


async def test_what_is_kept_is_bounded(tmp_path: Path) -> None:
    async def output(size: int) -> AsyncIterator[bytes]:
        yield b"x" * size

    kept = Kept(tmp_path / "outputs", bytes_max=100, seconds_max=1000.0)
    for number in range(4):
        await kept.keep(f"job.{number}", output(40))
        os.utime(tmp_path / "outputs" / f"job.{number}", (time.time() - 500 + number,) * 2)
    assert sorted(file.name for file in (tmp_path / "outputs").iterdir()) == ["job.2", "job.3"]
    os.utime(tmp_path / "outputs" / "job.2", (time.time() - 2000,) * 2)
    await kept.keep("job.5", output(10))
    assert sorted(file.name for file in (tmp_path / "outputs").iterdir()) == ["job.3", "job.5"]
    for name in ("../x", "", ".hidden"):
        with pytest.raises(Invalid):
            await kept.keep(name, output(1))


async def test_a_job_that_prints_much_displaces_its_own_output_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bessemer.drivers.jobs.kept.BYTES_EACH_MAX", 50)
    monkeypatch.setattr("bessemer.drivers.jobs.kept.BYTES_OF_ONE_MAX", 100)

    async def output(text: bytes) -> AsyncIterator[bytes]:
        for n in range(0, len(text), 7):
            yield text[n : n + 7]

    folder, kept = tmp_path / "outputs", Kept(tmp_path / "outputs", bytes_max=1000)
    await kept.keep("quiet.0.0", output(b"what it said"))
    for attempt in range(20):
        await kept.keep(f"loud.{attempt}.0", output(b"." * 1000 + b"the end"))
        os.utime(folder / f"loud.{attempt}.0", (time.time() - 500 + attempt,) * 2)
    assert sorted(file.name for file in folder.iterdir()) == ["loud.18.0", "loud.19.0", "quiet.0.0"]
    said = b"".join([chunk async for chunk in kept.read("loud.19.0")])
    assert (len(said), said[-8:]) == (50, b".the end")


# --- behind the walls of this machine ---------------------------------------------------------------------------


async def output(world: RealWorld, script: str, *args: str, **env: str) -> str:
    await world.jobs.start(shell("m-1", script, *args, **env))
    end = await until_ended(world, "m-1")
    said = await printed(world.jobs, "m-1")
    assert end.code == 0, said
    return said


@pytest.mark.real
async def test_of_devices_it_can_open_its_own_and_no_others(real: RealWorld) -> None:
    """A device file of this machine stands for one of an accelerator; without being named it is not there."""
    look = "test -c /dev/kmsg && echo there || echo not; ls /dev | wc -l"
    before = (await output(real, look)).split()
    confined = _confined(shell("m-2", "test -c /dev/kmsg && echo there"))
    processes = HostProcesses(real.state / "jobs", users=real.state / "users")
    await processes.start(replace(confined, devices=(Path("/dev/kmsg"),)))
    await until_ended(real, "m-2")
    assert (before[0], await printed(real.jobs, "m-2")) == ("not", "there\n")


def test_the_kernel_says_which_files_are_whose(tmp_path: Path) -> None:
    for number, address in enumerate(("0000:18:00.0", "0000:28:00.0")):
        said = tmp_path / "proc/driver/nvidia/gpus" / address / "information"
        said.parent.mkdir(parents=True)
        said.write_text(f"Model: \t\t H100\nDevice Minor: \t {7 - number}\n")
    (tmp_path / "sys/bus/pci/devices/0000:38:00.0/drm/renderD129").mkdir(parents=True)
    (tmp_path / "dev/dri").mkdir(parents=True)
    for name in ("nvidia6", "nvidia7", "nvidiactl", "nvidia-uvm", "kfd", "dri/renderD128", "dri/renderD129"):
        (tmp_path / "dev" / name).touch()

    def names(*devices: str) -> list[str]:
        return [str(node.relative_to(tmp_path / "dev")) for node in nodes_of(devices, root=tmp_path)]

    assert names("gpu-0000:28:00.0") == ["nvidia-uvm", "nvidia6", "nvidiactl"]
    assert names("gpu-0000:38:00.0") == ["dri/renderD129", "kfd"]
    assert names("gpu-0000:99:00.0", "nic-0", "gpu-../../x") == []


@pytest.mark.real
async def test_it_has_its_script_its_words_and_the_hosts(real: RealWorld) -> None:
    said = await output(real, f'pwd; echo "$1|$RANK"; cat {HOSTFILE}; read line; echo "rest:$line"', "a b", RANK="7")
    assert said.splitlines() == ["/tmp", "a b|7", "192.0.2.1 slots=2", "rest:"]


@pytest.mark.real
async def test_a_script_of_64_kib_arrives_whole(real: RealWorld) -> None:
    end = "\necho arrived\n"
    text = "#" * ((1 << 16) - len(end)) + end
    assert await output(real, text) == "arrived\n"


@pytest.mark.real
async def test_it_has_the_hosts_network_and_nothing_else_of_the_host(real: RealWorld) -> None:
    """Its network is this one; of processes, files and rights it has its own."""
    look = "import os; print(os.readlink('/proc/self/ns/net'), os.readlink('/proc/self/ns/pid'), os.getuid())"
    network, processes, user = (await output(real, f'python3 -c "{look}"; ls {real.state} 2>/dev/null; :')).split()
    assert network == os.readlink("/proc/self/ns/net")
    assert processes != os.readlink("/proc/self/ns/pid")
    assert int(user) != 0 or os.geteuid() != 0
    assert not (real.state / "jobs" / "m-1" / "script").exists(), "the script is on no disk"


@pytest.mark.real
async def test_what_it_leaves_running_ends_with_it(real: RealWorld) -> None:
    marker = f"600.{os.getpid()}"
    await output(real, f"sleep {marker} & echo started")
    assert procfs.with_argument(marker) == ()
