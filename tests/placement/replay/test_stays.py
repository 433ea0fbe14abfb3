"""Stays that pass over a fleet: what is held, who waits and for how long, by hand and against a second account."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.core.asking import Request
from bessemer.core.errors import Invalid
from bessemer.placement.replay.described import (
    AskedShape,
    HistoryLine,
    Load,
    drawn,
    read_fleet,
    read_history,
    stays_of,
)
from bessemer.placement.replay.desk import seat
from bessemer.placement.replay.lines import Passing
from bessemer.placement.replay.stays import Lived, Stay, Window, live
from bessemer.placement.replay.trace import milli_of
from tests.placement.hosts import ask, host


def lived(stays: Sequence[Stay], *, gpus: int = 2, end: float = 10.0, start: float = 0.0, waits: bool = True) -> Lived:
    desk = seat([host("a", gpus=gpus)], policy="FirstFit", learned=[], dice=np.random.default_rng(0))
    window = Window(start=start, end=end, samples=10)
    line = Passing(desk) if waits else None
    return live(desk, stays, window=window, capacity_milli=1000 * gpus, line=line)


def stay(comes: float, leaves: float, count: int = 1) -> Stay:
    return Stay(comes, leaves, ask(1, device_count=count))


def test_who_finds_no_room_waits_and_stays_as_long() -> None:
    found = lived([stay(0, 4, 2), stay(1, 3), stay(2, 8, 2)])
    # The second begins at 4 and stays for 2 hours; the third, which wants both, at 6, until after the end.
    assert [sample.held_milli for sample in found.samples] == [2000] * 3 + [1000, 1000] + [2000] * 5
    assert [sample.waiting for sample in found.samples] == [0, 1, 2, 1, 1, 0, 0, 0, 0, 0]
    assert (found.waited, sum(found.waits)) == (2, 3 + 4)
    assert found.device_hours == {"H100": 8.0 + 2.0 + 8.0}
    assert found.allocated == pytest.approx(18 / 20)
    assert {size: (count.came, count.refused) for size, count in found.counts.items()} == {"1": (1, 0), "2": (2, 0)}


def test_who_may_not_wait_is_lost() -> None:
    found = lived([stay(0, 4, 2), stay(1, 3), stay(2, 8, 2)], waits=False)
    assert {size: (count.came, count.refused) for size, count in found.counts.items()} == {"1": (1, 1), "2": (2, 1)}
    assert found.device_hours == {"H100": 8.0}
    assert found.waited == 0


def test_what_came_before_the_window_holds_and_does_not_count() -> None:
    found = lived([stay(0, 6, 2), stay(5, 7)], start=4.0)
    assert found.device_hours == {"H100": pytest.approx(2 * 2.0 + 1 * 2.0)}
    assert {size: (count.came, count.refused) for size, count in found.counts.items()} == {"1": (1, 0)}
    assert (found.waited, sum(found.waits)) == (1, 1.0)


def test_an_unknown_end_goes_on() -> None:
    found = lived([stay(2, 99)])
    assert found.device_hours == {"H100": 8.0}


spans = st.lists(
    st.tuples(st.integers(0, 12), st.integers(1, 6), st.integers(0, 3)).map(
        lambda t: Stay(t[0], t[0] + t[1], wish(t[2]))
    ),
    max_size=12,
).map(lambda found: sorted(found, key=lambda one: one.comes))


def wish(count: int) -> Request:
    return ask(1, device_count=count)


@settings(max_examples=60, deadline=None)
@given(stays=spans, waits=st.booleans())
def test_it_is_what_a_second_account_says(*, stays: list[Stay], waits: bool) -> None:
    """Hour by hour, with all times whole: devices of one host, first come first served among equals."""
    found = lived(stays, gpus=4, end=12.0, waits=waits)
    free, running, queue, area = 4, list[tuple[float, int]](), list[Stay](), 0
    for hour in range(13):
        for ends, count in sorted(running):
            if ends <= hour:
                running.remove((ends, count))
                free += count
                queue, free = begun(queue, free, running, hour)
        for one in stays:
            if one.comes == hour and hour <= 12:
                rest, free = begun([one], free, running, hour)
                queue += rest if waits else []
        area += (4 - free) if hour < 12 else 0
    assert sum(found.device_hours.values()) == pytest.approx(area)


def begun(queue: list[Stay], free: int, running: list[tuple[float, int]], hour: int) -> tuple[list[Stay], int]:
    left = []
    for one in queue:
        count = milli_of(one.request) // 1000
        if count <= free:
            free -= count
            running.append((hour + one.leaves - one.comes, count))
        else:
            left.append(one)
    return left, free


ONE = {"name": "g", "count": 1, "cores": 1, "memory": "1Gi"}


def test_a_fleet_is_described_by_groups() -> None:
    group = {"name": "g", "count": 3, "model": "H100", "devices": 4, "cores": 10, "memory": "8Gi", "numa": 2}
    found = read_fleet(
        {
            "groups": [
                {**group, "perSwitch": 2, "nvlink": True, "leafHosts": 2, "price": 2.5, "nvlinkPartitions": [2, 1]}
            ]
        }
    )
    hosts = found.hosts()
    assert [(one.name, one.inventory.leaf) for one in hosts] == [
        ("g-0", "g-leaf-0"),
        ("g-1", "g-leaf-0"),
        ("g-2", "g-leaf-1"),
    ]
    assert [(d.numa_node, d.pcie_switch, d.nvlink_domain) for d in hosts[0].inventory.devices] == [
        (0, "sw0", "nv0"),
        (0, "sw0", "nv0"),
        (1, "sw1", "nv0"),
        (1, "sw1", "nv0"),
    ]
    halves = [["gpu000", "gpu001"], ["gpu002", "gpu003"]]
    assert hosts[0].inventory.nvlink_partitions == [*halves, *([f"gpu{n:03}"] for n in range(4))]
    assert (hosts[0].inventory.threads, hosts[0].inventory.memory_bytes) == (10, 8 << 30)
    assert len(found.with_more({"g": 2}).hosts()) == 5
    assert found.prices == {"H100": 2.5}
    with pytest.raises(Invalid, match="no group is called x; there are g"):
        found.with_more({"x": 1})


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({}, "groups"),
        ({"groups": [{"name": "g", "count": 1, "cores": 1, "memory": "many"}]}, "many"),
        ({"groups": [{"name": "g", "count": -1, "cores": 1, "memory": "1Gi"}]}, "groups.0.count"),
        (
            {
                "groups": [{"name": "g", "count": 1, "cores": 1, "memory": "1Gi"}],
                "asks": [{"devices": 2, "milli": 500}],
            },
            "share",
        ),
        (["x"], "fleet"),
    ],
)
def test_what_describes_no_fleet_is_refused(value: object, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        read_fleet(value)


def test_history_is_read_in_order_and_counted_in_hours() -> None:
    lines = ['{"start": 7200, "devices": 1, "model": "H100", "milliCores": 1000}', "", '{"start": 3600, "stop": 10800}']
    stays, hours = stays_of(read_history(lines))
    assert [(one.comes, one.leaves) for one in stays] == [(0.0, 2.0), (1.0, 2.0)]
    assert stays[1].request.device_models == frozenset({"H100"})
    assert hours == 2.0
    with pytest.raises(Invalid, match="claims:2"):
        read_history([lines[0], '{"start": "soon"}'], file="claims")
    with pytest.raises(Invalid, match="nothing is in it"):
        read_history([])
    assert HistoryLine(start=5, stop=3).stay(0, end=9).leaves == HistoryLine(start=5, stop=3).stay(0, end=9).comes


def test_the_drawn_load_is_the_load() -> None:
    asks = [
        AskedShape(weight=3, devices=1, hours=2.0),
        AskedShape(weight=1, devices=4, hours=5.0),
        AskedShape(hours=9.0),
    ]
    stays = drawn(asks, 100_000, load=Load(share=0.9, hours=2000.0), dice=np.random.default_rng(1))
    offered = sum(milli_of(one.request) * (one.leaves - one.comes) for one in stays) / 2000 / 100_000
    assert offered == pytest.approx(0.9, rel=0.05)
    assert [one.comes for one in stays] == sorted(one.comes for one in stays)
    with pytest.raises(Invalid, match="wants a device"):
        drawn([AskedShape()], 1000, load=Load(share=1.0, hours=1.0), dice=np.random.default_rng(1))
