"""Loop devices over files of a test: real block devices of the machine's kernel, said to hang on a PCI address."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from bessemer.core.units import MIB
from bessemer.drivers.inspect.sysfs import Disk
from bessemer.drivers.wipe.real import BlockMedia

ADDRESS = "0000:43:00.0"
SIZE = 24 * MIB
needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/dev/loop-control").exists(), reason="needs root and loop devices"
)


@contextmanager
def loop(file: Path, *, size: int = SIZE) -> Iterator[str]:
    """The name of the device."""
    with file.open("wb") as stream:
        stream.truncate(size)
    made = subprocess.run(("losetup", "--find", "--show", str(file)), check=True, capture_output=True, text=True)
    path = made.stdout.strip()
    try:
        yield path.removeprefix("/dev/")
    finally:
        subprocess.run(("losetup", "--detach", path), check=True)


def shown(name: str, *, wwid: str = "eui.1", size: int = SIZE, in_use: bool = False) -> Sequence[Disk]:
    """What an inspection would find, were it no loop device."""
    return [Disk(name, ADDRESS, "QEMU NVMe", wwid, size, in_use)]


def media(name: str) -> BlockMedia:
    return BlockMedia(lambda: shown(name))
