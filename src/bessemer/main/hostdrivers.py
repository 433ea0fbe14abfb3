"""The real drivers of this machine, for an agent's directory: what `agent`, `down` and `doctor` build alike."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from bessemer.agent.agent import AgentDrivers
from bessemer.drivers.cgroup import Cgroups
from bessemer.drivers.disks.real import QcowDisks
from bessemer.drivers.engine.doors import Doors, default_folder
from bessemer.drivers.engine.doorway import HostDoorway
from bessemer.drivers.engine.real import HostEngines
from bessemer.drivers.engine.recipe import Recipe
from bessemer.drivers.fetch.real import HostContent
from bessemer.drivers.inspect.kvm import KvmProbe
from bessemer.drivers.inspect.real import LocalInspect
from bessemer.drivers.inspect.sysfs import Machine, used
from bessemer.drivers.jobs.kept import Kept
from bessemer.drivers.jobs.real import HostJobs
from bessemer.drivers.llamacpp.real import LlamaCpp
from bessemer.drivers.load.real import HostLoads
from bessemer.drivers.passthrough.real import VfioPassthrough
from bessemer.drivers.process.real import HostProcesses
from bessemer.drivers.qemu.confine import Confinement
from bessemer.drivers.qemu.kin import GuestHerd
from bessemer.drivers.qemu.real import LocalQemu
from bessemer.drivers.threads.real import HostThreads
from bessemer.drivers.vllm.real import Vllm
from bessemer.drivers.wipe.handing import CleanPassthrough
from bessemer.drivers.wipe.real import BlockMedia
from bessemer.drivers.wipe.records import FolderRecords
from bessemer.drivers.wipe.wipes import Wipes
from bessemer.kinds.context import HostDrivers


@dataclass(frozen=True, slots=True)
class LocalDrivers:
    """Everything that one agent's directory holds on this machine."""

    qemu: LocalQemu
    disks: QcowDisks
    engine: HostEngines
    jobs: HostJobs
    processes: HostProcesses
    content: HostContent
    inspect: LocalInspect
    doorway: HostDoorway
    loads: HostLoads
    threads: HostThreads
    passthrough: CleanPassthrough
    wipes: Wipes

    def for_agent(self) -> AgentDrivers:
        """As an agent takes them."""
        host = HostDrivers(
            qemu=self.qemu,
            disks=self.disks,
            engine=self.engine,
            jobs=self.jobs,
            passthrough=self.passthrough,
            adapters=self.engine.adapters,
            loads=self.loads,
        )
        return AgentDrivers(
            inspect=self.inspect,
            content=self.content,
            host=host,
            doorway=self.doorway,
            threads=self.threads,
            wipes=self.wipes,
        )


def local_drivers(directory: Path, *, vllm: str = "") -> LocalDrivers:
    """The drivers over an agent's directory; nothing is started or changed by this. ``vllm`` is the virtual environment
    that holds it, where there is one."""
    processes = HostProcesses(directory / "processes")
    doors = default_folder(directory)
    recipes: tuple[Recipe, ...] = (LlamaCpp(), Vllm(Path(vllm))) if vllm else (LlamaCpp(),)
    members = HostProcesses(directory / "jobs")
    guests, groups = directory / "guests", Cgroups(f"bessemer/{_name(directory)}/guests")
    cgroups = groups if groups.available else None
    wipes = Wipes(disk_records(directory), BlockMedia(Machine().disks))
    handing = VfioPassthrough(directory / "passthrough", used=lambda: used(Machine()))
    # As we begin: later we keep ourselves off what is somebody's own.
    mine = frozenset(os.sched_getaffinity(0))
    return LocalDrivers(
        qemu=LocalQemu(guests, confinement=Confinement.here(namespaces=True), cgroups=cgroups),
        disks=QcowDisks(directory / "disks"),
        engine=HostEngines(processes, doors, state=directory / "adapters", recipes=recipes),
        jobs=HostJobs(members, Kept(directory / "outputs")),
        processes=processes,
        content=HostContent(directory / "content"),
        inspect=LocalInspect(KvmProbe(directory / "kvm.json"), processes, machine=Machine(allowed=mine)),
        doorway=HostDoorway(processes, doors),
        loads=HostLoads(processes, Doors(doors)),
        threads=HostThreads((GuestHerd(guests, cgroups=cgroups), processes.herd, members.herd), mine=mine),
        passthrough=CleanPassthrough(handing, wipes),
        wipes=wipes,
    )


def disk_records(directory: Path) -> FolderRecords:
    """Which disks went to guests of an agent."""
    return FolderRecords(directory / "wipes")


def _name(directory: Path) -> str:
    # Two state directories on one machine must not see each other's guests.
    return hashlib.sha256(str(directory.absolute()).encode()).hexdigest()[:12]
