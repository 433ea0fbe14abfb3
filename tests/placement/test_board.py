"""The board: what it keeps is what a board made anew would find."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.core.asking import Allocation, Decision, Refusal, Request
from bessemer.placement import FleetArrays, Hold, HostFacts, decide
from bessemer.placement.board import AHEAD_HOSTS, SHAPES_MAX, Board
from bessemer.placement.filters import sift
from bessemer.placement.hostclass import HostClass
from bessemer.placement.policies import Costs
from bessemer.placement.shape import Shape
from bessemer.placement.sight import Sight
from bessemer.placement.states import States
from tests.placement.hosts import ask, fleet, host
from tests.placement.test_properties import hosts, requests

NO_IOMMU = "without an IOMMU, so that guests can have no devices"


class Fullest:
    """Rather a host with less left, by two figures at once; counts how many hosts it was asked about."""

    name = "fullest"

    def __init__(self) -> None:
        self.version = 0
        self.looked = 0

    def costs(self, shape: Shape, states: States) -> Costs:
        self.looked += len(states)
        value = (states.milli.sum(axis=1) // 500 + states.cores // 1000 + self.version).astype(np.float64)
        enough = np.where(states.milli >= shape.device_milli, states.milli, 1 << 20)
        return Costs(value, enough.min(axis=1, initial=1 << 20))


def a_fleet(count: int, **more: Any) -> FleetArrays:
    return fleet(*(host(f"h{n}", **{"gpus": 4, **more}) for n in range(count)))


def held(decision: Decision) -> Hold:
    return Hold.of(decision)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_what_is_kept_is_what_is_found_anew(data: st.DataObject) -> None:
    arrays, policy = FleetArrays(), Fullest()
    board = Board(arrays, policy)
    asked = data.draw(st.lists(requests, min_size=1, max_size=3))
    taken: dict[str, Hold] = {}
    for step in range(data.draw(st.integers(1, 12))):
        name = f"h{data.draw(st.integers(0, 3))}"
        match data.draw(st.sampled_from(("host", "gone", "ask", "ask", "drop", "policy"))):
            case "host":
                arrays.set_host(data.draw(hosts(name)))
            case "gone":
                arrays.remove_host(name)
            case "drop" if taken:
                uid = data.draw(st.sampled_from(sorted(taken)))
                arrays.drop(uid)
                del taken[uid]
            case "policy":
                policy.version += 1
            case _:
                request = data.draw(st.sampled_from(asked))
                answer = board.decide(request)
                assert answer == Board(arrays, policy).decide(request)
                plain = decide(arrays, request)
                assert isinstance(answer, Decision) == isinstance(plain, Decision)
                assert answer.reasons == plain.reasons
                if isinstance(answer, Decision) and isinstance(plain, Decision):
                    assert answer.fitting == plain.fitting
                    taken[f"u{step}"] = held(answer)
                    arrays.hold(f"u{step}", taken[f"u{step}"])


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_reasons_that_are_kept_are_those_of_a_look_at_every_host(data: st.DataObject) -> None:
    arrays = FleetArrays()
    board = Board(arrays, Fullest())
    names = [f"h{n}" for n in range(6)]
    for name in names:
        arrays.set_host(data.draw(hosts(name)))
    asked = data.draw(st.lists(requests, min_size=1, max_size=4))
    for step in range(data.draw(st.integers(1, 10))):
        name = data.draw(st.sampled_from(names))
        match data.draw(st.sampled_from(("host", "gone", "hold", "hold", "drop"))):
            case "host":
                arrays.set_host(data.draw(hosts(name)))
            case "gone":
                arrays.remove_host(name)
            case "drop":
                arrays.drop(f"u{data.draw(st.integers(0, 10))}")
            case _:
                devices = tuple(f"gpu{n}" for n in data.draw(st.sets(st.integers(0, 7), max_size=4)))
                cores = Allocation(numa_node=0, milli_cores=data.draw(st.sampled_from((0, 1000, 7000))), memory_bytes=0)
                arrays.hold(
                    f"u{step}", Hold(name, devices, (cores,), device_milli=data.draw(st.sampled_from((300, 1000))))
                )
        for request in asked:
            fits, reasons = sift(Sight.of(arrays, request))
            assert board.reasons(request) == reasons
            placed = board.place(request)
            assert (placed.fitting if placed is not None else 0) == fits.sum()


def test_the_cheapest_wins_and_a_fixed_order_settles_what_is_equal() -> None:
    arrays = a_fleet(8)
    first = Board(arrays, Fullest()).place(ask(1))
    assert first is not None
    again = fleet(*(host(f"h{n}", gpus=4) for n in reversed(range(8))))
    assert Board(again, Fullest()).place(ask(1)) == first, "whatever order the hosts came in"
    arrays.hold("u", Hold("h5", ("gpu0",), ()))
    cheaper = Board(arrays, Fullest()).place(ask(1))
    assert cheaper is not None
    assert cheaper.host == "h5"
    assert cheaper.score["fullest"] < first.score["fullest"]


class Emptiest(Fullest):
    """The other way round."""

    def costs(self, shape: Shape, states: States) -> Costs:
        costs = super().costs(shape, states)
        return Costs(-costs.value, costs.milli)


def test_another_policy_is_turned_to_in_small_steps_between_which_decisions_go_by_the_one_before() -> None:
    arrays = a_fleet(2 * AHEAD_HOSTS + 5)
    one, other = Fullest(), Emptiest()
    other.version = 1
    board, request = Board(arrays, one), ask(1, device_count=1)
    for n in range(3):
        board.place(ask(n + 1, device_count=1))
    steps = 0
    for n, _ in enumerate(board.turn_to(other)):
        decision = board.place(request)
        assert decision == Board(arrays, one).place(request) if n % 4 == 0 else decision
        assert decision is not None
        arrays.hold(f"u{n}", held(decision))
        steps += 1
    assert steps == 9, "three shapes, three steps each"
    looked = other.looked
    for cores in (1, 2, 3):
        asked = ask(cores, device_count=1)
        assert board.decide(asked) == Board(arrays, other).decide(asked)
    assert other.looked - looked <= 3 * (2 * AHEAD_HOSTS + 5) + 3 * 9, "what was made ahead is not made again"


def test_hosts_that_come_while_another_policy_is_turned_to_count() -> None:
    arrays = a_fleet(3)
    other = Emptiest()
    other.version = 1
    board = Board(arrays, Fullest())
    board.place(ask(1))
    for _ in board.turn_to(other):
        for n in range(40):
            arrays.set_host(host(f"late{n}", gpus=8))
        arrays.remove_host("h1")
    assert board.decide(ask(1)) == Board(arrays, other).decide(ask(1))


def test_who_decides_at_once_by_another_order_takes_another_of_equals() -> None:
    arrays, request = a_fleet(40), ask(1)
    chosen = [Board(arrays, Fullest(), order=order).place(request) for order in ("", "one", "two", "one")]
    assert chosen[1] == chosen[3], "an order is fixed by its name"
    assert len({decision.host for decision in chosen if decision is not None}) == 3


def test_with_slack_what_costs_hardly_more_is_as_good() -> None:
    arrays, request = a_fleet(8), ask(1)
    first = Board(arrays, Fullest()).place(request)
    assert first is not None
    other = next(name for name in arrays.names if name != first.host)
    arrays.hold("u", Hold(other, ("gpu0",), ()))
    board = Board(arrays, Fullest())
    cheapest = board.place(request)
    assert cheapest is not None
    assert cheapest.host == other
    board.slack = 2.0
    slack = board.place(request)
    assert slack is not None
    assert slack.host == first.host
    assert slack.score["fullest"] == cheapest.score["fullest"] + 2


def test_a_placement_has_one_host_looked_at_anew() -> None:
    arrays, policy = a_fleet(50), Fullest()
    board = Board(arrays, policy)
    for n in range(10):
        before = policy.looked
        decision = board.place(ask(1, device_count=1))
        assert decision is not None
        assert policy.looked - before == 50 if n == 0 else policy.looked - before <= 1
        arrays.hold(f"u{n}", held(decision))


def test_a_replica_that_may_span_nodes_rather_does_not() -> None:
    """Whatever else that costs."""
    arrays = fleet(host("far", nodes=2, threads=2), host("near", nodes=1, threads=64))
    request = ask(3)
    placed = Board(arrays, Fullest()).place(request)
    assert placed is not None
    assert (placed.host, placed.score["spansNumaNodes"]) == ("near", 0)
    arrays.remove_host("near")
    apart = Board(arrays, Fullest()).place(request)
    assert apart is not None
    assert (apart.host, apart.score["spansNumaNodes"]) == ("far", 1)


def test_tenants_share_figures_and_not_hosts() -> None:
    arrays, policy = a_fleet(4), Fullest()
    arrays.set_host(host("h0", gpus=4, taints=("mine",)))
    board = Board(arrays, policy)
    board.place(ask(1))
    looked = policy.looked
    mine = replace(ask(1), tenant="rival", tolerations=("mine",))
    decision = board.place(mine)
    assert decision is not None
    assert decision.fitting == 4
    assert policy.looked == looked


def test_a_share_is_taken_of_the_device_that_the_policy_names() -> None:
    arrays = a_fleet(1)
    arrays.hold("u", Hold("h0", ("gpu2",), (), device_milli=400))
    decision = Board(arrays, Fullest()).place(ask(1, device_count=1, device_milli=250))
    assert decision is not None
    assert decision.devices == ("gpu2",)


def test_shapes_that_nobody_asks_for_any_more_are_forgotten() -> None:
    arrays = a_fleet(2)
    board = Board(arrays, Fullest())
    for n in range(SHAPES_MAX + 20):
        board.place(replace(ask(0), milli_cores=n + 1, tenant=f"t{n}"))
    assert len(board._figures) == len(board._allowed) == SHAPES_MAX


def test_what_fits_nowhere_is_told_as_without_a_board() -> None:
    arrays = a_fleet(3)
    request = Request(tenant="acme", milli_cores=10**9, memory_bytes=1)
    answer = Board(arrays, Fullest()).decide(request)
    assert isinstance(answer, Refusal)
    assert answer == decide(arrays, request)


def test_hosts_that_come_later_are_decided_on_too() -> None:
    arrays: FleetArrays = a_fleet(1)
    board = Board(arrays, Fullest())
    board.place(ask(1))
    late: list[HostFacts] = [host(f"late{n}", gpus=4) for n in range(40)]
    for facts in late:
        arrays.set_host(facts)
    decision = board.place(ask(1))
    assert decision is not None
    assert decision.fitting == 41


class Rations(Fullest):
    """No more than one of a shape on hosts of a class, as long as there is another."""

    def rationed(self, shape: Shape) -> bool:
        return shape.device_count > 0

    def surcharge(self, shape: Shape, held: Mapping[HostClass | None, int]) -> Mapping[HostClass | None, float]:
        return {kind: 1e6 for kind, count in held.items() if count}


def test_what_rations_scarce_hosts_counts_what_is_held_at_this_moment() -> None:
    arrays = fleet(*(host(f"a{n}", gpus=4) for n in range(3)), *(host(f"b{n}", gpus=8, threads=64) for n in range(3)))
    board, request = Board(arrays, Rations()), ask(1, device_count=1)
    taken = []
    for uid in ("u0", "u1"):
        decision = board.place(request)
        assert decision is not None
        arrays.hold(uid, replace(held(decision), shape=Shape.of(request)))
        taken.append(decision.host[0])
    assert taken == ["a", "b"]
    arrays.drop("u0")
    again = board.place(request)
    assert again is not None
    assert again.host[0] == "a"
    plain = Board(arrays, Rations()).place(ask(1))
    assert plain is not None
    assert plain.score["fullest"] < 1e6


def test_a_guest_with_devices_goes_where_they_can_be_handed_to_it() -> None:
    arrays = fleet(host("h1", gpus=2, passthrough=False))
    board = Board(arrays, Fullest())
    guest, engine = ask(device_count=1, virtualization=True), ask(device_count=1, isolation=True)
    for request in (guest, ask(virtualization=True), engine, guest):
        for answer in (board.decide(request), decide(arrays, request)):
            if request is guest:
                assert isinstance(answer, Refusal)
                assert str(answer) == f"1 host: {NO_IOMMU}"
            else:
                assert isinstance(answer, Decision)
    arrays.set_host(host("h1", gpus=2))
    assert isinstance(board.decide(guest), Decision)
