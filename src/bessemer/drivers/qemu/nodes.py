"""The host's NUMA nodes, as a guest's cells are laid on them: where they lie, how far apart, and on which threads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from bessemer.core.cpus import parse_cpus
from bessemer.core.errors import DriverError
from bessemer.drivers.qemu import qmp
from bessemer.drivers.qemu.protocol import MachineSpec, NumaCell

NODES = Path("/sys/devices/system/node")
LOCAL, REMOTE = 10, 20
"""Distances as firmware says them (ACPI 6.5, 5.2.17): a node to itself, and another of which nothing is known."""

_FARTHEST = 254
_QMP_SECONDS = 5.0


class HostNodes:
    """What the kernel says of them below ``root``; of a node that it does not know, nothing."""

    def __init__(self, root: Path = NODES) -> None:
        self._root = root

    def laid(self, spec: MachineSpec) -> MachineSpec:
        """The same guest, bound to no node that is not there, and with the distances between those that it names."""
        there = self._set("has_memory")
        cells = tuple(replace(cell, bound=cell.bound and cell.host_node in there) for cell in spec.numa)
        distances = spec.distances or self._distances([cell.host_node for cell in spec.numa])
        return replace(spec, numa=cells, distances=distances)

    def threads(self, cell: NumaCell) -> tuple[int, ...]:
        """Where the cell's CPUs may run: on what is its own, or on its node; () where nothing is known of that."""
        return parse_cpus(cell.own_cpus) if cell.own_cpus else self._set(f"node{cell.host_node}/cpulist")

    def _distances(self, nodes: Sequence[int | None]) -> tuple[tuple[int, ...], ...]:
        if len(nodes) < 2:
            return ()
        rows = {node: self._row(node) for node in nodes}
        return tuple(
            tuple(LOCAL if one == other else rows[a].get(b, REMOTE) for other, b in enumerate(nodes))
            for one, a in enumerate(nodes)
        )

    def _row(self, node: int | None) -> dict[int | None, int]:
        """The node's distances by node: the kernel lists those that are online, in order."""
        with suppress(OSError, ValueError):
            values = [int(word) for word in (self._root / f"node{node}" / "distance").read_text().split()]
            row = zip(self._set("online"), values, strict=True)
            return {other: value for other, value in row if LOCAL < value <= _FARTHEST}
        return {}

    def _set(self, file: str) -> tuple[int, ...]:
        try:
            return parse_cpus((self._root / file).read_text())
        except (OSError, ValueError):
            return ()


async def pin_cpus(spec: MachineSpec, pid: int, *, socket: Path, nodes: HostNodes) -> None:
    """Let each CPU of the guest run on its cell's threads; one each, where there are as many as CPUs. A QEMU that does
    not say which thread is which CPU is left as it is: it stays on what is its own all the same. Of its process ``pid``
    alone anything is moved, for its guest runs by now, and may speak for it."""
    if not spec.numa:
        return
    try:
        async with qmp.talk(socket, timeout_seconds=_QMP_SECONDS) as monitor:
            said = await monitor.execute("query-cpus-fast")
        tids = [tid for _, tid in sorted((cpu["cpu-index"], cpu["thread-id"]) for cpu in said)]
        if not set(tids).issubset(map(int, os.listdir(f"/proc/{pid}/task"))):
            return
    except (OSError, DriverError, KeyError, TypeError):
        return
    for cell in spec.numa:
        mine, tids = tids[: cell.cpus], tids[cell.cpus :]
        threads = nodes.threads(cell)
        for number, tid in enumerate(mine if threads else ()):
            with suppress(OSError):  # gone, or none of its node's threads is left to it
                os.sched_setaffinity(tid, {threads[number]} if len(threads) == cell.cpus else threads)
