"""`Trial`: what would be, tried on the arrays themselves and taken back."""

from __future__ import annotations

from collections.abc import Set

from bessemer.core.asking import Allocation, Decision
from bessemer.placement.facts import Hold
from bessemer.placement.fleet import FleetArrays
from bessemer.placement.pins import still_free
from bessemer.placement.vectors import WHOLE

_PLUG = "\0plug/"
"""Holds all of a host, under no uid that a claim could have."""


class Trial:
    """Holds that come and go, remembered. Whoever reads the fleet sees each change; after ``back_to(0)`` all that is
    held is what was."""

    def __init__(self, fleet: FleetArrays) -> None:
        self._fleet = fleet
        self._before: list[tuple[str, Hold | None]] = []
        self._plugs: list[str] = []

    @property
    def plugged(self) -> Set[str]:
        """Hosts on which nothing more is to land."""
        return set(self._plugs)

    def mark(self) -> int:
        """Where to go `back_to`."""
        return len(self._before)

    def back_to(self, mark: int) -> None:
        """Take back what was done since."""
        while len(self._before) > mark:
            uid, hold = self._before.pop()
            if hold is not None:
                self._fleet.hold(uid, hold)
            else:
                self._fleet.drop(uid)
            if uid.startswith(_PLUG):
                self._plugs.pop()

    def hold(self, uid: str, hold: Hold) -> None:
        """A claim holds that, in place of what it held."""
        self._before.append((uid, self._fleet.held.of(uid)))
        self._fleet.hold(uid, hold)

    def drop(self, uid: str) -> None:
        """A claim holds nothing."""
        self._before.append((uid, self._fleet.held.of(uid)))
        self._fleet.drop(uid)

    def plug(self, host: str) -> None:
        """Nothing more lands on a host: all of it is held. What asks for nothing at all still fits there."""
        fleet, row = self._fleet, self._fleet.row(host)
        if row is None or host in self._plugs:
            return
        parts = tuple(
            Allocation(
                numa_node=node,
                milli_cores=max(0, int(fleet.cores_free[row, column])),
                memory_bytes=max(0, int(fleet.memory_free[row, column])),
            )
            for column, node in enumerate(fleet.node_ids(row))
        )
        self._plugs.append(host)
        self.hold(f"{_PLUG}{host}", Hold(host, tuple(device.id for device in fleet.devices(row)), parts, WHOLE))

    def free(self, decision: Decision) -> bool:
        """Whether all that a decision takes is there, and free now."""
        fleet, row = self._fleet, self._fleet.row(decision.host)
        if row is None:
            return False
        nodes = {node: column for column, node in enumerate(fleet.node_ids(row))}
        devices = {device.id: column for column, device in enumerate(fleet.devices(row))}
        try:
            return (
                still_free(fleet, row, decision=decision)
                and all(_has(fleet, row, column=devices[device], decision=decision) for device in decision.devices)
                and all(fleet.cores_free[row, nodes[p.numa_node]] >= p.taken_milli_cores for p in decision.allocations)
                and all(fleet.memory_free[row, nodes[p.numa_node]] >= p.plain_bytes for p in decision.allocations)
            )
        except KeyError:
            return False  # a device or a node that the host does not have any more


def _has(fleet: FleetArrays, row: int, *, column: int, decision: Decision) -> bool:
    """Whether a device has free what the decision takes of it."""
    milli = int(fleet.device_milli[row, column])
    if not decision.device_profile:
        return milli >= decision.device_milli
    instance = (decision.device_profile, decision.device_start)
    return fleet.cuts.open(row, column, instance=instance, milli=milli)
