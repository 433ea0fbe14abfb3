"""The PCIe tree that a guest is shown: what hangs under one switch of the host hangs under one switch of the guest.

    pcie.0 ─ pxb-pcie of a NUMA node ─┬─ root port ─ upstream port ─┬─ downstream port ─ device
                                      │                             └─ downstream port ─ device
                                      └─ root port ─ device that hangs from the root

A root of its own for each node is what tells a guest on which node a device is (`_PXM`). Pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import count, groupby
from typing import Any

from bessemer.core.errors import DriverError
from bessemer.drivers.qemu.protocol import GuestDevice, MachineSpec

_FIRST_BUS, _BUSES = 32, 256
"""The machine's own buses lie below the first that a node's root gets."""

PORTS_MAX = 255
"""Of one guest: each has a chassis number of its own, which is a byte."""


def tree_words(spec: MachineSpec) -> list[str]:
    """``-device …`` for all of it. Raises DriverError (``TreeTooLarge``) for more than a guest has buses for."""
    cells = {cell.host_node: number for number, cell in enumerate(spec.numa)}
    in_order = sorted(spec.tree, key=lambda one: (one.host_node, one.switch))
    words: list[str] = []
    bus, chassis = _FIRST_BUS, count(1)
    for node, devices in groupby(in_order, key=lambda one: one.host_node):
        groups = _together(list(devices))
        # Of a node on which the guest has nothing else, no node of the guest can be named.
        place = {"numa_node": cells[node]} if node in cells else {}
        root = f"root{node}"
        words += _device("pxb-pcie", root, bus="pcie.0", bus_nr=bus, **place)
        words += [word for port, group in enumerate(groups) for word in _port(root, port, group=group, chassis=chassis)]
        bus += 1 + sum(2 + len(group) if group[0].switch else 1 for group in groups)
    if bus > _BUSES or next(chassis) > PORTS_MAX:
        raise DriverError("TreeTooLarge", "more devices than a guest has PCIe buses for")
    return words


def _together(devices: Sequence[GuestDevice]) -> list[list[GuestDevice]]:
    """Those under one switch together, and each that hangs from the root for itself. They come by switch."""
    groups: list[list[GuestDevice]] = []
    for one in devices:
        if groups and one.switch and groups[-1][0].switch == one.switch:
            groups[-1].append(one)
        else:
            groups.append([one])
    return groups


def _port(root: str, number: int, *, group: Sequence[GuestDevice], chassis: Iterator[int]) -> Iterator[str]:
    """A port of a node's root, and what hangs below it."""
    port = f"{root}p{number}"
    yield from _device("pcie-root-port", port, bus=root, chassis=next(chassis), slot=0)
    if group[0].switch:
        yield from _device("x3130-upstream", f"{port}up", bus=port)
    for below, one in enumerate(group):
        bus = port
        if one.switch:
            bus = f"{port}dn{below}"
            yield from _device("xio3130-downstream", bus, bus=f"{port}up", chassis=next(chassis), slot=0)
        yield from ("-device", json.dumps({**one.properties, "bus": bus}))


def _device(driver: str, name: str, **properties: Any) -> list[str]:
    return ["-device", json.dumps({"driver": driver, "id": name, **properties})]
