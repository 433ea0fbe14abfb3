"""What stands around a real guest: a wrong image, a hostile guest, a long path, an agent killed in the middle."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bessemer.core.errors import DriverError
from bessemer.core.units import MIB
from bessemer.drivers.cgroup import Limits
from bessemer.drivers.guest.protocol import BuiltImage
from bessemer.drivers.inspect.real import own_addresses
from bessemer.drivers.qemu import traces
from bessemer.drivers.qemu.confine import Confinement, user_of
from bessemer.drivers.qemu.launch import Home
from bessemer.drivers.qemu.protocol import REPORT_READ_LIMIT_BYTES, Console, NumaCell, Running
from tests.drivers.qemu.rig import NONCE, RealRig, read_until, whole_log
from tests.drivers.qemu.starter import spec_words

pytestmark = pytest.mark.real

_HOLD = "import fcntl, sys; fcntl.flock(lock := open(sys.argv[1], 'w'), 2); print('held', flush=True); sys.stdin.read()"
"""A program that takes the lock named by its argument and keeps it."""


async def typed(console: Console, command: str, *, seconds: float = 120.0) -> bytes:
    """Run a command in the guest's shell; what it printed."""
    await console.write(f"{command}; echo en''d-of-it\n".encode())
    return await read_until(console, b"end-of-it", seconds=seconds)


