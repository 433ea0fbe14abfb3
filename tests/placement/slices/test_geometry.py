"""What may stand on a partitioned device, against a table that shares nothing with ours, and against brute force.

The independent table is NVIDIA's MIG User Guide, "Supported MIG Profiles" (docs.nvidia.com/datacenter/tesla/
mig-user-guide): the 19 configurations of an A100 that its figure shows row by row, and the placements that
``nvidia-smi mig -lgipp`` prints there and in "Getting Started with MIG".
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bessemer.core.hosts import Device
from bessemer.core.slices import Partitioning, Profile, fits, starts, taken, together
from bessemer.core.units import GIB
from bessemer.drivers.inspect.tables import known, of_devices
from bessemer.placement.slices import Spot, best_start, lost, ways

GUIDE = {
    "A100-40GB": "1g.5gb 1g.5gb+me 1g.10gb 2g.10gb 3g.20gb 4g.20gb 7g.40gb",
    "A100-80GB": "1g.10gb 1g.10gb+me 1g.20gb 2g.20gb 3g.40gb 4g.40gb 7g.80gb",
    "H100-80GB": "1g.10gb 1g.10gb+me 1g.20gb 2g.20gb 3g.40gb 4g.40gb 7g.80gb",
    "H100-94GB": "1g.12gb 1g.12gb+me 1g.24gb 2g.24gb 3g.47gb 4g.47gb 7g.94gb",
    "H100-96GB": "1g.12gb 1g.12gb+me 1g.24gb 2g.24gb 3g.48gb 4g.48gb 7g.96gb",
    "H200-141GB": "1g.18gb 1g.18gb+me 1g.35gb 2g.35gb 3g.71gb 4g.71gb 7g.141gb",
    "B200-180GB": "1g.23gb 1g.23gb+me 1g.45gb 2g.45gb 3g.90gb 4g.90gb 7g.180gb",
}
LGIPP = """
GPU  0 Profile ID 19 Placements: {0,1,2,3,4,5,6}:1
GPU  0 Profile ID 20 Placements: {0,1,2,3,4,5,6}:1
GPU  0 Profile ID 15 Placements: {0,2,4,6}:2
GPU  0 Profile ID 14 Placements: {0,2,4}:2
GPU  0 Profile ID  9 Placements: {0,4}:4
GPU  0 Profile ID  5 Placement : {0}:4
GPU  0 Profile ID  0 Placement : {0}:8
"""
"""As printed on an H100, in the order of `GUIDE`."""

INSTANCES = {"1g": 7, "1g+me": 1, "1g+": 4, "2g": 3, "3g": 2, "4g": 1, "7g": 1}
"""The guide's column "Number of Instances Available"; ``1g+`` has two slices of memory."""

CONFIGURATIONS = """
7
4 3
4 2 1
4 1 1 1
3 3
3 2 1
3 1 1 1
2 2 3
2 2 2 1
2 2 1 1 1
2 1 1 3
2 1 1 2 1
2 1 1 1 1 1
1 1 2 3
1 1 2 2 1
1 1 2 1 1 1
1 1 1 1 3
1 1 1 1 2 1
1 1 1 1 1 1 1
"""
"""Of an A100 by compute slices, from left to right, as the guide's figure has them."""

Stands = frozenset[tuple[str, int]]
BASIC = ("1g.10gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb")
A100 = known()["A100-80GB"]


def reached(table: Partitioning, names: tuple[str, ...]) -> frozenset[Stands]:
    """Every set of instances that some sequence makes, by trying all."""
    seen: set[Stands] = {frozenset()}
    waiting: list[tuple[Stands, int]] = [(frozenset(), 0)]
    while waiting:
        stands, used = waiting.pop()
        for name in names:
            profile = table.find(name)
            assert profile is not None
            for start in starts(table, used, profile=profile):
                more = stands | {(name, start)}
                if more not in seen:
                    seen.add(more)
                    waiting.append((more, used + taken(profile, start)))
    return frozenset(seen)


