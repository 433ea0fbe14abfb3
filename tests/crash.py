"""The crash matrix: ``python -m tests.crash`` (from the root of the checkout, with ``src`` on the path).

Each scenario is lived through a few times, and the life with the fewest driver calls N and commits M is recorded. Then
it is lived through once for each of the N + M points with a stop before it, and once with a stop after it, of all that
the process holds, of the control plane alone or of the agent alone: what was stopped is dropped, and a new one finds
the store and the hosts as they were left. Each life must end as the first did: converged, nothing doubled, nothing
leaked, each interval of the ledger closed once.

Lives differ a little, for a thread writes the store, and a stop that a life never came to proves nothing. Such a life
is lived again, and what is not reached then either is counted as unreached; with fewer than `REACHED_LEAST` reached the
matrix fails.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import structlog

from bessemer.core.values import LedgerEntry
from bessemer.drivers.process.protocol import End
from tests.kinds.points import EVERYTHING, PartName, Point, Sort
from tests.kinds.world import World

REACHED_LEAST = 0.95
LIVES = 3
"""How often a life is lived for one stop, until it is reached."""

VICTIMS: Mapping[str, frozenset[PartName]] = MappingProxyType(
    {"everything": EVERYTHING, "control": frozenset(("control",)), "agent": frozenset(("agent",))}
)

Scenario = Callable[[World], Awaitable[None]]


@dataclass(frozen=True)
class Life:
    """What one run of a scenario came to. ``starts`` counts true starts of guests and engines."""

    drivers: Sequence[str]
    commits: Sequence[str]
    starts: int
    intervals: Sequence[Sequence[str]]
    crashes: int


@dataclass
class Matrix:
    """What the stops of one scenario came to; ``wrong`` says for each that went wrong what did."""

    name: str
    first: Life
    reached: int = 0
    unreached: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def tried(self) -> int:
        return self.reached + len(self.unreached)

    def problems(self) -> Sequence[str]:
        """Why it fails; empty where it does not."""
        found = list(self.wrong)
        if self.reached < REACHED_LEAST * self.tried:
            found += [f"only {self.reached} of {self.tried} stops were reached; not: {', '.join(self.unreached)}"]
        return found

    def __str__(self) -> str:
        calls = self.first.drivers
        return (
            f"{self.name}: N = {len(calls)} driver calls ({len(set(calls))} distinct), "
            f"M = {len(self.first.commits)} commits; "
            f"{self.reached} stops reached, {len(self.unreached)} unreached, {len(self.wrong)} wrong"
        )


async def instance(world: World) -> None:
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


async def endpoint(world: World) -> None:
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


SCENARIOS: Mapping[str, tuple[Scenario, int]] = MappingProxyType(
    {"Instance": (instance, 12), "Endpoint": (endpoint, 8)}
)
"""Each with the least number of driver calls that makes it worth its name."""


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


async def live(name: str, stop: Point | None = None, *, victims: frozenset[PartName] = EVERYTHING) -> Life:
    """One life of the scenario, checked at its end."""
    scenario, _ = SCENARIOS[name]
    async with World(stop=stop, victims=victims) as world:
        await scenario(world)
        await world.check_clean()
        host = world.hosts["h1"]
        return Life(
            drivers=tuple(world.points.names["driver"]),
            commits=tuple(world.points.names["commit"]),
            starts=host.qemu.starts + host.engine.starts,
            intervals=intervals(await world.store.ledger.entries()),
            crashes=world.crashes,
        )


def intervals(rows: Sequence[LedgerEntry]) -> Sequence[Sequence[str]]:
    """Of each claim, by replica: what it was billed as, one after the other."""
    claims: dict[str, list[str]] = {}
    for row in rows:
        if row.claim_uid:
            claims.setdefault(row.claim_uid, []).append(row.state or row.kind)
    return sorted(claims.values())


def points(life: Life) -> Sequence[Point]:
    """Before and after each driver call and each commit of the life."""
    lengths: dict[Sort, int] = {"driver": len(life.drivers), "commit": len(life.commits)}
    return [
        (sort, index, moment)
        for sort, length in lengths.items()
        for index in range(length)
        for moment in ("before", "after")  # type: ignore[misc]
    ]


async def check(matrix: Matrix, stop: Point, victims: str) -> None:
    """Live through a stop, again until it is reached, and note what came of it."""
    sort, index, moment = stop
    first = matrix.first
    at = f"{victims}: {moment} {sort} call {index} ({(first.drivers if sort == 'driver' else first.commits)[index]})"
    for _ in range(LIVES):
        try:
            life = await live(matrix.name, stop, victims=VICTIMS[victims])
        except AssertionError as error:
            matrix.reached += 1
            matrix.wrong.append(f"{at}: {error}")
            return
        if life.crashes:
            matrix.reached += 1
            matrix.wrong += (f"{at}: {words}" for words in differences(life, first))
            return
    matrix.unreached.append(at)


def differences(life: Life, first: Life) -> Iterable[str]:
    """In what a life that was stopped once did not end as the first did."""
    if life.crashes > 1:
        yield f"it was stopped {life.crashes} times"
    if life.starts != first.starts:
        yield f"{life.starts} starts instead of {first.starts}"
    if life.intervals != first.intervals:
        yield f"billed as {life.intervals} instead of {first.intervals}"


async def shortest(name: str) -> Life:
    """Of a few lives without a stop the one with fewest points: those that all of them come to."""
    lives = [await live(name) for _ in range(LIVES)]
    return min(lives, key=lambda life: len(life.drivers) + len(life.commits))


async def explore(name: str, *, victims: Iterable[str] = ("everything",), every: int = 1, offset: int = 0) -> Matrix:
    """The whole matrix of a scenario, or each ``every``-th stop of it."""
    first = await shortest(name)
    _, least = SCENARIOS[name]
    assert len(first.drivers) >= least, f"{name} makes {len(first.drivers)} driver calls, fewer than {least}"
    matrix = Matrix(name, first)
    for whom in victims:
        for stop in points(first)[offset::every]:
            await check(matrix, stop, whom)
    return matrix


def say(line: str) -> None:
    sys.stdout.write(line + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kinds", nargs="*", choices=[*SCENARIOS, []], help="all of them by default")
    parser.add_argument("--every", type=int, default=1, help="try every so many-eth stop only")
    parser.add_argument("--victims", nargs="*", choices=[*VICTIMS], default=["everything"], help="who is stopped")
    chosen = parser.parse_args(argv)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    failed = False
    for name in chosen.kinds or SCENARIOS:
        began = time.monotonic()
        matrix = asyncio.run(explore(name, victims=chosen.victims, every=chosen.every))
        say(f"{matrix}, {time.monotonic() - began:.0f} s")
        for words in [*matrix.problems(), *(f"unreached: {stop}" for stop in matrix.unreached)]:
            say(f"  {words}")
        failed = failed or bool(matrix.problems())
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
