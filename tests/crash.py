"""The crash matrix: ``python -m tests.crash`` (from the root of the checkout, with ``src`` on the path).

Each scenario is lived through once to record its N driver calls and M commits. Then it is lived through once for each
of the N + M points with a stop of the process before it, and once with a stop after it: all that the process holds is
dropped, and a new one finds the store and the hosts as they were left. Each life must end as the first did: converged,
nothing doubled, nothing leaked, each interval of the ledger closed once.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from bessemer.core.values import LedgerEntry
from bessemer.drivers.process.protocol import End
from tests.kinds.world import Point, Sort, World

Scenario = Callable[[World], Awaitable[None]]


@dataclass(frozen=True)
class Life:
    """What one run of a scenario came to. ``starts`` counts true starts of guests and engines."""

    drivers: Sequence[str]
    commits: Sequence[str]
    starts: int
    intervals: Sequence[Sequence[str]]
    crashes: int


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


SCENARIOS: dict[str, tuple[Scenario, int]] = {"Instance": (instance, 12), "Endpoint": (endpoint, 8)}
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


async def live(name: str, stop: Point | None = None) -> Life:
    """One life of the scenario, checked at its end."""
    scenario, _ = SCENARIOS[name]
    async with World(stop=stop) as world:
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


async def check(name: str, first: Life, stop: Point) -> str:
    """Live through a stop. "" when it ended as the first life did, else what went wrong."""
    sort, index, moment = stop
    at = f"{moment} {sort} call {index} ({(first.drivers if sort == 'driver' else first.commits)[index]})"
    try:
        life = await live(name, stop)
    except AssertionError as error:
        return f"{at}: {error}"
    if life.crashes > 1:
        return f"{at}: the process was stopped {life.crashes} times"
    if life.starts != first.starts:
        return f"{at}: {life.starts} starts instead of {first.starts}"
    if life.intervals != first.intervals:
        return f"{at}: billed as {life.intervals} instead of {first.intervals}"
    return ""


async def matrix(name: str, *, every: int = 1, offset: int = 0) -> tuple[Life, int, Sequence[str]]:
    """The first life, how many stops were tried (each ``every``-th), and what went wrong."""
    first = await live(name)
    _, least = SCENARIOS[name]
    distinct = len(first.drivers)
    assert distinct >= least, f"{name} makes {distinct} driver calls, fewer than {least}"
    tried = points(first)[offset::every]
    found = [await check(name, first, stop) for stop in tried]
    return first, len(tried), [words for words in found if words]


def say(line: str) -> None:
    sys.stdout.write(line + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kinds", nargs="*", choices=[*SCENARIOS, []], help="all of them by default")
    parser.add_argument("--every", type=int, default=1, help="try every so many-eth point only")
    chosen = parser.parse_args(argv)
    wrong = 0
    for name in chosen.kinds or SCENARIOS:
        began = time.monotonic()
        first, tried, found = asyncio.run(matrix(name, every=chosen.every))
        seconds = time.monotonic() - began
        say(
            f"{name}: N = {len(first.drivers)} driver calls, M = {len(first.commits)} commits; "
            f"{tried} stops, {len(found)} wrong, {seconds:.0f} s"
        )
        for words in found:
            say(f"  {words}")
        wrong += len(found)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
