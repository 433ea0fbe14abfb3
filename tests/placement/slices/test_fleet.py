"""Instances and shares over a fleet: by example, and against brute force that keeps sets of slices."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.core.asking import Decision, Refusal, Request
from bessemer.core.hosts import Device
from bessemer.core.slices import Partitioning, Profile
from bessemer.drivers.inspect.tables import known
from bessemer.placement import FleetArrays, Hold, HostFacts, decide
from bessemer.placement.board import Board
from bessemer.placement.cheapest import cheapest
from bessemer.placement.choose import place
from bessemer.placement.fleet import forked
from bessemer.placement.policies.published import BestFit
from bessemer.placement.sight import Sight
from tests.placement.hosts import ask, fleet, host
from tests.placement.test_properties import Slow, arrays_of, hosts, requests

H100, A100 = known()["H100-80GB"], known()["A100-40GB"]
SMALL = Partitioning(
    memory=3,
    compute=2,
    instances=2,
    profiles=(
        Profile(name="third", memory=1, compute=1, starts=(0, 1, 2)),
        Profile(name="two", memory=2, compute=1, starts=(0, 1), engines=True),
    ),
)
NAMES = (*(p.name for p in H100.profiles), "1g.5gb", "3g.20gb", "third", "two", "gone")


def cut(name: str, gpus: int = 1, **more: Any) -> HostFacts:
    return host(name, gpus=gpus, partitions={"H100": H100}, **more)


def instance(name: str, **request: Any) -> Request:
    return ask(device_count=1, device_profile=name, **request)


def put(arrays: FleetArrays, uid: str, request: Request) -> Decision:
    decision = decide(arrays, request)
    assert isinstance(decision, Decision), decision
    arrays.hold(uid, Hold.of(decision))
    return decision


def refused(arrays: FleetArrays, request: Request) -> Refusal:
    refusal = decide(arrays, request)
    assert isinstance(refusal, Refusal), refusal
    return refusal


# --- by example -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [{"device_milli": 500}, {"device_count": 2}, {"device_count": 0}])
def test_an_instance_is_one_and_no_share(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="instance of one device"):
        replace(instance("1g.10gb"), **wrong)


def test_a_decision_names_device_profile_and_start_and_what_it_is_of_the_device() -> None:
    arrays = fleet(cut("a", gpus=2), cut("z", gpus=2))
    first = put(arrays, "1", instance("3g.40gb"))
    assert (first.devices, first.device_profile, first.device_milli) == (("gpu0",), "3g.40gb", 500)
    assert first.score["cutsDevice"] == 1
    second = put(arrays, "2", instance("3g.40gb"))
    assert (second.devices, second.score["cutsDevice"]) == (("gpu0",), 0), "what is cut already goes first"
    assert {first.device_start, second.device_start} == {0, 4}
    assert put(arrays, "3", instance("7g.80gb")).host == "a", "fewer whole devices are left there"
    assert put(fleet(cut("b")), "4", instance("7g.80gb")).device_milli == 1000


def test_a_device_with_instances_is_neither_whole_nor_shared_until_the_last_is_gone() -> None:
    arrays = fleet(cut("a"))
    for number in range(2):
        put(arrays, str(number), instance("1g.10gb"))
    for request in (ask(device_count=1), ask(device_count=1, device_milli=1)):
        assert refused(arrays, request).reasons[0].code == "ShortOfDevices"
    arrays.drop("0")
    assert isinstance(decide(arrays, ask(device_count=1)), Refusal)
    arrays.drop("1")
    assert put(arrays, "whole", ask(device_count=1)).devices == ("gpu0",)
    assert refused(arrays, instance("1g.10gb")).cheapest == "wait until claims on a end"
    arrays.drop("whole")
    put(arrays, "share", ask(device_count=1, device_milli=1))
    assert isinstance(decide(arrays, instance("1g.10gb")), Refusal), "what is shared is not drained"


def test_what_is_in_pieces_is_told_from_what_is_full() -> None:
    arrays = fleet(cut("a"), cut("b"), host("c", gpus=1))
    # An instance in the middle of each half: six slices are free, and no four of them side by side.
    for name in ("a", "b"):
        for start in (1, 5):
            arrays.hold(f"{name}{start}", Hold(name, ("gpu0",), (), 125, device_profile="1g.10gb", device_start=start))
    arrays.hold("more", Hold("b", ("gpu0",), (), 250, device_profile="1g.20gb", device_start=2))
    arrays.hold("most", Hold("b", ("gpu0",), (), 250, device_profile="1g.20gb", device_start=6))
    refusal = refused(arrays, instance("3g.40gb", device_models=frozenset({"H100"})))
    assert {(reason.code, reason.hosts) for reason in refusal.reasons} == {
        ("NoDevice", 1),
        ("Fragmented", 1),
        ("ShortOfDevices", 1),
    }
    assert "1 host: with room for 3g.40gb of H100, but not in one piece where it may begin" in str(refusal)
    assert refusal.cheapest == "ask for 1g.20gb of H100"


def test_where_no_instance_can_be_made_a_whole_device_is_proposed() -> None:
    refusal = refused(fleet(host("a", gpus=1)), instance("1g.10gb"))
    assert (str(refusal), refusal.cheapest) == ("1 host: without 1g.10gb of GPU", "ask for a whole GPU")


def test_devices_that_nothing_keeps_apart_are_not_shared() -> None:
    refusal = refused(fleet(host("a", gpus=1, sharing="none")), ask(device_count=1, device_milli=250))
    assert str(refusal) == "1 host: whose devices cannot be shared"
    assert refusal.cheapest == "ask for a whole GPU"


def test_what_is_held_twice_for_a_while_is_in_use_until_both_went() -> None:
    arrays = fleet(cut("a"))
    arrays.hold("old", Hold("a", ("gpu0",), (), 500, device_profile="3g.40gb", device_start=4))
    arrays.hold("new", Hold("a", ("gpu0",), (), 125, device_profile="1g.10gb", device_start=4))
    assert isinstance(decide(arrays, instance("1g.10gb")), Refusal), "who reads is behind: nothing is given"
    arrays.drop("old")
    assert put(arrays, "next", instance("3g.40gb")).device_start == 0
    arrays.drop("next")
    arrays.drop("new")
    assert put(arrays, "whole", ask(device_count=1)).devices == ("gpu0",)


def test_a_table_that_changes_under_instances_is_believed_as_far_as_they_fit_it() -> None:
    arrays = fleet(cut("a"))
    put(arrays, "1", instance("1g.10gb"))
    arrays.set_host(host("a", gpus=1, partitions={"H100": known()["B200-180GB"]}))
    assert isinstance(decide(arrays, instance("1g.23gb")), Refusal)
    arrays.set_host(host("a", gpus=1))
    assert isinstance(decide(arrays, ask(device_count=1)), Refusal)
    arrays.set_host(cut("a"))
    assert isinstance(decide(arrays, instance("1g.10gb")), Decision)
    arrays.drop("1")
    arrays.set_host(host("a", gpus=1))
    assert isinstance(decide(arrays, ask(device_count=1)), Decision)


def test_states_are_numbered_anew_where_nothing_is_in_them() -> None:
    arrays = fleet(cut("a", gpus=4))
    for turn in range(20):
        uids = [f"{turn}/{n}" for n in range(5)]
        for uid in uids:
            put(arrays, uid, instance("1g.10gb"))
        for uid in uids:
            arrays.drop(uid)
        arrays.set_host(cut("a", gpus=4))
    assert len(arrays.cuts) <= 7
    arrays.remove_host("a")
    arrays.set_host(cut("b"))
    assert len(arrays.cuts) <= 7


def test_policies_see_what_is_cut_as_full_and_the_board_decides_as_well() -> None:
    arrays = fleet(cut("a"), cut("b", gpus=2))
    board = Board(arrays, BestFit())
    for number in range(7 * 3):
        decision = board.decide(instance("1g.10gb"))
        assert isinstance(decision, Decision)
        arrays.hold(str(number), Hold.of(decision))
        cuts = (arrays.device_milli == 0) & (arrays.device_cut >= 0)
        assert int(cuts.sum()) == 1 + number // 7, "one device after the other"
    assert isinstance(board.decide(instance("1g.10gb")), Refusal)
    assert (arrays.states(np.arange(2)).milli == 0).all()


# --- against brute force ----------------------------------------------------------------------------------------


@st.composite
def cuttable(draw: st.DrawFn) -> list[HostFacts]:
    found = []
    for number in range(draw(st.integers(0, 3))):
        facts = draw(hosts(f"h{number}"))
        tables = {model: draw(st.sampled_from((H100, A100, SMALL, None))) for model in ("H100", "A100")}
        update = {
            "partitions": {model: table for model, table in tables.items() if table is not None},
            "sharing": draw(st.sampled_from(("mps", "time", "none"))),
        }
        found.append(replace(facts, inventory=facts.inventory.model_copy(update=update)))
    return found


profiled = st.builds(
    lambda request, name: replace(request, device_count=1, device_milli=1000, device_profile=name, device_bytes=0),
    requests,
    st.sampled_from(NAMES),
)
mixed = st.one_of(profiled, profiled, requests)


class Cutting(Slow):
    """Which slices of each device are whose, as sets."""

    def __init__(self, facts: list[HostFacts]) -> None:
        super().__init__(facts)
        self.stands: dict[tuple[str, str], list[tuple[str, int]]] = {}

    def table(self, name: str, device: Device) -> Partitioning | None:
        return self.facts[name].inventory.partitions.get(device.model)

    def free(self, name: str, device: Device, wanted: str) -> list[int]:
        table, stands = self.table(name, device), self.stands.get((name, device.id), [])
        if table is None or (not stands and self.milli[name, device.id] < 1000):
            return []
        parts = {part.name: part for part in table.profiles}
        if wanted not in parts or len(stands) == table.instances:
            return []
        part = parts[wanted]
        used = {at for other, start in stands for at in range(start, start + parts[other].memory)}
        compute = sum(parts[other].compute for other, _ in stands)
        if compute + part.compute > table.compute or (part.engines and any(parts[o].engines for o, _ in stands)):
            return []
        return [start for start in part.starts if not used & set(range(start, start + part.memory))]

    def choices(self, name: str, request: Request) -> Any:
        if not request.device_profile:
            if request.device_milli < 1000 and self.facts[name].inventory.sharing == "none":
                return ()
            return super().choices(name, request)
        good = [
            device
            for (there, _), device in self.devices.items()
            if there == name
            and (not request.device_models or device.model in request.device_models)
            and self.free(name, device, request.device_profile)
        ]
        return combinations(good, 1)

    def take(self, decision: Decision) -> None:
        if not decision.device_profile:
            super().take(decision)
            return
        place = (decision.host, decision.devices[0])
        device = self.devices[place]
        assert decision.device_start in self.free(decision.host, device, decision.device_profile)
        super().take(replace(decision, devices=()))
        self.milli[place] = 0
        self.stands.setdefault(place, []).append((decision.device_profile, decision.device_start))


@given(cuttable(), st.lists(mixed, min_size=1, max_size=9))
@settings(max_examples=250, deadline=None)
def test_it_decides_exactly_where_brute_force_would_find_a_way(facts: list[HostFacts], asked: list[Request]) -> None:
    arrays, slow = arrays_of(facts), Cutting(facts)
    board = Board(arrays, BestFit())
    for number, request in enumerate(asked):
        fitting = {name for name in slow.facts if slow.fits(name, request)}
        answer, other = decide(arrays, request), board.decide(request)
        assert isinstance(other, Decision) == bool(fitting)
        if isinstance(answer, Refusal):
            assert not fitting
            assert sum(reason.hosts for reason in answer.reasons) == len(facts)
            continue
        assert answer.host in fitting
        assert answer.device_profile == request.device_profile
        assert set(answer.devices) in slow.ways(answer.host, request)
        slow.take(answer)
        arrays.hold(f"claim-{number}", Hold.of(answer))


@given(cuttable(), st.lists(mixed, min_size=1, max_size=5))
@settings(max_examples=150, deadline=None)
def test_the_cheapest_change_really_makes_it_fit(facts: list[HostFacts], asked: list[Request]) -> None:
    arrays, slow, request = arrays_of(facts), Cutting(facts), asked[-1]
    for number, earlier in enumerate(asked[:-1]):
        answer = decide(arrays, earlier)
        if isinstance(answer, Decision):
            slow.take(answer)
            arrays.hold(f"claim-{number}", Hold.of(answer))
    sight = Sight.of(arrays, request)
    change = cheapest(sight) if place(sight) is None else None
    if change is None:
        return
    assert place(change.sight) is not None
    if change.sight.request != request:
        assert any(slow.fits(name, change.sight.request) for name in slow.facts), change.text


STEPS = st.tuples(
    st.sampled_from(("a", "b", "c")),
    st.booleans(),
    st.sampled_from(("gpu0", "gpu1", "gone")),
    st.one_of(st.sampled_from((250, 1000)), st.tuples(st.sampled_from(NAMES), st.integers(0, 7))),
)


@given(st.lists(STEPS, max_size=12), st.booleans())
@settings(max_examples=200, deadline=None)
def test_what_is_free_follows_from_what_is_held_in_whatever_order_it_came_and_went(
    steps: list[tuple[str, bool, str, Any]], late: bool
) -> None:
    facts = cut("h", gpus=2)
    kept, holds = FleetArrays() if late else fleet(facts), dict[str, Hold]()
    for uid, stays, device, what in steps:
        if stays:
            name, start = what if isinstance(what, tuple) else ("", 0)
            milli = what if isinstance(what, int) else 125
            holds[uid] = Hold("h", (device,), (), milli, device_profile=name, device_start=start)
            kept.hold(uid, holds[uid])
        else:
            holds.pop(uid, None)
            kept.drop(uid)
    if late:
        kept.set_host(facts)
    anew = fleet(facts)
    for uid in sorted(holds, reverse=True):
        anew.hold(uid, holds[uid])
    assert (kept.device_milli == anew.device_milli).all()
    assert kept.cuts.asked == anew.cuts.asked
    for column in range(2):
        mine, other = int(kept.device_cut[0, column]), int(anew.device_cut[0, column])
        assert kept.cuts.used(mine) == anew.cuts.used(other)
    for uid in holds:
        kept.drop(uid)
    assert (kept.device_milli[0, :2] == 1000).all()
    assert [kept.cuts.used(int(number)) for number in kept.device_cut[0, :2]] == [0, 0]


# --- what others do with the arrays -----------------------------------------------------------------------------


def test_what_comes_and_goes_in_a_fork_changes_nothing_here() -> None:
    arrays = fleet(cut("a", gpus=2))
    put(arrays, "1", instance("3g.40gb"))
    before = (arrays.device_cut.copy(), arrays.device_milli.copy(), [arrays.cuts.at(0, n) for n in range(2)])
    fork = forked(arrays)
    fork.drop("1")
    put(fork, "2", instance("7g.80gb"))
    for number in range(3):
        put(fork, f"s{number}", instance("1g.10gb"))
    after = (arrays.device_cut, arrays.device_milli, [arrays.cuts.at(0, n) for n in range(2)])
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))
    assert arrays.cuts.asked == {"3g.40gb": 1}
    assert put(arrays, "4", instance("4g.40gb" if arrays.cuts.used(before[2][0]) >> 4 & 1 else "3g.40gb")).host == "a"


@pytest.mark.parametrize(
    ("start", "milli", "is_open"), [(4, 0, True), (0, 0, False), (1, 0, False), (4, 1000, False), (4, -1000, False)]
)
def test_whether_an_instance_can_be_had_is_asked_of_one_device(start: int, milli: int, is_open: bool) -> None:
    arrays = fleet(cut("a"))
    arrays.hold("1", Hold("a", ("gpu0",), (), 500, device_profile="3g.40gb", device_start=0))
    assert arrays.cuts.open(0, 0, instance=("3g.40gb", start), milli=milli) == is_open
    assert not arrays.cuts.open(0, 0, instance=("gone", start), milli=0)


def test_the_end_of_an_instance_gives_no_thousandths_back() -> None:
    assert Hold("a", ("gpu0",), (), 125, device_profile="1g.10gb").frees == 0
    assert Hold("a", ("gpu0",), (), 125).frees == 125
