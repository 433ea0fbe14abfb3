"""Random fleets that are part full, with claims that say what they were placed by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from bessemer.core.asking import Decision, Request
from bessemer.core.hosts import Device, Inventory, NumaNode
from bessemer.core.units import GIB
from bessemer.placement import FleetArrays, Hold, HostFacts
from bessemer.placement.choose import place
from bessemer.placement.facts import Tenure
from bessemer.placement.filters import fitting
from bessemer.placement.shape import Shape
from bessemer.placement.sight import Sight
from tests.placement.hosts import partitions
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
    return replace(Hold.of(decision), shape=Shape.of(request), request=request, tenure=tenure)


MODELS = ("A", "B")


@st.composite
def roomy(draw: st.DrawFn, name: str) -> HostFacts:
    """A host that takes several claims."""
    nodes = draw(st.integers(1, 2))
    numa = [NumaNode(id=n, cores=4, threads=draw(st.integers(4, 8)), memory_bytes=8 * GIB) for n in range(nodes)]
    devices = [
        Device(
            id=f"g{n}",
            kind="gpu",
            model=draw(st.sampled_from(MODELS)),
            numa_node=n % nodes,
            pcie_switch=f"s{n // 2}",
            nvlink_domain="n0",
        )
        for n in range(draw(st.integers(2, 5)))
    ]
    found = Inventory(numa=numa, devices=devices, nvlink_partitions=draw(partitions(devices)))
    return HostFacts(name=name, inventory=found, schedulable=draw(st.integers(0, 9)) > 0)


small = st.builds(
    lambda devices, **more: Request(device_count=devices[0], device_milli=devices[1], **more),
    st.sampled_from(((0, 1000), (1, 1000), (1, 1000), (2, 1000), (1, 300), (1, 500), (1, 700))),
    tenant=st.just("acme"),
    milli_cores=st.integers(0, 3).map(lambda n: n * 1000),
    memory_bytes=st.integers(0, 3).map(lambda n: n * GIB),
    device_models=st.sampled_from((frozenset[str](), frozenset({"A"}))),
)

large = st.builds(
    lambda devices, **more: Request(device_count=devices[0], device_milli=devices[1], **more),
    st.sampled_from(((0, 1000), (1, 1000), (2, 1000), (3, 1000), (4, 1000), (1, 800))),
    tenant=st.just("acme"),
    milli_cores=st.integers(0, 8).map(lambda n: n * 1000),
    memory_bytes=st.integers(0, 8).map(lambda n: n * GIB),
    device_models=st.sampled_from((frozenset[str](), frozenset({"A"}))),
    numa=st.sampled_from(("required", "preferred", "legacy")),
    same_switch=st.booleans(),
    same_nvlink=st.booleans(),
)


@st.composite
def crowded(draw: st.DrawFn) -> tuple[list[HostFacts], dict[str, Hold]]:
    """Hosts with many small claims each."""
    facts = [draw(roomy(f"h{n}")) for n in range(draw(st.integers(1, 3)))]
    return facts, settled(facts, draw(st.lists(st.tuples(small, tenures), min_size=4, max_size=14)))


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[HostFacts], dict[str, Hold]]:
    """Hosts, and claims that lie where placement put them, one after the other."""
    facts = draw(fleets())
    return facts, settled(facts, draw(st.lists(st.tuples(requests, tenures), max_size=9)))


@st.composite
def scattered(draw: st.DrawFn) -> tuple[list[HostFacts], dict[str, Hold]]:
    """Hosts over which claims lie anyhow, as after many came and left; most may be moved."""
    facts = [draw(roomy(f"h{n}")) for n in range(3)]
    facts = [replace(fact, schedulable=True) for fact in facts]
    fleet, holds = arrays(facts, {}), dict[str, Hold]()
    for n, (request, tenure, first) in enumerate(
        draw(st.lists(st.tuples(small, tenures, st.integers(0, 2)), min_size=6, max_size=9))
    ):
        sight = Sight.of(fleet, request)
        fits = fitting(sight)
        fits &= np.arange(3) == first
        decision = place(sight, fits)
        if decision is not None:
            holds[f"c{n}"] = hold_of(decision, request, tenure)
            fleet.hold(f"c{n}", holds[f"c{n}"])
    return facts, holds


def settled(facts: Sequence[HostFacts], claims: Sequence[tuple[Request, Tenure]]) -> dict[str, Hold]:
    """Claims by uid where placement puts them, one after the other; those for which there is no room are left out."""
    # Claims stay where a host is cordoned, lost or tainted: they were placed before.
    fleet = arrays([replace(fact, schedulable=True, reachable=True, taints=()) for fact in facts], {})
    holds: dict[str, Hold] = {}
    for n, (request, tenure) in enumerate(claims):
        decision = place(Sight.of(fleet, request))
        if decision is not None:
            holds[f"c{n:02}"] = hold_of(decision, request, tenure)
            fleet.hold(f"c{n:02}", holds[f"c{n:02}"])
    return holds


def arrays(facts: Sequence[HostFacts], holds: dict[str, Hold]) -> FleetArrays:
    """Of those hosts and claims."""
    fleet = FleetArrays()
    for fact in facts:
        fleet.set_host(fact)
    for uid, hold in holds.items():
        fleet.hold(uid, hold)
    return fleet
