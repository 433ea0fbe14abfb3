"""Lives of an Instance, an Endpoint and a Job for the crash matrix, and the cloud in which they are lived.

Each is a scenario: what a user does, what goes wrong by itself, and what is waited for. Together they come to every
phase that there is. `Noted` says in which phases things were at each point, or at the one where a life was stopped.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from bessemer.core.errors import BessemerError
from bessemer.drivers.jobs.fake import Fate
from bessemer.drivers.jobs.protocol import MemberSpec
from bessemer.drivers.process.protocol import End
from bessemer.drivers.qemu.fake import Fault
from tests.kinds.points import EVERYTHING, Moment, PartName, Point, Points, Sort
from tests.kinds.world import World

Phases = frozenset[str]
"""The phase of the scenario's object, and those of its claims, as "Claim Lost"."""


class Noted(Points):
    """Points at which the phases are noted: at all of them, or where there is a stop at that one alone. A stop may also
    be the first point in a phase, whichever that is in this life; ``stopped_in`` are the phases at the stop."""

    def __init__(self, look: Callable[[], Awaitable[Phases]]) -> None:
        self._look = look
        super().__init__()

    def arm(self, stop: Point | str | None, victims: frozenset[PartName] = EVERYTHING) -> None:
        super().arm(None if isinstance(stop, str) else stop, victims)
        self.phases: dict[Point, Phases] = {}
        self.stopped_in = Phases()
        self._sought = stop if isinstance(stop, str) else ""
        self._all = stop is None or bool(self._sought)

    async def pass_by(self, sort: Sort, name: str, call: Callable[[], Awaitable[Any]], *, part: PartName) -> Any:
        index = len(self.names[sort])

        async def note(moment: Moment) -> None:
            # To look suspends nothing: what is noted is so at the very stop.
            here = (sort, index, moment)
            if self._all or self.stop == here:
                found = self.phases[here] = await self._look()
                if self._sought in found:
                    self.stop, self._sought = here, ""
                if self.stop == here:
                    self.stopped_in = found

        async def noted() -> Any:
            try:
                result = await call()
            except BessemerError:
                # A refusal is an answer, too: there is a moment after it.
                await note("after")
                self._perhaps_stop((sort, index, "after"))
                self._end(sort, part)
                raise
            await note("after")
            return result

        await note("before")
        return await super().pass_by(sort, name, noted, part=part)


class Stage(World):
    """The cloud of one scenario, which looks at ``kind``/``name``. While it is ``cut_off``, no heartbeat arrives."""

    cut_off = False

    def __init__(self, kind: str, name: str, **how: Any) -> None:
        super().__init__(**how)
        self._kind, self._name = kind, name
        self.points = Noted(self.phases)

    async def phases(self) -> Phases:
        """In what phases they are now; none before there is anything."""
        found = await self.object(self._kind, self._name)
        claims = [await self.object("Claim", f"{self._kind.lower()}-{self._name}-{n}") for n in range(2)]
        said = {_phase(found)} if found else set()
        return frozenset(said | {f"Claim {_phase(claim)}" for claim in claims if claim})

    async def until_phase(self, phase: str) -> None:
        async def holds() -> bool:
            return phase in await self.phases()

        await self.until(holds)

    async def _beat(self) -> None:
        if not self.cut_off:
            await super()._beat()


def _phase(body: Mapping[str, Any]) -> str:
    return str(body.get("status", {}).get("phase") or "Pending")


@dataclass(frozen=True)
class Scenario:
    """A life. ``least`` driver calls make it worth its name; ``phases`` are those in which it is stopped."""

    kind: str
    name: str
    play: Callable[[Stage], Awaitable[None]]
    least: int
    phases: Phases


async def instance(world: Stage) -> None:
    """Up, stopped, up again, its QEMU killed, up again, deleted."""
    await world.create("Instance", "vm", {"flavor": "small", "image": "micro"})
    await world.until_ready("Instance", "vm")
    await world.patch("Instance", "vm", running=False)
    await world.until_reason("Instance", "vm", "Stopped")
    await world.patch("Instance", "vm", running=True)
    await world.until_ready("Instance", "vm")
    world.hosts["h1"].qemu.kill_process(await claim_uid(world))
    await until_restarted(world)
    await world.until_ready("Instance", "vm")
    await world.delete("Instance", "vm")
    await world.until_gone("Instance", "vm")


async def troubled_instance(world: Stage) -> None:
    """Given up for what its guest says, asked for again, up, its host silent and heard again, deleted."""
    host = world.hosts["h1"]
    host.qemu.faults["*"] = Fault.WRONG_CPUS
    await world.create("Instance", "vm", {"flavor": "small", "image": "micro"})
    await world.until_phase("Failed")
    host.qemu.faults.clear()
    await world.patch("Instance", "vm", restartPolicy="Never")
    await world.until_ready("Instance", "vm")
    await silent_for_a_while(world, "Instance", "vm")
    await world.delete("Instance", "vm")
    await world.until_gone("Instance", "vm")


