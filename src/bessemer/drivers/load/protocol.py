"""What can be asked of whoever puts load on a host's engines, and measures what comes of it.

A *volley* is a list of requests with the time of each: whoever sends them waits for nobody (an open loop), unless they
are to go one after the other. What each request should be and what its answer means is the caller's; here times are
taken. One volley is under way for an engine; it is bounded in time and in what it keeps, and ends with its agent, who
begins it anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

SHOTS_MAX = 4096
ANSWER_BYTES_MAX = 128 << 10
"""Of an answer that is not streamed, so much is kept, and of a stream that much is read at once."""

GAPS_MAX = 4096
"""Of one answer."""


@dataclass(frozen=True, slots=True)
class Shot:
    """One request: POST ``body`` to ``path``, ``at`` so many seconds after the volley's begin. Without ``keep`` an
    answer is counted and forgotten."""

    at: float
    body: Mapping[str, Any]
    path: str = "/v1/chat/completions"
    keep: bool = True


@dataclass(frozen=True, slots=True)
class Volley:
    """``number`` tells those of one engine apart. With ``serial`` each request waits for the answer before it, and
    ``at`` says nothing. What has no answer ``seconds`` after the begin gets none."""

    number: int
    shots: Sequence[Shot]
    seconds: float
    serial: bool = False


@dataclass(frozen=True, slots=True)
class Hit:
    """What came of a shot. Times are seconds since the volley's begin: when it was ``sent``, when its ``first`` token
    came (of a stream; None where none did), and when it had ``ended``. ``gaps`` lie between the pieces of a stream.

    ``status`` is HTTP's, 0 where no whole answer came: then ``trouble`` says why. ``answer`` is the body of what was
    not streamed and is kept. Counts are the engine's own; ``read`` includes the ``cached``.
    """

    status: int
    sent: float
    ended: float
    first: float | None = None
    gaps: tuple[float, ...] = ()
    read: int = 0
    cached: int = 0
    written: int = 0
    answer: str = ""
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Look:
    """How a volley stands: ``share`` of its time is over; ``hits`` are there, one for each shot, when it has ended."""

    share: float
    hits: Sequence[Hit] | None = None


class Loads(Protocol):
    """Volleys on the engines of one host, by Claim uid. Each method may raise DriverError."""

    async def begin(self, uid: str, secret: str, *, volley: Volley) -> None:
        """Begin it; one of its number that is known is left as it is, another ends.

        Raises ``EngineStarting`` (the engine has not opened its door), ``EngineExited``, ``LoadFailed`` (nothing can be
        started here).
        """
        ...

    async def look(self, uid: str, number: int) -> Look | None:
        """How it stands; None where none of that number is known. Raises ``LoadFailed`` once where it broke: then it is
        known no more."""
        ...

    async def end(self, uid: str) -> None:
        """End what there is of the uid, at once. One that has none is fine."""
        ...
