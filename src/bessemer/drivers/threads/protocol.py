"""What can be asked of a host about its hardware threads.

Invariants: what runs under a uid with threads of its own runs on those, and on no others; everything else that this
agent runs, its helpers and itself as well, runs on the rest. Nothing is remembered that the kernel does not know, so a
new agent finds and corrects what an earlier one left.

It is about what our agent runs. What else a machine runs is its administrator's (``isolcpus``, or its own cpusets).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Kin:
    """What runs under one uid: ``inside`` its walls, and ``helpers`` of ours beside them. Pids."""

    uid: str
    inside: frozenset[int]
    helpers: frozenset[int] = frozenset()


class Herd(Protocol):
    """What one driver runs, by uid."""

    def kin(self) -> Sequence[Kin]:
        """All that runs or is about to. Asked in a thread of its own, for it looks at all processes."""
        ...

    def pin(self, uid: str, cpus: str) -> bool:
        """Let the kernel hold the uid's control group on those threads; False where there is none that can.

        Raises DriverError ``CgroupRefused``.
        """
        ...


class Threads(Protocol):
    """The hardware threads of one host."""

    async def keep(self, own: Mapping[str, str]) -> None:
        """Hold the invariants for these claims: their threads (as ``2-5,58``) by uid. It is to be asked again when they
        change, and from time to time: what is begun meanwhile may have begun in the wrong place.

        Raises DriverError ``ThreadsRefused``.
        """
        ...
