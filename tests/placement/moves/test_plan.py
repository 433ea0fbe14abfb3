"""Plans: carried out step by step on arrays made anew, and against every way to move few claims."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations, permutations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.core.asking import Decision, Request
from bessemer.placement import FleetArrays, Hold, HostFacts
from bessemer.placement.choose import place
from bessemer.placement.facts import Tenure
from bessemer.placement.filters import fitting
from bessemer.placement.fleet import forked
from bessemer.placement.moves.plan import Plan, Planner
from bessemer.placement.moves.screen import anywhere
from bessemer.placement.sight import Sight
from tests.placement.hosts import ask, fleet, host
from tests.placement.moves.worlds import arrays, crowded, large, scattered, worlds
from tests.placement.test_properties import requests

World = tuple[list[HostFacts], dict[str, Hold]]
either = st.one_of(st.tuples(scattered(), large), st.tuples(crowded(), large), st.tuples(worlds(), requests))


def by_criteria(there: FleetArrays) -> Callable[[Request], Decision | None]:
    return lambda request: place(Sight.of(there, request))


def planner(there: FleetArrays) -> Planner:
    return Planner(there, by_criteria(there))


def movable(hold: Hold) -> bool:
    return hold.tenure.restartable and hold.request is not None


def state(there: FleetArrays) -> dict[str, object]:
    held = {uid: hold for name in there.names for uid, hold in there.held.at(name).items()}
    free = [getattr(there, name).tolist() for name in ("cores_free", "memory_free", "device_milli", "sizes")]
    return {"held": held, "free": free}


def carried_out(there: FleetArrays, plan: Plan) -> None:
    """Step by step: each claim is where it was said to be, its place is right for it, and nobody holds too much."""
    for move in plan.moves:
        assert there.held.of(move.uid) == move.source
        assert movable(move.source)
        there.drop(move.uid)
        take(there, move.uid, move.hold)
        assert (move.hold.request, move.hold.tenure) == (move.source.request, move.source.tenure)


def take(there: FleetArrays, uid: str, hold: Hold) -> None:
    """Hold it, where that is what its request may have there."""
    row = there.row(hold.host)
    assert row is not None
    assert hold.request is None or fitting(Sight.of(there, hold.request))[row]
    before = [getattr(there, name)[row].copy() for name in ("cores_free", "memory_free", "device_milli")]
    there.hold(uid, hold)
    for old, name in zip(before, ("cores_free", "memory_free", "device_milli"), strict=True):
        now = getattr(there, name)[row]
        assert (now[now != old] >= 0).all(), "more was taken than there was"
    if hold.request is not None:
        assert sum(part.milli_cores for part in hold.allocations) == hold.request.milli_cores
        assert sum(part.memory_bytes for part in hold.allocations) == hold.request.memory_bytes
        assert len(set(hold.devices)) == hold.request.device_count


@settings(max_examples=50)
@given(either, st.integers(1, 4), st.integers(1, 3))
def test_each_step_is_legal_and_after_them_the_request_fits(
    asked_of: tuple[World, Request], most: int, depth: int
) -> None:
    (facts, holds), request = asked_of
    there = arrays(facts, holds)
    before = state(there)
    plan = planner(there).opened(request, most=most, depth=depth)
    assert state(there) == before, "looking changes nothing"
    assert planner(arrays(facts[::-1], dict(reversed(holds.items())))).opened(request, most=most, depth=depth) == plan
    if plan is None:
        return
    assert len(plan.moves) <= most
    assert len({move.uid for move in plan.moves}) == len(plan.moves)
    assert plan.decision is not None
    assert all(move.target.host != plan.decision.host for move in plan.moves)
    carried_out(there, plan)
    decision = plan.decision
    take(
        there,
        "new",
        Hold(decision.host, decision.devices, decision.allocations, decision.device_milli, request=request),
    )
    after = state(there)["held"]
    assert isinstance(after, dict)
    moved = {move.uid for move in plan.moves}
    assert {uid: hold for uid, hold in after.items() if uid not in moved | {"new"}} == {
        uid: hold for uid, hold in holds.items() if uid not in moved and there.row(hold.host) is not None
    }
    assert set(holds) <= set(after) | {uid for uid, hold in holds.items() if there.row(hold.host) is None}


def fewest(facts: list[HostFacts], holds: dict[str, Hold], request: Request, most: int) -> float | None:
    """What the cheapest way costs of those that take claims off one host and place each anew elsewhere, in any
    order."""
    there = arrays(facts, holds)
    found: float | None = None
    for name in sorted({fact.name for fact in facts}):
        here = [uid for uid, hold in holds.items() if hold.host == name and movable(hold)]
        for count in range(min(most, len(here)) + 1):
            for gone in combinations(here, count):
                cost = sum(1 + 0.1 * holds[uid].device_milli * len(set(holds[uid].devices)) / 1000 for uid in gone)
                if (found is None or cost < found) and _works(there, holds, request, name, gone):
                    found = cost
    return found


def _works(there: FleetArrays, holds: dict[str, Hold], request: Request, name: str, gone: tuple[str, ...]) -> bool:
    for uid in gone:
        there.drop(uid)
    works = bool(fitting(Sight.of(there, request))[there.row(name)]) and any(
        _placed(there, holds, name, order) for order in permutations(gone)
    )
    for uid in gone:
        there.hold(uid, holds[uid])
    return works


def _placed(there: FleetArrays, holds: dict[str, Hold], name: str, order: tuple[str, ...]) -> bool:
    done: list[str] = []
    for uid in order:
        request = holds[uid].request
        assert request is not None
        sight = Sight.of(there, request)
        fits = fitting(sight)
        fits[there.row(name)] = False
        target = place(sight, fits)
        if target is None:
            break
        there.hold(uid, Hold(target.host, target.devices, target.allocations, target.device_milli))
        done.append(uid)
    for uid in done:
        there.drop(uid)
    return len(done) == len(order)


GAP: dict[str, int] = {}


opening = st.builds(
    Request,
    tenant=st.just("acme"),
    milli_cores=st.integers(0, 3).map(lambda n: n * 1000),
    memory_bytes=st.just(0),
    device_count=st.integers(2, 4),
)


@settings(max_examples=150)
@given(st.tuples(scattered(), opening))
def test_no_plan_is_cheaper_than_the_cheapest_and_few_are_dearer(asked_of: tuple[World, Request]) -> None:
    """The board decides where each goes, one after the other, and that need not be the best for the next: so a plan
    may be missed. How often is counted."""
    (facts, holds), request = asked_of
    there = arrays(facts, holds)
    if fitting(Sight.of(there, request)).any():
        return
    plan = planner(there).opened(request, most=3)
    best = fewest(facts, holds, request, 3)
    kind = "none" if best is None else "missed" if plan is None else "equal" if plan.cost <= best + 1e-9 else "dearer"
    GAP[kind] = GAP.get(kind, 0) + 1
    assert plan is None or best is None or plan.cost >= best - 1e-9


def test_the_gap_to_the_optimum_is_small() -> None:
    """Of the plans of the test above that there are."""
    there_are = sum(GAP.get(kind, 0) for kind in ("equal", "missed", "dearer"))
    assert GAP.get("equal", 0) >= 0.9 * there_are


@settings(max_examples=40)
@given(st.one_of(crowded(), scattered()), st.data())
def test_what_is_emptied_is_empty_or_says_who_must_stay(world: World, data: st.DataObject) -> None:
    facts, holds = world
    names = data.draw(st.lists(st.sampled_from([fact.name for fact in facts]), unique=True, min_size=1))
    there = arrays(facts, holds)
    before = state(there)
    plan = planner(there).emptied(names)
    assert state(there) == before
    carried_out(there, plan)
    left = {uid for name in names for uid in there.held.at(name)}
    assert left == set(plan.stuck)
    assert {move.uid for move in plan.moves} | left == {uid for uid, hold in holds.items() if hold.host in names}
    assert all(move.target.host not in names for move in plan.moves)
    for uid in plan.stuck:
        request = holds[uid].request
        if movable(holds[uid]) and request is not None:
            fits = fitting(Sight.of(there, request))
            fits[[there.row(name) for name in names]] = False
            # What wants nothing at all lands where all is held.
            nothing = not (request.milli_cores or request.memory_bytes or request.device_count)
            assert nothing or not fits.any()


@settings(max_examples=30)
@given(either)
def test_what_is_screened_out_fits_nowhere(asked_of: tuple[World, Request]) -> None:
    (facts, holds), request = asked_of
    there = arrays(facts, holds)
    each = [request, *(hold.request for hold in holds.values() if hold.request is not None)]
    for one, could in zip(each, anywhere(there, each), strict=True):
        assert could or not fitting(Sight.of(there, one)).any()


def claim(there: FleetArrays, uid: str, name: str, **wishes: int) -> None:
    """One that may be moved, placed on a host of its own choice."""
    request = ask(**wishes)
    sight = Sight.of(there, request)
    fits = np.zeros(there.size, dtype=np.bool_)
    fits[there.row(name)] = True
    decision = place(sight, fits & fitting(sight))
    assert decision is not None
    hold = Hold(decision.host, decision.devices, decision.allocations, decision.device_milli, request=request)
    there.hold(uid, replace(hold, tenure=Tenure(restartable=True)))


def test_one_small_one_goes_so_that_a_large_one_fits() -> None:
    there = fleet(host("a", gpus=4), host("b", gpus=4))
    claim(there, "one", "a", device_count=1)
    claim(there, "other", "b", device_count=2)
    plan = planner(there).opened(ask(device_count=4), most=2)
    assert plan is not None
    assert [(move.uid, move.source.host, move.target.host) for move in plan.moves] == [("one", "a", "b")]
    assert (plan.cost, plan.milli, plan.decision and plan.decision.host) == (1.1, 1000, "a")


def test_a_chain_goes_where_no_single_move_does() -> None:
    """The large one must leave, and has room only once the small one has left for a host that is too small for both."""
    there = fleet(host("a", gpus=4), host("b", gpus=4), host("c", gpus=1))
    claim(there, "large", "a", device_count=3)
    claim(there, "small", "b", device_count=1)
    claim(there, "fixed", "b", device_count=1)
    there.hold("fixed", replace(there.held.of("fixed") or Hold("b", (), ()), tenure=Tenure()))
    request = ask(device_count=4)
    assert planner(there).opened(request, most=4, depth=1) is None
    assert planner(there).opened(request, most=1, depth=2) is None
    plan = planner(there).opened(request, most=2, depth=2)
    assert plan is not None
    assert [(move.uid, move.target.host) for move in plan.moves] == [("small", "c"), ("large", "b")]


def test_a_fork_goes_its_own_way() -> None:
    there = fleet(host("a", gpus=2), host("b", gpus=2))
    claim(there, "one", "a", device_count=1)
    before = state(there)
    fork = forked(there)
    assert state(fork) == before
    fork.drop("one")
    claim(fork, "two", "b", device_count=2)
    assert state(there) == before
    assert list(fork.changes.since(0)) == [0, 1]
