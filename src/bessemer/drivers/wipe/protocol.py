"""What can be asked of disks that are to be wiped: found, opened for oneself alone, erased piece by piece, read.

It decides nothing: when a disk is wiped, by which of the ways that it has, and what proves it is `wipes`'. Methods
block, and are called in a thread.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Way:
    """How a disk can be erased. ``zeros``: it then reads as zeros everywhere. ``advice``: the device may pass over some
    of it, so that only a look at all of it proves anything."""

    name: str
    zeros: bool = False
    advice: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """Which disk it is: its world-wide id, "" for one that has none, and how large."""

    wwid: str
    size_bytes: int


class Medium(Protocol):
    """One disk, open for whoever wipes it alone. Each method may raise DriverError ``WipeFailed``."""

    @property
    def size_bytes(self) -> int: ...

    def ways(self) -> tuple[Way, ...]:
        """How it can be erased, the surest first; the last works on every disk.

        Raises DriverError ``DiskChanged``: it has parts that cannot be reached from here."""
        ...

    def erase(self, way: str, done_bytes: int) -> int:
        """Go on from where ``done_bytes`` are erased; answers how many are now, on the medium. All of them: it is over.
        To go on from less than was done is no error.

        Raises DriverError ``WayRefused`` where the disk cannot after all."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """From the medium, not from what the host remembers of it."""
        ...

    def write(self, offset: int, data: bytes) -> None: ...

    def flush(self) -> None:
        """Return when all that was written is on the medium."""
        ...


class Media(Protocol):
    """The disks of one host, by the PCI address that they hang on."""

    def look(self, address: str) -> Found:
        """Raises DriverError ``DiskMissing``, ``DiskChanged`` where there are several, ``DiskInUse`` as `open` does."""
        ...

    def open(self, address: str, was: Found | None) -> AbstractContextManager[Medium]:
        """The disk of that address that ``was`` this one, to be had by nobody else until it is closed; wherever it
        hangs by now, if its id says that it is the one.

        Raises DriverError ``DiskMissing``, ``DiskChanged`` (it is another, or not as large as it was), ``DiskInUse``
        (mounted, swapped to, part of another device, or open for somebody alone)."""
        ...
