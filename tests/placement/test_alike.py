"""What was found of one host serves every host in the same state, and no other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.core.asking import Decision, Refusal, Request
from bessemer.core.hosts import Inventory
from bessemer.placement import FleetArrays, Hold, HostFacts
from bessemer.placement.alike import MEMORY, TRIED, TRIED_EVERY, Alike, Worth
from bessemer.placement.board import Board
from bessemer.placement.facts import Wall
from bessemer.placement.shape import Shape
from tests.placement.hosts import ask as asks
from tests.placement.hosts import fleet, inventory
from tests.placement.test_board import Fullest

_ANYWHERE = tuple(f"of-{n}" for n in range(8))


def ask(cores: int, **more: Any) -> Request:
    """Of somebody who may land anywhere."""
    return asks(cores, tolerations=_ANYWHERE, **more)


WISHES: tuple[Request, ...] = (
    ask(1, device_count=1),
    ask(2, device_count=2, same_switch=True),
    ask(1, device_count=2, numa="required"),
    ask(1, device_count=1, device_milli=300),
    ask(2, device_count=1, cpu_policy="threads"),
    ask(3),
)


def alike(count: int) -> FleetArrays:
    """Hosts of one sort, each with devices and NUMA nodes of its own names: what is numbered alike is not named so."""
    return fleet(*(_named(n) for n in range(count)))


def _named(n: int, **more: Any) -> HostFacts:
    found = inventory(gpus=4, **more)
    devices = [device.model_copy(update={"id": f"{device.id}-of-{n}"}) for device in found.devices]
    siblings = [[f"{2 * cpu},{2 * cpu + 1}" for cpu in range(node.threads // 2)] for node in found.numa]
    nodes = [
        node.model_copy(update={"siblings": [f"{4 * node.id + at}" for at in range(4)] if n % 2 else words})
        for node, words in zip(found.numa, siblings, strict=True)
    ]
    found = found.model_copy(update={"devices": devices, "numa": nodes, "leaf": f"leaf-{n}", "spine": f"spine-{n}"})
    return HostFacts(name=f"h{n}", inventory=found, taints=(f"of-{n}",), wall=Wall(f"site-{n}"))


def placed(board: Board, request: Request) -> Decision:
    answer = board.decide(request)
    assert isinstance(answer, Decision)
    return answer


@given(st.data())
@settings(max_examples=120, deadline=None)
def test_a_board_that_remembers_states_decides_as_one_made_anew(data: st.DataObject) -> None:
    arrays, policy = alike(5), Fullest()
    board = Board(arrays, policy)
    held: list[str] = []
    for step in range(data.draw(st.integers(5, 25))):
        if held and data.draw(st.integers(0, 3)) == 0:
            arrays.drop(held.pop(data.draw(st.integers(0, len(held) - 1))))
            continue
        request = data.draw(st.sampled_from(WISHES))
        answer = board.decide(request)
        assert answer == Board(arrays, policy).decide(request)
        if isinstance(answer, Decision):
            arrays.hold(f"u{step}", Hold.of(answer))
            held.append(f"u{step}")


def test_a_host_in_a_state_that_was_seen_costs_no_look() -> None:
    arrays, policy = alike(6), Fullest()
    board, request = Board(arrays, policy), ask(1, device_count=4)
    first = placed(board, request)
    arrays.hold("u0", Hold.of(first))
    second = placed(board, request)
    looked = policy.looked
    arrays.hold("u1", Hold.of(second))
    third = placed(board, request)
    assert policy.looked == looked, "the second host is as the first one was"
    assert len({first.host, second.host, third.host}) == 3
    for one in (first, second, third):
        assert one.devices == tuple(f"gpu{n}-of-{one.host[1:]}" for n in range(4)), "devices are each host's own"
        assert tuple(device.id for device in one.tree) == one.devices


def test_one_host_that_is_wide_makes_no_state_of_others_larger() -> None:
    arrays = alike(2)
    narrow = Alike(arrays, Shape.of(WISHES[0]), worth=Worth()).state(0)
    arrays.set_host(HostFacts(name="wide", inventory=inventory(gpus=256)))
    wide = Alike(arrays, Shape.of(WISHES[0]), worth=Worth()).state(0)
    assert len(wide) == len(narrow) <= 64


def test_who_asks_is_not_who_asked_before() -> None:
    arrays = alike(3)
    board, request = Board(arrays, Fullest()), ask(1, device_count=1)
    placed(board, request)
    other = placed(board, replace(request, tenant="other"))
    assert other.request == replace(request, tenant="other")


def test_what_was_found_is_forgotten_once_a_host_is_set_for_numbers_may_stand_for_others() -> None:
    arrays, request = FleetArrays(), ask(1, device_count=1, device_models=frozenset({"H100"}))
    arrays.set_host(_named(0, model="A100"))
    board = Board(arrays, Fullest())
    assert isinstance(board.decide(request), Refusal)
    arrays.hold("u", Hold("h0", (), ()))
    assert isinstance(board.decide(request), Refusal), "the host was looked at by itself, and its state is known"
    arrays.remove_host("h0")
    arrays.set_host(_named(0, model="H100"))
    assert board.decide(request) == Board(arrays, Fullest()).decide(request)
    assert isinstance(board.decide(request), Decision), "the number of the one model is the other's by now"


def test_a_host_that_is_set_again_with_other_nodes_has_its_own_numbers() -> None:
    arrays = alike(1)
    board, request = Board(arrays, Fullest()), ask(1, device_count=1)
    placed(board, request)
    found = _named(1).inventory
    moved = [node.model_copy(update={"id": node.id + 4}) for node in found.numa]
    devices = [device.model_copy(update={"numa_node": device.numa_node + 4}) for device in found.devices]
    other: Inventory = found.model_copy(update={"numa": moved, "devices": devices})
    arrays.set_host(HostFacts(name="h1", inventory=other))
    for n in range(2):
        answer = placed(board, request)
        nodes = {part.numa_node for part in answer.allocations}
        assert nodes <= ({0, 1} if answer.host == "h0" else {4, 5})
        arrays.hold(f"u{n}", Hold(answer.host, tuple(d.id for d in arrays.devices(int(answer.host[1:]))), ()))


def test_where_states_are_seldom_known_they_are_seldom_asked_for() -> None:
    worth = Worth()
    asked = [worth.asks() for _ in range(TRIED_EVERY)]
    assert all(asked), "until anything is told they are worth it"
    for _ in range(8 * MEMORY):
        worth.told(known=False)
    assert sum(worth.asks() for _ in range(TRIED_EVERY)) == TRIED
    for _ in range(MEMORY):
        worth.told(known=True)
    assert all(worth.asks() for _ in range(TRIED_EVERY))


def test_verdicts_are_counted_as_hosts_change_one_by_one_and_many_at_once() -> None:
    arrays, request = alike(40), ask(1, device_count=2)
    board = Board(arrays, Fullest())
    board.decide(request)
    for hosts in (range(3), range(3, 33), range(20)):
        for n in hosts:
            if arrays.held.of(f"u{n}") is None:
                arrays.hold(f"u{n}", Hold(f"h{n}", tuple(d.id for d in arrays.devices(n)), ()))
            else:
                arrays.drop(f"u{n}")
        assert board.decide(request) == Board(arrays, Fullest()).decide(request)
