"""Which hosts are set aside, and in which words: links of a chain, in order from cheap to dear.

A host counts under the first link that it does not pass, so that the counts of a refusal add up to the fleet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bessemer.core.units import show_bytes
from bessemer.core.values import Reason, Request
from bessemer.placement.facts import Wall
from bessemer.placement.nearness import (
    close,
    has_companions,
    has_free_companions,
    says_close,
    says_companions,
    says_free_companions,
)
from bessemer.placement.sight import Sight
from bessemer.placement.vectors import WHOLE, Bools
from bessemer.placement.words import best, cores_words, device_words, memory_words, show_milli

Passes = Callable[[Sight], Bools]
Says = Callable[[Sight, Bools], Iterator[Reason]]


@dataclass(frozen=True, slots=True)
class Link:
    """``passes`` marks the hosts that may stay; ``says`` explains those that may not."""

    passes: Passes
    says: Says


def sift(sight: Sight) -> tuple[Bools, tuple[Reason, ...]]:
    """[hosts]: who passes every link; and a reason for each set of hosts that does not. Stops where nobody is left."""
    left = sight.fleet.present[: sight.size].copy()
    reasons: list[Reason] = []
    for link in LINKS:
        if not left.any():
            break
        passed = left & link.passes(sight)
        rejected = left & ~passed
        if rejected.any():
            reasons += link.says(sight, rejected)
            left = passed
    return left, tuple(reasons)


def _plainly(code: str, text: str) -> Says:
    def says(_sight: Sight, rejected: Bools) -> Iterator[Reason]:
        yield Reason(code, int(rejected.sum()), text)

    return says


def _reachable(sight: Sight) -> Bools:
    return sight.reachable


def _schedulable(sight: Sight) -> Bools:
    return sight.schedulable


def not_borne(request: Request, taints: frozenset[str]) -> frozenset[str]:
    """Those of the taints that the request does not tolerate, or that are not its tenant's to tolerate."""
    borne = taints if "*" in request.tolerations else taints & frozenset(request.tolerations)
    return taints - (borne if request.bearable is None else borne & request.bearable)


def _untainted(sight: Sight) -> Bools:
    # A fleet has few different sets of taints: each is judged once, and the hosts look it up.
    verdicts = np.array([not not_borne(sight.request, taints) for taints in sight.fleet.taint_sets], dtype=np.bool_)
    chosen: Bools = verdicts[sight.fleet.taints[: sight.size]]
    return chosen


def _says_taints(sight: Sight, rejected: Bools) -> Iterator[Reason]:
    indices, counts = np.unique(sight.fleet.taints[: sight.size][rejected], return_counts=True)
    by_text: dict[str, int] = {}
    for index, count in zip(indices, counts, strict=True):
        text = ", ".join(sorted(not_borne(sight.request, sight.fleet.taint_sets[index])))
        by_text[text] = by_text.get(text, 0) + int(count)
    for text, count in sorted(by_text.items()):
        yield Reason("Tainted", count, f"tainted {text}")


def kept_out(request: Request, wall: Wall) -> tuple[str, str]:
    """Why the tenant may not be behind the wall, as code and phrase; "" where it may. Other tenants are not named."""
    if wall.owners and request.tenant not in wall.owners:
        return "Dedicated", "dedicated to other tenants"
    if request.own_hosts and request.tenant not in wall.owners:
        return "NotOwn", f"not dedicated to tenant {request.tenant}, which is kept to its own"
    if request.sites and wall.site not in request.sites:
        return "OtherSite", f"at another site than {', '.join(sorted(request.sites))}"
    return "", ""


def _within_walls(sight: Sight) -> Bools:
    # As with taints: a fleet has few different walls.
    verdicts = np.array([not kept_out(sight.request, wall)[0] for wall in sight.fleet.walls.all], dtype=np.bool_)
    chosen: Bools = verdicts[sight.fleet.wall[: sight.size]]
    return chosen


def _says_walls(sight: Sight, rejected: Bools) -> Iterator[Reason]:
    indices, counts = np.unique(sight.fleet.wall[: sight.size][rejected], return_counts=True)
    found: dict[tuple[str, str], int] = {}
    for index, count in zip(indices, counts, strict=True):
        why = kept_out(sight.request, sight.fleet.walls.all[index])
        found[why] = found.get(why, 0) + int(count)
    for (code, text), hosts in sorted(found.items()):
        yield Reason(code, hosts, text)


