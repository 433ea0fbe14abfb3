"""An NVMe disk asked to erase itself: NVM Express Base Specification 2.0, commands Identify, Sanitize (with the log of
its status) and Format NVM. They go through the kernel's pass-through (Linux, ``include/uapi/linux/nvme_ioctl.h``): no
program need be there.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import struct
from collections.abc import Callable
from dataclasses import dataclass

from bessemer.core.errors import DriverError
from bessemer.drivers.wipe.protocol import Way

_ID, _ADMIN = 0x4E40, 0xC0484E41
_COMMAND = struct.Struct("<BBHIIIQQII6III")
_GET_LOG, _IDENTIFY, _FORMAT, _SANITIZE = 0x02, 0x06, 0x80, 0x84
_EVERY, _SANITIZE_LOG = 0xFFFFFFFF, 0x81
_CAN_FORMAT, _CAN_NAMESPACES = 1 << 1, 1 << 3
_CRYPTO = 1 << 2
"""Of FNA: a format can erase the key."""
_FORMAT_SECONDS, _SECONDS = 3600, 60
"""In which a disk is to have erased itself; and to have answered, or begun."""

CRYPTO_SANITIZE = Way("NVMe sanitize (crypto erase)")
BLOCK_SANITIZE = Way("NVMe sanitize (block erase)")
CRYPTO_FORMAT = Way("NVMe format (crypto erase)")
USER_FORMAT = Way("NVMe format (user data erase)")
_ACTIONS = {BLOCK_SANITIZE.name: 0b010, CRYPTO_SANITIZE.name: 0b100}
Ioctl = Callable[..., int]
"""As ``fcntl.ioctl``: the descriptor, the request, and what is read and written for it."""

_SETTINGS = {USER_FORMAT.name: 1, CRYPTO_FORMAT.name: 2}


@dataclass(frozen=True, slots=True)
class Sanitized:
    """How far a disk is: 0 never, 1 done, 2 at work, 3 failed, 4 done and all given up; of 65,536."""

    state: int
    progress: int


class Namespace:
    """The namespace behind the open block device ``fd``. ``ioctl`` is the kernel's."""

    def __init__(self, fd: int, number: int, *, ioctl: Ioctl = fcntl.ioctl) -> None:
        self._fd = fd
        self._number = number
        self._ioctl = ioctl
        self.hides = False
        """Whether it has namespaces that the host does not see, as its ways were looked for: then only what erases all
        of it will do."""

    @classmethod
    def of(cls, fd: int, *, ioctl: Ioctl = fcntl.ioctl) -> Namespace | None:
        """None where it is no NVMe."""
        try:
            return cls(fd, ioctl(fd, _ID), ioctl=ioctl)
        except OSError:
            return None

    def ways(self) -> tuple[Way, ...]:
        """What its controller says it can. Raises DriverError ``DiskChanged``, ``WipeFailed``."""
        known = self._identify(0, 1)
        oacs, fna = int.from_bytes(known[256:258], "little"), known[524]
        can_sanitize = int.from_bytes(known[328:332], "little")
        found: list[Way] = []
        # A sanitize erases the whole subsystem, which may be others' as well: other controllers, functions.
        if not known[76] & 0b110:
            found += [CRYPTO_SANITIZE] * (can_sanitize & 1) + [BLOCK_SANITIZE] * (can_sanitize >> 1 & 1)
        self.hides = bool(oacs & _CAN_NAMESPACES) and self._namespaces() > 1
        if self.hides and not found:
            raise DriverError("DiskChanged", "it has namespaces that the host does not see")
        if oacs & _CAN_FORMAT and not self.hides:
            found += [*([CRYPTO_FORMAT] if fna & _CRYPTO else []), USER_FORMAT]
        return tuple(found)

    def erase(self, way: str, *, done_bytes: int, size_bytes: int) -> int:
        """Begin, or look how far it is. Raises DriverError ``WayRefused``."""
        if way in _SETTINGS:
            self._format(_SETTINGS[way])
            return size_bytes
        log = self._sanitized()
        if log.state == 2:
            # Coarsely: each word of progress is kept, and has the disk looked at again at once.
            return max(1, min(size_bytes - 1, size_bytes * (log.progress >> 8) >> 8))
        if done_bytes and log.state in (1, 4):
            return size_bytes
        if done_bytes and log.state == 3:
            raise DriverError("WayRefused", f"{way} failed")
        self._say(_SANITIZE, namespace=0, words=(_ACTIONS[way],))
        return 1

    def _format(self, setting: int) -> None:
        """In the format that it has: block size, metadata and protection stay."""
        known = self._identify(self._number, 0)
        flbas, dps = known[26], known[29]
        word = flbas & 0xF | (flbas >> 4 & 1) << 4 | (dps & 0b111) << 5 | (dps >> 3 & 1) << 8
        self._say(_FORMAT, namespace=self._number, words=(word | setting << 9 | (flbas >> 5 & 0b11) << 12,))

    def _sanitized(self) -> Sanitized:
        log = self._say(_GET_LOG, namespace=_EVERY, words=(_SANITIZE_LOG | (512 // 4 - 1) << 16,), answer=512)
        progress, state = struct.unpack_from("<HH", log)
        return Sanitized(state & 0b111, progress)

    def _namespaces(self) -> int:
        """How many there are, whether or not a controller has them."""
        there = self._identify(0, 0x10)
        return sum(number != 0 for (number,) in struct.iter_unpack("<I", there))

    def _identify(self, namespace: int, what: int) -> bytes:
        try:
            return self._say(_IDENTIFY, namespace=namespace, words=(what,), answer=4096)
        except DriverError as error:
            raise DriverError("WipeFailed", "the disk does not say what it is", internal=error.internal) from error

    def _say(self, opcode: int, *, namespace: int, words: tuple[int, ...], answer: int = 0) -> bytes:
        """Raises DriverError ``WayRefused`` with the disk's or the kernel's word in its ``internal``."""
        buffer = ctypes.create_string_buffer(max(1, answer))
        at = ctypes.addressof(buffer) if answer else 0
        padded = (*words, *(0 for _ in range(6 - len(words))))
        seconds = _FORMAT_SECONDS if opcode == _FORMAT else _SECONDS
        command = bytearray(_COMMAND.pack(opcode, 0, 0, namespace, 0, 0, 0, at, 0, answer, *padded, seconds * 1000, 0))
        try:
            status = self._ioctl(self._fd, _ADMIN, command)
        except OSError as error:
            status, said = error.errno or errno.EIO, str(error)
        else:
            said = f"status {status:#x}"
        if status:
            raise DriverError("WayRefused", "the disk refused to erase itself", internal=f"{opcode:#x}: {said}")
        return buffer.raw[:answer]
