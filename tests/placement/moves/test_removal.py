"""Removals against a second implementation that tries every set of claims, on fleets made anew without them."""

from __future__ import annotations

from itertools import chain, combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.core.asking import Allocation, Request
from bessemer.core.units import GIB
from bessemer.placement import Hold, HostFacts
from bessemer.placement.filters import fitting
from bessemer.placement.moves import holdings as module
from bessemer.placement.moves.holdings import Holdings
from bessemer.placement.moves.removal import Removal, removals
from bessemer.placement.sight import Sight
from tests.placement.hosts import ask, fleet, host
from tests.placement.moves.worlds import arrays, crowded, large, worlds
from tests.placement.test_properties import requests


def cheapest_by_host(
    facts: list[HostFacts], holds: dict[str, Hold], request: Request, costs: dict[str, float]
) -> dict[str, float]:
    """Every set of every host, taken off and put back."""
    found: dict[str, float] = {}
    there = arrays(facts, holds)
    for name in (fact.name for fact in facts):
        here = [uid for uid, hold in holds.items() if hold.host == name and uid in costs]
        for gone in chain.from_iterable(combinations(here, n) for n in range(len(here) + 1)):
            cost = sum(costs[uid] for uid in gone)
            if cost >= found.get(name, float("inf")):
                continue
            for uid in gone:
                there.drop(uid)
            if fitting(Sight.of(there, request))[there.row(name)]:
                found[name] = cost
            for uid in gone:
                there.hold(uid, holds[uid])
    return found


def asked(holdings: Holdings, request: Request, costs: dict[str, float], most: int = 8) -> tuple[Removal, ...]:
    return removals(holdings, request, cost=holdings.costs(lambda uid, _: costs.get(uid)), most=most)


either = st.one_of(st.tuples(crowded(), large), st.tuples(crowded(), large), st.tuples(worlds(), requests))


@settings(max_examples=80)
@given(either, st.data())
def test_the_cheapest_set_of_every_host_is_found(
    asked_of: tuple[tuple[list[HostFacts], dict[str, Hold]], Request], data: st.DataObject
) -> None:
    (facts, holds), request = asked_of
    # Quarters: their sums are exact, so equal costs are equal.
    prices = st.sampled_from((0.0, 0.25, 1.0, 1.0, 1.5, 3.0))
    costs = {uid: data.draw(prices) for uid in holds if data.draw(st.integers(0, 5))}
    expected = cheapest_by_host(facts, holds, request, costs)
    found = asked(Holdings(arrays(facts, holds)), request, costs)
    assert {removal.host: removal.cost for removal in found} == expected
    assert [r.cost for r in found] == sorted(r.cost for r in found)
    for removal in found:
        assert removal.proven
        assert removal.cost == sum(costs[uid] for uid in removal.uids)
        left = arrays(facts, {uid: hold for uid, hold in holds.items() if uid not in removal.uids})
        left.hold(
            "new",
            Hold(removal.host, removal.decision.devices, removal.decision.allocations, removal.decision.device_milli),
        )
        row = left.row(removal.host)
        assert left.cores_free[row].min() >= 0
        assert left.memory_free[row].min() >= 0
        assert left.device_milli[row].min() >= 0


@settings(max_examples=50)
@given(crowded(), large, st.data())
def test_what_is_proven_of_one_host_holds_for_all(
    world: tuple[list[HostFacts], dict[str, Hold]], request: Request, data: st.DataObject
) -> None:
    facts, holds = world
    costs = {uid: data.draw(st.sampled_from((1.0, 2.0, 5.0))) for uid in holds}
    holdings = Holdings(arrays(facts, holds))
    expected = cheapest_by_host(facts, holds, request, costs)
    found = removals(holdings, request, cost=holdings.costs(lambda uid, _: costs[uid]), most=1, looked=1)
    assert bool(found) == bool(expected)
    for removal in found:
        assert removal.cost == expected[removal.host]
        assert not removal.proven or removal.cost == min(expected.values())


@settings(max_examples=25)
@given(crowded(), large)
def test_the_order_in_which_hosts_and_claims_came_decides_nothing(
    world: tuple[list[HostFacts], dict[str, Hold]], request: Request
) -> None:
    facts, holds = world
    costs = dict.fromkeys(holds, 1.0)
    one = asked(Holdings(arrays(facts, holds)), request, costs, most=2)
    other = asked(Holdings(arrays(facts[::-1], dict(reversed(holds.items())))), request, costs, most=2)
    assert one == other


