"""Which hosts are set aside, and in which words: links of a chain, in order from cheap to dear.

A host counts under the first link that it does not pass, so that the counts of a refusal add up to the fleet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bessemer.core.asking import Reason, Request
from bessemer.core.units import show_bytes
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
from bessemer.placement.vectors import WHOLE, Bools, Ints
from bessemer.placement.words import best, cores_words, device_words, memory_words, share_words, show_milli

Passes = Callable[[Sight], Bools]
Says = Callable[[Sight, Bools], Iterator[Reason]]
Verdicts = NDArray[np.uint8]

FITS, ABSENT = 254, 255
"""Verdicts of hosts that pass every link, and of rows that are nobody's; others are numbers of links."""


class Words(Protocol):
    def __call__(self, request: Request, *, hosts: int, most: int) -> Reason:
        """What is said of so many hosts, of which none has more than ``most``."""
        ...


@dataclass(frozen=True, slots=True)
class Measure:
    """Where what is said of hosts follows from how many they are and the most of a ``figure`` [hosts] that any of them
    has. Who keeps both needs no further look at the fleet."""

    figure: Callable[[Sight], Ints]
    words: Words

    def says(self, sight: Sight, rejected: Bools) -> Iterator[Reason]:
        hosts, most = int(rejected.sum()), int(self.figure(sight)[rejected].max())
        yield self.words(sight.request, hosts=hosts, most=most)


@dataclass(frozen=True, slots=True)
class Link:
    """``passes`` marks the hosts that may stay; ``says`` explains those that may not, by a ``measure`` if there is
    one; without, it looks at nothing but the request and who they are, or is slow."""

    passes: Passes
    says: Says
    measure: Measure | None = None


def _measured(passes: Passes, *, figure: Callable[[Sight], Ints], words: Words) -> Link:
    measure = Measure(figure, words)
    return Link(passes, measure.says, measure)


def sift(sight: Sight, links: Sequence[Link] | None = None) -> tuple[Bools, tuple[Reason, ...]]:
    """[hosts]: who passes every link; and a reason for each set of hosts that does not. Stops where nobody is left."""
    left = sight.fleet.present[: sight.size].copy()
    reasons: list[Reason] = []
    for link in LINKS if links is None else links:
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


def _handing(sight: Sight) -> Bools:
    wanted = sight.request.device_count or sight.request.companions
    return sight.fleet.handing[: sight.size] if sight.request.virtualization and wanted else sight.everyone


def _isolated(sight: Sight) -> Bools:
    return sight.fleet.isolated[: sight.size] if sight.request.isolation else sight.everyone


def _equipped(sight: Sight) -> Bools:
    if not sight.request.engine:
        return sight.everyone
    verdicts = np.array([sight.request.engine in one for one in sight.fleet.engine_sets.all], dtype=np.bool_)
    chosen: Bools = verdicts[sight.fleet.engines[: sight.size]]
    return chosen


def _says_engine(sight: Sight, rejected: Bools) -> Iterator[Reason]:
    yield Reason("NoEngine", int(rejected.sum()), f"without engine {sight.request.engine}")


def _has_some_device(sight: Sight) -> Bools:
    if not sight.request.device_count:
        return sight.everyone
    some: Bools = np.logical_or.reduce(sight.wanted, axis=1)
    return some


def _says_none(sight: Sight, rejected: Bools) -> Iterator[Reason]:
    yield Reason("NoDevice", int(rejected.sum()), f"without {device_words(sight.request)}")


def _has_devices(sight: Sight) -> Bools:
    if not sight.request.device_count:
        return sight.everyone
    enough: Bools = _devices_there(sight) >= sight.request.device_count
    return enough


def _devices_there(sight: Sight) -> Ints:
    """[hosts]: how many there are that would do, free or not."""
    there: Ints = sight.wanted.sum(axis=1)
    return there


def _few_devices(request: Request, *, hosts: int, most: int) -> Reason:
    text = f"with fewer than {request.device_count} {device_words(request)} ({best(hosts, most)} there)"
    return Reason("TooFewDevices", hosts, text)


def _has_cores(sight: Sight) -> Bools:
    enough: Bools = sight.cores_sum >= sight.request.milli_cores
    return enough


def _short_of_cores(request: Request, *, hosts: int, most: int) -> Reason:
    text = f"short of {cores_words(request)} ({best(hosts, show_milli(most))} free)"
    return Reason("ShortOfCores", hosts, text)


def _has_memory(sight: Sight) -> Bools:
    enough: Bools = sight.memory_sum >= sight.request.memory_bytes
    return enough


