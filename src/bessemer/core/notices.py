"""What is told: to a Claim before its end is asked for, in annotations that nobody but `Capacity` writes; and to who
looks on, of what happened to an object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

_AT, _WHY, _REASON = "bessemer.dev/ends-at", "bessemer.dev/ends-because", "bessemer.dev/ends-reason"
_FOR = "bessemer.dev/ends-for"

NAMES = (_AT, _WHY, _REASON, _FOR)
"""The annotations of a notice."""

PREEMPTED, CONSOLIDATION, DRAINED = "Preempted", "Consolidation", "Drained"
"""Why a Claim ends: somebody else is to have its place, it is to have another, or its workload needs it no more."""

MARK = f'"{_AT}"'.encode()
"""What the body of a Claim holds that was told."""


@dataclass(frozen=True, slots=True)
class Notice:
    """Its end is asked for ``at`` (epoch seconds), ``why`` in words and ``reason`` in one CamelCase word; ``asker`` is
    for whom, as `mark_of` it: while that one needs the place no more, it may be taken back."""

    at: int
    why: str
    reason: str = PREEMPTED
    asker: str = ""

    def annotations(self) -> dict[str, str]:
        said = {_AT: str(self.at), _WHY: self.why, **({_FOR: self.asker} if self.asker else {})}
        return said if self.reason == PREEMPTED else {**said, _REASON: self.reason}

    @classmethod
    def read(cls, annotations: Mapping[str, str]) -> Notice | None:
        """None where nothing was told, or nothing that can be read."""
        at = annotations.get(_AT, "")
        said = annotations.get(_REASON)
        reason = said if said in (CONSOLIDATION, DRAINED) else PREEMPTED
        if not at.isdecimal():
            return None
        return cls(int(at), annotations.get(_WHY, ""), reason, annotations.get(_FOR, ""))


SPARED = Notice(0, "")
"""Takes back what was told, where its time has not come."""


def mark_of(uid: str) -> str:
    """By what the claim of somebody else may know an asker: not who it is."""
    return sha256(uid.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Happening:
    """A change of an object's state that is worth an event."""

    reason: str
    message: str
    warning: bool


@dataclass(frozen=True, slots=True)
class Stops:
    """Claims ``uids`` on ``hosts`` that are to be told, so that somebody has room ``at`` that time."""

    uids: tuple[str, ...]
    hosts: tuple[str, ...]
    at: int
