"""`States`: some hosts as they are, or as they would be, as far as a policy looks at them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from bessemer.placement.vectors import Bools, Ints, Smalls

SIZES = 9
"""Columns of `States.sizes`: a share of a device, then one to seven devices, then eight and more."""


@dataclass(frozen=True, slots=True)
class States:
    """B hosts with at most D devices each.

    ``cores`` [B] are free milli-cores and ``memory`` [B] free bytes, of all NUMA nodes together; ``milli`` [B, D] the
    free thousandths of each device, 0 where there is none or it is unsound; ``model`` [B, D] its number in ``models``,
    -1 where there is no device; ``sizes`` [B, SIZES] counts the claims there that hold devices, by how many. ``kind``
    [B] is the number in ``kinds`` of what the host's inventory is, -1 where nobody says; without it nobody does.
    Something may be taken of the devices that are ``open`` [B, D] alone; without it, of all.
    """

    cores: Ints
    memory: Ints
    milli: Ints
    model: Smalls
    sizes: Ints
    models: Sequence[str]
    kind: Smalls | None = None
    kinds: Sequence[Hashable] = ()
    open: Bools | None = None

    def __len__(self) -> int:
        return len(self.cores)
