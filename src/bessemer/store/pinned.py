"""What a claim takes that no row counts: hardware threads by number, huge pages, companions and functions of them.

It is held against what its Host reports and what the Claims say that stand there, with the host's row kept to this
transaction, so that of two that want the same one comes first. Few claims are of this sort, and few stand on one host;
counts of it in rows would have to follow each of them through every change of its host.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import select, update

from bessemer.core.asking import Allocation
from bessemer.core.beside import CompanionUse
from bessemer.core.cpus import parse_cpus, parse_each
from bessemer.core.errors import Taken
from bessemer.core.resource import Key
from bessemer.core.values import ClaimSpec
from bessemer.store.beside import carried_alone
from bessemer.store.documents import Document, decode
from bessemer.store.kinds import CLAIM, HOST
from bessemer.store.rows import find
from bessemer.store.schema import filled, hosts, objects, of
from bessemer.store.transaction import Tx

_KEEP = update(hosts).values(schedulable=hosts.c.schedulable).where(of(hosts.c.host))
_STANDING = select(objects.c.body).where(of(objects.c.kind), of(objects.c.host), filled(objects.c.host))

_SCHEMA = 8
_NEW = frozenset({"asked", "companions", "ends", "movable", "preemptible", "priority", "since", "tree"})
_NEW_OF_PART = frozenset({"cpus", "pageBytes", "spareMilliCores"})
"""What a Claim and its allocations say since that schema."""

_Report = Mapping[str, Any]


def keep(tx: Tx, spec: ClaimSpec) -> None:
    """Nobody else takes such things of this host until the transaction ends. Before any other row of the host."""
    if spec.pinned:
        tx.run(_KEEP, of_host=spec.host)


def told(tx: Tx, spec: ClaimSpec, *, said: Document) -> Document:
    """What is stored of a Claim: while a release serves that refuses what it does not know, only what that reads, so
    that it can run the Claim and let it go. Raises Taken where it would miss something that is taken."""
    if carried_alone(tx, _SCHEMA):
        return said
    if spec.pinned:
        raise Taken("nothing beside devices is given while a release serves which knows nothing of it")
    parts = [{k: v for k, v in part.items() if k not in _NEW_OF_PART} for part in said["spec"]["allocations"]]
    rest = {name: value for name, value in said["spec"].items() if name not in _NEW}
    return {**said, "spec": {**rest, "allocations": parts}}


def require_free(tx: Tx, spec: ClaimSpec) -> None:
    """That nobody has what the claim names, and that it is there. Raises Taken."""
    if not spec.pinned:
        return
    host = find(tx, Key(HOST, "", spec.host))
    document = host.document() if host is not None else {}
    report = document.get("status", {}).get("report") or {}
    overcommit = int(document.get("spec", {}).get("overcommitMilli", 1000))
    standing = [decode(body)["spec"] for (body,) in tx.all(_STANDING, of_kind=CLAIM, of_host=spec.host)]
    parts = [Allocation.model_validate(part) for other in standing for part in other.get("allocations", ())]
    uses = [CompanionUse.model_validate(use) for other in standing for use in other.get("companions", ())]
    for trouble in (
        *_threads(spec, report, held=parts, overcommit=overcommit),
        *_pages(spec, report, held=parts),
        *_companions(spec.companions, report, held=uses),
    ):
        raise Taken(f"{trouble} of host {spec.host}")


def _threads(spec: ClaimSpec, report: _Report, *, held: Iterable[Allocation], overcommit: int) -> Iterator[str]:
    own: Counter[int] = Counter()
    for part in (*held, *spec.allocations):
        own.update(parse_cpus(part.cpus))
    known = {node["id"]: _cpus(node.get("siblings", ())) for node in report.get("numa", ())}
    for part in spec.allocations:
        cpus = parse_cpus(part.cpus)
        if any(own[cpu] > 1 for cpu in cpus):
            yield f"some of the hardware threads {part.cpus} went to another claim"
        if not set(cpus) <= known.get(part.numa_node, set()):
            yield f"some of the hardware threads {part.cpus} are not on NUMA node {part.numa_node}"
        if len(cpus) * overcommit > part.taken_milli_cores:
            yield f"a hardware thread is sold {overcommit} thousandths of a time by now, more than was reckoned with,"


def _pages(spec: ClaimSpec, report: _Report, *, held: Iterable[Allocation]) -> Iterator[str]:
    used: Counter[tuple[int, int]] = Counter()
    for part in (*held, *spec.allocations):
        used[part.numa_node, part.page_bytes] += part.memory_bytes
    there = {
        (node["id"], int(size)): int(size) * count
        for node in report.get("numa", ())
        for size, count in node.get("hugepages", {}).items()
    }
    for part in spec.allocations:
        place = part.numa_node, part.page_bytes
        if part.page_bytes and used[place] > there.get(place, 0):
            yield f"no {part.memory_bytes} bytes are left in huge pages of {part.page_bytes} on NUMA node {place[0]}"


def _companions(wanted: Sequence[CompanionUse], report: _Report, *, held: Sequence[CompanionUse]) -> Iterator[str]:
    devices = {device["id"]: device for device in report.get("devices", ())}
    whole = Counter(use.device for use in (*held, *wanted) if not use.functions)
    used: Counter[str] = Counter()
    for use in (*held, *wanted):
        used[use.device] += use.functions
    for use in wanted:
        device = devices.get(use.device)
        if device is None or not device.get("healthy", True) or device.get("inUse", False):
            yield f"{use.kind} {use.device} is not there, or not healthy,"
        elif whole[use.device] + bool(used[use.device]) > 1:
            yield f"{use.kind} {use.device} went to another claim"
        elif used[use.device] > device.get("functions", 0):
            yield f"no {use.functions} functions are left of {use.kind} {use.device}"


def _cpus(siblings: Iterable[str]) -> set[int]:
    """Threads that are known; of a report that makes no sense none are."""
    try:
        return {cpu for core in parse_each(siblings) for cpu in core}
    except ValueError:
        return set()
