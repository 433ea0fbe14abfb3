"""What is said of the hosts beside the chosen one, and of who waits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from bessemer.core.asking import Asker, Decision, Gang, GangDecision, Refusal, Request
from bessemer.core.clock import epoch
from bessemer.kinds.fleet.outlining import outline
from bessemer.kinds.fleet.planning import Earlier, Planned, plan
from bessemer.kinds.fleet.queueing import Foresight
from bessemer.kinds.fleet.tenure import CLEARED_SECONDS
from bessemer.placement import FleetArrays, decide
from bessemer.placement.gangs import decide_gang
from bessemer.placement.own import Own
from bessemer.placement.preview import Scored
from bessemer.placement.queue import Pending
from tests.kinds.fleet.test_queueing import THEIRS, furnish, make, status
from tests.kinds.world import World
from tests.placement.hosts import ask, fleet, host


class Alone:
    """Arrays, and who decides over them."""

    def __init__(self, arrays: FleetArrays) -> None:
        self.arrays, self.own = arrays, Own(arrays)

    def ready(self) -> bool:
        return True

    def decide(self, request: Request) -> Decision | Refusal:
        return decide(self.arrays, request)

    def decide_gang(self, gang: Gang) -> GangDecision | Refusal:
        return decide_gang(self.arrays, gang)

    def others(self) -> bool:
        return False

    def foresee(self, pending: Pending) -> None: ...


@pytest.mark.parametrize(
    ("score", "words"),
    [
        ({"spansNumaNodes": 0.0, "LPG": -3.0}, "it would cost the fleet 0.04 of a device more"),
        ({"spansNumaNodes": 0.0, "LPG": -5.0}, "as good, but for the order of hosts"),
        ({"spansNumaNodes": 1.0, "LPG": -9.0}, "it would span NUMA nodes"),
    ],
)
def test_what_another_host_has_against_it_is_said_also_of_gains(score: Mapping[str, float], words: str) -> None:
    there, asked = fleet(host("a", gpus=2), host("b", gpus=2)), ask(device_count=1, numa="preferred")
    decision = decide(there, asked)
    assert isinstance(decision, Decision)
    best = Scored("a", {"spansNumaNodes": 0.0, "LPG": -5.0}, {"waste": -100.0})
    planned = Planned(asked, 1, decisions=[decision], beside=[[best, Scored("b", score, {"waste": -60.0})]])
    (replica,) = outline(Alone(there), planned, named=True).replicas
    assert [other.why for other in replica.others] == [words]


def test_of_large_gangs_that_go_before_only_some_are_counted() -> None:
    """Nobody else is served meanwhile, and each member is held by itself."""
    there = Alone(fleet(*(host(f"h{number}", gpus=8, threads=64) for number in range(10))))
    large, small = Gang(member=ask(1, 1), count=65), Gang(member=ask(1, 1), count=2)
    found = plan(there, ask(1, 1), replicas=1, earlier=Earlier([(large, 1)] * 16))
    assert found.counted
    found = plan(there, ask(1, 1), replicas=1, earlier=Earlier([(large, 40), (small, 1)]))
    assert [one.asked for one in found.before] == [32, 0]
    assert not found.counted


async def test_whether_others_wait_is_known() -> None:
    async with World(hosts=1, gpus=1) as world:
        seen = Foresight(world.fleet._feed, world.fleet)
        await furnish(world)
        await make(world, "first")
        await world.until_ready("Instance", "first")
        assert (seen.ready(), seen.others()) == (True, False)
        await make(world, "second")

        async def waits() -> bool:
            return seen.others()

        await world.until(waits)
        assert isinstance(seen.decide(ask(1)), Decision)


async def test_what_a_plan_foresees_is_what_happens() -> None:
    async with World(hosts=1, gpus=2) as world:
        seen = Foresight(world.fleet._feed, world.fleet)
        await furnish(world, maxPriority=10)
        for name in ("low", "lower"):
            await make(world, name, preemptible=True)
            await world.until_ready("Instance", name)
        await make(world, "waits")

        async def waits() -> bool:
            return seen.others()

        await world.until(waits)
        holders = {c["metadata"]["uid"]: c["spec"]["workload"]["name"] for c in await world.bodies("Claim")}
        (request,) = [one.wants for one in world.fleet.line.waiting.pending.values()]
        asker = Asker(uid="planned", project=THEIRS, priority=7, since=int(world.clock.now()))
        # Of a lower standing it would come last, and nobody knows when what it waits for ends.
        last = seen.foresee(Pending(replace(asker, priority=-1), request))
        assert (last.ahead, last.waiting, last.start, last.stops) == (1, 1, None, {})
        assert last.words == "not known: nobody knows when what it would wait for ends; 1 of 1 that wait go before it"

        version, first = world.fleet._feed.arrays.version, seen.foresee(Pending(asker, request))
        assert (first.ahead, first.waiting, first.at_once) == (0, 1, False)
        # Thirty seconds ahead it is told, and then it is cleared away.
        assert first.start == int(world.clock.now()) + 30 + CLEARED_SECONDS
        assert [holders[uid] for uid in first.stops] == ["lower"]
        # Nothing is left of it: nobody is told, nobody joined, and the arrays are as they were.
        assert world.fleet._feed.arrays.version == version
        assert "planned" not in world.fleet.plan().order
        assert not any("ends-at" in str(c["metadata"]) for c in await world.bodies("Claim"))

        await make(world, "high", namespace=THEIRS, priority=7)

        async def placed() -> bool:
            return (await status(world, "high", namespace=THEIRS)).get("host") == "h1"

        async def told() -> bool:
            return "ends-at" in str(await world.bodies("Claim"))

        await world.until(told, seconds=20)
        (ends,) = [c["metadata"] for c in await world.bodies("Claim") if "ends-at" in str(c)]
        assert ends["uid"] in first.stops
        assert abs(int(ends["annotations"]["bessemer.dev/ends-at"]) + CLEARED_SECONDS - first.start) <= 10
        known = world.fleet._feed.arrays.held.of(ends["uid"])
        assert known is not None
        assert known.tenure.ends == int(ends["annotations"]["bessemer.dev/ends-at"]) + CLEARED_SECONDS
        # Its agent is not there for a while: what was told is still true.
        await world.silence("h1")
        began = world.clock.now()

        async def some_seconds() -> bool:
            return world.clock.now() >= began + CLEARED_SECONDS + 15

        await world.until(some_seconds)
        assert not await placed()
        said = await status(world, "high", namespace=THEIRS)
        assert epoch(said["expectedStart"]) > world.clock.now(), "no start is told that has passed"
        await world.hear("h1")
        await world.until(placed, seconds=200)
        assert world.clock.now() <= first.start + 10


async def test_what_would_start_at_once_is_foreseen_so_also_behind_others() -> None:
    async with World(hosts=1, gpus=1) as world:
        seen = Foresight(world.fleet._feed, world.fleet)
        await furnish(world)
        await make(world, "wide", flavor="two")

        async def waits() -> bool:
            return seen.others()

        await world.until(waits)
        asker = Asker(uid="planned", project=THEIRS, since=int(world.clock.now()))
        found = seen.foresee(Pending(asker, ask(1)))
        assert (found.at_once, found.start, found.words) == (
            True,
            int(world.clock.now()),
            f"at once; {found.ahead} of 1 that wait go before it",
        )
