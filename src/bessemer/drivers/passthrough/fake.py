"""Devices of a fake host: an emulated device stands for each, so that a real QEMU can be shown a fake host's tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from bessemer.core.errors import DriverError
from bessemer.drivers import Hook, no_hook
from bessemer.drivers.passthrough.protocol import Handed, Wanted

_Properties = Mapping[str, str | int | bool]
STAND_INS: Mapping[str, _Properties] = MappingProxyType(
    {
        "gpu": MappingProxyType({"driver": "edu"}),
        "nic": MappingProxyType({"driver": "e1000e", "romfile": ""}),
        "disk": MappingProxyType({"driver": "virtio-scsi-pci"}),
    }
)
"""By a device's kind, what QEMU emulates in its place."""

OTHER: _Properties = MappingProxyType({"driver": "pci-testdev"})


@dataclass(slots=True)
class FakePciWorld:
    """What is handed over on a fake host, by uid; it outlives the driver objects. ``broken`` devices refuse."""

    handed: dict[str, tuple[Wanted, ...]] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)


class FakePassthrough:
    """Implements `passthrough.protocol.Passthrough`."""

    def __init__(self, world: FakePciWorld | None = None, *, on_call: Hook = no_hook) -> None:
        self.world = world or FakePciWorld()
        self._on_call = on_call

    async def hand(self, uid: str, wanted: Sequence[Wanted]) -> tuple[Handed, ...]:
        self._on_call("passthrough.hand")
        for one in wanted:
            if one.device in self.world.broken:
                raise DriverError("DeviceBusy", f"{one.kind} {one.device} cannot be taken from its driver")
            if any(_disagree(one, other) for has, all_ in self.world.handed.items() if has != uid for other in all_):
                raise DriverError("DeviceBusy", f"{one.kind} {one.device} is another guest's")
        self.world.handed[uid] = tuple(wanted)
        self._on_call("passthrough.hand.done")
        return tuple(
            Handed(one.device, STAND_INS.get(one.kind, OTHER)) for one in wanted for _ in range(max(1, one.functions))
        )

    async def give_back(self, uid: str) -> None:
        self._on_call("passthrough.give_back")
        self.world.handed.pop(uid, None)
        self._on_call("passthrough.give_back.done")

    async def uids(self) -> frozenset[str]:
        return frozenset(self.world.handed)


def _disagree(one: Wanted, other: Wanted) -> bool:
    """Whether they want the same device, and not functions of it each."""
    return one.device == other.device and not (one.functions and other.functions)
