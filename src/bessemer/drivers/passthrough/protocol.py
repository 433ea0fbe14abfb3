"""What can be asked of a host about devices that a guest is to have itself.

Invariants: what is handed to a uid is nobody else's until it is given back, whoever asks; a new driver object finds
what an earlier one handed over, also one that was killed in the middle. Each call may be repeated.

It decides nothing: which devices is the Claim's, and what a guest is shown of them is its QEMU's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Wanted:
    """A device as the inspection names it, at its PCI address: whole, or so many virtual ``functions`` of it."""

    device: str
    kind: str
    address: str
    functions: int = 0


@dataclass(frozen=True, slots=True)
class Handed:
    """What a guest's QEMU is told of one of them: ``properties`` of a ``-device``, ``driver`` among them, and the
    device files that it opens for it. Of functions each is one."""

    device: str
    properties: Mapping[str, str | int | bool]
    nodes: tuple[Path, ...] = ()


class Passthrough(Protocol):
    """The devices of one host, by the uid of the Claim that has them."""

    async def hand(self, uid: str, wanted: Sequence[Wanted]) -> tuple[Handed, ...]:
        """Take them from the host's own drivers, or find that they are taken for this uid; in the order asked for.

        Raises DriverError ``DeviceMissing``, ``DeviceBusy``, ``GroupShared`` (something else of its IOMMU group is in
        use), ``IommuMissing``, ``PassthroughUnavailable``, ``FunctionsMissing``, ``DiskFull``.
        """
        ...

    async def give_back(self, uid: str) -> None:
        """Let the host's own drivers have them again. A uid that has none is no error."""
        ...

    async def uids(self) -> frozenset[str]:
        """Every uid that has, or may have, something."""
        ...


class Lending(Passthrough, Protocol):
    """The same, where what a guest could write on goes to nobody else before it is wiped. `hand` may raise
    ``BeingWiped`` as well, ``DiskMissing``, ``DiskChanged``, ``DiskInUse`` and ``DiskFailed``."""

    async def end(self, uid: str, wanted: Sequence[Wanted] = ()) -> None:
        """Give back for good: its Claim, which said ``wanted``, has ended. What it wrote on is wiped from here on."""
        ...
