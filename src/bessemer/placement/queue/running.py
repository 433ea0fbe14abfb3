"""`Running`: what a plan must know of each claim that runs, beside `Holdings`, as arrays over the same slots.

Who may be stopped for somebody is asked of all claims at once, and a fleet has 80,000. What is lost with a claim is
paid for: devices times seconds since they were taken, a core counting a thousandth of a device; claims of one gang are
worth nothing without each other, so with one of them all is lost that they have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bessemer.placement.facts import Hold
from bessemer.placement.moves.holdings import Holdings
from bessemer.placement.numbering import Numbers
from bessemer.placement.policies import Floats
from bessemer.placement.vectors import NONE, Bools, Ints


class Running:
    """[slots] as ``holdings.claims``, as of the last `refresh`: ``project`` is the number in ``projects`` of whose it
    is, ``cores`` its thousandths of cores, ``gang`` the number in ``gangs`` of what it belongs to, or `NONE`."""

    def __init__(self, holdings: Holdings) -> None:
        self.holdings = holdings
        self.projects: Numbers[str] = Numbers()
        self.gangs: Numbers[str] = Numbers()
        self._columns: Ints = np.zeros((3, 0), dtype=np.int64)
        self._slots: dict[int, list[int]] = {}
        self._members: dict[str, set[int]] = {}
        self._workloads: dict[str, set[int]] = {}
        self._named: dict[int, Hold] = {}
        self._position = -1

    @property
    def project(self) -> Ints:
        return self._columns[0, : self.holdings.claims.size]

    @property
    def cores(self) -> Ints:
        return self._columns[1, : self.holdings.claims.size]

    @property
    def gang(self) -> Ints:
        return self._columns[2, : self.holdings.claims.size]

    def refresh(self) -> None:
        """Read what changed."""
        self.holdings.refresh()
        fleet = self.holdings.fleet
        rows = fleet.named.since(self._position) if self._position >= 0 else None
        self._position = fleet.named.position
        short = self.holdings.claims.size - self._columns.shape[1]
        if short > 0:
            wider = np.zeros((3, short + self._columns.shape[1]), dtype=np.int64)
            wider[2] = NONE
            self._columns = np.concatenate([self._columns, wider], axis=1)
        changed = range(fleet.size) if rows is None else rows.tolist()
        for row in changed:
            self._forget(row)
        for row in changed:
            self._read(row)

    def of_workload(self, uid: str) -> Ints:
        """The slots of a workload's claims."""
        return np.array(sorted(self._workloads.get(uid, ())), dtype=np.int64)

    def together(self, slots: Sequence[int]) -> tuple[int, ...]:
        """These, and all that are worth nothing without them; by uid."""
        found = set(slots)
        for slot in slots:
            found |= self._members.get(self._named[slot].tenure.gang, set())
        return tuple(sorted(found, key=lambda slot: self.holdings.held(slot)[0]))

    def held(self, slots: Sequence[int]) -> Mapping[str, Hold]:
        """What they hold, by uid."""
        return dict(sorted(self.holdings.held(slot) for slot in slots))

    def holds(self, uids: Sequence[str]) -> Mapping[str, Hold]:
        """What claims that stand hold."""
        found = {uid: self.holdings.fleet.held.of(uid) for uid in uids}
        return {uid: hold for uid, hold in found.items() if hold is not None}

    def lost(self, *, now: int) -> Floats:
        """[slots]: device-seconds that are lost with each by itself."""
        claims = self.holdings.claims
        amounts = claims["milli"] / 1000 + self.cores / 1_000_000
        found: Floats = np.where(claims["used"] > 0, amounts * np.maximum(0, now - claims["since"]), 0.0)
        return found

    def lost_together(self, lost: Floats) -> Floats:
        """[slots]: the same with all that is worth nothing without it, where ``lost`` is what is lost with each."""
        some = self.gang != NONE
        if not some.any():
            return lost
        sums = np.bincount(self.gang[some], lost[some], len(self.gangs.all))
        return np.where(some, sums[np.where(some, self.gang, 0)], lost)

    def beside(self) -> Ints:
        """[slots]: how many of its gang are on its host, itself among them."""
        claims, found = self.holdings.claims, np.ones(self.holdings.claims.size, dtype=np.int64)
        some = np.flatnonzero(self.gang != NONE)
        codes = claims["row"][some] * max(1, len(self.gangs.all)) + self.gang[some]
        _, index, counts = np.unique(codes, return_inverse=True, return_counts=True)
        found[some] = counts[index]
        return found

    def of_projects(self, allowed: Mapping[str, bool]) -> Bools:
        """[slots]: what ``allowed`` says of whose it is; False of whom it does not name."""
        by_number = np.array([allowed.get(name, False) for name in self.projects.all] or [False], dtype=np.bool_)
        chosen: Bools = by_number[self.project]
        return chosen

    def _forget(self, row: int) -> None:
        for slot in self._slots.pop(row, ()):
            tenure = self._named.pop(slot).tenure
            self.projects.give_back(int(self._columns[0, slot]))
            if tenure.gang:
                self.gangs.give_back(int(self._columns[2, slot]))
            _discard(self._members, tenure.gang, slot=slot)
            _discard(self._workloads, tenure.workload, slot=slot)
            self._columns[:, slot] = (0, 0, NONE)

    def _read(self, row: int) -> None:
        slots = list(self.holdings.at(row))
        if not slots:
            return
        self._slots[row] = slots
        for slot in slots:
            _, hold = self.holdings.held(slot)
            tenure = hold.tenure
            self._named[slot] = hold
            gang = self.gangs.take(tenure.gang) if tenure.gang else NONE
            cores = sum(part.milli_cores for part in hold.allocations)
            self._columns[:, slot] = (self.projects.take(tenure.project), cores, gang)
            for among, name in ((self._members, tenure.gang), (self._workloads, tenure.workload)):
                if name:
                    among.setdefault(name, set()).add(slot)


def _discard(among: dict[str, set[int]], name: str, *, slot: int) -> None:
    if name:
        among[name].discard(slot)
        if not among[name]:
            del among[name]