def by_the_guide(model: str) -> frozenset[Stands]:
    """Every set of instances that the guide allows: disjoint slices of memory, at placements that are printed, 7 slices
    of compute, and media extensions once."""
    names = GUIDE[model].split()
    placements = []
    for name, line in zip(names, LGIPP.strip().splitlines(), strict=True):
        first, size = line.rpartition("{")[2].split("}:")
        cells = [frozenset(range(int(s), int(s) + int(size))) for s in first.split(",")]
        placements += [(name, area, int(name[0])) for area in cells]

    def further(at: int, free: frozenset[int], compute: int, media: bool) -> Iterator[Stands]:
        yield frozenset()
        for index in range(at, len(placements)):
            name, area, slices = placements[index]
            extended = name.endswith("+me")
            if area <= free and slices <= compute and not (extended and media):
                for rest in further(index + 1, free - area, compute - slices, media or extended):
                    yield rest | {(name, min(area))}

    return frozenset(further(0, frozenset(range(8)), 7, False))


@pytest.mark.parametrize("model", sorted(GUIDE))
def test_what_may_stand_together_is_what_the_guide_allows(model: str) -> None:
    table = known()[model]
    assert " ".join(profile.name for profile in table.profiles) == GUIDE[model]
    assert reached(table, tuple(GUIDE[model].split())) == by_the_guide(model)


def test_there_is_a_table_for_each_device_of_the_guide() -> None:
    assert set(known()) == set(GUIDE)


def test_an_a100_has_the_nineteen_configurations_of_the_guide() -> None:
    stands = reached(A100, BASIC)
    full = {one for one in stands if not any(one < other for other in stands)}
    shown = sorted(" ".join(name[0] for name, _ in sorted(one, key=lambda at: at[1])) for one in full)
    assert shown == sorted(CONFIGURATIONS.split("\n")[1:-1])
    assert len(shown) == 19


@pytest.mark.parametrize("model", sorted(GUIDE))
def test_no_more_of_one_profile_stand_than_the_guide_says(model: str) -> None:
    table = known()[model]
    for kind, name in zip(INSTANCES, GUIDE[model].split(), strict=True):
        profile = table.find(name)
        assert profile is not None
        most = max(len(stands) for stands in reached(table, (name,)))
        assert most == INSTANCES[kind], name


def test_media_extensions_are_had_once_and_not_beside_all_of_it() -> None:
    me, plain = A100.find("1g.10gb+me"), A100.find("1g.10gb")
    assert me is not None
    assert plain is not None
    used = taken(me, 6)
    assert starts(A100, used, profile=me) == []
    assert starts(A100, used, profile=plain) == [0, 1, 2, 3, 4, 5]


def test_shares_of_a_device_never_come_to_more_than_it() -> None:
    for model, table in known().items():
        for stands in reached(table, tuple(GUIDE[model].split())):
            parts = [table.find(name) for name, _ in stands]
            assert sum(table.milli(part) for part in parts if part is not None) <= 1000
        whole = table.profiles[-1]
        assert table.milli(whole) == 1000
    assert [A100.milli(profile) for profile in A100.profiles] == [125, 125, 250, 250, 500, 500, 1000]


def test_what_does_not_go_together_is_in_use_whole() -> None:
    assert together(A100, []) == 0
    assert together(A100, [("3g.40gb", 4), ("1g.10gb", 0)]) == together(A100, [("1g.10gb", 0), ("3g.40gb", 4)])
    for wrong in ([("3g.40gb", 4), ("1g.10gb", 5)], [("9g.1gb", 0)], [("3g.40gb", 1)]):
        used = together(A100, wrong)
        assert used == A100.full
        assert not any(starts(A100, used, profile=profile) for profile in A100.profiles)


@given(st.permutations(range(7)), st.integers(1, 7))
def test_an_empty_device_is_empty_whatever_came_and_went(order: list[int], kept: int) -> None:
    stands = [("1g.10gb", start) for start in order]
    profile = A100.profiles[0]
    used = together(A100, stands[:kept])
    for _, start in stands[:kept]:
        used -= taken(profile, start)
    assert used == 0


