"""The crash matrix: ``python -m tests.crash`` (from the root of the checkout, with ``src`` on the path).

Each scenario is lived through a few times, and the fewest driver calls N and commits M of these lives are
recorded. Then it is lived through once for each of the N + M points with a stop before it, and once with a stop after
it, of all that the process holds, of the control plane alone or of the agent alone: what was stopped is dropped, and a
new one finds the store and the hosts as they were left. Each life must end as the first did: converged, nothing
doubled, nothing leaked, each interval of the ledger closed once. At each stop it is noted in what phase the object was;
a matrix in which a phase of the scenario was not hit fails.

Lives differ a little, for a thread writes the store, and a stop that a life never came to proves nothing. Such a life
is lived again, and what is not reached then either is counted as unreached. Of stops at driver calls none may be: what
is done to a host does not depend on that thread. Of stops at commits, which it puts together now and then, so many may
be as `COMMITS_UNREACHED_MOST` says, and one of a few.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import structlog

from bessemer.core.values import LedgerEntry
from tests.kinds.points import EVERYTHING, PartName, Point, Sort
from tests.lives import SCENARIOS, Phases, Stage

COMMITS_UNREACHED_MOST = 0.05
LIVES = 3
"""How often a life is lived for one stop, until it is reached."""

VICTIMS: Mapping[str, frozenset[PartName]] = MappingProxyType(
    {"everything": EVERYTHING, "control": frozenset(("control",)), "agent": frozenset(("agent",))}
)


@dataclass(frozen=True)
class Life:
    """What one run of a scenario came to. ``starts`` counts true starts of guests and engines; ``phases`` are those at
    each point, ``stopped_in`` those at the stop where there was one."""

    drivers: Sequence[str]
    commits: Sequence[str]
    starts: int
    intervals: Sequence[Sequence[str]]
    crashes: int
    phases: Mapping[Point, Phases]
    stopped_in: Phases


@dataclass
class Matrix:
    """What the stops of one scenario came to; ``wrong`` says for each that went wrong what did, ``phases`` how many
    stops were in each phase."""

    name: str
    first: Life
    reached: Counter[Sort] = field(default_factory=Counter)
    unreached: Mapping[Sort, list[str]] = field(default_factory=lambda: {"driver": [], "commit": []})
    wrong: list[str] = field(default_factory=list)
    phases: Counter[str] = field(default_factory=Counter)

    @property
    def tried(self) -> int:
        return self.reached.total() + sum(map(len, self.unreached.values()))

    @property
    def missed(self) -> Phases:
        """The phases in which nothing was stopped."""
        return SCENARIOS[self.name].phases - self.phases.keys()

    def problems(self) -> Sequence[str]:
        """Why it fails; empty where it does not. That all phases were hit is asked of whole matrices: `missed`."""
        found, calls, commits = list(self.wrong), self.unreached["driver"], self.unreached["commit"]
        if calls:
            found += [f"{len(calls)} stops at driver calls were never reached: {', '.join(calls)}"]
        tried = self.reached["commit"] + len(commits)
        if len(commits) > max(1, COMMITS_UNREACHED_MOST * tried):
            found += [f"{len(commits)} of {tried} stops at commits were never reached: {', '.join(commits)}"]
        return found

    def __str__(self) -> str:
        calls = self.first.drivers
        unreached = " and ".join(f"{len(stops)} at {sort}s" for sort, stops in self.unreached.items())
        return (
            f"{self.name}: N = {len(calls)} driver calls ({len(set(calls))} distinct), "
            f"M = {len(self.first.commits)} commits; {self.reached.total()} stops reached, "
            f"unreached {unreached}, {len(self.wrong)} wrong; "
            f"in {', '.join(f'{phase} {count}' for phase, count in sorted(self.phases.items()))}"
        )


async def live(name: str, stop: Point | str | None = None, *, victims: frozenset[PartName] = EVERYTHING) -> Life:
    """One life of the scenario, checked at its end."""
    scenario = SCENARIOS[name]
    async with Stage(scenario.kind, scenario.name, stop=stop, victims=victims) as world:
        await scenario.play(world)
        await world.check_clean()
        return Life(
            drivers=tuple(world.points.names["driver"]),
            commits=tuple(world.points.names["commit"]),
            starts=world.starts[0],
            intervals=intervals(await world.store.ledger.entries()),
            crashes=world.crashes,
            phases=world.points.phases,
            stopped_in=world.points.stopped_in,
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
    calls = matrix.first.drivers if sort == "driver" else matrix.first.commits
    at = f"{victims}: {moment} {sort} call {index} ({calls[index]})"
    if await reached(matrix, stop, victims=victims, at=at):
        matrix.reached[sort] += 1
    else:
        matrix.unreached[sort].append(at)


async def reached(matrix: Matrix, stop: Point | str, *, victims: str, at: str) -> bool:
    """Whether one of a few lives came to the stop, of which what came is noted."""
    for _ in range(LIVES):
        try:
            life = await live(matrix.name, stop, victims=VICTIMS[victims])
        except AssertionError as error:
            matrix.wrong.append(f"{at}: {error}")
            return True
        if life.crashes:
            matrix.phases.update(life.stopped_in)
            matrix.wrong += (f"{at}: {words}" for words in differences(life, matrix.first))
            return True
    return False


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
    return min(lives, key=lambda life: (len(life.drivers), len(life.commits)))


async def explore(name: str, *, victims: Iterable[str] = ("everything",), every: int = 1, offset: int = 0) -> Matrix:
    """The whole matrix of a scenario, or each ``every``-th stop of it."""
    first, least = await shortest(name), SCENARIOS[name].least
    assert len(first.drivers) >= least, f"{name} makes {len(first.drivers)} driver calls, fewer than {least}"
    matrix = Matrix(name, first)
    for whom in victims:
        for stop in points(first)[offset::every]:
            await check(matrix, stop, whom)
    return matrix


async def explore_phases(name: str, *, victims: str) -> Matrix:
    """A stop in each phase of the scenario: at points that were in it once, driver calls first. Which commit is the
    how-many-eth differs from life to life, so where none of a few is in it, at the first that is."""
    matrix = Matrix(name, await shortest(name))
    for phase in sorted(SCENARIOS[name].phases):
        there = [point for point, phases in matrix.first.phases.items() if phase in phases]
        for stop in sorted(there, key=lambda point: point[0] != "driver")[:LIVES]:
            if phase not in matrix.phases:
                await check(matrix, stop, victims)
        if phase not in matrix.phases:
            await reached(matrix, phase, victims=victims, at=f"{victims}: at the first of {phase}")
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
        problems = [*matrix.problems(), *(f"never stopped in {phase}" for phase in matrix.missed if chosen.every == 1)]
        for words in [*problems, *(f"unreached: {stop}" for stops in matrix.unreached.values() for stop in stops)]:
            say(f"  {words}")
        failed = failed or bool(problems)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
