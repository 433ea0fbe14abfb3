"""What is told: to a Claim before its end is asked for, in annotations that nobody but `Capacity` writes; and to who
looks on, of what happened to an object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_AT, _WHY, _REASON = "bessemer.dev/ends-at", "bessemer.dev/ends-because", "bessemer.dev/ends-reason"

PREEMPTED, CONSOLIDATION = "Preempted", "Consolidation"
"""Why a Claim ends: somebody else is to have its place, or it is to have another."""

MARK = f'"{_AT}"'.encode()
"""What the body of a Claim holds that was told."""


@dataclass(frozen=True, slots=True)
class Notice:
    """Its end is asked for ``at`` (epoch seconds), ``why`` in words and ``reason`` in one CamelCase word."""

    at: int
    why: str
    reason: str = PREEMPTED

    def annotations(self) -> dict[str, str]:
        said = {_AT: str(self.at), _WHY: self.why}
        return said if self.reason == PREEMPTED else {**said, _REASON: self.reason}

    @classmethod
    def read(cls, annotations: Mapping[str, str]) -> Notice | None:
        """None where nothing was told, or nothing that can be read."""
        at = annotations.get(_AT, "")
        reason = CONSOLIDATION if annotations.get(_REASON) == CONSOLIDATION else PREEMPTED
        return cls(int(at), annotations.get(_WHY, ""), reason) if at.isdecimal() else None


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