def test_slices_of_compute_and_instances_bound_by_themselves() -> None:
    part = Profile(name="half", memory=1, compute=3, starts=(0, 1, 2, 3))
    scarce = Partitioning(memory=4, compute=7, instances=4, profiles=(part,))
    used = taken(part, 0) + taken(part, 1)
    assert fits(scarce, taken(part, 0), take=taken(part, 1))
    assert starts(scarce, used, profile=part) == []
    few = Partitioning(memory=4, compute=100, instances=2, profiles=(part,))
    assert starts(few, used, profile=part) == []
    assert starts(few, taken(part, 0), profile=part) == [1, 2, 3]


@pytest.mark.parametrize(
    "wrong",
    [
        {"memory": 2, "starts": (7,)},
        {"memory": 9, "starts": (0,)},
        {"memory": 1, "starts": ()},
        {"memory": 1, "starts": (-1,)},
        {"memory": 1, "compute": 8, "starts": (0,)},
    ],
)
def test_a_table_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    part = {"name": "p", "compute": 1, **wrong}
    with pytest.raises(ValidationError):
        Partitioning.model_validate({"memory": 8, "compute": 7, "instances": 7, "profiles": [part]})


def test_two_profiles_of_one_name_are_refused() -> None:
    part = Profile(name="p", memory=1, compute=1, starts=(0,))
    with pytest.raises(ValidationError, match="one name"):
        Partitioning(memory=8, compute=7, instances=7, profiles=(part, part))


# --- where ------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from(GUIDE["A100-80GB"].split()), st.integers(0, 6)), max_size=6), st.data())
def test_the_start_that_is_taken_loses_least_of_all(asked: list[tuple[str, int]], data: st.DataObject) -> None:
    used = 0
    for name, choice in asked:
        profile = A100.find(name)
        assert profile is not None
        free = starts(A100, used, profile=profile)
        used += taken(profile, free[choice % len(free)]) if free else 0
    weights = {name: data.draw(st.sampled_from((0.0, 1.0, 3.0))) for name in GUIDE["A100-80GB"].split()}
    for profile in A100.profiles:
        spot = best_start(A100, used, name=profile.name, weights=weights)
        free = starts(A100, used, profile=profile)
        assert (spot is None) == (not free)
        if spot is None:
            continue
        assert spot.start in free
        # Counted here by looking at each placement before and after, by sets.
        places = [(p, frozenset(range(s, s + p.memory))) for p in A100.profiles for s in starts(A100, used, profile=p)]
        losses = {}
        for start in free:
            after = used + taken(profile, start)
            gone = [p for p, area in places if min(area) not in starts(A100, after, profile=p)]
            losses[start] = sum(weights[p.name] for p in gone)
        assert spot.lost == pytest.approx(min(losses.values()))
        assert losses[spot.start] == pytest.approx(spot.lost)


def test_a_small_instance_leaves_the_halves_whole() -> None:
    one, half = A100.profiles[0], A100.find("3g.40gb")
    assert half is not None
    spot = best_start(A100, 0, name="1g.10gb")
    assert spot is not None
    assert spot.start == 6, "beside the slice that no small one can have"
    assert starts(A100, taken(one, 6), profile=half) == [0]
    last = best_start(A100, taken(half, 0), name="1g.10gb")
    assert last is not None
    assert last.start >= 4


def test_what_is_asked_for_weighs() -> None:
    half = A100.find("3g.40gb")
    assert half is not None
    # With 4g alone asked for, a half goes where none begins; with 2g alone, where fewer do.
    for wanted, start in (("4g.40gb", 4), ("2g.20gb", 4)):
        weights = {p.name: 0.0 for p in A100.profiles} | {wanted: 1.0}
        spot = best_start(A100, 0, name="3g.40gb", weights=weights)
        assert spot is not None
        assert spot.start == start
    assert lost(A100, 0, profile=half, start=4) < lost(A100, 0, profile=half, start=0)


def test_a_device_without_the_profile_has_no_start() -> None:
    assert best_start(A100, 0, name="1g.5gb") is None
    assert ways(A100, A100.full) == 0