async def test_an_image_that_was_touched_is_not_booted(real: RealRig, tmp_path: Path) -> None:
    spec = await real.spec()
    touched = tmp_path / "touched.tar"
    content = bytearray(spec.image.read_bytes())
    content[len(content) // 2] ^= 1
    touched.write_bytes(content)
    qemu = real.new()
    for image in (touched, tmp_path / "cut"):
        (tmp_path / "cut").write_bytes(content[:1000])
        with pytest.raises(DriverError) as caught:
            await qemu.start(replace(spec, image=image))
        assert caught.value.reason == "DigestMismatch"
    assert await qemu.find(spec.uid) is None


async def test_qemu_is_confined(real: RealRig) -> None:
    if os.geteuid() != 0:
        pytest.skip("a user of its own needs root")
    spec = await real.spec()
    guest = await real.new().start(spec)
    status = _status(guest)
    assert {*status["Uid"].split()} == {str(user_of(spec.uid))}
    assert status["Groups"] == ""
    assert (status["NoNewPrivs"], status["Seccomp"], status["CapEff"]) == ("1", "2", "0" * 16)
    for namespace in ("net", "ipc"):
        assert os.readlink(f"/proc/{guest.pid}/ns/{namespace}") != os.readlink(f"/proc/self/ns/{namespace}")
    assert _interfaces(guest) == ["lo"]
    if real.cgroups is not None:
        assert real.cgroups.pids(spec.uid) == {guest.pid}
    assert _parent(guest) != os.getpid()


async def test_qemu_has_nothing_of_the_agents_environment(real: RealRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent may have been given its token by a variable; QEMU's environment is shown to whoever takes it over."""
    monkeypatch.setenv("BESSEMER_CANARY", "of-the-agent")
    guest = await real.new().start(await real.spec())
    shown = await asyncio.to_thread(Path(f"/proc/{guest.pid}/environ").read_bytes)
    assert {line.partition(b"=")[0] for line in shown.split(b"\0") if line} <= {b"PATH", b"LANG", b"PWD"}


async def test_a_hostile_guest_fills_nothing(real: RealRig) -> None:
    """10 MB into the report port, more than is kept onto the serial console: both are bounded, and QEMU goes on."""
    spec = await real.spec()
    qemu = real.new()
    guest = await qemu.start(spec)
    await real.report(qemu, spec.uid)
    console = await qemu.console(spec.uid)
    await typed(console, "p=$(grep -l org.bessemer.report /sys/class/virtio-ports/*/name); p=${p%/name}; p=${p##*/}")
    await typed(console, 'head -c 10000000 /dev/zero >"/dev/$p" & :')

    async def filled() -> bytes | None:
        said = await qemu.report(spec.uid)
        return said if said is not None and len(said) > REPORT_READ_LIMIT_BYTES // 2 else None

    report = await real.until(filled)
    assert len(report) <= REPORT_READ_LIMIT_BYTES
    assert NONCE.encode() in report
    await typed(console, "head -c 900000 /dev/zero | base64", seconds=240.0)
    await console.close()
    state = await qemu.state(spec.uid)
    assert state is not None
    assert state.status == "running"
    assert await qemu.find(spec.uid) == guest
    assert traces.LOG_LIMIT_BYTES <= len(await whole_log(qemu, spec.uid)) <= 2 * traces.LOG_LIMIT_BYTES
    assert sum(file.stat().st_blocks * 512 for file in (real.root / "guests" / spec.uid).iterdir()) < 8 << 20


async def test_the_guest_reaches_neither_host_nor_world(real: RealRig) -> None:
    reached: list[object] = []

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.append(writer.get_extra_info("peername"))
        writer.close()

    server = await asyncio.start_server(serve, "0.0.0.0", 0)
    port = server.sockets[0].getsockname()[1]
    qemu = real.new()
    spec = await real.spec()
    await qemu.start(spec)
    await real.report(qemu, spec.uid)
    console = await qemu.console(spec.uid)
    for address in ("10.0.2.2", "10.0.2.3", *_own_addresses()):
        said = await typed(console, f"nc -w 2 {address} {port} </dev/null && echo rea''ched")
        assert b"reached" not in said
    await console.close()
    server.close()
    await server.wait_closed()
    assert reached == []


async def test_a_path_may_be_long(tmp_path: Path, image: BuiltImage) -> None:
    rig = RealRig(tmp_path / ("x" * 100), image)
    try:
        qemu = rig.new()
        spec = await rig.spec()
        await qemu.start(spec)
        assert (await qemu.state(spec.uid)) is not None
        await (await qemu.console(spec.uid)).close()
    finally:
        await rig.close()


async def test_without_root_it_runs_all_the_same(real: RealRig) -> None:
    real.cgroups = None
    real.confinement = Confinement(root=False, namespaces=False)
    qemu = real.new()
    spec = await real.spec()
    await qemu.start(spec)
    assert (await real.report(qemu, spec.uid))["nonce"] == NONCE


async def test_an_agent_killed_while_it_starts_a_guest_starts_no_second(real: RealRig) -> None:
    """The child holds the lock as a launch does; the next agent waits for it, and begins when nothing came of it."""
    spec = await real.spec()
    home = Home(real.root / "guests" / spec.uid)
    home.path.mkdir(parents=True)
    holder = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _HOLD,
        str(home.lock),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert holder.stdout is not None
    await holder.stdout.readline()
    qemu = real.new()
    start = asyncio.create_task(qemu.start(spec))
    await asyncio.sleep(0.3)
    assert not start.done()
    assert await qemu.find(spec.uid) is None
    holder.kill()
    await holder.communicate()
    assert (await start).uid == spec.uid


async def test_an_agent_may_be_killed_at_any_moment_of_a_start(real: RealRig) -> None:
    """Whatever a killed agent had done of it, the next one's start leaves exactly one QEMU, and it answers."""
    for milliseconds in (0, 20, 40, 60, 80, 110, 150, 250):
        spec = await real.spec(cpus=1)
        agent = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.drivers.qemu.starter", str(real.root / "guests"), *spec_words(spec)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert agent.stdout is not None
        assert await agent.stdout.readline() == b"starting\n"
        await asyncio.sleep(milliseconds / 1000)
        agent.kill()
        await agent.communicate()
        qemu = real.new()
        guest = await qemu.start(spec)
        assert await qemu.running() == (guest,)
        assert await qemu.state(spec.uid) is not None
        assert {entry.name for entry in (real.root / "guests" / spec.uid).iterdir()}.isdisjoint({"kernel", "initrd"})
        await qemu.remove(spec.uid)


async def test_two_starts_at_once_start_one(real: RealRig) -> None:
    spec = await real.spec()
    one, other = await asyncio.gather(real.new().start(spec), real.new().start(spec))
    assert one == other


async def test_a_disk_is_not_shared(real: RealRig) -> None:
    first = await real.spec()
    second = await real.spec(disks=first.disks)
    qemu = real.new()
    await qemu.start(first)
    with pytest.raises(DriverError) as caught:
        await qemu.start(second)
    assert caught.value.reason == "DiskInUse"
    assert await qemu.find(second.uid) is None


async def test_a_guest_is_found_and_ended_without_its_directory(real: RealRig) -> None:
    spec = await real.spec()
    guest = await real.new().start(spec)
    shutil.rmtree(real.root / "guests" / spec.uid)
    qemu = real.new()
    assert await qemu.running() == (guest,)
    await qemu.remove(spec.uid)
    assert await qemu.uids() == frozenset()


async def test_another_state_directory_is_none_of_ours(real: RealRig, tmp_path: Path, image: BuiltImage) -> None:
    await real.new().start(await real.spec())
    assert await RealRig(tmp_path / "other", image).new().running() == ()


async def test_a_full_disk_refuses_a_start(real: RealRig, small: Path) -> None:
    real.root = small
    qemu = real.new()
    spec = await real.spec()
    with pytest.raises(DriverError) as caught:
        await qemu.start(spec)
    assert caught.value.reason == "DiskFull"
    await qemu.remove(spec.uid)
    assert await qemu.uids() == frozenset()


async def test_a_guest_past_its_memory_is_ended_and_it_is_said_why(real: RealRig) -> None:
    if real.cgroups is None:
        pytest.skip("limits of memory need root")
    spec = await real.spec()
    qemu = real.new()
    guest = await qemu.start(spec)
    await real.report(qemu, spec.uid)
    console = await qemu.console(spec.uid)
    used = real.cgroups.usage(spec.uid)
    assert used is not None
    # The kernel may refuse to set less than there is in use: so it has booted, and then wants more.
    real.cgroups.create(spec.uid, Limits(memory_bytes=used.memory_bytes + 8 * MIB))
    await console.write(b"head -c 96000000 /dev/zero >/dev/fill\n")

    async def gone() -> bool:
        return await qemu.find(spec.uid) is None

    await real.until(gone)
    await console.close()
    assert guest.pid not in {running.pid for running in await qemu.running()}
    assert "want of memory" in await qemu.last_words(spec.uid)


async def test_qemu_that_hangs_is_said_to_be_and_can_be_killed(real: RealRig) -> None:
    spec = await real.spec()
    qemu = real.new()
    guest = await qemu.start(spec)
    os.kill(guest.pid, signal.SIGSTOP)
    with pytest.raises(DriverError) as caught:
        await qemu.state(spec.uid)
    assert caught.value.reason == "GuestUnresponsive"
    await qemu.kill(spec.uid)
    assert await qemu.find(spec.uid) is None


async def test_the_guest_has_the_numa_nodes_that_were_asked_for(real: RealRig) -> None:
    cells = (NumaCell(1, 128 * MIB), NumaCell(1, 128 * MIB))
    spec = await real.spec(memory_bytes=256 * MIB, numa=cells)
    qemu = real.new()
    await qemu.start(spec)
    await real.report(qemu, spec.uid)
    console = await qemu.console(spec.uid)
    assert b"0-1" in await typed(console, "cat /sys/devices/system/node/online")
    await console.close()


async def test_a_guests_memory_is_of_its_node(real: RealRig) -> None:
    """As the kernel says it of the pages' policy; a node that this machine has not binds nothing."""
    cells = (NumaCell(1, 96 * MIB, host_node=0), NumaCell(1, 96 * MIB, host_node=63))
    guest = await real.new().start(await real.spec(numa=cells))
    maps = await asyncio.to_thread(Path(f"/proc/{guest.pid}/numa_maps").read_text)
    assert "prefer" in maps
    assert ":63" not in maps


async def test_a_guest_runs_on_its_own_threads_and_on_no_others(real: RealRig) -> None:
    last = max(os.sched_getaffinity(0))
    spec = await real.spec(own_cpus=str(last))
    guest = await real.new().start(spec)
    assert _status(guest)["Cpus_allowed_list"] == str(last)


def _status(guest: Running) -> dict[str, str]:
    lines = Path(f"/proc/{guest.pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _interfaces(guest: Running) -> list[str]:
    lines = Path(f"/proc/{guest.pid}/net/dev").read_text().splitlines()[2:]
    return [line.split(":")[0].strip() for line in lines]


def _parent(guest: Running) -> int:
    return int(_status(guest)["PPid"])


def _own_addresses() -> list[str]:
    return [address for address in own_addresses() if ":" not in address]
