"""A guest's command line: where its memory lies, and on which threads it runs."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

from bessemer.core.units import GIB, MIB
from bessemer.drivers.qemu.confine import Confinement
from bessemer.drivers.qemu.machine import Files, command
from bessemer.drivers.qemu.protocol import MachineSpec, NumaCell

FILES = Files(kernel=3, initrd=4, qmp=5, console=6, report=7, log=8)
HUGE = {"qom-type": "memory-backend-memfd", "share": False, "hugetlb": True, "hugetlbsize": 2 * MIB}


def spec(**more: Any) -> MachineSpec:
    wanted = {"uid": "u", "name": "vm", "cpus": 2, "memory_bytes": GIB, "image": Path("i"), "image_digest": "sha256:0"}
    return MachineSpec(**{**wanted, **more})


def backends(machine: MachineSpec) -> list[dict[str, Any]]:
    words = command(machine, FILES)
    return [json.loads(value) for flag, value in pairwise(words) if flag == "-object"]


def test_ordinary_memory_needs_no_backend() -> None:
    assert backends(spec()) == []
    assert "q35,vmport=off" in command(spec(), FILES)


def test_huge_pages_hold_all_of_its_memory() -> None:
    assert backends(spec(page_bytes=2 * MIB)) == [{**HUGE, "id": "ram", "size": GIB}]
    assert "q35,vmport=off,memory-backend=ram" in command(spec(page_bytes=2 * MIB), FILES)
    cells = (NumaCell(1, GIB // 2, host_node=1), NumaCell(1, GIB // 2))
    first, second = backends(spec(page_bytes=2 * MIB, numa=cells))
    assert first == {**HUGE, "id": "ram0", "size": GIB // 2, "host-nodes": [1], "policy": "bind"}
    assert second == {**HUGE, "id": "ram1", "size": GIB // 2}


def test_threads_of_its_own_hold_from_the_first_instruction() -> None:
    confinement = Confinement(root=False, namespaces=False)
    assert confinement.words(spec(own_cpus="2-3,6"), 0)[:3] == ["taskset", "--cpu-list", "2-3,6"]
    assert "taskset" not in confinement.words(spec(), 0)
