"""`Shape`: what of a request the hardware must answer, apart from whose it is."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bessemer.core.asking import NumaPolicy, Request
from bessemer.core.beside import Companion, CpuPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Equal shapes fit and cost the same on every host. ``device_milli`` are thousandths of each device: below 1000 it
    is a share of one; with a ``profile`` it is one instance, with ``device_bytes`` a share with so much memory.
    ``models`` are those that will do; none: any."""

    milli_cores: int
    memory_bytes: int
    device_count: int = 0
    device_milli: int = 1000
    profile: str = ""
    models: frozenset[str] = frozenset()
    numa: NumaPolicy = "preferred"
    same_switch: bool = False
    same_nvlink: bool = False
    companions: tuple[Companion, ...] = ()
    cpu_policy: CpuPolicy = "shared"
    page_bytes: int = 0
    device_bytes: int = 0

    @classmethod
    def of(cls, request: Request) -> Shape:
        return cls(
            milli_cores=request.milli_cores,
            memory_bytes=request.memory_bytes,
            device_count=request.device_count,
            device_milli=request.device_milli,
            profile=request.device_profile,
            models=request.device_models,
            numa=request.numa,
            same_switch=request.same_switch,
            same_nvlink=request.same_nvlink,
            companions=request.companions,
            cpu_policy=request.cpu_policy,
            page_bytes=request.page_bytes,
            device_bytes=request.device_bytes,
        )

    def taken(self, milli: int) -> Shape:
        """As it is when it has so many thousandths: that it was asked for in bytes is nothing to who counts."""
        return replace(self, device_bytes=0, device_milli=milli) if self.device_bytes else self

    @property
    def shared(self) -> bool:
        """Whether it is a share of one device."""
        return self.device_count == 1 and self.device_milli < 1000

    @property
    def milli(self) -> int:
        """Thousandths of devices, all together."""
        return self.device_count * self.device_milli
