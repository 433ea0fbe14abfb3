"""Checks of what a Claim takes that no row counts (`pinned`): of Claims against each other, against what their Host
reports, and against the rows that there are.

What a Host does not report any more is no fault: a card that died under a Claim is its Host's to tell, and stays the
Claim's. What it reports, and less of than Claims have, is one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from sqlalchemy import select

from bessemer.core.beside import CompanionUse
from bessemer.core.cpus import parse_cpus, parse_each, show_cpus
from bessemer.core.values import ClaimSpec
from bessemer.store.schema import devices as device_rows
from bessemer.store.snapshot import Snapshot
from bessemer.store.tally import Survey, Tally

_TAKEN = select(device_rows.c.host, device_rows.c.device, device_rows.c.kind, device_rows.c.claim)


def threads(_snapshot: Snapshot, survey: Survey) -> Tally:
    """Hardware threads by number."""
    tally = Tally("threads", "a hardware thread is one Claim's own, is on its node, and takes of that what it is")
    owners: dict[tuple[str, int], str] = {}
    for key, spec in survey.claims.values():
        for part in (part for part in spec.allocations if part.cpus):
            words = f"{key}: node {part.numa_node} of {spec.host}"
            try:
                cpus = parse_cpus(part.cpus)
            except ValueError:
                tally.require(False, f"{words}: {part.cpus[:64]} are no hardware threads")
                continue
            twice = {cpu: owners[spec.host, cpu] for cpu in cpus if (spec.host, cpu) in owners}
            also = f"{words}: threads {show_cpus(twice)} are {', '.join(sorted(set(twice.values())))}'s, too"
            tally.require(not twice, also)
            owners |= {(spec.host, cpu): str(key) for cpu in cpus}
            known = _threads_of(survey.reports.get(spec.host, {}), part.numa_node)
            if known and not known.issuperset(cpus):
                tally.fault(f"{words}: threads {show_cpus(set(cpus) - known)} are not on it")
            if part.taken_milli_cores < 1000 * len(cpus):
                tally.fault(f"{words}: {len(cpus)} threads of its own, and {part.taken_milli_cores} milli-cores taken")
    return tally


def hugepages(_snapshot: Snapshot, survey: Survey) -> Tally:
    """Huge pages by node and size."""
    tally = Tally("hugepages", "no more memory is in huge pages of a node than it has of that size")
    used: Counter[tuple[str, int, int]] = Counter()
    for key, spec in survey.claims.values():
        for part in (part for part in spec.allocations if part.page_bytes):
            used[spec.host, part.numa_node, part.page_bytes] += part.memory_bytes
            words = f"{key}: {part.memory_bytes} bytes do not lie in pages of {part.page_bytes}"
            tally.require(part.memory_bytes % part.page_bytes == 0, words)
    for (host, number, size), taken in used.items():
        node = _node(survey.reports.get(host, {}), number)
        there = size * int(node.get("hugepages", {}).get(str(size), 0)) if node is not None else taken
        words = f"{host} node {number}: {taken} bytes in pages of {size}, and it has {there}"
        tally.require(taken <= there, words)
    return tally


def companions(snapshot: Snapshot, survey: Survey) -> Tally:
    """Devices beside the others, and functions of them."""
    tally = Tally("companions", "a companion is one Claim's whole or its functions are several's, as its Host reports")
    whole: dict[tuple[str, str], str] = {}
    functions: Counter[tuple[str, str]] = Counter()
    kinds: dict[tuple[str, str], str] = {}
    for key, spec in survey.claims.values():
        for use in spec.companions:
            place = spec.host, use.device
            words = f"{key}: {spec.host}/{use.device}"
            kinds[place] = use.kind
            tally.require(use.functions > 0 or place not in whole, f"{words} is {whole.get(place)}'s, too")
            tally.require(use.device not in spec.devices, f"{words} is beside its devices, and one of them")
            functions[place] += use.functions
            if not use.functions:
                whole[place] = str(key)
        for trouble in _untold(spec):
            tally.fault(f"{key}: {trouble}")
    reported = {(host, one["id"]): one for host, report in survey.reports.items() for one in report.get("devices", ())}
    for place, used in functions.items():
        words = "/".join(place)
        if used and place in whole:
            tally.fault(f"{words}: {whole[place]}'s whole, and {used} functions of it are others'")
        there = reported.get(place)
        if there is not None and used > there.get("functions", 0):
            tally.fault(f"{words}: {used} functions taken, and it has {there.get('functions', 0)}")
    for host, device, kind, claim in snapshot.rows(_TAKEN):
        if (named := kinds.get((host, device))) is not None:
            tally.require(not claim, f"{host}/{device}: beside a Claim's devices, and taken as one by its row")
            tally.require(kind == named, f"{host}/{device}: is a {kind}, and taken as a {named}")
    return tally


def _untold(spec: ClaimSpec) -> list[str]:
    """Where the tree that a guest is shown is another than what the Claim has; older Claims say none."""
    if not spec.tree:
        return []
    shown, has = {place.device for place in spec.tree}, {*spec.devices, *map(_device, spec.companions)}
    more = [f"its tree shows {device}, which it has not" for device in sorted(shown - has)]
    return more + [f"its tree does not show {device}" for device in sorted(has - shown)]


def _device(use: CompanionUse) -> str:
    return use.device


def _node(report: Mapping[str, Any], number: int) -> Mapping[str, Any] | None:
    return next((node for node in report.get("numa", ()) if node["id"] == number), None)


def _threads_of(report: Mapping[str, Any], number: int) -> set[int]:
    """Those that the Host says are on the node; of a report that makes no sense none are known."""
    node = _node(report, number)
    try:
        return {cpu for core in parse_each((node or {}).get("siblings", ())) for cpu in core}
    except ValueError:
        return set()
