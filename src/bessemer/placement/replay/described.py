"""A fleet and what is asked of it, as people describe them: groups of equal hosts, and shapes with how often and for
how long each is wanted. And history: who held what from when to when, a line each. It takes values and opens nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field, ValidationError

from bessemer.core.asking import NumaPolicy, Request
from bessemer.core.errors import Cause, Invalid
from bessemer.core.hosts import Device, Inventory, NumaNode
from bessemer.core.resource import ApiModel
from bessemer.core.units import parse_bytes
from bessemer.placement.facts import HostFacts
from bessemer.placement.replay.stays import Stay
from bessemer.placement.replay.trace import milli_of

HOSTS_MAX = 100_000

Milli = Annotated[int, Field(ge=1, le=1000)]


class HostGroup(ApiModel):
    """Equal hosts."""

    name: str = Field(min_length=1, max_length=100, description="Hosts are called NAME-0, NAME-1 …")
    count: int = Field(ge=0, le=HOSTS_MAX, description="How many.")
    model: str = Field("", max_length=256, description="The model of its devices.")
    devices: int = Field(0, ge=0, le=256, description="Devices of one host.")
    cores: int = Field(ge=1, le=1 << 14, description="Hardware threads of one host.")
    memory: str = Field(description="Memory of one host, as 2Ti.")
    numa: int = Field(1, ge=1, le=64, description="NUMA nodes, among which all is divided evenly.")
    per_switch: int = Field(0, ge=0, le=256, description="Devices under one PCIe switch; 0: none is known.")
    nvlink: bool = Field(False, description="Whether all devices of a host are one NVLink domain.")
    nvlink_partitions: list[Annotated[int, Field(ge=1, le=256)]] = Field(
        default_factory=list,
        max_length=8,
        description="Sizes of the NVLink partitions that each host offers, blocks of so many; none: any devices.",
    )
    leaf_hosts: int = Field(0, ge=0, description="Hosts under one leaf switch; 0: no leaf is known.")
    price: float = Field(0.0, ge=0.0, le=1e6, description="What a device costs for an hour.")

    def hosts(self) -> Iterator[HostFacts]:
        """All of them."""
        memory = parse_bytes(self.memory) // self.numa
        for number in range(self.count):
            nodes = [
                NumaNode(
                    id=n,
                    cores=max(1, self.cores // self.numa // 2),
                    threads=_part(self.cores, parts=self.numa, number=n),
                    memory_bytes=memory,
                )
                for n in range(self.numa)
            ]
            leaf = f"{self.name}-leaf-{number // self.leaf_hosts}" if self.leaf_hosts else ""
            found = Inventory(
                numa=nodes,
                devices=list(self._devices()),
                leaf=leaf,
                virtualization="kvm",
                isolation="strong",
                sharing="time",
                nvlink_partitions=self._partitions(),
            )
            yield HostFacts(name=f"{self.name}-{number}", inventory=found)

    def _partitions(self) -> list[list[str]]:
        return [
            [_device(n) for n in range(start, start + size)]
            for size in sorted(set(self.nvlink_partitions), reverse=True)
            for start in range(0, self.devices - size + 1, size)
        ]

    def _devices(self) -> Iterator[Device]:
        for n in range(self.devices):
            yield Device(
                id=_device(n),
                kind="gpu",
                model=self.model,
                numa_node=n * self.numa // self.devices,
                pcie_switch=f"sw{n // self.per_switch}" if self.per_switch else "",
                nvlink_domain="nv0" if self.nvlink else "",
            )


def _device(number: int) -> str:
    return f"gpu{number:03}"


class AskedShape(ApiModel):
    """What is asked for."""

    weight: float = Field(1.0, gt=0.0, le=1e9, description="How often, beside the others.")
    hours: float = Field(1.0, gt=0.0, le=1e6, description="For how long in the mean.")
    cores: float = Field(1.0, gt=0.0, le=1 << 14, description="Cores.")
    memory: str = Field("1Gi", description="Memory.")
    devices: int = Field(0, ge=0, le=256, description="Devices.")
    milli: Milli = Field(1000, description="Thousandths of the device, where it is a share of one.")
    models: list[str] = Field(default_factory=list, max_length=16, description="Models that will do; none: any.")
    numa: NumaPolicy = Field("preferred", description="Whether all must lie on one NUMA node.")
    same_switch: bool = Field(False, description="Whether all must lie under one PCIe switch.")
    same_nvlink: bool = Field(False, description="Whether all must lie in one NVLink domain.")
    project: str = Field("", max_length=256, description="Whose, as TENANT--PROJECT: who waits in turn shares fairly.")
    priority: int = Field(0, ge=-1000, le=1000, description="Who has more goes first, where they wait in turn.")

    def request(self) -> Request:
        """Raises Invalid for a share of several devices."""
        if self.milli < 1000 and self.devices != 1:
            raise Invalid(f"a share of {self.devices} devices: milli is of one")
        return Request(
            tenant="",
            milli_cores=round(self.cores * 1000),
            memory_bytes=parse_bytes(self.memory),
            device_count=self.devices,
            device_milli=self.milli,
            device_models=frozenset(self.models),
            numa=self.numa,
            same_switch=self.same_switch,
            same_nvlink=self.same_nvlink,
        )


class DescribedFleet(ApiModel):
    """A file of these."""

    currency: str = Field("EUR", pattern="^[A-Z]{3}$", description="Of the prices.")
    groups: list[HostGroup] = Field(min_length=1, max_length=1000, description="What there is.")
    asks: list[AskedShape] = Field(default_factory=list, max_length=10_000, description="What is asked for.")

    @property
    def prices(self) -> dict[str, float]:
        """Of a device for an hour, by model."""
        return {group.model: group.price for group in self.groups if group.devices}

    def hosts(self) -> list[HostFacts]:
        return [host for group in self.groups for host in group.hosts()]

    def with_more(self, more: dict[str, int]) -> DescribedFleet:
        """The same with so many more hosts of each group, or fewer. Raises Invalid for a group that there is not, for
        more hosts than one may have, and for fewer than none."""
        unknown = more.keys() - {group.name for group in self.groups}
        if unknown:
            there = ", ".join(group.name for group in self.groups)
            raise Invalid(f"no group is called {', '.join(sorted(unknown))}; there are {there}")
        for group in self.groups:
            if not 0 <= group.count + more.get(group.name, 0) <= HOSTS_MAX:
                bound = f"a group has {HOSTS_MAX:,} at most" if more[group.name] > 0 else "no more can be left out"
                raise Invalid(f"{group.name} {more[group.name]:+d}: it has {group.count:,} hosts; {bound}")
        groups = [group.model_copy(update={"count": group.count + more.get(group.name, 0)}) for group in self.groups]
        return self.model_copy(update={"groups": groups})


class HistoryLine(ApiModel):
    """A claim that was held. Times are seconds since the epoch; without ``stop`` it still is."""

    start: int = Field(ge=0, description="When it was taken.")
    stop: int | None = Field(None, ge=0, description="When it was let go.")
    tenant: str = Field("", max_length=256, description="Whose.")
    project: str = Field("", max_length=256, description="In which project.")
    workload: str = Field("", max_length=600, description="KIND/NAME.")
    milli_cores: int = Field(0, ge=0, description="Thousandths of cores.")
    memory_bytes: int = Field(0, ge=0, description="Memory.")
    devices: int = Field(0, ge=0, le=256, description="Devices.")
    device_milli: Milli = Field(1000, description="Thousandths of each.")
    model: str = Field("", max_length=256, description="Their model; empty: any would do.")

    def stay(self, origin: int, *, end: int) -> Stay:
        """In hours since ``origin``."""
        wish = Request(
            tenant=self.tenant,
            milli_cores=self.milli_cores,
            memory_bytes=self.memory_bytes,
            device_count=self.devices,
            device_milli=self.device_milli if self.devices == 1 else 1000,
            device_models=frozenset({self.model} if self.model and self.devices else ()),
        )
        stop = end if self.stop is None else self.stop
        return Stay((self.start - origin) / 3600, (max(stop, self.start) - origin) / 3600, wish, self.project)


def _part(whole: int, *, parts: int, number: int) -> int:
    return whole // parts + (number < whole % parts)


def read_fleet(value: Any, *, file: str = "the fleet") -> DescribedFleet:
    """A fleet out of a YAML or JSON value. Raises Invalid with the field."""
    try:
        found = DescribedFleet.model_validate(value)
        for group in found.groups:
            parse_bytes(group.memory)
        for ask in found.asks:
            ask.request()
    except ValidationError as error:
        raise _unreadable(file, error) from error
    except ValueError as error:
        raise Invalid(f"{file}: {error}") from error
    return found


def read_history(lines: Iterable[str], *, file: str = "the history") -> list[HistoryLine]:
    """Lines of JSON; empty ones are passed over. Raises Invalid with the line."""
    found = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                found.append(HistoryLine.model_validate_json(line))
            except ValidationError as error:
                raise _unreadable(f"{file}:{number}", error) from error
    if not found:
        raise Invalid(f"{file}: nothing is in it")
    return sorted(found, key=lambda one: one.start)


def _unreadable(place: str, error: ValidationError) -> Invalid:
    causes = [Cause(".".join(map(str, one["loc"])) or "line", one["msg"]) for one in error.errors(include_url=False)]
    return Invalid(f"{place} cannot be read: {causes[0].field}: {causes[0].message}", causes[:20])


def stays_of(history: Sequence[HistoryLine]) -> tuple[list[Stay], float]:
    """In the order in which they came, in hours since the first; and the hour of the last that is told of."""
    origin = history[0].start
    end = max(max(one.start, one.stop or 0) for one in history)
    return [one.stay(origin, end=end) for one in history], (end - origin) / 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Arrivals that would want ``share`` of all devices were none refused, for ``hours``."""

    share: float
    hours: float


def drawn(asks: Sequence[AskedShape], capacity_milli: int, *, load: Load, dice: np.random.Generator) -> list[Stay]:
    """Poisson arrivals of the shapes by their weights, each with exponential stays. Raises Invalid where nothing asked
    for wants a device."""
    weights = np.array([ask.weight for ask in asks])
    requests = [ask.request() for ask in asks]
    wanted = (
        float(np.dot(weights / weights.sum(), [milli_of(r) * a.hours for r, a in zip(requests, asks, strict=True)]))
        if asks
        else 0.0
    )
    if not wanted:
        raise Invalid("nothing that is asked for wants a device: a load is measured by the devices that are wanted")
    rate = load.share * capacity_milli / wanted
    count = int(dice.poisson(rate * load.hours))
    comes = np.sort(dice.uniform(0.0, load.hours, count))
    which = dice.choice(len(asks), size=count, p=weights / weights.sum())
    lasts = dice.exponential(1.0, count) * np.array([ask.hours for ask in asks])[which]
    return [
        Stay(float(at), float(at + length), requests[n], asks[n].project, asks[n].priority)
        for at, length, n in zip(comes, lasts, which.tolist(), strict=True)
    ]
