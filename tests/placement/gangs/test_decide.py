"""Gangs by example."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bessemer.core.asking import Decision, Gang, GangDecision, Refusal
from bessemer.placement import FleetArrays, Hold, HostFacts, Wall, set_wall
from bessemer.placement.gangs import decide_gang
from bessemer.placement.policies import Costs
from bessemer.placement.shape import Shape
from bessemer.placement.states import States
from tests.placement.hosts import ask, fleet, host


def yard(*leaves: int, spine: int = 2, gpus: int = 4) -> FleetArrays:
    """So many hosts under each leaf, so many leaves under a spine."""
    return fleet(
        *(
            host(f"h{leaf}-{n}", gpus=gpus, leaf=f"l{leaf}", spine=f"s{leaf // spine}")
            for leaf, hosts in enumerate(leaves)
            for n in range(hosts)
        )
    )


def whole(count: int, **more: Any) -> Gang:
    """Members that take a host each."""
    return Gang(member=ask(device_count=4), count=count, **more)


def placed(arrays: FleetArrays, gang: Gang) -> GangDecision:
    answer = decide_gang(arrays, gang)
    assert isinstance(answer, GangDecision), str(answer)
    return answer


def refused(arrays: FleetArrays, gang: Gang) -> Refusal:
    answer = decide_gang(arrays, gang)
    assert isinstance(answer, Refusal)
    return answer


def leaves(answer: GangDecision) -> list[str]:
    return [member.host.split("-")[0] for member in answer.members]


def test_all_go_under_the_tightest_leaf_that_suffices() -> None:
    assert leaves(placed(yard(4, 2, 3), whole(2))) == ["h1", "h1"]
    assert leaves(placed(yard(4, 2, 3), whole(3))) == ["h2", "h2", "h2"]


def test_of_leaves_as_tight_the_one_under_the_tightest_spine() -> None:
    assert leaves(placed(yard(2, 3, 2, 2), whole(2))) == ["h2", "h2"]


def test_where_none_suffices_the_fewest_leaves_under_the_fewest_spines() -> None:
    answer = placed(yard(3, 2, 3, 3), whole(6))
    assert leaves(answer) == ["h2"] * 3 + ["h3"] * 3
    assert (answer.leaves, answer.spines) == (2, 1)


def test_the_last_leaf_is_as_small_as_will_do() -> None:
    assert leaves(placed(yard(4, 3, 1, spine=3), whole(5))) == ["h0"] * 4 + ["h2"]


def test_leaves_are_few_before_spines_and_with_level_spine_after() -> None:
    arrays = yard(3, 1, 1, 3, 1, 1, 2, 2, 2, spine=3)
    assert placed(arrays, whole(6)).leaves == 2
    answer = placed(arrays, whole(6, level="spine"))
    assert (answer.leaves, answer.spines) == (3, 1)


def test_a_required_level_is_kept_or_nothing_is_placed() -> None:
    refusal = refused(yard(2, 2, 2), whole(3, policy="required"))
    assert str(refusal) == "6 hosts: with room, but under each of 3 leaves for at most 2 of 3 members"
    assert refusal.cheapest == "level: spine instead of leaf"
    assert placed(yard(2, 2, 2), whole(3, policy="required", level="spine")).spines == 1
    assert refused(yard(2, 2, 2), whole(7)).cheapest == "ask for at most 6 members"


def test_what_sets_hosts_aside_is_counted_beside() -> None:
    arrays = yard(2, 2)
    arrays.set_host(host("down", gpus=4, leaf="l0", schedulable=False))
    refusal = refused(arrays, whole(5))
    assert str(refusal) == "4 hosts: with room, but together for 4 of 5 members; 1 host: cordoned"
    assert refusal.cheapest == "ask for at most 4 members"


def test_two_on_one_host_share_nothing() -> None:
    answer = placed(yard(2), Gang(member=ask(device_count=2, same_switch=True), count=4))
    taken = [(member.host, device) for member in answer.members for device in member.devices]
    assert len(set(taken)) == 8
    assert [member.host for member in answer.members] == ["h0-0", "h0-0", "h0-1", "h0-1"]


def test_packed_is_on_the_fewest_hosts_and_spread_on_the_most() -> None:
    arrays = yard(3)
    arrays.hold("some", Hold("h0-0", ("gpu0", "gpu1"), ()))
    gang = Gang(member=ask(device_count=1), count=2)
    assert {member.host for member in placed(arrays, gang).members} == {"h0-0"}, "the tightest that holds both"
    spread = Gang(member=ask(device_count=1), count=3, spread=True)
    assert {member.host for member in placed(arrays, spread).members} == {"h0-0", "h0-1", "h0-2"}
    apart = Gang(member=ask(device_count=1), count=4, per_host=1)
    assert refused(arrays, apart).cheapest == "up to 2 members to a host instead of 1"


def test_blocks_lie_under_one_leaf_each() -> None:
    answer = placed(yard(3, 5, 3), whole(6, segment=2))
    assert leaves(answer) == ["h0", "h0", "h1", "h1", "h1", "h1"]
    blocks = refused(yard(3, 3), whole(6, segment=2))
    assert str(blocks) == "6 hosts: with room, but together for 2 of 3 blocks of 2 members"
    assert blocks.cheapest == "blocks under one spine instead of one leaf"


def test_blocks_of_eight_may_become_blocks_of_four() -> None:
    refusal = refused(yard(4, 4, 6, 6, spine=1), whole(16, segment=8))
    assert str(refusal) == "20 hosts: with room, but for no block of 8 members under one leaf"
    assert refusal.cheapest == "blocks of 4 members instead of 8"


def test_a_host_of_no_known_leaf_is_under_one_of_its_own() -> None:
    arrays = fleet(host("a", gpus=4), host("b", gpus=4), host("c", gpus=4, spine="s"))
    assert isinstance(decide_gang(arrays, whole(2, policy="required")), Refusal)
    answer = placed(arrays, whole(3))
    assert (answer.leaves, answer.spines) == (3, 3)


def test_a_leaf_is_another_at_another_site_or_under_another_spine() -> None:
    arrays = fleet(
        host("a", gpus=4, leaf="l", spine="s", wall=Wall("near")),
        host("b", gpus=4, leaf="l", spine="s", wall=Wall("far")),
        host("c", gpus=4, leaf="l", spine="t", wall=Wall("far")),
    )
    assert isinstance(decide_gang(arrays, whole(2, policy="required", level="spine")), Refusal)
    answer = placed(arrays, whole(2))
    assert {member.host for member in answer.members} == {"b", "c"}
    assert answer.score["sites"] == 1
    set_wall(arrays, "c", wall=Wall("third"))
    assert placed(arrays, whole(2)).score["sites"] == 2


def test_all_on_one_host_where_that_is_the_level() -> None:
    gang = Gang(member=ask(device_count=1), count=3, level="host", policy="required")
    arrays = yard(2)
    arrays.hold("some", Hold("h0-1", ("gpu0",), ()))
    assert {member.host for member in placed(arrays, gang).members} == {"h0-1"}
    arrays.hold("more", Hold("h0-1", ("gpu1",), ()))
    arrays.hold("other", Hold("h0-0", ("gpu1", "gpu2"), ()))
    refusal = refused(arrays, gang)
    assert str(refusal) == "2 hosts: with room, but each for at most 2 of 3 members"
    assert refusal.cheapest == "level: leaf instead of host"


def test_a_refusal_says_what_to_wait_for() -> None:
    arrays = yard(2, 1)
    for name in ("h0-0", "h0-1"):
        arrays.hold(name, Hold(name, ("gpu0",), ()))
    gang = Gang(member=ask(device_count=4, same_nvlink=True), count=2, policy="required")
    assert refused(arrays, gang).cheapest == "ask for at most 1 member"
    arrays.hold("last", Hold("h1-0", ("gpu0",), ()))
    four = Gang(member=ask(device_count=1, device_models=frozenset({"H100"})), count=12)
    assert refused(arrays, four).cheapest == "ask for at most 9 members"
    nothing = fleet(host("a", gpus=2, leaf="l"))
    nothing.hold("all", Hold("a", ("gpu0", "gpu1"), ()))
    both = Gang(member=ask(device_count=1), count=2, policy="required")
    assert refused(nothing, both).cheapest == "wait until claims under l end"


def test_neighbours_in_rank_are_near() -> None:
    answer = placed(yard(2, 2, 2, 2), whole(8))
    assert [member.host for member in answer.members] == [f"h{leaf}-{n}" for leaf in range(4) for n in range(2)]


class Last:
    """A policy by which the last hosts are the cheapest."""

    name, version = "last", 0

    def costs(self, shape: Shape, states: States) -> Costs:
        rows = -states.cores.astype(float)
        return Costs(rows, states.cores)


def test_of_hosts_with_equal_room_the_policy_chooses() -> None:
    arrays = fleet(*(host(f"h{n}", gpus=4, leaf="l", threads=8 + n) for n in range(4)))
    assert {member.host for member in placed(arrays, whole(2)).members} == {"h0", "h1"}
    answer = decide_gang(arrays, whole(2), policy=Last())
    assert isinstance(answer, GangDecision)
    assert {member.host for member in answer.members} == {"h2", "h3"}


def test_members_say_how_many_hosts_fit_and_why_others_did_not() -> None:
    arrays = yard(2, 2)
    arrays.set_host(host("down", gpus=4, schedulable=False))
    for member in placed(arrays, whole(2)).members:
        assert isinstance(member, Decision)
        assert member.fitting == 4
        assert [reason.text for reason in member.reasons] == ["cordoned"]


def test_a_leaf_that_is_renamed_is_another() -> None:
    arrays = yard(2, 2)
    before = arrays.facts
    arrays.set_host(host("h0-0", gpus=4, leaf="l1", spine="s0"))
    assert arrays.facts == before + 1
    assert len(placed(arrays, whole(3, policy="required")).members) == 3
    arrays.remove_host("h0-1")
    assert arrays.switches.find("l0") == -1, "names that no host has are forgotten"


def test_hosts_alike_are_cut_alike() -> None:
    arrays = yard(3, gpus=8)
    arrays.hold("some", Hold("h0-1", ("gpu3",), ()))
    answer = placed(arrays, Gang(member=ask(device_count=3), count=6))
    for member in answer.members:
        assert "gpu3" not in member.devices or member.host != "h0-1"
    taken = [(member.host, device) for member in answer.members for device in member.devices]
    assert len(set(taken)) == 18


def test_no_hosts_are_no_way() -> None:
    assert str(refused(FleetArrays(), whole(2))) == "there are no hosts"
    facts: list[HostFacts] = [host("a")]
    assert str(refused(fleet(*facts), whole(2))) == "1 host: without GPUs"


GANGS = (
    whole(1),
    whole(3),
    whole(7, level="spine"),
    whole(4, segment=2),
    Gang(member=ask(device_count=1), count=9),
    Gang(member=ask(device_count=1), count=9, spread=True),
    Gang(member=ask(device_count=2), count=3, per_host=1),
    Gang(member=ask(device_count=1), count=3, level="host"),
)


@pytest.mark.parametrize("gang", GANGS, ids=str)
def test_among_equals_the_names_decide_and_not_who_came_first(gang: Gang) -> None:
    facts = [
        host(f"h{leaf}-{n}", gpus=4, leaf=f"l{leaf}", spine=f"s{leaf // 2}") for leaf in (2, 0, 3, 1) for n in (1, 0, 2)
    ]
    first = placed(fleet(*sorted(facts, key=lambda fact: fact.name)), gang)
    assert first.members[0].host == "h0-0"
    dice = np.random.default_rng(1)
    for _ in range(5):
        assert placed(fleet(*(facts[n] for n in dice.permutation(len(facts)))), gang) == first


def test_members_may_be_smaller() -> None:
    arrays = yard(2)
    for name in ("h0-0", "h0-1"):
        arrays.hold(name, Hold(name, ("gpu3",), ()))
    assert (
        refused(arrays, Gang(member=ask(device_count=4), count=2)).cheapest == "ask for at most 3 GPUs for each member"
    )
    cores = Gang(member=ask(cores=99), count=2)
    assert refused(arrays, cores).cheapest == "ask for at most 16 cores for each member"
    assert refused(arrays, Gang(member=ask(cores=99), count=3)).cheapest == "ask for at most 8 cores for each member"


def test_a_taint_or_closeness_may_help_all_of_them() -> None:
    arrays = fleet(*(host(f"h{n}", gpus=4, leaf="l", taints=("mine",) if n else ()) for n in range(3)))
    assert refused(arrays, whole(3)).cheapest == "tolerate mine"
    near = Gang(member=ask(device_count=4, same_switch=True, tolerations=("mine",)), count=3)
    assert refused(arrays, near).cheapest == "let the devices lie on several PCIe switches"
