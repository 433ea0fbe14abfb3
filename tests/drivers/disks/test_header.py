"""The size that a disk shows, read beside whoever uses it."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from bessemer.core.errors import DriverError
from bessemer.drivers.disks.header import virtual_size


def test_the_size_is_read_from_the_header(tmp_path: Path) -> None:
    disk = tmp_path / "root.qcow2"
    disk.write_bytes(struct.pack(">4sI16xQ", b"QFI\xfb", 3, 5 << 30) + b"more")
    assert virtual_size(disk) == 5 << 30


@pytest.mark.parametrize("content", [b"", b"QFI\xfb", b"QFI\xfb" + b"x" * 27, b"raw " * 100])
def test_what_is_no_disk_is_said(tmp_path: Path, content: bytes) -> None:
    disk = tmp_path / "root.qcow2"
    disk.write_bytes(content)
    with pytest.raises(DriverError, match="damaged") as caught:
        virtual_size(disk)
    assert caught.value.reason == "DiskFailed"
