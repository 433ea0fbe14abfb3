"""Which hardware threads to give away, and what that takes of a node."""

from __future__ import annotations

from collections import Counter

from bessemer.core.asking import Allocation, Decision
from bessemer.core.beside import PAGE_SIZES
from bessemer.core.cpus import parse_cpus, show_cpus
from bessemer.placement.arrays import Arrays
from bessemer.placement.beside import Cores, usual
from bessemer.placement.sight import Sight


def allocation(sight: Sight, row: int, *, node: int, milli_cores: int, memory_bytes: int) -> Allocation:
    """Cores and memory of a node (by column) that has them of the sort asked for."""
    request = sight.request
    number = sight.fleet.node_ids(row)[node]
    page_bytes = request.page_bytes if memory_bytes else 0
    plain = Allocation(numa_node=number, milli_cores=milli_cores, memory_bytes=memory_bytes, page_bytes=page_bytes)
    if request.cpu_policy == "shared" or not milli_cores:
        return plain
    parts = sight.fleet.parts(row)
    pick = threads_of if request.cpu_policy == "threads" else cores_of
    cpus = pick(parts.cores[node], parts.own, count=milli_cores // 1000)
    spare = len(cpus) * int(sight.fleet.overcommit[row]) - milli_cores
    return plain.model_copy(update={"cpus": show_cpus(cpus), "spare_milli_cores": spare})


def threads_of(cores: Cores, own: Counter[int], *, count: int) -> list[int]:
    """Threads that nobody has: of cores that are broken up first, then of as few as can be."""
    free = [[cpu for cpu in core if own[cpu] <= 0] for core in cores]
    order = sorted(range(len(cores)), key=lambda n: (len(free[n]) == len(cores[n]), len(free[n]), n))
    return [cpu for n in order for cpu in free[n]][:count]


def cores_of(cores: Cores, own: Counter[int], *, count: int) -> list[int]:
    """All threads of as many whole cores as have ``count``."""
    smt = usual(cores)
    whole = [core for core in cores if len(core) == smt and not any(own[cpu] > 0 for cpu in core)]
    return [cpu for core in whole[: -(-count // smt)] for cpu in core]


def still_free(fleet: Arrays, row: int, *, decision: Decision) -> bool:
    """Whether nobody has what a decision takes of companions, huge pages and threads of its own."""
    parts = fleet.parts(row)
    nodes = {node: column for column, node in enumerate(fleet.node_ids(row))}
    for use in decision.companions:
        column = parts.columns[use.device]
        left = fleet.other_functions[row, column] - fleet.other_used[row, column]
        enough = left >= use.functions if use.functions else fleet.other_used[row, column] <= 0
        if fleet.other_whole[row, column] > 0 or not enough:
            return False
    for part in decision.allocations:
        if any(parts.own[cpu] > 0 for cpu in parse_cpus(part.cpus)):
            return False
        if part.page_bytes:
            pages = fleet.pages_free[row, nodes[part.numa_node], PAGE_SIZES.index(part.page_bytes)]
            if pages * part.page_bytes < part.memory_bytes:
                return False
    return True
