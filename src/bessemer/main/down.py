"""``bessemer down``: stop everything that a state directory started, also after kill -9 of all of it.

Parts are found by their command lines, guests and engines by their uids; pid files are hints. What is stored stays; the
ledger hears what was ended, since the agent that would say so is gone: nobody pays for time in which nothing runs.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import signal
from contextlib import closing, suppress
from pathlib import Path

import orjson
from rich.console import Console

from bessemer.core.clock import SystemClock
from bessemer.core.errors import BessemerError, DriverError
from bessemer.core.ports import Scope
from bessemer.drivers.engine.doors import default_folder
from bessemer.drivers.process import procfs
from bessemer.drivers.process.parts import HostParts
from bessemer.main.hostdrivers import local_drivers
from bessemer.main.parts import BESIDE, FAKE, GRACE_SECONDS, ORDER, command
from bessemer.main.settings import Paths, Settings, load, state_directory
from bessemer.main.up import LOCK

_SUPERVISOR_SECONDS = 20.0


def down(state: Path | None) -> int:
    """Stop it all; 0 also where nothing ran."""
    paths = Paths(state_directory(state))
    console = Console()
    said = asyncio.run(stop_all(paths))
    if not paths.state.exists():
        said = said or [f"Nothing was ever started in {paths.state}."]
    for line in said or ["nothing ran"]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return 0


async def stop_all(paths: Paths) -> list[str]:
    """Stop supervisor, parts, guests and engines of a state directory, which may be gone already; what was stopped, a
    line each."""
    said: list[str] = []
    if (pid := _supervisor(paths)) is not None:
        await _end(pid)
        said.append(f"supervisor (pid {pid}) stopped")
    parts, stopped = HostParts(), set()
    for name in (*reversed(BESIDE), *reversed(ORDER)):
        for part in await parts.find(command(paths, name).marker):
            await parts.stop(part, grace_seconds=GRACE_SECONDS)
            said.append(f"{name} (pid {part.pid}) stopped")
            stopped.add(name)
    ended = await _stop_workloads(paths)
    said += ended.values()
    settings = load(paths)
    if (ended or FAKE in stopped) and (settings.store or paths.store.exists()):
        said += await _tell_ledger(paths, settings, claims=set(ended), fakes=FAKE in stopped)
    for directory in (paths.agent, paths.fake):
        shutil.rmtree(default_folder(directory), ignore_errors=True)
    return said


async def _stop_workloads(paths: Paths) -> dict[str, str]:
    """Guests and engines, also what is left of those that have died: a control group outlives its processes. How
    members of jobs ended is kept: the next agent has yet to say it. Devices of guests are the host's again. Answers
    for the uid of each Claim for which something ran what that was."""
    drivers = local_drivers(paths.agent)
    said = {guest.uid: f"guest {guest.uid} (pid {guest.pid}) stopped" for guest in await drivers.qemu.running()}
    for engine in await drivers.engine.running():
        said[engine.uid] = f"engine {engine.uid} (pid {engine.pid}) stopped"
    for member in await drivers.jobs.running():
        said[member.uid] = f"member {member.uid} of a job (pid {member.pid}) stopped"
        await drivers.jobs.kill(member.uid)
    for uid in await drivers.qemu.uids():
        await drivers.qemu.kill(uid)
    for uid in await drivers.passthrough.uids():
        with suppress(DriverError):  # it is on record still, and the next agent's
            await drivers.passthrough.give_back(uid)
    for uid in await drivers.processes.uids():
        await drivers.engine.stop(uid)
    return said


async def _tell_ledger(paths: Paths, settings: Settings, *, claims: set[str], fakes: bool) -> list[str]:
    """That these run no more, nor with ``fakes`` what fake hosts only remember. Says where it cannot be told."""
    from bessemer.main.storage import open_state  # read where something ran, which is seldom; `down` is quick elsewhere

    try:
        with closing(open_state(paths, settings, clock=SystemClock())) as store:
            if fakes:
                page = await store.objects.list(Scope(kind="Claim"))
                claims |= {claim.uid for claim in page.items if orjson.loads(claim.body)["spec"].get("fake")}
            await store.ledger.lose(claims)
    except (BessemerError, OSError) as error:
        return [f"the ledger does not know that these were stopped: {error}"]
    return []


def _supervisor(paths: Paths) -> int | None:
    """The pid of whoever holds the state directory. The lock is the truth, the number in it says whom to ask."""
    lock = paths.state / LOCK
    if not lock.exists() or _free(lock):
        return None
    pid = lock.read_text().partition(" ")[0]
    return int(pid) if pid.isdigit() and int(pid) != os.getpid() else None


def _free(lock: Path) -> bool:
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


async def _end(pid: int) -> None:
    """End the supervisor: asked first, then made to. Returns when its process is gone."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        procfs.send(pid, number)
        for _ in range(int(_SUPERVISOR_SECONDS / 0.05)):
            if procfs.entry(pid) is None:
                return
            await asyncio.sleep(0.05)
