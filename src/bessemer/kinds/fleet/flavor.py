"""Flavor: a size that is offered: cores, memory, disk and devices of one replica, and how they must lie together.

What was placed by a flavor keeps what it got: a flavor may change, be withdrawn or go while it is used, and nothing
that runs is touched. It has no control side. Its older version is `flavor_v1alpha1`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from bessemer.core.asking import NumaPolicy
from bessemer.core.beside import PAGE_SIZES, Companion, CpuPolicy, require_apart
from bessemer.core.errors import Cause
from bessemer.core.hosts import DeviceKind
from bessemer.core.resource import ALL, GROUP, READ, ApiModel, Column, Kind, Resource, Status, values_apart
from bessemer.core.units import MIB, TIB, parse_bytes, show_bytes
from bessemer.core.values import nothing
from bessemer.kinds.context import Context
from bessemer.kinds.fields import Bytes, ShortText, at, label_problems
from bessemer.kinds.fleet import flavor_v1alpha1

VERSION = "v1beta1"
MEMORY_MIN, MEMORY_MAX, DISK_MAX = 16 * MIB, 64 * TIB, 1024 * TIB

Nearness = Literal["switch", "nvlink"]


def _in_order(near: list[Nearness]) -> list[Nearness]:
    return sorted(set(near), reverse=True)


class FlavorDevices(ApiModel):
    """The accelerators of one replica."""

    count: int = Field(ge=1, le=64, description="How many; of a share or an instance 1.")
    model: ShortText = Field("", description="As hosts report it; any model when empty.")
    # Left out where they say nothing: a release that does not know them reads a flavor of whole devices as well.
    share: str = Field(
        "",
        pattern=r"^(0\.[0-9]{1,3})?$",
        exclude_if=nothing,
        description="A share of one device in place of all of it, as 0.25; where hosts can share devices.",
    )
    memory: Bytes = Field(
        "0",
        exclude_if=lambda said: said == "0",
        description="A share with so much of one device's memory, as 20Gi, whatever part of it that is; 0 is none.",
    )
    profile: str = Field(
        "",
        max_length=63,
        exclude_if=nothing,
        description="An instance of one device in place of all of it, as hosts report them: 1g.10gb.",
    )
    together: Annotated[list[Nearness], AfterValidator(_in_order)] = Field(
        default_factory=list,
        max_length=16,
        description="What all of them must share: one PCIe switch, one NVLink domain.",
        json_schema_extra=values_apart(),
    )

    @property
    def memory_bytes(self) -> int:
        """Of one device, where a share is asked for so; else 0."""
        return parse_bytes(self.memory)

    @property
    def milli(self) -> int:
        """Thousandths of each; of a share in bytes one, for it is no less."""
        if self.memory_bytes:
            return 1
        return int(self.share.removeprefix("0.").ljust(3, "0")) if self.share else 1000


class FlavorCompanion(ApiModel):
    """What lies beside the accelerators of one replica: network cards or functions of them, disks, whatever hosts
    report."""

    kind: DeviceKind = Field(description="As hosts report it: nic, disk.")
    count: int = Field(1, ge=1, le=64, description="How many, each another.")
    model: ShortText = Field("", description="As hosts report it; any model when empty.")
    functions: int = Field(0, ge=0, le=1024, description="How many virtual functions of each; 0: each whole.")
    near: Literal["anywhere", "node", "switch"] = Field(
        "anywhere",
        description="Where it lies: under the accelerators' PCIe switch, or on their NUMA node, each its own.",
    )
    distinct_rails: bool = Field(False, description="Whether no two may be on one rail of the fabric.")

    def wanted(self) -> Companion:
        """As placement knows it."""
        return Companion(
            kind=self.kind,
            count=self.count,
            models=frozenset({self.model} if self.model else ()),
            functions=self.functions,
            rails=self.distinct_rails,
            near="" if self.near == "anywhere" else self.near,
        )


class FlavorSpec(ApiModel):
    description: ShortText = Field("", description="What it is good for.")
    offered: bool = Field(True, description="False withdraws it: nothing new is placed by it, what stands stays.")
    cores: int = Field(ge=1, le=4096, description="Hardware threads, as quotas and prices count them.")
    memory: Bytes = Field(description="Memory, as 512Mi or 1.5Gi.")
    disk: Bytes = Field("0", description="A disk of its own, as 10Gi; 0 is none.")
    devices: FlavorDevices | None = Field(None, description="Its accelerators; none when absent.")
    numa: NumaPolicy = Field("preferred", description="Whether all must lie on one NUMA node.")
    companions: list[FlavorCompanion] = Field(
        default_factory=list,
        max_length=8,
        exclude_if=nothing,
        description="Network cards, disks and the like, beside its accelerators.",
    )
    cpu_policy: CpuPolicy = Field(
        "shared",
        exclude_if=lambda said: said == "shared",
        description="Cores: time on those that others use, hardware threads of its own, or whole physical cores.",
    )
    hugepages: Bytes = Field(
        "0",
        exclude_if=lambda said: said == "0",
        description="Size of the huge pages that its memory lies in, as 1Gi; 0 is none.",
    )


class FlavorStatus(Status):
    pass


class Flavor(Resource[FlavorSpec, FlavorStatus]):
    KIND = "Flavor"

    api_version: str = f"{GROUP}/{VERSION}"
    status: FlavorStatus = Field(default_factory=FlavorStatus)


def validate(new: Flavor, old: Flavor | None) -> Sequence[Cause]:
    """Sizes that some host could have."""
    causes = [] if old else [*label_problems(new.metadata.name)]
    causes += _size_problems("spec.memory", new.spec.memory, least=MEMORY_MIN, most=MEMORY_MAX)
    causes += _size_problems("spec.disk", new.spec.disk, least=0, most=DISK_MAX)
    causes += [*_page_problems(new.spec), *_companion_problems(new.spec)]
    return [*causes, *_part_problems(new.spec.devices)] if new.spec.devices else causes


def _page_problems(spec: FlavorSpec) -> Iterator[Cause]:
    size = parse_bytes(spec.hugepages)
    if size and size not in PAGE_SIZES:
        yield Cause("spec.hugepages", f"must be one of {', '.join(map(show_bytes, PAGE_SIZES))}")
    elif size and parse_bytes(spec.memory) % size:
        yield Cause("spec.memory", f"must be a multiple of its huge pages of {spec.hugepages}")


def _companion_problems(spec: FlavorSpec) -> Iterator[Cause]:
    wanted: list[Companion] = []
    for index, one in enumerate(spec.companions):
        wanted.append(one.wanted())
        try:
            require_apart(wanted[-1:], devices=spec.devices.count if spec.devices else 0)
            require_apart([replace(other, near="") for other in wanted], devices=0)
        except ValueError as error:
            yield Cause(f"spec.companions[{index}]", str(error))
            wanted.pop()


def _part_problems(devices: FlavorDevices) -> Iterator[Cause]:
    """A part is of one device, and either a share or an instance."""
    if devices.share and devices.profile:
        yield Cause("spec.devices.share", "is no instance: name a share or a profile")
    sized = devices.memory_bytes > 0
    if sized and (devices.share or devices.profile):
        yield Cause("spec.devices.memory", "says how large a share is: name no share or profile beside it")
    if sized:
        yield from _size_problems("spec.devices.memory", devices.memory, least=MIB, most=MEMORY_MAX)
    if (devices.share or devices.profile or sized) and devices.count != 1:
        yield Cause("spec.devices.count", "is 1 of what is a part of one device")
    if not devices.milli:
        yield Cause("spec.devices.share", "is nothing; at least 0.001")


def _size_problems(path: str, text: str, *, least: int, most: int) -> Iterator[Cause]:
    if not least <= parse_bytes(text) <= most:
        yield Cause(path, f"must be between {least >> 20}Mi and {most >> 40}Ti")


def _part(body: Mapping[str, Any]) -> str:
    """Which part of a device, as ``0.25``, ``20Gi`` or ``1g.10gb``; "" where they are whole."""
    devices = body.get("spec", {}).get("devices") or {}
    return str(devices.get("share") or devices.get("memory") or devices.get("profile") or "")


KIND: Kind[Context, Flavor] = Kind(
    resource=Flavor,
    plural="flavors",
    namespaced=False,
    short_names=("flv",),
    rights={"admin": ALL, "operator": ALL, "anyone": READ, "tenant-admin": READ, "member": READ, "reader": READ},
    version=VERSION,
    older=(flavor_v1alpha1.V1ALPHA1,),
    validate=validate,
    columns=(
        Column(name="Cores", value=at("spec", "cores"), type="integer"),
        Column(name="Memory", value=at("spec", "memory")),
        Column(name="Disk", value=at("spec", "disk", default="0")),
        Column(name="Devices", value=at("spec", "devices", "count", default=0), type="integer"),
        Column(name="Model", value=at("spec", "devices", "model", default="")),
        Column(name="Part", value=_part, wide=True),
        Column(name="Offered", value=at("spec", "offered", default=True), type="boolean", wide=True),
        Column(name="NUMA", value=at("spec", "numa", default="preferred"), wide=True),
        Column(name="Description", value=at("spec", "description", default=""), wide=True),
    ),
)