@settings(max_examples=25)
@given(crowded(), st.data())
def test_what_is_kept_current_is_what_is_read_anew(
    world: tuple[list[HostFacts], dict[str, Hold]], data: st.DataObject
) -> None:
    facts, holds = world
    there = arrays(facts, holds)
    kept = Holdings(there)
    for uid in data.draw(st.lists(st.sampled_from(sorted(holds)), max_size=4)) if holds else ():
        there.drop(uid)
        if data.draw(st.booleans()):
            there.hold(uid, holds[uid])
        if data.draw(st.booleans()):
            kept.refresh()
    if facts and data.draw(st.booleans()):
        there.remove_host(facts[0].name)
    kept.refresh()
    anew = Holdings(there)
    assert told(kept) == told(anew)


def told(holdings: Holdings) -> dict[str, object]:
    """By claim: its columns and parts, whatever slots they are in."""
    found: dict[str, object] = {}
    for slot in np.flatnonzero(holdings.claims["used"]).tolist():
        parts = []
        for table, names in ((holdings.devices, ("column", "milli")), (holdings.nodes, ("column", "cores", "memory"))):
            mine = np.flatnonzero((table["slot"] == slot) & (sum(table[name] for name in names[1:]) > 0))
            parts.append(sorted(tuple(int(table[name][at]) for name in ("row", *names)) for at in mine))
        columns = [int(holdings.claims[name][slot]) for name in module.CLAIM if name != "ask"]
        ask = int(holdings.claims["ask"][slot])
        assert (ask == -1) == (holdings.held(slot)[1].request is None)
        assert ask == -1 or holdings.asks.all[ask] == holdings.held(slot)[1].request
        found[holdings.held(slot)[0]] = (columns, parts)
    return found


def test_two_small_ones_go_before_a_large_one() -> None:
    there = fleet(host("a", gpus=4), host("b", gpus=4))
    part = (Allocation(numa_node=0, milli_cores=1000, memory_bytes=GIB),)
    there.hold("large", Hold("a", ("gpu0", "gpu1", "gpu2", "gpu3"), part))
    for n in range(4):
        there.hold(f"small{n}", Hold("b", (f"gpu{n}",), part))
    costs = {"large": 4.0, **{f"small{n}": 1.0 for n in range(4)}}
    found = asked(Holdings(there), ask(device_count=2, same_switch=True), costs)
    assert [(r.host, r.uids, r.cost) for r in found] == [("b", ("small0", "small1"), 2.0), ("a", ("large",), 4.0)]
    assert found[0].decision.devices == ("gpu0", "gpu1")


def test_what_is_cheapest_need_not_be_what_is_left_when_the_dearest_stay() -> None:
    there = fleet(host("a", gpus=4))
    costs = {"c0": 1.0, "c1": 3.2, "c2": 3.0, "c3": 3.0}
    for n, uid in enumerate(costs):
        there.hold(uid, Hold("a", (f"gpu{n}",), ()))
    found = asked(Holdings(there), ask(device_count=2, same_switch=True), costs)
    assert [(r.uids, r.cost) for r in found] == [(("c0", "c1"), 4.2)]


def test_nothing_may_go_that_has_no_cost_and_a_cordoned_host_is_not_opened() -> None:
    there = fleet(host("a", gpus=1), host("b", gpus=1, schedulable=False))
    for name in ("a", "b"):
        there.hold(name, Hold(name, ("gpu0",), ()))
    request = ask(device_count=1)
    assert asked(Holdings(there), request, {"b": 1.0}) == ()
    assert [r.uids for r in asked(Holdings(there), request, {"a": 1.0, "b": 1.0})] == [("a",)]


@pytest.mark.parametrize("shares", [3, 70])
def test_a_device_in_many_shares_is_freed_whole(shares: int) -> None:
    """Of more claims than can be looked at, those that cost least; then nothing is called proven that is not."""
    there = fleet(host("a", gpus=1), host("b", gpus=1))
    for name in ("a", "b"):
        for n in range(shares):
            there.hold(f"{name}{n:02}", Hold(name, ("gpu0",), (), 1000 // shares))
    found = asked(
        Holdings(there),
        ask(device_count=1, device_milli=600),
        {f"{name}{n:02}": cost for name, cost in (("a", 1.0), ("b", 2.0)) for n in range(shares)},
    )
    needed = 2 if shares == 3 else 42
    assert [(r.host, len(r.uids), r.proven) for r in found] == [("a", needed, shares == 3), ("b", needed, shares == 3)]
