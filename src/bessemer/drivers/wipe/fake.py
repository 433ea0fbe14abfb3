"""Disks of a fake host, as many bytes as they are said to have: only what was written is kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from bessemer.core.errors import DriverError
from bessemer.drivers import Hook, no_hook
from bessemer.drivers.passthrough.fake import FakePassthrough, FakePciWorld
from bessemer.drivers.wipe.handing import CleanPassthrough
from bessemer.drivers.wipe.protocol import Found, Way
from bessemer.drivers.wipe.records import MemoryRecords
from bessemer.drivers.wipe.wipes import Wipes

_BLOCK = 4096
ITSELF, DISCARD, OVERWRITE = (
    Way("a fake format"),
    Way("discard", zeros=True, advice=True),
    Way("overwriting with zeros", zeros=True),
)


@dataclass(slots=True)
class FakeDisk:
    """``blocks`` by number, of what is not zeros. ``lazy`` ones say that they erased and did not; of those ``ways``."""

    size_bytes: int = 3_840_755_982_336
    ways: tuple[Way, ...] = (ITSELF, DISCARD, OVERWRITE)
    lazy: frozenset[str] = frozenset()
    in_use: bool = False
    wwid: str = ""
    blocks: dict[int, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class FakeMediaWorld:
    """The disks by PCI address; one that nobody described is there when it is looked for. ``pci`` has what is handed
    over, which the host does not see."""

    disks: dict[str, FakeDisk] = field(default_factory=dict)
    pci: FakePciWorld = field(default_factory=FakePciWorld)
    records: MemoryRecords = field(default_factory=MemoryRecords)
    step_bytes: int = 1 << 50


class FakeMedia:
    """Implements `wipe.protocol.Media`."""

    def __init__(self, world: FakeMediaWorld | None = None) -> None:
        self.world = world or FakeMediaWorld()

    def look(self, address: str) -> Found:
        disk = self._idle(address)
        return Found(disk.wwid, disk.size_bytes)

    @contextmanager
    def open(self, address: str, was: Found | None) -> Iterator[FakeMedium]:
        disk = self._idle(address)
        if was is not None and (was.size_bytes != disk.size_bytes or was.wwid not in ("", disk.wwid)):
            raise DriverError("DiskChanged", f"the disk at {address} is another, or not as large as it was")
        yield FakeMedium(disk, self.world.step_bytes)

    def _idle(self, address: str) -> FakeDisk:
        disk = self._disk(address)
        if disk.in_use:
            raise DriverError("DiskInUse", f"the disk at {address} is in use by the host")
        return disk

    def _disk(self, address: str) -> FakeDisk:
        if any(one.address == address for each in self.world.pci.handed.values() for one in each):
            raise DriverError("DiskMissing", f"the host's kernel shows no disk at {address}")
        return self.world.disks.setdefault(address, FakeDisk())


class FakeMedium:
    """Implements `wipe.protocol.Medium`."""

    def __init__(self, disk: FakeDisk, step_bytes: int) -> None:
        self._disk = disk
        self._step = step_bytes

    @property
    def size_bytes(self) -> int:
        return self._disk.size_bytes

    def ways(self) -> tuple[Way, ...]:
        return self._disk.ways

    def erase(self, way: str, done_bytes: int) -> int:
        end = min(self.size_bytes, done_bytes + self._step)
        if way not in self._disk.lazy:
            first, last = done_bytes // _BLOCK, -(-end // _BLOCK)
            self._disk.blocks = {at: data for at, data in self._disk.blocks.items() if not first <= at < last}
        return end

    def read(self, offset: int, length: int) -> bytes:
        length = min(length, self.size_bytes - offset)
        first, last = offset // _BLOCK, -(-(offset + length) // _BLOCK)
        if not any(first <= at < last for at in self._disk.blocks):
            return bytes(length)
        data = b"".join(self._disk.blocks.get(at, bytes(_BLOCK)) for at in range(first, last))
        return data[offset - first * _BLOCK :][:length]

    def write(self, offset: int, data: bytes) -> None:
        first, last = offset // _BLOCK, -(-(offset + len(data)) // _BLOCK)
        before, after = offset - first * _BLOCK, last * _BLOCK - offset - len(data)
        whole = bytearray(self.read(first * _BLOCK, (last - first) * _BLOCK).ljust((last - first) * _BLOCK, b"\0"))
        whole[before : len(whole) - after] = data
        for at in range(first, last):
            self._disk.blocks[at] = bytes(whole[(at - first) * _BLOCK :][:_BLOCK])

    def flush(self) -> None:
        """There is nothing to do."""


@dataclass(frozen=True, slots=True)
class FakeLending:
    """A fake host's devices, and the disks among them."""

    passthrough: CleanPassthrough
    wipes: Wipes


def fake_lending(world: FakeMediaWorld | None = None, *, on_call: Hook = no_hook) -> FakeLending:
    """The drivers over that world, as an agent has them."""
    media = FakeMedia(world)
    wipes = Wipes(media.world.records, media, on_call=on_call)
    return FakeLending(CleanPassthrough(FakePassthrough(media.world.pci, on_call=on_call), wipes), wipes)