def _virtual(sight: Sight) -> Bools:
    return sight.fleet.virtual[: sight.size] if sight.request.virtualization else sight.everyone


def _isolated(sight: Sight) -> Bools:
    return sight.fleet.isolated[: sight.size] if sight.request.isolation else sight.everyone


def _has_devices(sight: Sight) -> Bools:
    if not sight.request.device_count:
        return sight.everyone
    enough: Bools = sight.wanted.sum(axis=1) >= sight.request.device_count
    return enough


def _says_devices(sight: Sight, rejected: Bools) -> Iterator[Reason]:
    there = sight.wanted.sum(axis=1)
    none = rejected & (there == 0)
    if none.any():
        yield Reason("NoDevice", int(none.sum()), f"without {device_words(sight.request)}")
    few = rejected & ~none
    if few.any():
        most = best(few, int(there[few].max()))
        text = f"with fewer than {sight.request.device_count} {device_words(sight.request)} ({most} there)"
        yield Reason("TooFewDevices", int(few.sum()), text)


def _has_cores(sight: Sight) -> Bools:
    enough: Bools = sight.cores_sum >= sight.request.milli_cores
    return enough


def _says_cores(sight: Sight, rejected: Bools) -> Iterator[Reason]:
    most = best(rejected, show_milli(int(sight.cores_sum[rejected].max())))
    text = f"short of {cores_words(sight.request)} ({most} free)"
    yield Reason("ShortOfCores", int(rejected.sum()), text)


def _has_memory(sight: Sight) -> Bools:
    enough: Bools = sight.memory_sum >= sight.request.memory_bytes
    return enough


def _says_memory(sight: Sight, rejected: Bools) -> Iterator[Reason]:
    most = best(rejected, show_bytes(int(sight.memory_sum[rejected].max())))
    text = f"short of {memory_words(sight.request)} ({most} free)"
    yield Reason("ShortOfHugepages" if sight.request.page_bytes else "ShortOfMemory", int(rejected.sum()), text)


def _has_free_devices(sight: Sight) -> Bools:
    if not sight.request.device_count:
        return sight.everyone
    enough: Bools = sight.usable_count >= sight.request.device_count
    return enough


def _says_free_devices(sight: Sight, rejected: Bools) -> Iterator[Reason]:
    request = sight.request
    if request.device_milli < WHOLE:
        most = int(sight.device_milli[sight.wanted & rejected[:, None]].max())
        left = best(rejected, show_milli(max(0, most)))
        text = f"short of {show_milli(request.device_milli)} {device_words(request)} ({left} free on one)"
    else:
        left = best(rejected, int(sight.usable_count[rejected].max()))
        text = f"short of {request.device_count} {device_words(request)} ({left} free)"
    yield Reason("ShortOfDevices", int(rejected.sum()), text)


FACTS: Sequence[Link] = (
    # Its agent is silent: what happens there is not known.
    Link(_reachable, _plainly("Unreachable", "not reachable")),
    # An administrator lets nothing new land there.
    Link(_schedulable, _plainly("Cordoned", "cordoned")),
    # Kept for other tenants, or none of those that this one is kept to.
    Link(_within_walls, _says_walls),
    # Set apart, for those who say that they bear it.
    Link(_untainted, _says_taints),
    # No hypervisor runs there.
    Link(_virtual, _plainly("NoVirtualization", "without virtualization")),
    # Engines of several tenants cannot be kept apart there: no sandbox starts.
    Link(_isolated, _plainly("NoIsolation", "without a sandbox for engines")),
)
"""Who may land where at all, whatever is free there."""

HARDWARE: Sequence[Link] = (
    # The hardware is not there at all, whoever holds it.
    Link(_has_devices, _says_devices),
    Link(has_companions, says_companions),
    # Enough over all NUMA nodes; how it lies is looked at last.
    Link(_has_cores, _says_cores),
    Link(_has_memory, _says_memory),
    # The hardware is there and somebody holds it.
    Link(_has_free_devices, _says_free_devices),
    Link(has_free_companions, says_free_companions),
    # The dearest: every NUMA node, switch and domain by itself.
    Link(close, says_close),
)
"""What hosts have, and what is free of it."""

LINKS: Sequence[Link] = (*FACTS, *HARDWARE)


def fitting(sight: Sight, links: Sequence[Link] = LINKS) -> Bools:
    """[hosts]: who is present and passes every link."""
    left = sight.fleet.present[: sight.size].copy()
    for link in links:
        if not left.any():
            break
        left &= link.passes(sight)
    return left
