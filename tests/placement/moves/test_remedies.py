"""What is proposed of others: tried, and never anything that does not help."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.core.asking import Decision, Request
from bessemer.placement import FleetArrays, Hold, HostFacts
from bessemer.placement.cheapest import cheapest
from bessemer.placement.choose import place
from bessemer.placement.decide import refused
from bessemer.placement.facts import Tenure
from bessemer.placement.filters import fitting
from bessemer.placement.moves.holdings import Holdings
from bessemer.placement.moves.remedies import Remedies, by_name, waiting
from bessemer.placement.sight import Sight
from tests.placement.hosts import ask, fleet, host
from tests.placement.moves.test_plan import claim, state
from tests.placement.moves.worlds import arrays, crowded, large


def placer(there: FleetArrays) -> Callable[[Request], Decision | None]:
    return lambda request: place(Sight.of(there, request))


def remedies(there: FleetArrays) -> Remedies:
    return Remedies(there, placer(there), told=by_name(lambda uid: f"claim {uid}"), timed=lambda at: f"t={at}")


@settings(max_examples=60)
@given(crowded(), large, st.booleans())
def test_the_first_time_is_the_first(
    world: tuple[list[HostFacts], dict[str, Hold]], request: Request, ends: bool
) -> None:
    facts, holds = world
    if not ends:
        holds = {uid: replace(hold, tenure=replace(hold.tenure, ends=None)) for uid, hold in holds.items()}
    there = arrays(facts, holds)
    before = state(there)
    if fitting(Sight.of(there, request)).any():
        return
    times = sorted({hold.tenure.ends for hold in holds.values() if hold.tenure.ends is not None})
    first = next((at for at in times if fits_at(facts, holds, request, at)), None)
    found = waiting(Holdings(there), request)
    assert state(there) == before
    assert (found and found.at) == first
    if found is not None:
        assert fitting(found.sight)[there.row(found.host)]
        left = arrays(facts, {uid: hold for uid, hold in holds.items() if uid not in found.uids})
        assert fitting(Sight.of(left, request))[left.row(found.host)]
        assert all(holds[uid].host == found.host for uid in found.uids)


def fits_at(facts: list[HostFacts], holds: dict[str, Hold], request: Request, at: int) -> bool:
    there = arrays(facts, {uid: h for uid, h in holds.items() if h.tenure.ends is None or h.tenure.ends > at})
    return bool(fitting(Sight.of(there, request)).any())


def test_a_move_is_named_and_tried_before_less_is_asked_for() -> None:
    there = fleet(host("a", gpus=4), host("b", gpus=4))
    claim(there, "one", "a", device_count=1)
    claim(there, "other", "b", device_count=2)
    before, sight = state(there), Sight.of(there, ask(device_count=4))
    change = cheapest(sight, remedies=[remedies(there).moved])
    assert change is not None
    assert change.text == "move claim one from a to b"
    assert (fitting(change.sight).tolist(), change.sight.fleet.names) == ([True], ["a"])
    assert state(there) == before
    assert refused(sight, (), remedies=[remedies(there).moved]).cheapest == change.text
    assert refused(sight, ()).cheapest == "ask for at most 3 GPUs"


def test_what_ends_is_named_with_its_time() -> None:
    there = fleet(host("a", gpus=2), host("b", gpus=2))
    for uid, name, at in (("one", "a", 50), ("two", "b", 40), ("three", "b", 30)):
        hold = Hold(name, ("gpu0",) if uid != "three" else ("gpu1",), (), tenure=Tenure(ends=at))
        there.hold(uid, hold)
    kept = remedies(there)
    sight = Sight.of(there, ask(device_count=2))
    change = cheapest(sight, remedies=[kept.moved, kept.ended])
    assert change is not None
    assert change.text == "wait until t=40: enough on b will have ended by then"
    there.drop("one")
    assert list(kept.moved(Sight.of(there, ask(device_count=2)))) == []


def test_what_changed_since_is_read_before_more_is_proposed() -> None:
    there = fleet(host("a", gpus=2), host("b", gpus=2))
    claim(there, "one", "a", device_count=1)
    kept = remedies(there)
    request = ask(device_count=2)
    claim(there, "two", "b", device_count=1)
    for _ in range(2):
        (change,) = kept.moved(Sight.of(there, request))
        assert change.text in {"move claim one from a to b", "move claim two from b to a"}
