"""What readers of the arrays are told: which rows changed, whether the facts did, some rows alone, and states."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.core.asking import Allocation, Decision, Request
from bessemer.core.beside import CompanionUse
from bessemer.core.units import GIB
from bessemer.placement import FleetArrays, Hold, HostFacts, Wall, decide, set_wall
from bessemer.placement.arrays import ARRAYS
from bessemer.placement.changes import Changes
from bessemer.placement.facts import Tenure
from bessemer.placement.filters import FACTS, HARDWARE, fitting
from bessemer.placement.fleet import rename, set_open
from bessemer.placement.hostclass import HostClass
from bessemer.placement.moves.holdings import Holdings
from bessemer.placement.shape import Shape
from bessemer.placement.sight import Sight
from tests.placement.hosts import ask, fleet, host
from tests.placement.test_properties import arrays_of, as_hold, fleets, hosts, requests

NOT_HARDWARE = {name for name, array in ARRAYS.items() if array.column.open}


# --- changes ----------------------------------------------------------------------------------------------------


def test_who_has_read_all_is_told_what_changed_since() -> None:
    arrays = fleet(host("a", gpus=1), host("b", gpus=1), host("c"))
    read = arrays.changes.position
    assert list(arrays.changes.since(read)) == []
    arrays.hold("x", Hold("b", ("gpu0",), ()))
    arrays.hold("y", Hold("b", (), ()))
    arrays.hold("z", Hold("nowhere", (), ()))
    arrays.drop("nobody")
    assert list(arrays.changes.since(read)) == [1]
    arrays.remove_host("c")
    arrays.set_host(host("d"))
    arrays.set_host(host("e"))
    assert list(arrays.changes.since(read)) == [1, 2, 3]
    read = arrays.changes.position
    arrays.hold("x", Hold("b", ("gpu0",), ()))
    assert list(arrays.changes.since(read)) == [], "what is the same is no change"
    arrays.hold("x", Hold("a", ("gpu0",), ()))
    assert list(arrays.changes.since(read)) == [0, 1]


def test_nothing_is_forgotten_and_each_row_is_told_once() -> None:
    changes = Changes()
    for row in range(300):
        changes.add(row)
    read = changes.position
    for _ in range(1000):
        changes.add(7)
    assert list(changes.since(0)) == list(range(300))
    assert list(changes.since(read)) == [7]


def test_of_a_thought_only_those_are_told_who_looked_meanwhile() -> None:
    changes = Changes()
    for row in range(9):
        changes.add(row)
    before = changes.position
    changes.begin()
    changes.add(3)
    meanwhile = changes.position
    assert list(changes.since(before)) == [3]
    changes.begin()
    changes.add(4)
    within = changes.position
    changes.add(4)
    changes.end()
    assert list(changes.since(meanwhile)) == [4]
    assert list(changes.since(within)) == [4]
    changes.add(3)
    changes.end()
    assert list(changes.since(before)) == []
    assert list(changes.since(meanwhile)) == list(changes.since(within)) == [3, 4]
    changes.add(5)
    assert list(changes.since(before)) == [5]
    assert list(changes.since(meanwhile)) == [3, 4, 5]


STEPS = st.one_of(
    st.tuples(st.just("hold"), st.sampled_from("xyz"), st.sampled_from("abc"), st.sampled_from((1000, 300))),
    st.tuples(st.just("drop"), st.sampled_from("xyz")),
    st.tuples(st.just("rename"), st.sampled_from("xyz"), st.sampled_from("xyz"), st.booleans()),
    st.tuples(st.just("set"), st.sampled_from("abc").flatmap(hosts)),
    st.tuples(st.just("remove"), st.sampled_from("abc")),
    st.tuples(st.just("wall"), st.sampled_from("abc"), st.sampled_from(("", "x"))),
)


def step(arrays: FleetArrays, verb: str, *words) -> None:
    match verb:
        case "hold":
            uid, name, milli = words
            arrays.hold(uid, Hold(name, ("g0", "g1"), (Allocation(numa_node=0, milli_cores=1, memory_bytes=1),), milli))
        case "drop":
            arrays.drop(*words)
        case "rename":
            before, uid, same = words
            hold = arrays.held.of(before) or Hold("a", ("g0",), ())
            hold = replace(hold, tenure=Tenure(since=7), device_milli=hold.device_milli if same else 500)
            rename(arrays, before, uid=uid, hold=hold)
        case "set":
            arrays.set_host(*words)
        case "remove":
            arrays.remove_host(*words)
        case "wall":
            set_wall(arrays, words[0], wall=Wall(words[1]))


def widened(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """What was, in the shape of what is."""
    fill = -1 if before.dtype == np.int32 else 0
    wide = np.full(after.shape, fill, dtype=before.dtype)
    wide[tuple(slice(length) for length in before.shape)] = before
    return wide


@given(st.lists(STEPS, max_size=15))
@settings(max_examples=200, deadline=None)
def test_nothing_changes_without_a_word(steps: list[tuple]) -> None:
    arrays = FleetArrays()
    for one in steps:
        before = {name: getattr(arrays, name).copy() for name in ARRAYS}
        named = [(arrays.taint_sets[t], arrays.walls.all[w]) for t, w in zip(arrays.taints, arrays.wall, strict=True)]
        read, facts, version = arrays.changes.position, arrays.facts, arrays.version
        named_read, held = arrays.named.position, {r: arrays.held.at(arrays.names[r]) for r in range(arrays.size)}
        step(arrays, *one)
        told, heard = set(arrays.changes.since(read)), set(arrays.named.since(named_read))
        assert told <= heard
        assert {row for row in range(arrays.size) if arrays.held.at(arrays.names[row]) != held.get(row, {})} <= heard
        for name in ARRAYS:
            after = getattr(arrays, name)
            differs = (widened(before[name], after) != after).reshape(len(after), -1).any(axis=1)
            if name in NOT_HARDWARE:
                assert arrays.facts > facts or not differs.any(), name
            else:
                assert set(np.flatnonzero(differs)) <= told, name
            assert arrays.version > version or not differs.any()
        if arrays.facts == facts:
            now = [(arrays.taint_sets[t], arrays.walls.all[w]) for t, w in zip(arrays.taints, arrays.wall, strict=True)]
            assert now == named, "a number may be given anew"


def test_a_claim_that_takes_what_was_assumed_is_no_change_of_what_is_free() -> None:
    arrays, hold = fleet(host("a", gpus=2), host("b", gpus=2)), Hold("a", ("gpu0",), ())
    arrays.hold("vm/0", hold)
    read, named, version = arrays.changes.position, arrays.named.position, arrays.version
    rename(arrays, "vm/0", uid="claim", hold=replace(hold, tenure=Tenure(since=1)))
    assert list(arrays.changes.since(read)) == []
    assert list(arrays.named.since(named)) == [0]
    assert arrays.version > version, "whoever was told by that name"
    assert arrays.held.of("vm/0") is None
    rename(arrays, "claim", uid="other", hold=Hold("b", ("gpu0",), ()))
    assert list(arrays.changes.since(read)) == list(arrays.named.since(named)) == [0, 1]
    rename(arrays, "", uid="third", hold=Hold("b", ("gpu1",), ()))
    assert set(arrays.held.at("b")) == {"other", "third"}


def test_a_hold_is_of_the_decision_that_it_was_made_of_and_of_no_other() -> None:
    decision = decide(fleet(host("a", gpus=2)), ask(1, device_count=1))
    assert isinstance(decision, Decision)
    hold = Hold.of(decision)
    assert hold.is_of(decision)
    assert replace(hold, tenure=Tenure(since=1)).is_of(decision)
    use = CompanionUse(device="nic0", kind="nic", functions=1)
    for other in (
        replace(decision, host="b"),
        replace(decision, devices=("gpu1",)),
        replace(decision, allocations=()),
        replace(decision, device_milli=500),
        replace(decision, device_profile="1g.10gb"),
        replace(decision, device_start=4),
        replace(decision, companions=(use,)),
        replace(decision, request=replace(ask(1, device_count=1), tenant="other")),
        replace(decision, request=None),
    ):
        assert Hold.of(other) != hold
        assert not hold.is_of(other)


TOLD = st.one_of(
    st.tuples(st.just("assume"), st.integers(0, 3), st.sampled_from("ab"), st.integers(0, 1)),
    st.tuples(st.just("heard"), st.integers(0, 3), st.sampled_from(("same", "other"))),
    st.tuples(st.just("gone"), st.integers(0, 3)),
    st.tuples(st.just("forgotten"), st.integers(0, 3)),
    st.tuples(st.just("look")),
)


@given(st.lists(TOLD, max_size=20))
@settings(max_examples=150, deadline=None)
def test_whatever_is_assumed_heard_and_gone_it_is_as_if_made_anew(told: list[tuple]) -> None:
    shape = Shape.of(ask(1, device_count=1))
    there = [host("a", gpus=2), host("b", gpus=2), host("c")]
    arrays, known = fleet(*there), dict[str, Hold]()
    holdings = Holdings(arrays)
    for verb, *words in told:
        match verb, words:
            case "assume", [n, name, gpu]:
                cores = (Allocation(numa_node=0, milli_cores=100, memory_bytes=1),)
                known[f"w{n}/0"] = Hold(name, (f"gpu{gpu}",), cores, shape=shape)
                arrays.hold(f"w{n}/0", known[f"w{n}/0"])
            case "heard", [n, what]:
                taken = known.pop(f"w{n}/0", Hold("c", (), ()))
                taken = replace(taken, tenure=Tenure(since=n), host=taken.host if what == "same" else "a")
                known[f"claim{n}"] = taken
                rename(arrays, f"w{n}/0", uid=f"claim{n}", hold=taken)
            case "gone", [n]:
                known.pop(f"claim{n}", None)
                arrays.drop(f"claim{n}")
            case "forgotten", [n]:
                known.pop(f"w{n}/0", None)
                arrays.drop(f"w{n}/0")
            case _:
                holdings.refresh()
    anew = fleet(*there)
    for uid, hold in known.items():
        anew.hold(uid, hold)
    for name in ARRAYS:
        assert np.array_equal(getattr(arrays, name), getattr(anew, name)), name
    assert dict(arrays.census.of(shape)) == dict(anew.census.of(shape))
    holdings.refresh()
    assert sorted(holdings._held.values(), key=lambda one: one[0]) == sorted(known.items())


def test_the_same_host_again_changes_no_facts_and_another_wall_no_hardware() -> None:
    arrays = fleet(host("a", gpus=1, taints=("slow",)), host("b"))
    facts, read = arrays.facts, arrays.changes.position
    arrays.set_host(host("a", gpus=2, taints=("slow",)))
    arrays.hold("x", Hold("a", ("gpu0",), ()))
    assert arrays.facts == facts
    for other in ({"taints": ("slower",)}, {"reachable": False}, {"schedulable": False}, {"isolation": "none"}):
        arrays.set_host(host("a", gpus=2, **other))
        assert arrays.facts > facts, other
        facts = arrays.facts
    read = arrays.changes.position
    set_wall(arrays, "a", wall=Wall("x"))
    assert arrays.facts == facts + 1
    assert list(arrays.changes.since(read)) == []


# --- views ------------------------------------------------------------------------------------------------------


def test_a_host_that_opens_or_shuts_gives_a_version_that_never_comes_again() -> None:
    arrays = fleet(host("a"), host("b"))
    arrays.hold("one", Hold("a", (), ()))
    seen = [arrays.version]
    for step in (
        lambda: set_open(arrays, "a", schedulable=False),
        lambda: set_open(arrays, "b", schedulable=False),
        lambda: arrays.drop("one"),
        lambda: arrays.hold("two", Hold("b", (), ())),
        lambda: set_open(arrays, "a", schedulable=True),
    ):
        step()
        seen.append(arrays.version)
    assert len(set(seen)) == len(seen)


@given(fleets(), st.lists(requests, min_size=1, max_size=6), st.data())
@settings(max_examples=150, deadline=None)
def test_some_rows_alone_are_judged_as_among_all(
    facts: list[HostFacts], asked: list[Request], data: st.DataObject
) -> None:
    arrays = arrays_of(facts)
    for number, request in enumerate(asked[:-1]):
        answer = decide(arrays, replace(request, tolerations=("*",)))
        if isinstance(answer, Decision):
            arrays.hold(f"c{number}", as_hold(answer))
    rows = np.array(data.draw(st.lists(st.sampled_from(range(max(1, len(facts)))), unique=True)), dtype=np.int64)
    rows = rows[rows < arrays.size]
    view, request = arrays.view(rows), asked[-1]
    for links in (FACTS, HARDWARE, (*FACTS, *HARDWARE)):
        among_all = fitting(Sight.of(arrays, request), links)
        assert (fitting(Sight.of(view, request), links) == among_all[rows]).all()
    alone = FleetArrays()
    for row in rows:
        alone.set_host(facts[row])
    for uid, hold in arrays.held._by_uid.items():
        alone.hold(uid, hold)
    assert decide(view, request) == decide(alone, request)
    for name, row in zip(view.names, range(view.size), strict=True):
        assert view.row(name) == row
        assert view.devices(row) == arrays.devices(arrays.row(name))
    assert view.row("nowhere") is None
    for name in ("cores", "memory", "milli", "model", "sizes"):
        mine, all_of_them = view.states(np.arange(view.size)), arrays.states(rows)
        assert (getattr(mine, name) == getattr(all_of_them, name)).all(), name


def test_a_view_stays_as_it_was() -> None:
    arrays = fleet(host("a", gpus=1), host("b", gpus=1))
    view = arrays.view(np.array([1]))
    arrays.hold("x", Hold("b", ("gpu0",), ()))
    assert decide(view, ask(device_count=1)).host == "b"
    assert decide(arrays, ask(device_count=1)).host == "a"


# --- states -----------------------------------------------------------------------------------------------------


def test_states_are_what_is_free_and_who_is_there() -> None:
    facts = host("a", nodes=2, threads=4, memory=8 * GIB, gpus=3)
    sick = [d.model_copy(update={"healthy": d.id != "gpu2"}) for d in facts.inventory.devices]
    arrays = fleet(HostFacts(name="a", inventory=facts.inventory.model_copy(update={"devices": sick})), host("b"))
    arrays.hold("x", Hold("a", ("gpu0",), (Allocation(numa_node=0, milli_cores=5000, memory_bytes=GIB),), 300))
    arrays.hold("y", Hold("a", ("gpu0",), (), 300))
    arrays.hold("z", Hold("a", ("gpu1", "gone"), ()))
    arrays.hold("w", Hold("a", tuple(f"g{n}" for n in range(12)), ()))
    arrays.hold("v", Hold("a", (), ()))
    states = arrays.states(np.array([1, 0]))
    assert len(states) == 2
    assert list(states.cores) == [16000, 4000], "what a node lacks is not made good by another"
    assert list(states.memory) == [64 * GIB, 15 * GIB]
    assert states.milli[1, :3].tolist() == [400, 0, 0]
    assert [states.models[number] for number in states.model[1, :3]] == ["H100"] * 3
    assert (states.milli[0] == 0).all()
    assert (states.model[0] == -1).all()
    assert states.sizes.tolist() == [[0] * 9, [2, 0, 1, 0, 0, 0, 0, 0, 1]]
    for uid in "xyzwv":
        arrays.drop(uid)
    assert (arrays.states(np.arange(2)).sizes == 0).all()
    assert arrays.states(np.arange(2)).milli[0, :3].tolist() == [1000, 1000, 0]


def test_the_row_of_a_host_that_went_has_nothing() -> None:
    arrays = fleet(host("a", gpus=2))
    arrays.hold("x", Hold("a", ("gpu0",), ()))
    arrays.remove_host("a")
    states = arrays.states(np.array([0]))
    assert not any(values.any() for values in (states.cores, states.memory, states.milli, states.sizes))
    assert (states.model == -1).all()


def test_the_census_follows_what_is_held_and_what_its_host_is() -> None:
    arrays = FleetArrays()
    shape = Shape.of(ask(1, device_count=1))
    small, large = host("h0", gpus=2), host("h0", gpus=4)
    arrays.set_host(small)
    arrays.hold("a", Hold("h0", ("gpu0",), (), shape=shape))
    arrays.hold("b", Hold("h0", ("gpu1",), (), shape=shape))
    arrays.hold("c", Hold("h0", (), ()))
    arrays.hold("away", Hold("h1", (), (), shape=shape))
    assert dict(arrays.census.of(shape)) == {HostClass.of(small): 2, None: 1}
    arrays.set_host(large)
    assert dict(arrays.census.of(shape)) == {HostClass.of(large): 2, None: 1}
    arrays.drop("a")
    arrays.drop("away")
    arrays.remove_host("h0")
    assert dict(arrays.census.of(shape)) == {None: 1}
    arrays.set_host(small)
    assert dict(arrays.census.of(shape)) == {HostClass.of(small): 1}
    arrays.drop("b")
    assert dict(arrays.census.of(shape)) == {}
