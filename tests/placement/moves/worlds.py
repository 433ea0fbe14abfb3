"""Random fleets that are part full, with claims that say what they were placed by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import strategies as st

from bessemer.core.values import Decision, Request
from bessemer.placement import FleetArrays, Hold, HostFacts
from bessemer.placement.choose import place
from bessemer.placement.facts import Tenure
from bessemer.placement.shape import Shape
from bessemer.placement.sight import Sight
from tests.placement.test_properties import fleets, requests

tenures = st.builds(
    Tenure,
    priority=st.integers(0, 2),
    ends=st.one_of(st.none(), st.integers(100, 200)),
    preemptible=st.booleans(),
    restartable=st.integers(0, 4).map(bool),
)


def hold_of(decision: Decision, request: Request, tenure: Tenure) -> Hold:
    """What a claim that was placed so holds."""
    return Hold(
        decision.host,
        decision.devices,
        decision.allocations,
        decision.device_milli,
        Shape.of(request),
        request,
        tenure,
    )


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[HostFacts], dict[str, Hold]]:
    """Hosts, and claims that lie where placement put them, one after the other."""
    facts = draw(fleets())
    # Claims stay where a host is cordoned or lost: they were placed before.
    fleet = arrays([replace(fact, schedulable=True, reachable=True, taints=()) for fact in facts], {})
    holds: dict[str, Hold] = {}
    for n in range(draw(st.integers(0, 9))):
        request, tenure = draw(requests), draw(tenures)
        decision = place(Sight.of(fleet, request))
        if decision is not None:
            holds[f"c{n}"] = hold_of(decision, request, tenure)
            fleet.hold(f"c{n}", holds[f"c{n}"])
    return facts, holds


def arrays(facts: Sequence[HostFacts], holds: dict[str, Hold]) -> FleetArrays:
    """Of those hosts and claims."""
    fleet = FleetArrays()
    for fact in facts:
        fleet.set_host(fact)
    for uid, hold in holds.items():
        fleet.hold(uid, hold)
    return fleet
