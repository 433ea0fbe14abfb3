"""A small trace drawn from a seed, in the files of openb: for tests, and for --quick where no trace is at hand.

Shaped like the published one: machines of several makes, most of them alike; two of five requests are shares of a few
odd sizes, half want one device, one in eight none, and few want two, four or eight. All of them together want nearly
what there is. With ``picky`` that share of those that want devices names the models that will do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MACHINES = (
    # share of machines, model, devices, cores, GiB
    (0.55, "G2", 8, 96, 384),
    (0.20, "T4", 2, 104, 512),
    (0.10, "P100", 2, 16, 120),
    (0.06, "V100", 4, 32, 128),
    (0.05, "G3", 8, 128, 768),
    (0.04, "T4", 1, 8, 32),
)
MODELS = sorted({model for _, model, *_ in MACHINES})
WANTED = (
    # share of requests, devices
    (0.125, 0),
    (0.495, 1),
    (0.37, -1),  # a share of one
    (0.003, 2),
    (0.003, 4),
    (0.004, 8),
)
SHARES = ((0.35, 810), (0.25, 470), (0.15, 320), (0.1, 650), (0.1, 230), (0.05, 160))
CORES = (3.2, 6, 8, 11.4, 12, 18.7)
"""Of a request for one device; those for more want them so many times, at most 11 for each."""


@dataclass(frozen=True)
class Lines:
    """The lines of both files, heads first."""

    nodes: Sequence[str]
    pods: Sequence[str]


def drawn(seed: int, *, hosts: int = 40, demand: float = 0.98, picky: float = 0.0) -> Lines:
    """``hosts`` machines, and requests that want about ``demand`` times their devices. Equal seeds, equal lines."""
    generator = np.random.default_rng(seed)
    nodes, capacity = ["sn,cpu_milli,memory_mib,gpu,model"], 0
    for n in range(hosts):
        _, model, devices, cores, gib = MACHINES[_one_of(generator, MACHINES)]
        nodes.append(f"machine-{n:04},{cores * 1000},{gib * 1024},{devices},{model}")
        capacity += 1000 * devices
    pods, wanted = ["name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec"], 0
    while wanted < demand * capacity:
        cells, milli = _pod(generator, picky)
        pods.append(f"pod-{len(pods):05},{cells}")
        wanted += milli
    return Lines(nodes, pods)


def _pod(generator: np.random.Generator, picky: float) -> tuple[str, int]:
    """The cells of a row after its name, and the thousandths of devices that it wants."""
    devices = WANTED[_one_of(generator, WANTED)][1]
    cores, models = float(generator.choice(CORES)), "|".join(sorted(generator.choice(MODELS, 2, replace=False)))
    spec = models if devices and generator.random() < picky else ""
    if devices == 0:
        cores, milli = 2 * cores, 0
    elif devices < 0:
        devices, milli = 1, SHARES[_one_of(generator, SHARES)][1]
    else:
        cores, milli = min(cores, 11 if devices > 1 else cores) * devices, 1000
    return f"{round(1000 * cores)},{round(4096 * cores)},{devices},{milli},{spec}", devices * milli


def _one_of(generator: np.random.Generator, table: Sequence[tuple[float, *tuple[object, ...]]]) -> int:
    """The index of a row, by the shares that stand first in each."""
    shares = np.array([row[0] for row in table])
    return int(generator.choice(len(table), p=shares / shares.sum()))
