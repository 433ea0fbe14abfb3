"""`Shape`: what of a request the hardware must answer, apart from whose it is."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from operator import attrgetter

from bessemer.core.asking import Needs, Request

_needs = attrgetter(*(field.name for field in fields(Needs)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape(Needs):
    """Equal shapes fit and cost the same on every host."""

    @classmethod
    def of(cls, request: Request) -> Shape:
        return cls(*_needs(request))

    def taken(self, milli: int) -> Shape:
        """As it is when it has so many thousandths: that it was asked for in bytes is nothing to who counts."""
        return replace(self, device_bytes=0, device_milli=milli) if self.device_bytes else self

    def serves(self, model: str) -> bool:
        """Whether devices of that model will do."""
        return not self.device_models or model in self.device_models

    @property
    def shared(self) -> bool:
        """Whether it is a share of one device."""
        return self.device_count == 1 and self.device_milli < 1000

    @property
    def milli(self) -> int:
        """Thousandths of devices, all together."""
        return self.device_count * self.device_milli
