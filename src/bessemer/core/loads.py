"""What gateways say of endpoints that scale: how much is asked of each, and how that is answered.

A gateway says it again every few seconds, all in one; what it said last stands in the note of a lease of its own
(`LOADS`), which ends where it is not heard of any more. Sums run on from when the gateway's process began (``boot``),
so that a report that is lost costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated

from pydantic import Field

from bessemer.core.resource import ApiModel
from bessemer.core.values import nothing

LOADS = "load/"
"""What the name of a gateway's lease begins with; the gateway's name follows."""

REPORT_SECONDS, ALIVE_SECONDS = 2.0, 10.0
"""Between two reports while anything happens, and while nothing does."""
HEARD_SECONDS = 30.0
"""For which a report stands."""
ENDPOINTS_MAX = 1000
"""Of one report."""

COUNT_MAX = 1 << 53
"""Of anything that is counted: no gateway comes near it, and sums and quotients of such numbers are finite."""

WOKEN = "bessemer.dev/woken-at"
"""Annotation of an Endpoint: when a gateway last had a request for it and nobody to answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """``arrived`` and ``answered`` are requests; of ``begun`` answers the first token took ``first_seconds`` together,
    and of ``late`` longer than the target; ``paced_tokens`` came after others in ``paced_seconds``, those of ``slow``
    out of ``paced`` answers slower, on the mean, than the target."""

    arrived: float = 0
    answered: float = 0
    input_tokens: float = 0
    output_tokens: float = 0
    begun: float = 0
    late: float = 0
    first_seconds: float = 0.0
    paced: float = 0
    slow: float = 0
    paced_tokens: float = 0
    paced_seconds: float = 0.0

    def __add__(self, other: Sums) -> Sums:
        return Sums(**{name: getattr(self, name) + getattr(other, name) for name in SUMS})

    def __sub__(self, other: Sums) -> Sums:
        return Sums(**{name: getattr(self, name) - getattr(other, name) for name in SUMS})

    @property
    def counted_anew(self) -> bool:
        """Of a difference: whether it is less than nothing."""
        return any(getattr(self, name) < 0 for name in SUMS)


SUMS = tuple(field.name for field in fields(Sums))


_Count = Annotated[float, Field(ge=0, le=COUNT_MAX, allow_inf_nan=False)]


class EndpointLoad(ApiModel):
    """Of one endpoint at one gateway: ``busy`` requests are answered and ``waiting`` wait now; ``sums`` are in the
    order of `SUMS`."""

    project: str = Field(max_length=63)
    name: str = Field(max_length=253)
    uid: str = Field(max_length=64)
    busy: int = Field(ge=0, le=COUNT_MAX)
    waiting: int = Field(ge=0, le=COUNT_MAX)
    sums: tuple[_Count, ...] = Field(min_length=len(SUMS), max_length=len(SUMS))

    @property
    def counted(self) -> Sums:
        return Sums(**dict(zip(SUMS, self.sums, strict=True)))


class EndpointLog(ApiModel):
    """How it goes with what one endpoint is asked and answers, where a tenant wants that logged: so many entries were
    ``written`` to their place since the process began and ``dropped``; why none are written now, "" where all is
    well. ``expires``: the place itself lets go of what is too old."""

    project: str = Field(max_length=63)
    name: str = Field(max_length=253)
    uid: str = Field(max_length=64)
    written: int = Field(ge=0, le=COUNT_MAX)
    dropped: int = Field(ge=0, le=COUNT_MAX)
    reason: str = Field("", max_length=64)
    message: str = Field("", max_length=300)
    expires: bool = False


class LoadReport(ApiModel):
    """Of one gateway. ``asleep`` are those of its ``loads``, by place in the list, for which requests wait while there
    is no replica."""

    holder: str = Field(min_length=1, max_length=63)
    boot: str = Field(max_length=64)
    loads: list[EndpointLoad] = Field(default_factory=list, max_length=ENDPOINTS_MAX)
    asleep: list[int] = Field(default_factory=list, max_length=ENDPOINTS_MAX)
    logs: list[EndpointLog] = Field(default_factory=list, max_length=ENDPOINTS_MAX, exclude_if=nothing)
