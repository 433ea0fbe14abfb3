"""What is seen beside a decision: it is what a decision made anew would say, and nothing is left of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bessemer.core.asking import Decision
from bessemer.placement import FleetArrays, Hold, Wall, decide
from bessemer.placement.board import Board
from bessemer.placement.demand import Mix
from bessemer.placement.policies.fgd import Fgd
from bessemer.placement.policies.published import BestFit
from bessemer.placement.preview import host_room, leaf_rooms, ranked
from bessemer.placement.shape import Shape
from bessemer.placement.thought import Thought
from tests.placement.hosts import ask, fleet, host
from tests.placement.slices.test_fleet import cut, instance


def arrays_of(there: FleetArrays) -> dict[str, object]:
    return {name: value.copy() for name, value in vars(there).items() if isinstance(value, np.ndarray)}


def same(one: dict[str, object], other: dict[str, object]) -> bool:
    return all(np.array_equal(one[name], other[name]) for name in one)  # type: ignore[arg-type]


def test_what_is_taken_in_thought_is_taken_back_also_after_an_error() -> None:
    there, asked = fleet(host("a", gpus=2), host("b", gpus=2)), ask(1, device_count=2)
    there.hold("before", Hold("a", ("gpu0",), ()))
    before = arrays_of(there)

    def think() -> None:
        with Thought(there) as thought:
            first = decide(there, asked)
            assert isinstance(first, Decision)
            thought.take(first)
            assert not isinstance(decide(there, asked), Decision)  # b is used up, and a was held before
            raise RuntimeError

    with pytest.raises(RuntimeError):
        think()
    assert same(before, arrays_of(there))
    assert there.census.of(Shape.of(asked)) == {}


def test_the_next_best_is_what_would_be_chosen_were_those_before_it_not_there() -> None:
    there, asked = fleet(*(host(name, gpus=gpus) for name, gpus in (("a", 8), ("b", 2), ("c", 4)))), ask(device_count=2)
    policy = Fgd(Mix.of({Shape.of(ask(device_count=count)): 1.0 for count in (2, 4, 8)}), exact=True)

    def chosen() -> Decision | None:
        return Board(there, policy).place(asked)

    first = chosen()
    assert first is not None
    told = ranked(there, asked, policy=policy, first=first.host, most=5)
    assert [one.host for one in ranked(there, asked, policy=policy, first=first.host, most=1)] == [
        one.host for one in told[:2]
    ]
    seen = []
    while (now := chosen()) is not None:
        seen.append(now.host)
        there.remove_host(now.host)
    assert [one.host for one in told] == seen
    assert len(seen) == 3


def test_instances_of_a_device_are_taken_in_thought_as_well() -> None:
    there, asked = fleet(cut("a")), instance("3g.40gb")
    before, placed = arrays_of(there), []
    with Thought(there) as thought:
        for _ in range(9):
            answer = decide(there, asked)
            if isinstance(answer, Decision):
                thought.take(answer)
                placed.append((answer.devices, answer.device_start))
    assert len(placed) == len(set(placed)) == 2
    assert same(before, arrays_of(there))


def test_a_host_is_shown_as_it_stands() -> None:
    there = fleet(host("a", gpus=2, leaf="l1", spine="s1"))
    there.hold("x", Hold("a", ("gpu1",), (), 300))
    room = host_room(there, "a")
    assert room is not None
    assert (room.leaf, room.spine) == ("l1", "s1")
    assert [(device.id, free) for device, free in room.devices] == [("gpu0", 1000), ("gpu1", 700)]
    assert [node.milli_cores_free for node in room.nodes] == [8000, 8000]
    assert host_room(there, "b") is None


def test_leaves_count_the_hosts_that_are_open_to_who_asks() -> None:
    there = fleet(
        host("a", gpus=4, leaf="l1"),
        host("b", gpus=4, leaf="l1"),
        host("c", gpus=4, leaf="l2"),
        host("d", gpus=4, leaf="l2", wall=Wall(owners=frozenset({"other"}))),
        host("e"),
    )
    there.hold("x", Hold("a", ("gpu0", "gpu1", "gpu2"), ()))
    found = {
        room.leaf: (room.hosts, room.fitting, room.devices, room.free)
        for room in leaf_rooms(there, ask(device_count=2))
    }
    assert found == {"l1": (2, 1, 8, 5), "l2": (1, 1, 4, 4), "": (1, 0, 0, 0)}


def test_each_host_under_a_leaf_of_its_own_costs_no_more_than_all_under_one(monkeypatch: pytest.MonkeyPatch) -> None:
    looks, counted = [], np.bincount

    def count(*args: Any, **more: Any) -> Any:
        looks.append(args)
        return counted(*args, **more)

    monkeypatch.setattr(np, "bincount", count)
    for leaf in ("l{}", "l"):
        there = fleet(*(host(f"h{n}", gpus=2, leaf=leaf.format(n)) for n in range(40)))
        looks.clear()
        found = leaf_rooms(there, ask(device_count=2))
        assert (sum(room.hosts for room in found), sum(room.free for room in found)) == (40, 80)
        assert len(looks) == 4


def test_the_next_best_for_an_instance_is_compared_by_what_chose_for_it() -> None:
    there, asked = fleet(*(cut(name) for name in "abc")), instance("1g.10gb")
    with Thought(there) as thought:
        for host_name in "ab":
            for _ in range(1 + (host_name == "a")):
                only = fleet(cut(host_name))
                for hold in there.held.at(host_name).items():
                    only.hold(*hold)
                answer = decide(only, asked)
                assert isinstance(answer, Decision)
                thought.take(answer)
        board = Board(there, BestFit())
        first = board.place(asked)
        assert first is not None
        told = ranked(there, asked, policy=board.policy, first=first.host, most=2)
        assert dict(told[0].score) == dict(first.score)
        values = [one.score[board.policy.name] for one in told]
        assert values == sorted(values)
        assert len(set(values)) > 1
        assert not any(one.parts for one in told)