def _short_of_memory(request: Request, *, hosts: int, most: int) -> Reason:
    text = f"short of {memory_words(request)} ({best(hosts, show_bytes(most))} free)"
    return Reason("ShortOfHugepages" if request.page_bytes else "ShortOfMemory", hosts, text)


def _has_free_devices(sight: Sight) -> Bools:
    if not sight.request.device_count:
        return sight.everyone
    if sight.request.device_profile:
        room: Bools = np.logical_or.reduce(sight.wanted & sight.instances.room, axis=1)
        return room
    enough: Bools = sight.usable_count >= sight.request.device_count
    return enough


def _free_devices(sight: Sight) -> Ints:
    """[hosts]: of a share, the thousandths, or bytes, free on one device; else how many devices are."""
    if sight.request.device_milli == WHOLE:
        return sight.usable_count
    free = np.where(sight.wanted, sight.device_milli, 0)
    if sight.request.device_bytes:
        free = free * sight.fleet.device_memory[: sight.size] // WHOLE
    most: Ints = free.max(axis=1, initial=0)
    return most


def _short_of_devices(request: Request, *, hosts: int, most: int) -> Reason:
    if request.device_profile:
        return Reason("ShortOfDevices", hosts, f"short of {device_words(request)} (nothing as large is free)")
    if request.device_milli < WHOLE:
        free = best(hosts, (show_bytes if request.device_bytes else show_milli)(max(0, most)))
        text = f"short of {share_words(request)} ({free} free on one)"
    else:
        text = f"short of {request.device_count} {device_words(request)} ({best(hosts, most)} free)"
    return Reason("ShortOfDevices", hosts, text)


def _in_one_piece(sight: Sight) -> Bools:
    whole: Bools = sight.usable_count > 0 if sight.request.device_profile else sight.everyone
    return whole


def _says_torn(sight: Sight, rejected: Bools) -> Iterator[Reason]:
    text = f"with room for {device_words(sight.request)}, but not in one piece where it may begin"
    yield Reason("Fragmented", int(rejected.sum()), text)


def _shares(sight: Sight) -> Bools:
    shared: Bools = sight.fleet.sharing[: sight.size] if sight.request.device_milli < WHOLE else sight.everyone
    return shared


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
    # A guest would start there without its devices.
    Link(_handing, _plainly("NoPassthrough", "without an IOMMU, so that guests can have no devices")),
    # Engines of several tenants cannot be kept apart there: no sandbox starts.
    Link(_isolated, _plainly("NoIsolation", "without a sandbox for engines")),
    # The engine is not installed there.
    Link(_equipped, _says_engine),
)
"""Who may land where at all, whatever is free there."""

HARDWARE: Sequence[Link] = (
    # The hardware is not there at all, whoever holds it.
    Link(_has_some_device, _says_none),
    _measured(_has_devices, figure=_devices_there, words=_few_devices),
    Link(has_companions, says_companions),
    # It is there in one piece: nothing keeps several claims on it apart.
    Link(_shares, _plainly("NotShared", "whose devices cannot be shared")),
    # Enough over all NUMA nodes; how it lies is looked at last.
    _measured(_has_cores, figure=lambda sight: sight.cores_sum, words=_short_of_cores),
    _measured(_has_memory, figure=lambda sight: sight.memory_sum, words=_short_of_memory),
    # The hardware is there and somebody holds it.
    _measured(_has_free_devices, figure=_free_devices, words=_short_of_devices),
    Link(has_free_companions, says_free_companions),
    # As much is free of a device, and does not lie together.
    Link(_in_one_piece, _says_torn),
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


def judged(sight: Sight, links: Sequence[Link]) -> tuple[Verdicts, Ints]:
    """[hosts]: the first link that each does not pass, by its number, or `FITS` or `ABSENT`; and the figure of which
    that link speaks, where it does."""
    left = sight.fleet.present[: sight.size].copy()
    verdict: Verdicts = np.where(left, FITS, ABSENT).astype(np.uint8)
    figure: Ints = np.zeros(sight.size, dtype=np.int64)
    count = np.count_nonzero(left)
    for number, link in enumerate(links):
        if not count:
            break
        passed = left & link.passes(sight)
        # Of one host that changed most links set nobody aside: that they do not costs next to nothing.
        before, count = count, np.count_nonzero(passed)
        if count < before:
            rejected = left & ~passed
            verdict[rejected] = number
            if link.measure is not None:
                figure[rejected] = link.measure.figure(sight)[rejected]
            left = passed
    return verdict, figure
