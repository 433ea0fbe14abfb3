"""`Book`: who has what of a fleet, by project, and when it ends; kept current row by row.

A project's use is counted by resource: ``cores`` (thousandths), ``memory`` (bytes), ``devices`` (thousandths, of all
models) and ``devices/MODEL``. What no project is named for (claims of older releases) is nobody's, yet it is there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bessemer.core.asking import Request
from bessemer.placement.facts import Hold
from bessemer.placement.fleet import FleetArrays
from bessemer.placement.vectors import NONE, WHOLE, Ints

Amounts = Mapping[str, int]

DEVICES = "devices"

Ending = tuple[int, str, Hold]
"""When it ends, whose it is, what it holds."""


@dataclass(frozen=True, slots=True)
class _Row:
    """What was read of one host: what there is, who has what, and the claims that end or may be stopped."""

    total: Amounts
    used: Mapping[str, Amounts]
    held: Mapping[str, Hold]


class Book:
    """``total`` is what there is, ``used`` what each project has of it, as of the last `refresh`."""

    def __init__(self, fleet: FleetArrays) -> None:
        self.fleet = fleet
        self.total: Counter[str] = Counter()
        self.used: dict[str, Counter[str]] = {}
        self.ending: dict[int, Sequence[Ending]] = {}
        """By row: what ends, soonest first."""
        self.gangs: dict[str, dict[str, Hold]] = {}
        """By gang: its claims, by uid."""
        self.spans: dict[int, Ints] = {}
        """By row: `span` of what ends."""
        self._order: tuple[int, list[int]] = (-1, [])
        self._rows: dict[int, _Row] = {}
        self._position = -1

    def refresh(self) -> None:
        """Read what changed."""
        changes = self.fleet.named
        rows = changes.since(self._position) if self._position >= 0 else None
        self._position = changes.position
        for row in range(self.fleet.size) if rows is None else rows.tolist():
            self._forget(row)
            if self.fleet.present[row]:
                self._read(row)

    def amounts(self, hold: Hold) -> Counter[str]:
        """What a claim has."""
        row = self.fleet.row(hold.host)
        devices = self.fleet.devices(row) if row is not None else ()
        return held_amounts(hold, {device.id: device.model for device in devices})

    def rows_by_name(self) -> Sequence[int]:
        """All rows, in the order of their hosts' names."""
        facts, rows = self._order
        if facts != self.fleet.facts or len(rows) != self.fleet.size:
            rows = sorted(range(self.fleet.size), key=self.fleet.names.__getitem__)
            self._order = (self.fleet.facts, rows)
        return rows

    def _forget(self, row: int) -> None:
        before = self._rows.pop(row, None)
        self._count(before, sign=-1)
        self.ending.pop(row, None)
        self.spans.pop(row, None)
        for uid, hold in before.held.items() if before is not None else ():
            members = self.gangs.get(hold.tenure.gang, {})
            if members.get(uid) is hold:
                del members[uid]
                if not members:
                    del self.gangs[hold.tenure.gang]

    def _read(self, row: int) -> None:
        held = self.fleet.held.at(self.fleet.names[row])
        models = {device.id: device.model for device in self.fleet.devices(row)}
        used: dict[str, Counter[str]] = {}
        for hold in held.values():
            if hold.tenure.project:
                used.setdefault(hold.tenure.project, Counter()).update(held_amounts(hold, models))
        read = self._rows[row] = _Row(self._there(row), used, held)
        self._count(read, sign=1)
        ends = sorted((hold.tenure.ends, uid, hold) for uid, hold in held.items() if hold.tenure.ends is not None)
        if ends:
            self.ending[row] = ends
            self.spans[row] = span(ends)
        for uid, hold in held.items():
            if hold.tenure.gang:
                self.gangs.setdefault(hold.tenure.gang, {})[uid] = hold

    def _there(self, row: int) -> Amounts:
        fleet = self.fleet
        found = Counter(cores=int(fleet.cores[row].sum()), memory=int(fleet.memory[row].sum()))
        for number, sound in zip(fleet.device_model[row].tolist(), fleet.device_sound[row].tolist(), strict=True):
            if number != NONE and sound:
                found[DEVICES] += WHOLE
                found[f"{DEVICES}/{fleet.models.all[number]}"] += WHOLE
        return found

    def _count(self, row: _Row | None, *, sign: int) -> None:
        if row is None:
            return
        for resource, amount in row.total.items():
            self.total[resource] += sign * amount
        for project, amounts in row.used.items():
            sums = self.used.setdefault(project, Counter())
            for resource, amount in amounts.items():
                sums[resource] += sign * amount
            if not any(sums.values()):
                del self.used[project]


def span(endings: Sequence[Ending]) -> Ints:
    """[4, claims]: when each ends, and the cores, memory and thousandths of devices that are left by then, in sum."""
    found = np.array(
        [
            (
                ends,
                sum(part.milli_cores for part in hold.allocations),
                sum(part.memory_bytes for part in hold.allocations),
                hold.device_milli * len(set(hold.devices)),
            )
            for ends, _, hold in endings
        ],
        dtype=np.int64,
    ).T
    found[1:] = found[1:].cumsum(axis=1)
    return found


def held_amounts(hold: Hold, models: Mapping[str, str]) -> Counter[str]:
    """What a claim has; ``models`` are those of its host's devices by id."""
    found = Counter(
        cores=sum(part.milli_cores for part in hold.allocations),
        memory=sum(part.memory_bytes for part in hold.allocations),
    )
    for device in set(hold.devices):
        found[DEVICES] += hold.device_milli
        if device in models:
            found[f"{DEVICES}/{models[device]}"] += hold.device_milli
    return found


def wanted_amounts(request: Request, count: int = 1) -> Counter[str]:
    """What so many of a request amount to. Where several models would do, it is of none in particular; a share in bytes
    counts as a device while nobody knows of which."""
    milli = request.device_count * (WHOLE if request.device_bytes else request.device_milli) * count
    found = Counter(cores=request.milli_cores * count, memory=request.memory_bytes * count)
    if milli:
        found[DEVICES] = milli
        if len(request.device_models) == 1:
            (model,) = request.device_models
            found[f"{DEVICES}/{model}"] = milli
    return found
