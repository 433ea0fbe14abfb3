"""`Trial`: what would be, tried on the arrays themselves and taken back."""

from __future__ import annotations

from collections.abc import Set
from typing import Self

from bessemer.core.asking import Allocation, Decision
from bessemer.placement.facts import Hold
from bessemer.placement.fleet import FleetArrays
from bessemer.placement.pins import still_free
from bessemer.placement.thought import Thought
from bessemer.placement.vectors import WHOLE

_PLUG = "\0plug/"
"""Holds all of a host, under no uid that a claim could have."""


class Trial:
    """Thoughts within one another, one from each mark on, of which the last ones may be left alone. Whoever is within
    holds and drops; when it is left all that is held is what was."""

    def __init__(self, fleet: FleetArrays) -> None:
        self._fleet = fleet
        self._thoughts: list[Thought] = []
        self._plugs: list[str] = []

    def __enter__(self) -> Self:
        self.mark()
        return self

    def __exit__(self, *raised: object) -> None:
        self._leave(0)

    @property
    def plugged(self) -> Set[str]:
        """Hosts on which nothing more is to land."""
        return set(self._plugs)

    def mark(self) -> int:
        """Where to go `back_to`; 0 is where it was entered."""
        self._thoughts.append(Thought(self._fleet).__enter__())
        return len(self._thoughts) - 1

    def back_to(self, mark: int) -> None:
        """Take back what was done since."""
        self._leave(mark)
        if not mark:
            self.mark()

    def hold(self, uid: str, hold: Hold) -> None:
        """A claim holds that, in place of what it held."""
        assert self._thoughts, "what is tried is taken back"
        self._fleet.hold(uid, hold)

    def drop(self, uid: str) -> None:
        """A claim holds nothing."""
        assert self._thoughts, "what is tried is taken back"
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

    def _leave(self, mark: int) -> None:
        while len(self._thoughts) > mark:
            self._thoughts.pop().__exit__(None, None, None)
        self._plugs = [host for host in self._plugs if self._fleet.held.of(f"{_PLUG}{host}") is not None]

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
