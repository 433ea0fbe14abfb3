"""What is said of the hosts beside the chosen one, and of who waits."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from bessemer.core.asking import Decision, Gang, GangDecision, Refusal, Request
from bessemer.kinds.fleet.foresight import Foresight
from bessemer.kinds.fleet.outlining import outline
from bessemer.kinds.fleet.planning import Planned
from bessemer.placement import FleetArrays, decide
from bessemer.placement.gangs import decide_gang
from bessemer.placement.own import Own
from bessemer.placement.preview import Scored
from bessemer.placement.queue import Pending
from tests.kinds.fleet.test_queueing import furnish, make
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
