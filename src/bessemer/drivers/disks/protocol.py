"""What can be asked of guests' disks.

Each uid has a directory of its own with at most one root disk (qcow2, sparse) and one seed (a NoCloud ISO). Every call
may be repeated: what is there is found by uid, what is half made is never seen.

It is no volume store: a root disk lives and dies with its instance's place on this host.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

SEED_LIMIT_BYTES = 1 << 20
"""The files of one seed together."""


@dataclass(frozen=True, slots=True)
class DiskPaths:
    """Where a uid's disks are; None for one that is not there."""

    root: Path | None = None
    seed: Path | None = None


@dataclass(frozen=True, slots=True)
class Space:
    """Bytes of the file system below the disks. ``promised_bytes`` is what all disks may grow to together."""

    total_bytes: int
    free_bytes: int
    promised_bytes: int


class Disks(Protocol):
    """Root disks and seeds by uid. Any call may raise DriverError ``DiskFull`` or ``DiskFailed``."""

    async def create(self, uid: str, size_bytes: int) -> Path:
        """The root disk: made empty if it is not there, grown if it is smaller, never shrunk."""
        ...

    async def seed(self, uid: str, files: Mapping[str, str]) -> Path:
        """Write the seed with these files by name, in place of the one that is there. ValueError past the limit."""
        ...

    async def paths(self, uid: str) -> DiskPaths:
        """What is there for the uid."""
        ...

    async def remove(self, uid: str) -> None:
        """Take away all that is there for the uid."""
        ...

    async def uids(self) -> frozenset[str]:
        """Every uid that has anything here."""
        ...

    async def space(self) -> Space:
        """What is free and what is promised."""
        ...
