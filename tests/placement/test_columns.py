"""The fleet's arrays are declared once each, with what they tell; an undeclared one is seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import pytest

from bessemer.core.hosts import Device
from bessemer.placement import FleetArrays, HostFacts
from bessemer.placement.arrays import ARRAYS, Arrays
from bessemer.placement.columns import DEVICES, declared
from bessemer.placement.facts import Wall
from bessemer.placement.fleet import meaning
from bessemer.placement.mending import set_anew
from bessemer.placement.numbering import Numbers
from bessemer.placement.vectors import NONE, Smalls
from tests.placement.hosts import fleet, host

OPEN: Mapping[str, Mapping[str, Any]] = {
    "schedulable": {"schedulable": False},
    "reachable": {"reachable": False},
    "virtual": {"virtualization": "none"},
    "handing": {"passthrough": False},
    "isolated": {"isolation": "none"},
    "engines": {"engines": ["vllm"]},
    "fake": {"fake": True},
    "taints": {"taints": ("slow",)},
    "wall": {"wall": Wall("north")},
    "leaf": {"leaf": "l1"},
    "spine": {"spine": "s1"},
}
"""By which word of a host each array says another thing."""


def undeclared(arrays: FleetArrays) -> set[str]:
    return {name for name, value in vars(arrays).items() if isinstance(value, np.ndarray)} ^ ARRAYS.keys()


class Wider(Arrays):
    """With an array of which nobody heard."""

    device_colour: Annotated[Smalls, DEVICES]


def test_each_array_is_declared_and_an_unknown_one_is_seen() -> None:
    arrays = fleet(host("a", gpus=9))
    assert undeclared(arrays) == set()
    arrays.device_colour = np.zeros(16)  # type: ignore[attr-defined]
    assert undeclared(arrays) == {"device_colour"}
    assert declared(Wider).keys() - ARRAYS.keys() == {"device_colour"}


def test_what_is_declared_is_made_so() -> None:
    wide = {"nodes": 2, "devices": 3, "others": 5}
    colour = declared(Wider)["device_colour"].empty(7, wide)  # type: ignore[arg-type]
    assert (colour.shape, colour.dtype, set(colour.flat)) == ((7, 3), np.int32, {NONE})
    arrays = FleetArrays()
    for name, array in ARRAYS.items():
        made = getattr(arrays, name)
        assert (made.dtype, made.ndim) == (array.kind, 1 + len(array.column.widths)), name
        assert len(made) == len(arrays.present)


def test_what_is_numbered_says_by_which_numbers() -> None:
    numbers = {name for name, value in vars(FleetArrays()).items() if isinstance(value, Numbers)}
    assert {array.column.numbers for array in ARRAYS.values()} - {"", "cuts"} == numbers


@pytest.mark.parametrize("name", OPEN)
def test_after_what_is_open_another_may_land_there(name: str) -> None:
    arrays = fleet(host("a"), host("b"))
    facts, before = arrays.facts, getattr(arrays, name).copy()
    arrays.set_host(host("a", **OPEN[name]))
    assert arrays.facts == facts + 1
    assert list(np.flatnonzero(getattr(arrays, name) != before)) == [0]
    arrays.set_host(host("a", gpus=2, threads=4, sharing="none", **OPEN[name]))
    assert arrays.facts == facts + 1, "of its hardware alone"


def test_no_other_array_is_open() -> None:
    assert {name for name, array in ARRAYS.items() if array.column.open} == {"present", *OPEN}


def meant_by(arrays: FleetArrays, name: str, *, row: int) -> list[object]:
    found = [meaning(arrays, name, value=int(number)) for number in np.atleast_1d(getattr(arrays, name)[row])]
    return [one for one in found if one is not None]


@pytest.mark.parametrize("name", [n for n, a in ARRAYS.items() if a.column.numbers and n != "device_cut"])
def test_a_number_that_is_not_its_own_is_mended_and_not_given_back(name: str) -> None:
    def one(word: str, *, gpus: int) -> HostFacts:
        nics = [Device(id=f"{word}{n}", kind="nic", model=word, numa_node=0) for n in range(2)]
        at = {"leaf": word, "spine": f"{word}s", "taints": (word,), "wall": Wall(word), "engines": [word]}
        facts = host(word, gpus=gpus, model=word, nvlink_partitions=[["gpu0", f"gpu{gpus - 1}"]], **at)
        return replace(facts, inventory=facts.inventory.model_copy(update={"devices": facts.inventory.devices + nics}))

    arrays = fleet(one("a", gpus=2), one("b", gpus=4))
    said, right = getattr(arrays, name), [meant_by(arrays, name, row=row) for row in range(2)]
    said[0] = said[1]
    assert set_anew(arrays, one("a", gpus=2)) == (name,)
    arrays.set_host(one("c", gpus=6))
    assert [meant_by(arrays, name, row=row) for row in range(2)] == right
    assert all(right)
    assert meant_by(arrays, name, row=2) not in right
