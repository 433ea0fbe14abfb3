"""Flavor: a size that is offered: cores, memory, disk and devices of one replica, and how they must lie together.

What was placed by a flavor keeps what it got: a flavor may change or go while it is used, and nothing that runs is
touched. It has no control side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import Field

from bessemer.core.errors import Cause
from bessemer.core.resource import ALL, READ, ApiModel, Column, Kind, Resource, Status
from bessemer.core.units import MIB, TIB, parse_bytes
from bessemer.core.values import NumaPolicy
from bessemer.kinds.context import Context
from bessemer.kinds.fields import Bytes, ShortText, at, label_problems

MEMORY_MIN, MEMORY_MAX, DISK_MAX = 16 * MIB, 64 * TIB, 1024 * TIB


class FlavorSpec(ApiModel):
    description: ShortText = Field("", description="What it is good for.")
    cpus: int = Field(ge=1, le=4096, description="Hardware threads.")
    memory: Bytes = Field(description="Memory, as 512Mi or 1.5Gi.")
    disk: Bytes = Field("0", description="A disk of its own, as 10Gi; 0 is none.")
    gpus: int = Field(0, ge=0, le=64, description="Whole GPUs.")
    gpu_model: ShortText = Field("", description="As hosts report it; any model when empty.")
    numa: NumaPolicy = Field("preferred", description="Whether all must lie on one NUMA node.")
    same_switch: bool = Field(False, description="All devices below one PCIe switch.")
    same_nvlink: bool = Field(False, description="All devices in one NVLink domain.")


class FlavorStatus(Status):
    pass


class Flavor(Resource[FlavorSpec, FlavorStatus]):
    KIND = "Flavor"

    status: FlavorStatus = Field(default_factory=FlavorStatus)


def validate(new: Flavor, old: Flavor | None) -> Sequence[Cause]:
    """Sizes that some host could have, and no wish about devices where there are none."""
    causes = [] if old else [*label_problems(new.metadata.name)]
    causes += _size_problems("spec.memory", new.spec.memory, least=MEMORY_MIN, most=MEMORY_MAX)
    causes += _size_problems("spec.disk", new.spec.disk, least=0, most=DISK_MAX)
    if new.spec.gpus == 0:
        for field, wish in (
            ("gpuModel", new.spec.gpu_model),
            ("sameSwitch", new.spec.same_switch),
            ("sameNvlink", new.spec.same_nvlink),
        ):
            if wish:
                causes.append(Cause(f"spec.{field}", "means nothing without spec.gpus"))
    return causes


def _size_problems(path: str, text: str, *, least: int, most: int) -> Iterator[Cause]:
    if not least <= parse_bytes(text) <= most:
        yield Cause(path, f"must be between {least >> 20}Mi and {most >> 40}Ti")


KIND: Kind[Context, Flavor] = Kind(
    resource=Flavor,
    plural="flavors",
    namespaced=False,
    short_names=("flv",),
    rights={"admin": ALL, "operator": ALL, "anyone": READ, "tenant-admin": READ, "member": READ, "reader": READ},
    validate=validate,
    columns=(
        Column(name="CPUs", value=at("spec", "cpus"), type="integer"),
        Column(name="Memory", value=at("spec", "memory")),
        Column(name="Disk", value=at("spec", "disk", default="0")),
        Column(name="GPUs", value=at("spec", "gpus", default=0), type="integer"),
        Column(name="Model", value=at("spec", "gpuModel", default="")),
        Column(name="NUMA", value=at("spec", "numa", default="preferred"), wide=True),
        Column(name="Description", value=at("spec", "description", default=""), wide=True),
    ),
)
