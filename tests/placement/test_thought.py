"""Thought: what it changes is seen while it lasts, and nothing is left of it, whoever looked meanwhile or did not."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.core.asking import Decision
from bessemer.core.units import GIB
from bessemer.placement import FleetArrays, Hold
from bessemer.placement.board import Board
from bessemer.placement.facts import Tenure
from bessemer.placement.fleet import forked, rename
from bessemer.placement.thought import Thought
from tests.placement.hosts import ask, fleet, host
from tests.placement.slices.test_fleet import cut, instance
from tests.placement.test_beside import fleets, requests
from tests.placement.test_board import Fullest

PLAIN = [
    ask(1),
    ask(2, device_count=1),
    ask(1, device_count=1, device_milli=400),
    instance("3g.40gb"),
    instance("1g.10gb"),
]


def content(arrays: FleetArrays) -> dict[str, Any]:
    """All that answers follow from; states of a device by what they are, whatever their numbers."""
    found: dict[str, Any] = {
        name: value.copy()
        for name, value in vars(arrays).items()
        if isinstance(value, np.ndarray) and name != "device_cut"
    }
    n = arrays.size
    found["cuts"] = [[arrays.cuts._cuts.all[c] if c >= 0 else None for c in row] for row in arrays.device_cut[:n]]
    found["holds"] = [arrays.held.at(name) for name in arrays.names]
    found["own"] = [{cpu for cpu, count in arrays.parts(row).own.items() if count} for row in range(n)]
    found["asked"] = {name: count for name, count in arrays.cuts.asked.items() if count}
    found["census"] = {shape: dict(counts) for shape, counts in arrays.census._counts.items()}
    found["facts"] = arrays.facts
    return found


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    def equal(left: Any, right: Any) -> bool:
        return np.array_equal(left, right) if isinstance(left, np.ndarray) else bool(left == right)

    return one.keys() == other.keys() and all(equal(one[name], other[name]) for name in one)


class Person:
    """Thinks: takes, drops and holds at random, asks a board that is asked outside, too, and now and then gives up."""

    def __init__(self, arrays: FleetArrays, asked: list[Any], data: st.DataObject) -> None:
        self.arrays, self.asked, self.data = arrays, asked, data
        self.board = Board(arrays, Fullest())
        self.seen: dict[int, dict[str, Any]] = {}

    def ask(self) -> Decision | None:
        request = self.data.draw(st.sampled_from(self.asked))
        answer = self.board.decide(request)
        assert answer == Board(self.arrays, Fullest()).decide(request)
        return answer if isinstance(answer, Decision) else None

    def note(self) -> None:
        """A version stands for one content, and for no other ever."""
        now = content(self.arrays)
        assert same(self.seen.setdefault(self.arrays.version, now), now)

    def step(self, thought: Thought | None) -> None:
        uids = [uid for name in self.arrays.names for uid in self.arrays.held.at(name)]
        match self.data.draw(st.sampled_from(("take", "take", "hold", "drop", "rename", "ask"))):
            case "take" if (answer := self.ask()) is not None:
                if thought is not None:
                    thought.take(answer)
                else:
                    self.arrays.hold(f"real{self.arrays.version}", Hold.of(answer))
            case "hold" if uids and (answer := self.ask()) is not None:
                self.arrays.hold(self.data.draw(st.sampled_from(uids)), Hold.of(answer))
            case "rename" if uids:
                uid = self.data.draw(st.sampled_from(uids))
                hold = self.arrays.held.of(uid)
                assert hold is not None
                hold = replace(hold, tenure=Tenure(since=len(uid)))
                rename(self.arrays, uid, uid=self.data.draw(st.sampled_from((f"{uid}'", *uids))), hold=hold)
            case "drop" if uids:
                self.arrays.drop(self.data.draw(st.sampled_from(uids)))
            case _:
                self.ask()
        self.note()

    def think(self, depth: int) -> None:
        before, version, read = content(self.arrays), self.arrays.version, self.arrays.changes.position
        named = self.arrays.named.position
        with ExitStack() as stack:
            fails = self.data.draw(st.booleans())
            if fails:
                stack.enter_context(pytest.raises(RuntimeError))
            thought = stack.enter_context(Thought(self.arrays))
            for _ in range(self.data.draw(st.integers(0, 5))):
                self.step(thought)
                if depth and self.data.draw(st.integers(0, 3)) == 0:
                    self.think(depth - 1)
            if fails:
                raise RuntimeError
        assert same(before, content(self.arrays))
        assert self.arrays.version == version
        if depth == 1:
            assert not len(self.arrays.changes.since(read))
            assert not len(self.arrays.named.since(named))
        self.note()


@given(facts=fleets, asked=st.lists(requests(), min_size=1, max_size=3), data=st.data())
@settings(max_examples=60, deadline=None)
def test_of_a_thought_nothing_is_left(facts: list[Any], asked: list[Any], data: st.DataObject) -> None:
    arrays = fleet(*facts, cut("cut", gpus=2), host("plain", gpus=2))
    person = Person(arrays, [*PLAIN, *asked], data)
    for _ in range(data.draw(st.integers(1, 4))):
        if data.draw(st.booleans()):
            person.think(1)
        else:
            person.step(None)
    for request in person.asked:
        assert person.board.decide(request) == Board(arrays, Fullest()).decide(request)


def test_who_did_not_look_meanwhile_looks_at_nothing_anew() -> None:
    # No two hosts are alike: what is known of one would do for another.
    arrays, policy = fleet(*(host(f"h{n}", gpus=4, memory=32 * GIB + n) for n in range(40))), Fullest()
    board = Board(arrays, policy)
    first, other = ask(1, device_count=1), ask(1, device_count=2)
    before = board.decide(first), board.decide(other)
    looked = policy.looked
    with Thought(arrays) as thought:
        for n in range(8):
            thought.take(Board(arrays, Fullest()).decide(first))  # type: ignore[arg-type]
            if n == 1:
                board.decide(other)
    assert board.decide(first) == before[0]
    assert policy.looked - looked == 1, "of the other shape, the host that was taken of by then"
    assert board.decide(other) == before[1]
    assert policy.looked - looked == 1 + 1, "of two that were touched, the one that it chose before is in a known state"


def test_a_fork_that_is_made_in_thought_keeps_what_was_thought() -> None:
    arrays = fleet(host("a", gpus=1))
    with Thought(arrays):
        arrays.hold("x", Hold("a", ("gpu0",), ()))
        fork = forked(arrays)
    assert not arrays.held.at("a")
    assert list(fork.held.at("a")) == ["x"]
    fork.drop("x")
    assert same(content(fork), content(arrays))


def test_hosts_are_set_and_removed_in_no_thought() -> None:
    arrays = fleet(host("a"))
    with Thought(arrays):
        with pytest.raises(AssertionError):
            arrays.set_host(host("a", gpus=1))
        with pytest.raises(AssertionError):
            arrays.remove_host("a")
    arrays.remove_host("a")