def test_least_loss_seats_more_than_the_first_start_that_is_free() -> None:
    """Random arrivals on one device until one is refused, over many seeds: never worse in the sum."""
    names = [name for name in BASIC if name != "7g.80gb"]

    def seated(seed: int, *, first: bool) -> int:
        draw, used, count = random.Random(seed), 0, 0
        while True:
            name = draw.choices(names, (4, 3, 2, 1))[0]
            profile = A100.find(name)
            assert profile is not None
            spot = best_start(A100, used, name=name)
            if spot is None:
                return count
            start = starts(A100, used, profile=profile)[0] if first else spot.start
            used, count = used + taken(profile, start), count + profile.memory

    ours = sum(seated(seed, first=False) for seed in range(300))
    theirs = sum(seated(seed, first=True) for seed in range(300))
    assert ours > theirs


# --- which table ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "gibibytes", "table"),
    [
        ("NVIDIA A100-SXM4-40GB", 39.5, "A100-40GB"),
        ("A100-PCIE-80GB", 79.6, "A100-80GB"),
        ("H100-SXM5-80GB", 79.6, "H100-80GB"),
        ("NVIDIA H100 NVL", 93.6, "H100-94GB"),
        ("NVIDIA GH200 H100 96GB", 95.6, "H100-96GB"),
        ("NVIDIA H200", 140.4, "H200-141GB"),
        ("NVIDIA B200", 179.1, "B200-180GB"),
        ("NVIDIA L40S", 44.9, ""),
        ("NVIDIA H100", 20.0, ""),
    ],
)
def test_a_model_is_known_by_its_family_and_its_memory(model: str, gibibytes: float, table: str) -> None:
    device = Device(id="g", kind="gpu", model=model, memory_bytes=int(gibibytes * GIB))
    assert of_devices([device]) == ({model: known()[table]} if table else {})


def test_nothing_is_said_of_what_is_no_gpu() -> None:
    assert of_devices([Device(id="n", kind="nic", model="H100-80GB")]) == {}


def test_order_decides_nothing_of_what_is_in_use() -> None:
    for some in permutations([("2g.20gb", 0), ("1g.10gb", 2), ("3g.40gb", 4)]):
        assert together(A100, some) == together(A100, reversed(some))


def churned(seed: int, rule: str, *, devices: int = 20, load: float = 0.9, arrivals: int = 3000) -> float:
    """Which part of the slices asked for is refused, where instances of `BASIC` profiles, all as often, come as a
    Poisson process and stay for exponential times. ``first``: the first device and start; ``lost``: fewest ways lost;
    ``ours``: that, among devices that are cut already if one has room."""
    draw, known_spots = random.Random(seed), dict[tuple[int, str], Spot | None]()
    profiles = {name: profile for name in BASIC if (profile := A100.find(name)) is not None}
    rate = load * devices * A100.memory * len(BASIC) / sum(profile.memory for profile in profiles.values())
    used, ends = [0] * devices, list[tuple[float, int, int]]()
    now, refused, asked = 0.0, 0, 0
    for _ in range(arrivals):
        now += draw.expovariate(rate)
        name, until = draw.choice(BASIC), now + draw.expovariate(1)
        while ends and ends[0][0] <= now:
            _, device, taken_there = heapq.heappop(ends)
            used[device] -= taken_there
        found = []
        for device, state in enumerate(used):
            if (state, name) not in known_spots:
                known_spots[state, name] = best_start(A100, state, name=name)
            spot = known_spots[state, name]
            if spot is not None:
                order = {"first": (device,), "lost": (spot.lost, device), "ours": (state == 0, spot.lost, device)}
                found.append((order[rule], device, spot.start))
        asked += profiles[name].memory
        if not found:
            refused += profiles[name].memory
            continue
        _, device, start = min(found)
        if rule == "first":
            start = starts(A100, used[device], profile=profiles[name])[0]
        used[device] += taken(profiles[name], start)
        heapq.heappush(ends, (until, device, taken(profiles[name], start)))
    return refused / asked


def test_under_churn_fewest_ways_lost_refuses_less_than_the_first_start_and_cut_devices_first_still_less() -> None:
    refused = {rule: sum(churned(seed, rule) for seed in range(4)) for rule in ("first", "lost", "ours")}
    assert refused["ours"] < refused["lost"] < refused["first"]
    assert refused["ours"] < 0.85 * refused["first"]
