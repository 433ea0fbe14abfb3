"""Members of jobs on this machine: confined processes on the host's network.

Behind the walls are the host's programs and libraries, read-only, and what names and certificates they need. There is
no way to a member but its own sockets, so what others on the network may reach is what it opens.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

from bessemer.core.errors import DriverError
from bessemer.drivers.jobs.kept import Kept
from bessemer.drivers.jobs.nodes import nodes_of
from bessemer.drivers.jobs.protocol import HOSTFILE, SCRIPT, MemberSpec, RunningMember
from bessemer.drivers.process.protocol import Confined, Ended, Running
from bessemer.drivers.process.real import HostProcesses

PROGRAMS = (
    "/usr/bin",
    "/usr/share",
    "/usr/local/bin",
    "/usr/local/lib",
    "/etc/alternatives",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/ssl/certs",
)
"""Of the host, as far as they are there, at their own paths."""

PIDS_MAX = 4096
_HOSTS = "BESSEMER_HOSTFILE"
_BEGIN = f'cd /tmp && cat >{SCRIPT} && printf %s "${_HOSTS}" >{HOSTFILE} && unset {_HOSTS} && exec "$@" </dev/null'
"""The script comes on standard input, which is the way for what may be secret and needs no file of the host."""


class HostJobs:
    """Implements `jobs.protocol.Jobs`. ``processes`` should hold members alone: `uids` lists all of it."""

    def __init__(self, processes: HostProcesses, kept: Kept) -> None:
        self._processes = processes
        self._kept = kept

    async def start(self, member: MemberSpec) -> RunningMember:
        return _member(await self._processes.start(_confined(member)))

    async def find(self, uid: str) -> RunningMember | None:
        running = await self._processes.find(uid)
        return None if running is None else _member(running)

    async def running(self) -> tuple[RunningMember, ...]:
        return tuple(_member(one) for one in await self._processes.running())

    async def uids(self) -> frozenset[str]:
        return await self._processes.uids()

    async def ended(self, uid: str) -> Ended | None:
        return await self._processes.ended(uid)

    def log(self, uid: str, *, follow: bool = False) -> AsyncIterator[bytes]:
        return self._processes.log(uid, follow=follow)

    async def keep(self, uid: str, name: str) -> None:
        try:
            await self._kept.keep(name, self.log(uid))
        except OSError as error:
            raise DriverError("DiskFull", "its output cannot be kept", internal=str(error)) from error

    def kept(self, name: str) -> AsyncIterator[bytes]:
        return self._kept.read(name)

    async def kill(self, uid: str) -> None:
        await self._processes.kill(uid)

    async def remove(self, uid: str) -> None:
        await self._processes.remove(uid)


def _member(running: Running) -> RunningMember:
    return RunningMember(running.uid, running.pid, running.started_ticks)


def _confined(member: MemberSpec) -> Confined:
    binds = [(Path("/usr/bin"), "/bin"), *((Path(path), path) for path in PROGRAMS if Path(path).exists())]
    return Confined(
        uid=member.uid,
        argv=("/bin/sh", "-c", _BEGIN, "sh", *member.words),
        cores_milli=member.cores_milli,
        memory_bytes=member.memory_bytes,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp", **member.env, _HOSTS: member.hosts},
        binds_ro=tuple(binds),
        pids_max=PIDS_MAX,
        tmp_bytes=max(1 << 20, member.memory_bytes // 2),
        network=True,
        devices=nodes_of(member.devices),
        own_cpus=member.own_cpus,
        stdin=member.script.encode(),
    )
