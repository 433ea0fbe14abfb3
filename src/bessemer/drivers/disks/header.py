"""What a qcow2 disk says of itself."""

from __future__ import annotations

import struct
from pathlib import Path

from bessemer.core.errors import DriverError


def virtual_size(path: Path) -> int:
    """Bytes that the disk shows to a guest, from its header: the lock of a running guest is not in the way. Raises
    DriverError ``DiskFailed`` for what is no such disk, and OSError."""
    with open(path, "rb") as stream:
        head = stream.read(32)
    if len(head) < 32 or not head.startswith(b"QFI\xfb"):
        raise DriverError("DiskFailed", "a root disk is damaged", internal=str(path))
    return int(struct.unpack(">24xQ", head)[0])
