"""The policies once more, literally: host by host, device by device, with exact fractions, and no table.

From the papers and the FGD artefact's rules, sharing no code with `bessemer.placement.policies`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from bessemer.placement.demand import Typical
from bessemer.placement.shape import Shape
from bessemer.placement.states import States


@dataclass(frozen=True)
class Host:
    """One host: free milli-cores, and of each device its free thousandths and its model ("" for none)."""

    cores: int
    devices: tuple[tuple[int, str], ...]
    sizes: tuple[int, ...]

    def free(self) -> int:
        return sum(milli for milli, _ in self.devices)


def hosts_of(states: States) -> list[Host]:
    return [
        Host(
            cores=int(states.cores[b]),
            devices=tuple(
                (int(milli), states.models[number] if number >= 0 else "")
                for milli, number in zip(states.milli[b], states.model[b], strict=True)
            ),
            sizes=tuple(int(n) for n in states.sizes[b]),
        )
        for b in range(len(states))
    ]


def serves(shape: Shape, device: tuple[int, str]) -> bool:
    milli, model = device
    return milli >= shape.device_milli and (not shape.device_models or model in shape.device_models)


def fits(shape: Shape, host: Host) -> bool:
    return host.cores >= shape.milli_cores and sum(serves(shape, one) for one in host.devices) >= shape.device_count


def fragment(host: Host, typical: Typical) -> Fraction:
    """The expected fragment, FGD §4.1: what of the free thousandths a typical shape cannot use, in the mean."""
    total = Fraction(0)
    for m in range(len(typical)):
        shape = Shape(
            milli_cores=int(typical.cores[m]),
            memory_bytes=0,
            device_count=int(typical.count[m]),
            device_milli=int(typical.milli[m]),
            device_models=typical.models[m],
        )
        lost = host.free()
        if shape.device_count and fits(shape, host):
            lost = sum(device[0] for device in host.devices if not serves(shape, device))
        total += Fraction(float(typical.weight[m])) * lost
    return total


def ways(shape: Shape, host: Host) -> Iterator[tuple[int, Host]]:
    """Each way to put one there: the free thousandths of the device that a share is taken from, and the host after."""
    cores, devices = host.cores - shape.milli_cores, list(host.devices)
    if shape.device_count == 1 and shape.device_milli < 1000:
        for j, device in enumerate(devices):
            if serves(shape, device):
                after = [*devices[:j], (device[0] - shape.device_milli, device[1]), *devices[j + 1 :]]
                yield device[0], Host(cores, tuple(after), host.sizes)
        return
    left = shape.device_count
    for j, device in enumerate(devices):
        if left and serves(shape, device):
            devices[j] = (0, device[1])
            left -= 1
    yield 0, Host(cores, tuple(devices), host.sizes)


def least_free(shape: Shape, host: Host) -> int:
    if not (shape.device_count == 1 and shape.device_milli < 1000):
        return 0
    return min(device[0] for device in host.devices if serves(shape, device))


def fgd(shape: Shape, host: Host, *, typical: Typical) -> tuple[Fraction, int]:
    """The least rise of the expected fragment, and the device for it."""
    before = fragment(host, typical)
    return min((fragment(after, typical) - before, milli) for milli, after in ways(shape, host))


def best_fit(shape: Shape, host: Host) -> int:
    cores = (host.cores - shape.milli_cores) / 128000
    return -math.floor((1 - 0.5 * cores - 0.5 * ((host.free() - shape.milli) / 8000)) * 100)


def dot_prod(shape: Shape, host: Host) -> int:
    cores = host.cores / 128000 * (shape.milli_cores / 128000)
    return -math.floor(100 * (1 - (cores + host.free() / 8000 * (shape.milli / 8000)) / 2))


def clustering(shape: Shape, host: Host) -> int:
    """25 points for what is used, and 75, 50, 25 or none for the company."""
    if not shape.device_count:
        return 0
    mine = 0 if shape.device_count == 1 and shape.device_milli < 1000 else min(shape.device_count, 8)
    sorts = {size for size, count in enumerate(host.sizes) if count}
    company = (75 if len(sorts) == 1 else 50) if mine in sorts else (25 if not sorts else 0)
    return -(25 * (8000 - host.free()) // 8000 + company)


def packing(shape: Shape, host: Host) -> int:
    """Above 50 points for devices in use, 33 to 50 where free ones must be opened, 33 at most on a free host."""
    if not shape.device_count:
        return 0
    free = sum(milli == 1000 for milli, _ in host.devices)
    if free == sum(model != "" for _, model in host.devices):
        return -max(33 - free, free)
    taken = sorted(device[0] for device in host.devices if serves(shape, device))[: shape.device_count]
    opened = taken.count(1000)
    if opened:
        return -max(50 - opened, 33)
    return -max(100 - sum(milli * 100 // 1000 for milli in taken) // 10, 50)