async def endpoint(world: Stage) -> None:
    """Two replicas up, one engine killed and up again, scaled to one, deleted."""
    await world.create("Endpoint", "chat", {"model": "smol", "flavor": "serve", "replicas": 2})
    await world.until_ready("Endpoint", "chat")
    await world.hosts["h1"].engine.end(await claim_uid(world), End.CRASHED)
    await until_restarted(world)
    await world.until_ready("Endpoint", "chat")
    await world.patch("Endpoint", "chat", replicas=1)

    async def scaled() -> bool:
        return len(await world.bodies("Claim")) == 1

    await world.until(scaled)
    await world.delete("Endpoint", "chat")
    await world.until_gone("Endpoint", "chat")


async def troubled_endpoint(world: Stage) -> None:
    """Up, its host silent and heard again, scaled to none, up again, deleted."""
    await world.create("Endpoint", "chat", {"model": "smol", "flavor": "serve", "replicas": 1})
    await world.until_ready("Endpoint", "chat")
    await silent_for_a_while(world, "Endpoint", "chat")
    await world.patch("Endpoint", "chat", replicas=0)
    await world.until_reason("Endpoint", "chat", "Stopped")
    await world.patch("Endpoint", "chat", replicas=1)
    await world.until_ready("Endpoint", "chat")
    await world.delete("Endpoint", "chat")
    await world.until_gone("Endpoint", "chat")


GANG = {"flavor": "serve", "members": 2, "script": "train"}


async def job(world: Stage) -> None:
    """A gang of two, of which one fails; taken anew, it ends well, and is deleted."""

    def fate(member: MemberSpec) -> Fate:
        first = member.env["BESSEMER_ATTEMPT"] == "0"
        return Fate(1000.0 if first and member.env["RANK"] == "0" else 4.0, 3 if first else 0)

    world.hosts["h1"].jobs.fate = fate
    await world.create("Job", "train", {**GANG, "backoffLimit": 1})
    await world.until_phase("Succeeded")
    await until_free(world)
    await world.delete("Job", "train")
    await world.until_gone("Job", "train")


async def troubled_job(world: Stage) -> None:
    """A gang that fails for good and is deleted; another, its host silent and heard again, deleted while it runs."""
    world.hosts["h1"].jobs.fate = lambda member: Fate(4.0 if member.env["RANK"] == "1" else 1000.0, 3)
    await world.create("Job", "train", GANG)
    await world.until_phase("Failed")
    await until_free(world)
    await world.delete("Job", "train")
    await world.until_gone("Job", "train")
    world.hosts["h1"].jobs.fate = lambda _member: Fate(100_000.0)
    await world.create("Job", "train", GANG)
    await world.until_phase("Running")
    world.cut_off = True
    await world.until_phase("Unknown")
    world.cut_off = False
    await world.until_phase("Running")
    await world.delete("Job", "train")
    await world.until_gone("Job", "train")


async def until_free(world: World) -> None:
    """Wait until nothing is held."""

    async def free() -> bool:
        return not await world.bodies("Claim")

    await world.until(free)


async def silent_for_a_while(world: Stage, kind: str, name: str) -> None:
    """Its host is not heard until it is said to be Unknown; then it is."""
    world.cut_off = True
    await world.until_phase("Unknown")
    world.cut_off = False
    await world.until_ready(kind, name)


SCENARIOS: Mapping[str, Scenario] = MappingProxyType(
    {
        "Instance": Scenario(
            "Instance",
            "vm",
            instance,
            least=12,
            phases=Phases(
                ("Pending", "Preparing", "Booting", "Running", "Stopping", "Stopped", "Terminating", "Claim Lost")
            ),
        ),
        "Endpoint": Scenario(
            "Endpoint",
            "chat",
            endpoint,
            least=8,
            phases=Phases(("Pending", "Starting", "Ready", "Degraded", "Terminating", "Claim Lost")),
        ),
        "Job": Scenario(
            "Job",
            "train",
            job,
            least=12,
            phases=Phases(
                ("Pending", "Placing", "Running", "Restarting", "Succeeded", "Claim Running", "Claim Failed")
            ),
        ),
        "Job-in-trouble": Scenario(
            "Job", "train", troubled_job, least=12, phases=Phases(("Failed", "Unknown", "Terminating"))
        ),
        "Instance-in-trouble": Scenario(
            "Instance", "vm", troubled_instance, least=12, phases=Phases(("Failed", "Unknown"))
        ),
        "Endpoint-in-trouble": Scenario(
            "Endpoint", "chat", troubled_endpoint, least=8, phases=Phases(("Stopped", "Unknown"))
        ),
    }
)


async def claim_uid(world: World) -> str:
    """The uid of the first Claim."""
    uid: str = (await world.bodies("Claim"))[0]["metadata"]["uid"]
    return uid


async def until_restarted(world: World) -> None:
    """Wait until the first Claim runs again after it did not."""

    async def restarted() -> bool:
        status = (await world.bodies("Claim"))[0]["status"]
        return bool(status.get("restarts") and status["phase"] == "Running")

    await world.until(restarted)
