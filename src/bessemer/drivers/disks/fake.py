"""Disks in memory, with a capacity that can be filled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bessemer.core.errors import DriverError
from bessemer.drivers import Hook, no_hook
from bessemer.drivers.disks.protocol import SEED_LIMIT_BYTES, DiskPaths, Space

_DISK_BYTES = 200 << 10
"""What an empty disk occupies."""


@dataclass(slots=True)
class FakeDiskWorld:
    """The disks of a fake host; they outlive the driver objects that are made on it. ``full`` refuses every write."""

    capacity_bytes: int = 4 << 40
    full: bool = False
    sizes: dict[str, int] = field(default_factory=dict)
    seeds: dict[str, Mapping[str, str]] = field(default_factory=dict)


class FakeDisks:
    """Implements `disks.protocol.Disks`. Paths name nothing on this machine."""

    def __init__(self, world: FakeDiskWorld | None = None, *, on_call: Hook = no_hook) -> None:
        self.world = world or FakeDiskWorld()
        self._on_call = on_call

    async def create(self, uid: str, size_bytes: int) -> Path:
        self._on_call("disks.create")
        self._refuse_when_full()
        self.world.sizes[uid] = max(size_bytes, self.world.sizes.get(uid, 0))
        self._on_call("disks.create.done")
        return _root(uid)

    async def seed(self, uid: str, files: Mapping[str, str]) -> Path:
        self._on_call("disks.seed")
        if sum(len(text.encode()) for text in files.values()) > SEED_LIMIT_BYTES:
            raise ValueError("the seed is too large")
        self._refuse_when_full()
        self.world.seeds[uid] = dict(files)
        self._on_call("disks.seed.done")
        return _seed(uid)

    async def paths(self, uid: str) -> DiskPaths:
        return DiskPaths(
            root=_root(uid) if uid in self.world.sizes else None, seed=_seed(uid) if uid in self.world.seeds else None
        )

    async def remove(self, uid: str) -> None:
        self._on_call("disks.remove")
        self.world.sizes.pop(uid, None)
        self.world.seeds.pop(uid, None)
        self._on_call("disks.remove.done")

    async def uids(self) -> frozenset[str]:
        return frozenset({*self.world.sizes, *self.world.seeds})

    async def space(self) -> Space:
        used = _DISK_BYTES * len(self.world.sizes)
        free = 0 if self.world.full else self.world.capacity_bytes - used
        return Space(self.world.capacity_bytes, free, sum(self.world.sizes.values()))

    def _refuse_when_full(self) -> None:
        if self.world.full:
            raise DriverError("DiskFull", "the host's disk is full")


def _root(uid: str) -> Path:
    return Path("/fake/disks") / uid / "root.qcow2"


def _seed(uid: str) -> Path:
    return Path("/fake/disks") / uid / "seed.iso"
