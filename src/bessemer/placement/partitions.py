"""NVLink partitions: sets of a host's GPUs that can have NVLink among themselves, and no others.

Between virtual machines that share NVSwitches the Fabric Manager programs one of the partitions that it offers of a
host, each a certain set of GPUs; those that are active have no GPU in common (NVIDIA, Fabric Manager User Guide,
"Shared NVSwitch Virtualization Model"). Devices of one domain that are no partition reach each other by PCIe alone. A
partition is in use by whoever holds its devices: it has no name of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from bessemer.core.asking import Request
from bessemer.placement.numbering import Numbers
from bessemer.placement.vectors import NONE, WHOLE, Bools, Ints, Smalls

Offer = tuple[tuple[int, ...], ...]
"""Partitions of two devices or more, by column, in order. Equal on hosts that offer the same."""


class Offering(Protocol):
    """Rows that may offer partitions: the number in ``offers`` [rows], or `NONE`."""

    offer: Smalls
    offers: Numbers[Offer]


def wants_partition(request: Request) -> bool:
    """Whether it wants NVLink among its devices: of one alone, and of a share, nothing is partitioned."""
    return request.same_nvlink and request.device_count > 1 and request.device_milli == WHOLE


def offer_of(partitions: Sequence[Sequence[str]], columns: Mapping[str, int]) -> Offer | None:
    """What a host offers, from its report; None where that says nothing. ``columns`` are those of its GPUs: a partition
    of what is no GPU there is nothing that could be taken."""
    if not partitions:
        return None
    known = (some for some in partitions if len(some) > 1 and all(device in columns for device in some))
    return tuple(sorted({tuple(sorted(columns[device] for device in some)) for some in known}))


def free_partitions(fleet: Offering, usable: Bools, *, count: int) -> tuple[Ints, Ints]:
    """Those of ``count`` devices, all of them ``usable`` [hosts, devices]: their rows [n], rising, and columns
    [n, count]."""
    offer = fleet.offer[: len(usable)]
    rows = np.flatnonzero((offer != NONE) & (usable.sum(axis=1) >= count))
    found = [(np.zeros(0, dtype=np.int64), np.zeros((0, count), dtype=np.int64))]
    # Hosts are alike: each table is looked at once for all that have it.
    for number in np.unique(offer[rows]).tolist():
        table = np.array([some for some in fleet.offers.all[number] if len(some) == count], dtype=np.int64)
        if len(table):
            those = rows[offer[rows] == number]
            host, which = np.nonzero(usable[those][:, table].all(axis=2))
            found.append((those[host], table[which]))
    of, columns = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.argsort(of, kind="stable")
    return of[order], columns[order]


def offered_sizes(fleet: Offering, size: int, *, count: int) -> Bools:
    """[hosts]: who offers a partition of ``count`` devices at all, free or not."""
    sizes = [any(len(some) == count for some in offer or ()) for offer in fleet.offers.all]
    offer = fleet.offer[:size]
    there: Bools = np.array([*sizes, False], dtype=np.bool_)[offer] & (offer != NONE)
    return there


def broken(offer: Offer, chosen: Sequence[int], *, whole: Bools) -> int:
    """How many larger partitions, of which nobody has anything, are not so any more without the devices ``chosen``;
    ``whole`` [devices]."""
    taken = set(chosen)
    larger = (some for some in offer if len(some) > len(taken) and taken & set(some))
    return sum(bool(whole[list(some)].all()) for some in larger)
