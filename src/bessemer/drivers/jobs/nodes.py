"""Which device files a member needs for its devices, and no others: what it cannot see it cannot use.

The kernel says which file is whose: NVIDIA's driver in ``/proc/driver/nvidia/gpus/ADDRESS/information`` ("Device
Minor"), those with a DRM node in ``/sys/bus/pci/devices/ADDRESS/drm``. Files that all devices of a maker share come
along.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

_MINOR = re.compile(r"^Device Minor:\s*(\d+)\s*$", re.MULTILINE)
_UUID = re.compile(r"^GPU UUID:\s*(GPU-[0-9A-Fa-f-]{8,64})\s*$", re.MULTILINE)
_SHARED = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset")
_PREFIX = "gpu-"
"""Of the ids that the inspection gives, before the PCI address."""


def nodes_of(devices: Sequence[str], *, root: Path = Path("/")) -> tuple[Path, ...]:
    """The files under ``root``'s ``/dev`` for the devices with these ids, sorted; of one that is unknown here, none."""
    addresses = [device.removeprefix(_PREFIX) for device in devices if device.startswith(_PREFIX)]
    found = {node for address in addresses for node in (*_nvidia(address, root), *_drm(address, root))}
    return tuple(sorted(node for node in found if node.exists()))


def uuids_of(devices: Sequence[str], *, root: Path = Path("/")) -> tuple[str, ...]:
    """What NVIDIA's driver calls the devices with these ids, in their order; of one that is unknown here, nothing."""
    addresses = [device.removeprefix(_PREFIX) for device in devices if device.startswith(_PREFIX)]
    found = (_UUID.search(_information(address, root)) for address in addresses)
    return tuple(uuid[1] for uuid in found if uuid is not None)


def _information(address: str, root: Path) -> str:
    try:
        return (root / "proc/driver/nvidia/gpus" / address / "information").read_text()
    except OSError:
        return ""


def _nvidia(address: str, root: Path) -> Iterator[Path]:
    if minor := _MINOR.search(_information(address, root)):
        yield root / "dev" / f"nvidia{minor[1]}"
        yield from (root / "dev" / name for name in _SHARED)


def _drm(address: str, root: Path) -> Iterator[Path]:
    folder = root / "sys/bus/pci/devices" / address / "drm"
    names = sorted(path.name for path in folder.glob("renderD*")) if folder.is_dir() else []
    if names:
        yield root / "dev/kfd"
        yield from (root / "dev/dri" / name for name in names)
