"""Into what known GPUs can be cut: what agents and fakes say of a model in their inventory.

NVIDIA's Multi-Instance GPU: profiles of the MIG User Guide, "Supported MIG Profiles" (docs.nvidia.com/datacenter/tesla/
mig-user-guide), placements as ``nvidia-smi mig -lgipp`` prints them, ``{starts}:slices of memory``, there and in
"Getting Started with MIG". From Ampere to Blackwell they lie alike: 8 slices of memory, 7 of compute, 7 instances.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bessemer.core.hosts import Device
from bessemer.core.slices import Partitioning, Profile
from bessemer.core.units import GIB

_STARTS_1 = (0, 1, 2, 3, 4, 5, 6)

_NEAR = 0.03

# What profiles are called: a slice of memory, two, a half, all of it, in GB as NVIDIA rounds them.
_SIZES: Mapping[str, tuple[int, int, int, int]] = {
    "A100-40GB": (5, 10, 20, 40),
    "A100-80GB": (10, 20, 40, 80),
    "H100-80GB": (10, 20, 40, 80),
    "H100-94GB": (12, 24, 47, 94),
    "H100-96GB": (12, 24, 48, 96),
    "H200-141GB": (18, 35, 71, 141),
    "B200-180GB": (23, 45, 90, 180),
}


def known() -> Mapping[str, Partitioning]:
    """By family and memory, as ``H100-80GB``."""
    return {name: _mig(sizes) for name, sizes in _SIZES.items()}


def of_devices(devices: Iterable[Device]) -> dict[str, Partitioning]:
    """What can be said of the models of these devices."""
    tables = known()
    models = {device.model: device for device in devices if device.kind == "gpu"}
    named = {model: _name(device) for model, device in models.items()}
    return {model: tables[name] for model, name in named.items() if name in tables}


def _name(device: Device) -> str:
    """The family that the model's name has in it, and the size that is there too, or is nearest to the device's memory:
    what is sold as 80 GB is 80 GiB, of which a driver reports a little less."""
    family = next((family for family in ("A100", "H100", "H200", "B200") if family in device.model.upper()), "")
    sizes = [
        int(name.removeprefix(f"{family}-").removesuffix("GB")) for name in _SIZES if name.startswith(f"{family}-")
    ]
    stated = [size for size in sizes if f"{size}GB" in device.model.upper()]
    there = device.memory_bytes / GIB
    near = stated or [size for size in sizes if abs(size - there) <= size * _NEAR]
    return f"{family}-{min(near, key=lambda size: abs(size - there))}GB" if family and near else ""


def _mig(sizes: tuple[int, int, int, int]) -> Partitioning:
    one, two, half, whole = sizes
    return Partitioning(
        memory=8,
        compute=7,
        instances=7,
        profiles=(
            Profile(name=f"1g.{one}gb", memory=1, compute=1, starts=_STARTS_1),
            Profile(name=f"1g.{one}gb+me", memory=1, compute=1, starts=_STARTS_1, engines=True),
            Profile(name=f"1g.{two}gb", memory=2, compute=1, starts=(0, 2, 4, 6)),
            Profile(name=f"2g.{two}gb", memory=2, compute=2, starts=(0, 2, 4)),
            Profile(name=f"3g.{half}gb", memory=4, compute=3, starts=(0, 4)),
            Profile(name=f"4g.{half}gb", memory=4, compute=4, starts=(0,)),
            Profile(name=f"7g.{whole}gb", memory=8, compute=7, starts=(0,), engines=True),
        ),
    )
