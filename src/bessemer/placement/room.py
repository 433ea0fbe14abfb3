"""What hosts have free of the sort that a request wants: cores of their own or shared, ordinary memory or huge pages,
and which of what lies beside its devices would do."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bessemer.core.asking import Request
from bessemer.core.beside import PAGE_SIZES, Companion
from bessemer.placement.arrays import Arrays
from bessemer.placement.vectors import Bools, Ints


@dataclass(frozen=True, slots=True)
class Spare:
    """What is free of what `Beside` counts, [hosts, …] as there: as it is, or as it would be."""

    threads: Ints
    wholes: Ints
    pages: Ints
    used: Ints
    whole: Ints

    @classmethod
    def of(cls, fleet: Arrays, size: int) -> Spare:
        """As it is."""
        return cls(
            fleet.threads_free[:size],
            fleet.wholes_free[:size],
            fleet.pages_free[:size],
            fleet.other_used[:size],
            fleet.other_whole[:size],
        )

    def at(self, rows: Ints) -> Spare:
        """Of some rows, by numbers of their own."""
        return Spare(self.threads[rows], self.wholes[rows], self.pages[rows], self.used[rows], self.whole[rows])

    @classmethod
    def emptied(cls, fleet: Arrays, size: int) -> Spare:
        """As it would be, did nobody hold anything."""
        nobody = np.zeros_like(fleet.other_used[:size])
        return cls(fleet.threads_all[:size], fleet.wholes_all[:size], fleet.pages_all[:size], nobody, nobody)


class OfSort:
    """What a sight has of the sort that its request wants; kept once it is derived."""

    fleet: Arrays
    request: Request
    cores_free: Ints
    memory_free: Ints
    changed_spare: Spare | None

    @property
    def size(self) -> int:
        return len(self.cores_free)

    @property
    def everyone(self) -> Bools:
        """[hosts]: all of them."""
        return np.ones(self.size, dtype=np.bool_)

    @cached_property
    def spare(self) -> Spare:
        """What is free beside devices, shared cores and ordinary memory."""
        return self.changed_spare or Spare.of(self.fleet, self.size)

    @cached_property
    def cores_here(self) -> Ints:
        """[hosts, nodes]: milli-cores of the sort asked for."""
        if self.request.cpu_policy == "shared":
            return np.maximum(self.cores_free, 0)
        return own_cores(self.fleet, self.request, spare=self.spare, free=self.cores_free)

    @cached_property
    def memory_here(self) -> Ints:
        """[hosts, nodes]: bytes of the sort asked for."""
        if not self.request.page_bytes:
            return np.maximum(self.memory_free, 0)
        return memory_in_pages(self.request, spare=self.spare)

    @cached_property
    def companions(self) -> list[Bools]:
        """[hosts, others] for each companion: what is free as it is asked for."""
        return [free_of_sort(self.fleet, one, spare=self.spare) for one in self.request.companions]

    @cached_property
    def cores_sum(self) -> Ints:
        """Free milli-cores of each host; what a node lacks is not made good by another."""
        total: Ints = self.cores_here.sum(axis=1)
        return total

    @cached_property
    def memory_sum(self) -> Ints:
        """Free bytes of each host, likewise."""
        total: Ints = self.memory_here.sum(axis=1)
        return total


def own_cores(fleet: Arrays, request: Request, *, spare: Spare, free: Ints) -> Ints:
    """[hosts, nodes]: milli-cores of its own, as asked for, that each node can give; ``free`` are shared ones.

    A thread of its own takes what it would be sold for, however often that is; a physical core all its threads.
    """
    left: Ints = np.maximum(free, 0)
    threads: Ints = left // fleet.overcommit[: len(left), None]
    if request.cpu_policy == "threads":
        return 1000 * np.minimum(threads, np.maximum(spare.threads, 0))
    smt = fleet.smt[: len(left)]
    wholes = np.minimum(threads // np.maximum(smt, 1), np.maximum(spare.wholes, 0))
    cores: Ints = 1000 * wholes * smt
    return cores


def memory_in_pages(request: Request, *, spare: Spare) -> Ints:
    """[hosts, nodes]: bytes in huge pages that each node can give."""
    pages: Ints = np.maximum(spare.pages[:, :, PAGE_SIZES.index(request.page_bytes)], 0)
    return pages * request.page_bytes


def of_sort(fleet: Arrays, companion: Companion, *, size: int) -> Bools:
    """[hosts, others]: what is sound and would do, free or not."""
    sound = fleet.other_sound[:size]
    names = fleet.other_names.all
    if not names:
        return sound
    verdicts = np.array([_named(companion, kind, model=model) for kind, model in names], dtype=np.bool_)
    chosen: Bools = sound & verdicts[fleet.other_name[:size]]
    if companion.functions:
        chosen = chosen & (fleet.other_functions[:size] >= companion.functions)
    if companion.rails:
        chosen = chosen & on_a_rail(fleet, size)
    return chosen


def free_of_sort(fleet: Arrays, companion: Companion, *, spare: Spare) -> Bools:
    """[hosts, others]: of those, what is free as it is asked for."""
    size = len(spare.whole)
    nobody = spare.whole <= 0
    if not companion.functions:
        return of_sort(fleet, companion, size=size) & nobody & (spare.used <= 0)
    left = fleet.other_functions[:size] - spare.used
    return of_sort(fleet, companion, size=size) & nobody & (left >= companion.functions)


def on_a_rail(fleet: Arrays, size: int) -> Bools:
    """[hosts, others]: what says on which rail it is."""
    chosen: Bools = fleet.other_rail[:size] >= 0
    return chosen


def _named(companion: Companion, kind: str, *, model: str) -> bool:
    return kind == companion.kind and (not companion.models or model in companion.models)
