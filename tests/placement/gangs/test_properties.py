"""Gangs by property: against a second implementation that tries every way."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.core.asking import Allocation, Gang, GangDecision, Refusal
from bessemer.placement import Hold, HostFacts
from bessemer.placement.choose import place_at
from bessemer.placement.gangs import decide_gang
from bessemer.placement.gangs.changes import cheapest
from bessemer.placement.gangs.room import room
from bessemer.placement.gangs.spans import takes
from bessemer.placement.sight import Sight
from tests.placement.gangs.slow import STEPS, at_once, best, gangs, members, path, yards
from tests.placement.hosts import fleet
from tests.placement.test_properties import Slow


@given(facts=yards, member=members, most=st.integers(1, 6))
@settings(max_examples=200, deadline=None)
def test_as_many_fit_on_a_host_at_once_as_there_are_ways(facts: list[HostFacts], member, most: int) -> None:
    sight = Sight.of(fleet(*facts), member)
    counts = room(sight, most=most)
    for row, fact in enumerate(facts):
        expected = at_once(fact, member, most=most)
        if expected:
            assert counts[row] == expected


@given(facts=yards, gang=gangs())
@settings(max_examples=400, deadline=None)
def test_it_is_placed_where_there_is_a_way_and_under_the_fewest_switches(facts: list[HostFacts], gang: Gang) -> None:
    answer, expected = decide_gang(fleet(*facts), gang), best(facts, gang)
    assert isinstance(answer, GangDecision) == (expected is not None), answer
    if isinstance(answer, GangDecision) and expected is not None:
        check_holds(facts, gang, answer)
        assert answer.score["sites"] == expected.sites
        if expected.sites == 1:
            assert (answer.leaves, answer.spines) == (expected.leaves, expected.spines)


def check_holds(facts: list[HostFacts], gang: Gang, answer: GangDecision) -> None:
    """All of them, no more than there is, and each rule."""
    above = {fact.name: path(fact) for fact in facts}
    assert len(answer.members) == gang.count
    slow = Slow(facts)
    for member in answer.members:
        ways = slow.ways(member.host, gang.member)
        assert set(member.devices) in ways
        assert sum(part.milli_cores for part in member.allocations) == gang.member.milli_cores
        assert sum(part.memory_bytes for part in member.allocations) == gang.member.memory_bytes
        slow.take(member)
    hosts = [member.host for member in answer.members]
    assert max(Counter(hosts).values()) <= (gang.per_host or gang.count)
    assert answer.leaves == len({above[host][1] for host in hosts})
    assert answer.spines == len({above[host][2] for host in hosts})
    if gang.policy == "required":
        assert len({above[host][STEPS.index(gang.level)] for host in hosts}) == 1
    for first in range(0, gang.count, gang.segment) if gang.segment else ():
        block = hosts[first : first + gang.segment]
        assert len({above[host][STEPS.index(gang.segment_level)] for host in block}) == 1


@given(facts=yards, gang=gangs(), seed=st.integers(0, 99))
@settings(max_examples=80, deadline=None)
def test_the_order_of_hosts_decides_nothing(facts: list[HostFacts], gang: Gang, seed: int) -> None:
    shuffled = [facts[n] for n in np.random.default_rng(seed).permutation(len(facts))]
    assert decide_gang(fleet(*facts), gang) == decide_gang(fleet(*shuffled), gang)


@given(facts=yards, gang=gangs())
@settings(max_examples=200, deadline=None)
def test_in_a_refusal_every_host_counts_once(facts: list[HostFacts], gang: Gang) -> None:
    answer = decide_gang(fleet(*facts), gang)
    if isinstance(answer, Refusal):
        assert sum(reason.hosts for reason in answer.reasons) == len(facts)


offers = st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=4).map(sorted), min_size=1, max_size=5)


@given(gains=offers, count=st.integers(1, 30), step=st.integers(1, 4), leaves_first=st.booleans())
@settings(max_examples=300, deadline=None)
def test_the_fewest_leaves_are_taken_under_the_fewest_spines(
    gains: list[list[int]], count: int, step: int, leaves_first: bool
) -> None:
    tables = [np.cumsum(np.array(gain[::-1])) for gain in gains]
    tables = [table - table % step for table in tables]
    found = takes(tables, count, leaves_first=leaves_first)
    ways = [()]
    for table in tables:
        ways = [(*way, taken) for way in ways for taken in range(len(table) + 1)]

    def key(way: tuple[int, ...]) -> tuple[int, int]:
        counts = (sum(way), sum(map(bool, way)))
        return counts if leaves_first else counts[::-1]

    def there(way: tuple[int, ...]) -> int:
        return sum(int(table[taken - 1]) for table, taken in zip(tables, way, strict=True) if taken)

    enough = [way for way in ways if there(way) >= count]
    assert (found is not None) == bool(enough)
    if found is not None:
        assert there(tuple(found)) >= count
        assert key(tuple(found)) == min(map(key, enough))


@given(facts=yards, gang=gangs())
@settings(max_examples=60, deadline=None)
def test_spread_is_on_no_fewer_hosts_than_pack(facts: list[HostFacts], gang: Gang) -> None:
    packed = decide_gang(fleet(*facts), replace(gang, spread=False))
    spread = decide_gang(fleet(*facts), replace(gang, spread=True))
    if isinstance(packed, GangDecision) and isinstance(spread, GangDecision) and packed.leaves == 1:
        assert spread.score["hosts"] >= packed.score["hosts"]


@given(facts=yards, gang=gangs())
@settings(max_examples=200, deadline=None)
def test_the_change_that_a_refusal_names_makes_it_fit(facts: list[HostFacts], gang: Gang) -> None:
    arrays = fleet(*facts)
    if best(facts, gang) is not None:
        return
    change = cheapest(Sight.of(arrays, gang.member), gang)
    if change is None:
        return
    opened = [replace(fact, schedulable=True) if "uncordon" in change.text else fact for fact in facts]
    assert change.gang.member == change.sight.request
    assert best(opened, change.gang) is not None, change.text
    assert isinstance(decide_gang(fleet(*opened), change.gang), GangDecision)
    if change.gang.count < gang.count:
        more = replace(change.gang, count=change.gang.count + (gang.segment or 1))
        assert best(opened, more) is None, "there is room for more"


@given(facts=yards, member=members, held=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3000)), max_size=6))
@settings(max_examples=200, deadline=None)
def test_a_member_gets_of_a_host_what_a_single_request_would(facts: list[HostFacts], member, held) -> None:
    arrays = fleet(*facts)
    for number, (host, cores) in enumerate(held):
        part = Allocation(numa_node=number % 2, milli_cores=cores, memory_bytes=1000 * cores)
        arrays.hold(str(number), Hold(f"h{host}", (), (part,)))
    for count in (1, 3):
        answer = decide_gang(arrays, Gang(member=member, count=count, per_host=1))
        for got in answer.members if isinstance(answer, GangDecision) else ():
            row = arrays.row(got.host)
            assert row is not None
            alone = place_at(Sight.of(arrays.view(np.array([row])), member), 0, score={})
            assert replace(got, fitting=0, reasons=()) == alone
