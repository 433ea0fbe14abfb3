"""Block devices of this machine, opened for whoever wipes them alone.

``O_EXCL`` is the kernel's own word that nobody has a disk: what is mounted anywhere, swapped to, or part of a device
mapper's, RAID's or cache's device is held like this, with the disk that a partition is of. What the inspection calls in
use is refused before.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bessemer.core.errors import DriverError
from bessemer.drivers.inspect.sysfs import Disk
from bessemer.drivers.wipe.nvme import Namespace
from bessemer.drivers.wipe.protocol import Found, Way

SECURE = Way("secure discard")
DISCARD = Way("discard", zeros=True, advice=True)
OVERWRITE = Way("overwriting with zeros", zeros=True)

_PIECE_BYTES = 256 << 20
"""Of what is overwritten in one step."""
_DISCARD_BYTES = 8 << 30
_BUFFER_BYTES = 4 << 20
_SIZE, _DISCARD, _SECURE = 0x80081272, 0x1277, 0x127D


class BlockMedia:
    """Implements `wipe.protocol.Media`. ``disks`` are those of the machine, looked up at each call."""

    def __init__(self, disks: Callable[[], Sequence[Disk]], *, dev: Path = Path("/dev")) -> None:
        self._disks = disks
        self._dev = dev

    def look(self, address: str) -> Found:
        disk = _one(address, [disk for disk in self._there() if address and disk.address == address])
        # Also where an inspection has not seen it: a pool, another's mounts. It is about to be a guest's.
        os.close(self._alone(disk, os.O_RDONLY))
        return Found(disk.wwid, disk.size_bytes)

    @contextmanager
    def open(self, address: str, was: Found | None) -> Iterator[BlockMedium]:
        disk = self._meant(address, was)
        fd = self._alone(disk, os.O_RDWR)
        try:
            medium = _medium(fd)
            if was is not None and medium.size_bytes != was.size_bytes:
                message = f"{disk.name} has {medium.size_bytes} bytes; it had {was.size_bytes}"
                raise DriverError("DiskChanged", message)
            yield medium
        finally:
            os.close(fd)

    def _alone(self, disk: Disk, how: int) -> int:
        """It, open; nobody else has it."""
        if disk.in_use:
            raise DriverError("DiskInUse", f"{disk.name} is in use by the host")
        try:
            return os.open(self._dev / disk.name, how | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            busy = error.errno == errno.EBUSY
            message = f"{disk.name} is in use by the host" if busy else f"{disk.name} cannot be opened"
            raise DriverError("DiskInUse" if busy else "WipeFailed", message, internal=str(error)) from error

    def _there(self) -> Sequence[Disk]:
        try:
            return self._disks()
        except OSError as error:  # one went while they were listed
            raise DriverError("DiskMissing", "the host's disks cannot be listed", internal=str(error)) from error

    def _meant(self, address: str, was: Found | None) -> Disk:
        disks = self._there()
        if was is not None and was.wwid:
            # A card that was put in moves the others; its id is the disk's own, an address is the slot's.
            known = [disk for disk in disks if disk.wwid == was.wwid]
            here = [disk for disk in disks if address and disk.address == address]
            if not known and here:
                raise DriverError("DiskChanged", f"{here[0].name} at {address} says that it is another disk")
            if len(known) == 1:
                _one(known[0].address, [disk for disk in disks if disk.address == known[0].address])
            return _one(address, known)
        return _one(address, [disk for disk in disks if address and disk.address == address])


class BlockMedium:
    """Implements `wipe.protocol.Medium` on the open block device ``fd``."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        if not stat.S_ISBLK(os.fstat(fd).st_mode):
            raise DriverError("WipeFailed", "it is no block device")
        self._size = struct.unpack("Q", fcntl.ioctl(fd, _SIZE, bytes(8)))[0]
        self._nvme = Namespace.of(fd)

    @property
    def size_bytes(self) -> int:
        return int(self._size)

    def ways(self) -> tuple[Way, ...]:
        itself = self._nvme.ways() if self._nvme is not None else ()
        if self._nvme is not None and self._nvme.hides:
            return itself
        return (*itself, SECURE, DISCARD, OVERWRITE)

    def erase(self, way: str, done_bytes: int) -> int:
        left = self.size_bytes - done_bytes
        if way == OVERWRITE.name:
            return self._overwrite(done_bytes, min(_PIECE_BYTES, left))
        if way in (SECURE.name, DISCARD.name):
            return self._discard(way, offset=done_bytes, length=min(_DISCARD_BYTES, left))
        if self._nvme is None:
            raise DriverError("WayRefused", f"it has no {way}")
        return self._nvme.erase(way, done_bytes=done_bytes, size_bytes=self.size_bytes)

    def read(self, offset: int, length: int) -> bytes:
        length = min(length, self.size_bytes - offset)
        try:
            with self._direct() as fd, mmap.mmap(-1, length) as page:
                _fill(page, fd, offset=offset)
                return page[:]
        except OSError as error:
            raise DriverError("WipeFailed", "the disk cannot be read", internal=str(error)) from error

    def write(self, offset: int, data: bytes) -> None:
        try:
            while data:
                done = os.pwrite(self._fd, data, offset)
                offset, data = offset + done, data[done:]
        except OSError as error:
            raise DriverError("WipeFailed", "the disk cannot be written", internal=str(error)) from error

    def flush(self) -> None:
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise DriverError("WipeFailed", "the disk does not keep what is written", internal=str(error)) from error

    def _overwrite(self, offset: int, length: int) -> int:
        end = offset + length
        try:
            with self._direct() as fd, mmap.mmap(-1, _BUFFER_BYTES) as zeros:
                while offset < end:
                    offset += os.pwritev(fd, [memoryview(zeros)[: min(_BUFFER_BYTES, end - offset)]], offset)
        except OSError as error:
            raise DriverError("WipeFailed", "the disk cannot be written", internal=str(error)) from error
        self.flush()
        return end

    def _discard(self, way: str, *, offset: int, length: int) -> int:
        try:
            fcntl.ioctl(self._fd, _SECURE if way == SECURE.name else _DISCARD, struct.pack("QQ", offset, length))
        except OSError as error:
            raise DriverError("WayRefused", f"the disk refused a {way}", internal=str(error)) from error
        self.flush()
        return offset + length

    @contextmanager
    def _direct(self) -> Iterator[int]:
        """Past the host's cache: what is read is what the medium has. Raises OSError."""
        fd = os.open(f"/proc/self/fd/{self._fd}", os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)


def _medium(fd: int) -> BlockMedium:
    try:
        return BlockMedium(fd)
    except OSError as error:
        raise DriverError("WipeFailed", "the disk does not say how large it is", internal=str(error)) from error


def _fill(page: mmap.mmap, fd: int, *, offset: int) -> None:
    """Raises OSError."""
    done = 0
    while done < len(page):
        got = os.preadv(fd, [memoryview(page)[done:]], offset + done)
        if not got:
            raise OSError(errno.EIO, "it ends before it should")
        done += got


def _one(address: str, found: Sequence[Disk]) -> Disk:
    if not found:
        raise DriverError("DiskMissing", f"the host's kernel shows no disk at {address or 'no PCI address'}")
    if len(found) > 1:
        raise DriverError("DiskChanged", f"{address} has {len(found)} disks: {', '.join(disk.name for disk in found)}")
    return found[0]
