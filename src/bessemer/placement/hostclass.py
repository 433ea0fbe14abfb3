"""`HostClass`: what hosts that are alike have in common, whatever is held there."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from bessemer.placement.facts import HostFacts
from bessemer.placement.shape import Shape


@dataclass(frozen=True, slots=True)
class HostClass:
    """What hosts of a class have in common: all of their inventory that a shape could ask for. ``devices`` are pairs of
    model and count, by model."""

    milli_cores: int
    memory_bytes: int
    devices: tuple[tuple[str, int], ...] = ()

    @property
    def device_count(self) -> int:
        return sum(count for _, count in self.devices)

    def fits(self, shape: Shape) -> bool:
        """Whether an empty host of the class holds one."""
        usable = sum(count for model, count in self.devices if shape.serves(model))
        enough = self.milli_cores >= shape.milli_cores and self.memory_bytes >= shape.memory_bytes
        return enough and usable >= shape.device_count

    @classmethod
    def of(cls, host: HostFacts) -> HostClass:
        """What the host is when it is empty."""
        found = host.inventory
        models = Counter(device.model for device in found.devices if device.kind == "gpu" and device.healthy)
        return cls(found.threads * host.overcommit_milli, found.memory_bytes, tuple(sorted(models.items())))
