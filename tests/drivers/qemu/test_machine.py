"""A guest's command line: where its memory lies, and on which threads it runs."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bessemer.core.errors import DriverError
from bessemer.core.units import GIB, MIB
from bessemer.drivers.qemu.confine import Confinement
from bessemer.drivers.qemu.machine import Files, command
from bessemer.drivers.qemu.nodes import HostNodes
from bessemer.drivers.qemu.protocol import GuestDevice, MachineSpec, NumaCell

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


def test_ordinary_memory_is_of_its_node_while_there_is_some() -> None:
    cells = (NumaCell(2, GIB, host_node=3), NumaCell(0, 0, host_node=4, bound=False))
    (only,) = backends(spec(numa=cells))
    assert (only["host-nodes"], only["policy"]) == ([3], "preferred")
    (free,) = backends(spec(numa=(NumaCell(2, GIB, host_node=3, bound=False),)))
    assert "host-nodes" not in free


def test_a_guest_is_laid_on_the_nodes_that_there_are(tmp_path: Path) -> None:
    for number, row in ((0, "10 32"), (2, "32 10")):
        (tmp_path / f"node{number}").mkdir()
        (tmp_path / f"node{number}" / "distance").write_text(row)
        (tmp_path / f"node{number}" / "cpulist").write_text(f"{number * 4}-{number * 4 + 3}")
    (tmp_path / "online").write_text("0,2")
    (tmp_path / "has_memory").write_text("0,2")
    nodes = HostNodes(tmp_path)
    laid = nodes.laid(spec(numa=(NumaCell(1, GIB // 2, host_node=2), NumaCell(1, GIB // 2, host_node=0))))
    assert laid.distances == ((10, 32), (32, 10))
    assert [cell.bound for cell in laid.numa] == [True, True]
    dist = [word for word in command(laid, FILES) if word.startswith("dist")]
    assert dist == ["dist,src=0,dst=1,val=32", "dist,src=1,dst=0,val=32"]
    assert [nodes.threads(cell) for cell in laid.numa] == [(8, 9, 10, 11), (0, 1, 2, 3)]
    elsewhere = nodes.laid(spec(numa=(NumaCell(1, GIB // 2, host_node=0), NumaCell(1, GIB // 2, host_node=7))))
    assert [cell.bound for cell in elsewhere.numa] == [True, False]
    assert elsewhere.distances == ((10, 20), (20, 10))
    assert nodes.threads(NumaCell(1, GIB, host_node=7)) == ()
    assert HostNodes(tmp_path / "none").laid(spec(numa=laid.numa)).distances == ((10, 20), (20, 10))


# --- what hangs where -------------------------------------------------------------------------------------------


def hung(*tree: GuestDevice, **more: Any) -> list[tuple[str, str, str]]:
    """(driver, id, bus) of all that belongs to the tree."""
    words = command(spec(tree=tree, **more), FILES)
    said = [json.loads(word) for flag, word in pairwise(words) if flag == "-device" and word.startswith("{")]
    return [(one["driver"], one.get("id", ""), one["bus"]) for one in said]


def device(name: str, **place: Any) -> GuestDevice:
    return GuestDevice(name, {"driver": name}, **place)


def test_devices_under_one_switch_hang_under_one_switch() -> None:
    cells = (NumaCell(2, GIB, host_node=5),)
    tree = (device("a", switch="s", host_node=5), device("c", host_node=5), device("b", switch="s", host_node=5))
    assert hung(*tree, numa=cells) == [
        ("pxb-pcie", "root5", "pcie.0"),
        ("pcie-root-port", "root5p0", "root5"),
        ("c", "", "root5p0"),
        ("pcie-root-port", "root5p1", "root5"),
        ("x3130-upstream", "root5p1up", "root5p1"),
        ("xio3130-downstream", "root5p1dn0", "root5p1up"),
        ("a", "", "root5p1dn0"),
        ("xio3130-downstream", "root5p1dn1", "root5p1up"),
        ("b", "", "root5p1dn1"),
    ]


def test_each_port_has_a_chassis_and_each_root_its_buses() -> None:
    tree = [device("d", switch=f"s{n % 5}", host_node=n % 2) for n in range(40)]
    words = command(spec(tree=tuple(tree), numa=(NumaCell(2, GIB, host_node=1),)), FILES)
    said = [json.loads(word) for flag, word in pairwise(words) if flag == "-device" and word.startswith("{")]
    chassis = [one["chassis"] for one in said if "chassis" in one]
    assert sorted(chassis) == list(range(1, len(chassis) + 1))
    roots = [one for one in said if one["driver"] == "pxb-pcie"]
    # Of each five switches with four devices each: five ports, five switches' own, twenty ports below.
    assert [(one["bus_nr"], one.get("numa_node")) for one in roots] == [(32, None), (32 + 31, 0)]
    with pytest.raises(DriverError, match="more devices than a guest has PCIe buses for"):
        hung(*(device("d", host_node=n) for n in range(200)))


# --- on which threads -------------------------------------------------------------------------------------------


def test_threads_of_its_own_hold_from_the_first_instruction() -> None:
    confinement = Confinement(root=False, namespaces=False)
    assert confinement.words(spec(own_cpus="2-3,6"), 0)[:3] == ["taskset", "--cpu-list", "2-3,6"]
    assert "taskset" not in confinement.words(spec(), 0)
