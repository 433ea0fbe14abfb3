"""Members of jobs on a fake host: the same promises on an injected clock.

The object stands for the host and outlives the fake agent. A member runs for `Fate.seconds` and ends as its fate says;
`fate` may be set at any time and counts for what is started from then on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from bessemer.core.clock import Clock
from bessemer.drivers import Hook, no_hook
from bessemer.drivers.jobs.protocol import MemberSpec, RunningMember
from bessemer.drivers.process.fake import FakeProcesses
from bessemer.drivers.process.protocol import Confined, End, Ended, Running


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of a member: how long it runs, and how it ends then."""

    seconds: float = 20.0
    code: int = 0
    reason: End | None = None
    """None follows from the code."""


class FakeJobs:
    """Implements `jobs.protocol.Jobs` in memory. ``starts`` counts true starts; ``specs`` are what was started, by uid;
    ``outputs`` is what was kept, by name."""

    def __init__(self, clock: Clock, *, on_call: Hook = no_hook) -> None:
        self._clock = clock
        self._on_call = on_call
        self._ends: dict[str, tuple[float, Fate]] = {}
        self.processes = FakeProcesses(clock)
        self.fate: Callable[[MemberSpec], Fate] = lambda _member: Fate()
        self.specs: dict[str, MemberSpec] = {}
        self.outputs: dict[str, bytes] = {}
        self.starts = 0

    async def start(self, member: MemberSpec) -> RunningMember:
        self._on_call("jobs.start")
        running = await self._living(member.uid)
        if running is None:
            confined = Confined(
                member.uid, member.words, cores_milli=member.cores_milli, memory_bytes=member.memory_bytes
            )
            running = await self.processes.start(confined)
            fate = self.fate(member)
            self._ends[member.uid] = (self._clock.monotonic() + fate.seconds, fate)
            self.specs[member.uid] = member
            self.starts += 1
            self.processes.say(member.uid, f"fake member: {member.words[0]}\n".encode())
        self._on_call("jobs.start.done")
        return _member(running)

    async def find(self, uid: str) -> RunningMember | None:
        self._on_call("jobs.find")
        running = await self._living(uid)
        return None if running is None else _member(running)

    async def running(self) -> tuple[RunningMember, ...]:
        self._on_call("jobs.running")
        for uid in list(self._ends):
            await self._living(uid)
        return tuple(_member(one) for one in await self.processes.running())

    async def uids(self) -> frozenset[str]:
        self._on_call("jobs.uids")
        return frozenset(self.specs)

    async def ended(self, uid: str) -> Ended | None:
        self._on_call("jobs.ended")
        await self._living(uid)
        return await self.processes.ended(uid)

    async def log(self, uid: str, *, follow: bool = False) -> AsyncIterator[bytes]:
        self._on_call("jobs.log")
        async for chunk in self.processes.log(uid, follow=follow):
            yield chunk

    async def keep(self, uid: str, name: str) -> None:
        self._on_call("jobs.keep")
        output = b"".join([chunk async for chunk in self.processes.log(uid)])
        self.outputs[name] = output or self.outputs.get(name, b"")
        self._on_call("jobs.keep.done")

    async def kept(self, name: str) -> AsyncIterator[bytes]:
        self._on_call("jobs.kept")
        if output := self.outputs.get(name, b""):
            yield output

    async def kill(self, uid: str) -> None:
        self._on_call("jobs.kill")
        await self.processes.kill(uid)
        self._on_call("jobs.kill.done")

    async def remove(self, uid: str) -> None:
        self._on_call("jobs.remove")
        await self.processes.remove(uid)
        self._ends.pop(uid, None)
        self.specs.pop(uid, None)
        self._on_call("jobs.remove.done")

    async def _living(self, uid: str) -> Running | None:
        """The member, if its time has not come."""
        at, fate = self._ends.get(uid, (float("inf"), Fate()))
        if self._clock.monotonic() >= at:
            self.processes.end(uid, fate.reason or (End.CRASHED if fate.code else End.EXITED), code=fate.code)
        return await self.processes.find(uid)


def _member(running: Running) -> RunningMember:
    return RunningMember(running.uid, running.pid, running.started_ticks)
