"""What is said of the hosts beside the chosen one."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from bessemer.core.asking import Decision, Refusal, Request
from bessemer.kinds.fleet.planning import Planned, outline
from bessemer.placement import FleetArrays, decide
from bessemer.placement.own import Own
from bessemer.placement.preview import Scored
from tests.placement.hosts import ask, fleet, host


class Alone:
    """Arrays, and who decides over them."""

    def __init__(self, arrays: FleetArrays) -> None:
        self.arrays, self.own = arrays, Own(arrays)

    def ready(self) -> bool:
        return True

    def decide(self, request: Request) -> Decision | Refusal:
        return decide(self.arrays, request)


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
