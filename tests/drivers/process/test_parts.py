"""Our own processes: on the fake and on this machine."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bessemer.core.clock import FakeClock
from bessemer.core.errors import DriverError
from bessemer.drivers.process import procfs
from bessemer.drivers.process.fake import FakeParts
from bessemer.drivers.process.protocol import Command, Parts
from bessemer.drivers.process.real import HostParts


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.real)])
def parts(request: pytest.FixtureRequest) -> Parts:
    """Parts of a fake host, and of this machine."""
    return FakeParts(FakeClock()) if request.param == "fake" else HostParts()


@pytest.fixture
async def command(tmp_path: Path, parts: Parts) -> AsyncIterator[Command]:
    """A part that waits."""
    command = program(tmp_path, "import signal; print('up', flush=True); signal.pause()")
    yield command
    for part in await parts.find(command.marker):
        await parts.stop(part, grace_seconds=0.1)


def program(folder: Path, text: str) -> Command:
    state = str(folder / uuid.uuid4().hex)
    argv = (sys.executable, "-I", "-c", text, "api", "--state", state)
    return Command("api", argv, f"api --state {state}", folder / "logs" / "api.log", env={"PATH": "/usr/bin"})


async def test_a_part_is_found_by_its_marker(parts: Parts, command: Command) -> None:
    assert await parts.find(command.marker) == ()
    part = await parts.start(command)
    assert await parts.find(command.marker) == (part,)
    assert await parts.alive(part)
    assert await parts.find("api --state /elsewhere") == ()


async def test_a_marker_is_no_beginning_of_another(parts: Parts, command: Command) -> None:
    longer = Command(command.name, (*command.argv, "b"), f"{command.marker} b", command.log_path, env=command.env)
    part = await parts.start(longer)
    assert await parts.find(command.marker) == ()
    assert await parts.find(longer.marker) == (part,)
    await parts.stop(part)


async def test_a_stopped_part_is_gone(parts: Parts, command: Command) -> None:
    part = await parts.start(command)
    await parts.stop(part)
    await parts.stop(part)
    assert not await parts.alive(part)
    assert await parts.find(command.marker) == ()


async def test_its_end_is_told_to_whoever_waits(parts: Parts, command: Command) -> None:
    part = await parts.start(command)
    waiting = asyncio.create_task(parts.ended(part))
    await asyncio.sleep(0)
    assert not waiting.done()
    await parts.stop(part)
    await asyncio.wait_for(waiting, 30)
    await asyncio.wait_for(parts.ended(part), 30)


async def test_every_leftover_is_found(parts: Parts, command: Command) -> None:
    both = {await parts.start(command), await parts.start(command)}
    assert set(await parts.find(command.marker)) == both


@pytest.fixture
def here() -> HostParts:
    return HostParts()


@pytest.mark.real
async def test_what_it_prints_is_appended_to_its_log(here: HostParts, tmp_path: Path) -> None:
    command = program(tmp_path, "import sys, os; print(os.getcwd(), flush=True); print('oops', file=sys.stderr)")
    command.log_path.parent.mkdir()
    command.log_path.write_text("before\n")
    part = await here.start(Command(command.name, command.argv, command.marker, command.log_path, cwd=Path("/usr")))
    async with asyncio.timeout(30):
        while await here.alive(part):
            await asyncio.sleep(0.01)
    assert command.log_path.read_text() == "before\n/usr\noops\n"


@pytest.mark.real
async def test_one_that_ignores_the_term_is_killed_with_its_session(here: HostParts, tmp_path: Path) -> None:
    text = (
        "import os, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); child = os.fork();"
        "print(child, flush=True) if child else None; signal.pause()"
    )
    command = program(tmp_path, text)
    part = await here.start(command)
    async with asyncio.timeout(30):
        while not command.log_path.read_text().strip():
            await asyncio.sleep(0.01)
    child = int(command.log_path.read_text())
    assert procfs.entry(child) is not None
    await here.stop(part, grace_seconds=0.1)
    assert not await here.alive(part)
    assert procfs.entry(child) is None


@pytest.mark.real
async def test_another_supervisor_adopts_it(here: HostParts, tmp_path: Path) -> None:
    command = program(tmp_path, "import signal; signal.pause()")
    part = await here.start(command)
    other = HostParts()
    assert await other.find(command.marker) == (part,)
    waiting = asyncio.create_task(other.ended(part))
    await other.stop(part)
    await asyncio.wait_for(waiting, 30)
    assert not await here.alive(part)


@pytest.mark.real
async def test_its_end_is_told_where_it_cannot_be_watched(
    here: HostParts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_pid: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "pidfd_open", refused)
    part = await here.start(program(tmp_path, "import signal; signal.pause()"))
    waiting = asyncio.create_task(here.ended(part))
    await asyncio.sleep(0)
    assert not waiting.done()
    await here.stop(part)
    await asyncio.wait_for(waiting, 30)


@pytest.mark.real
async def test_it_is_there_once_its_name_can_be_read_however_long_that_takes(
    here: HostParts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy machine may have let us go on, and the child not yet: nobody would find it."""
    looks, arguments = list[int](), procfs.arguments

    def late(pid: int) -> tuple[str, ...]:
        looks.append(pid)
        return arguments(pid) if len(looks) > 200 else ()

    command = program(tmp_path, "import signal; signal.pause()")
    with monkeypatch.context() as patch:
        patch.setattr(procfs, "arguments", late)
        part = await here.start(command)
    assert looks == [part.pid] * 201
    assert await here.find(command.marker) == (part,)
    await here.stop(part)


@pytest.mark.real
async def test_a_reused_pid_is_another_process(here: HostParts, tmp_path: Path) -> None:
    command = program(tmp_path, "import signal; signal.pause()")
    part = await here.start(command)
    assert not await here.alive(type(part)(part.pid, part.started_ticks + 1))
    for ticks in (1000, -1000):
        # One that had the number before it, and one that has it after.
        other = type(part)(part.pid, part.started_ticks + ticks)
        await here.stop(other, grace_seconds=0.1)
        await asyncio.wait_for(here.ended(other), 30)
        assert await here.alive(part)
    await here.stop(part)


@pytest.mark.real
async def test_a_program_that_is_not_there_says_so(here: HostParts, tmp_path: Path) -> None:
    missing = Command("api", ("/no/such/program", "x"), "x", tmp_path / "log")
    with pytest.raises(DriverError, match="api cannot be started") as refusal:
        await here.start(missing)
    assert refusal.value.reason == "ProcessFailed"


@pytest.mark.real
async def test_a_marker_must_be_in_the_command_line(here: HostParts, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="marker"):
        await here.start(Command("api", ("/bin/true",), "not there", tmp_path / "log"))


@pytest.mark.real
async def test_it_leaves_our_terminal(here: HostParts, tmp_path: Path) -> None:
    part = await here.start(program(tmp_path, "import signal; signal.pause()"))
    found = procfs.entry(part.pid)
    assert found is not None
    assert found.session == part.pid != os.getsid(0)
    await here.stop(part)
