"""What a request may ask for beside devices, ordinary memory and time on cores, and what of it is taken.

Of what stands here everything crosses between store, placement and kinds, as that of `values` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

from pydantic import Field

from bessemer.core.resource import ApiModel

CpuPolicy = Literal["shared", "threads", "cores"]
"""Of cores: time on those that others use as well; hardware threads of its own; physical cores of its own, with all
their threads."""

Nearness = Literal["", "switch", "node"]
"""How near something lies to the devices: anywhere, under a PCIe switch of theirs, on a NUMA node of theirs."""

PAGE_SIZES = tuple(1 << bits for bits in (16, 20, 21, 24, 25, 29, 30, 31, 34))
"""Sizes of huge pages in bytes, as the architectures have them that Linux runs on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Companion:
    """``count`` devices of a kind beside the request's own, each another: whole, or ``functions`` virtual functions of
    each. ``models`` are those that will do; none: any. ``rails``: no two on one rail. ``near`` "switch": each lies
    under a PCIe switch with devices of the request, and each such switch has one; "node": likewise of NUMA nodes."""

    kind: str
    count: int = 1
    models: frozenset[str] = frozenset()
    functions: int = 0
    rails: bool = False
    near: Nearness = ""

    def __post_init__(self) -> None:
        if self.count < 1 or self.functions < 0:
            raise ValueError(f"{self.count} companions with {self.functions} functions of each")


class CompanionAsked(ApiModel):
    """A `Companion` as a claim keeps it."""

    kind: str = Field(description="What it is.")
    count: int = Field(1, description="How many.")
    models: list[str] = Field(default_factory=list, description="Models that would have done; none: any.")
    functions: int = Field(0, description="How many virtual functions of each; 0: each whole.")
    rails: bool = Field(False, description="Whether no two were to be on one rail.")
    near: Nearness = Field("", description="How near the devices they had to lie.")

    @classmethod
    def of(cls, one: Companion) -> CompanionAsked:
        return cls(**{asked.name: getattr(one, asked.name) for asked in fields(one)} | {"models": sorted(one.models)})

    def wanted(self) -> Companion:
        """What was asked for. Raises ValueError."""
        said = {name: getattr(self, name) for name in type(self).model_fields}
        return Companion(**{**said, "models": frozenset(self.models)})


def require_apart(companions: Sequence[Companion], *, devices: int) -> None:
    """That no device could be of two of them, and that none wants to be near what is not asked for. Raises
    ValueError."""
    for index, one in enumerate(companions):
        if one.kind == "gpu":
            raise ValueError("GPUs are the devices of a request, and not beside them")
        if one.near and not devices:
            raise ValueError(f"{one.kind} near devices, of which there are none")
        for other in companions[:index]:
            if one.kind == other.kind and not (one.models and other.models and one.models.isdisjoint(other.models)):
                raise ValueError(f"{one.kind} is asked for twice, and one may be the other")


class CompanionUse(ApiModel):
    """A device beside the others, or functions of it."""

    kind: str = Field(description="What it is.")
    device: str = Field(description="Its id on the host.")
    functions: int = Field(0, description="How many virtual functions of it; 0: it whole.")
    address: str = Field("", description="Its PCI address, or its functions' device's.")


class PciPlace(ApiModel):
    """Where a device of a claim hangs, so that a guest can be shown the same tree: root of a node, switch, device."""

    device: str = Field(description="Its id on the host.")
    kind: str = Field(description="What it is.")
    address: str = Field("", description="Its PCI address.")
    switch: str = Field("", description="The PCIe switch above it; empty where it hangs from the root.")
    numa_node: int = Field(0, description="The NUMA node of that root.")
