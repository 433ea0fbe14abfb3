"""What was billed of a replica beside what its engine counted, and what of the difference is accounted for. Pure.

The two come by ways that share nothing: a bill out of what each answer said, by gateway and ledger; the engine's own
counters, by its host's agent. A whole answer is in both alike. What an engine counts and nobody is billed for has
causes that are counted, too, each with a bound of its own; what is beyond them all is unexplained, and so is each token
that was billed and not counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol

from pydantic import Field

from bessemer.core.resource import ApiModel

TAIL_TOKENS = 64
"""The most that an engine writes of an answer behind the last count that arrived, until it notices that nobody reads:
what it makes in a tenth of a second, several of them at a time. How many they are tells `tests/gateway/test_tails.py`.
"""

UNTOLD_TOKENS = 64
"""The most that was sent behind what a gateway had written down when it was killed."""

SETTLE_SECONDS = 5
"""The clocks of a host and of the store may differ by so much."""


COUNT_MAX = 1 << 53
"""No engine counts more, and sums of such numbers have their place in JSON."""

_Count = Annotated[int, Field(ge=-COUNT_MAX, le=COUNT_MAX)]


class Counted(ApiModel):
    """What an engine's host said last of it: ``tokens`` (read, written) of this process, ``before`` of those before it
    by what was read of them last, ``unseen`` of these ended without another look; ``probes`` are those of its host's
    own. ``busy`` requests were under way, ``at`` is when."""

    at: _Count = 0
    tokens: tuple[_Count, _Count] = (0, 0)
    before: tuple[_Count, _Count] = (0, 0)
    probes: tuple[_Count, _Count] = (0, 0)
    unseen: _Count = 0
    busy: _Count = 0
    context: Annotated[int, Field(ge=0, le=1 << 30)] = 0

    @classmethod
    def read(cls, said: Any) -> Counted | None:
        """From a claim's status, as its host's agent wrote it. None where it says nothing that can be read."""
        if not isinstance(said, Mapping):
            return None
        known = {name: said[name] for name in cls.model_fields if name in said}
        try:
            counted = cls.model_validate(known)
        except ValueError:
            return None
        return counted if counted.at > 0 else None


@dataclass(frozen=True, slots=True)
class Billed:
    """Of one replica, by one way in which answers end; ``until`` is when the last of it was settled."""

    requests: int
    read: int
    wrote: int
    until: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """One replica by both accounts. ``billed`` is by how answers ended ("" as they should)."""

    endpoint: str
    endpoint_uid: str
    uid: str
    host: str = ""
    gone: bool = True
    counted: Counted | None = None
    billed: Mapping[str, Billed] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """``read`` and ``wrote`` are counted less billed less probes; ``may_read`` and ``may_write`` how much of that is
    accounted for by the ``causes``. ``state``: "equal", "explained", "unexplained", "unsettled" (it is in use: ask
    again a minute after), "unknown" (nothing was heard of its engine)."""

    state: str
    read: int = 0
    wrote: int = 0
    may_read: int = 0
    may_write: int = 0
    causes: Sequence[str] = ()


class Accounts(Protocol):
    """Both accounts, as they are stored."""

    async def replicas(self, project_uid: str) -> Sequence[Replica]:
        """Each replica that was billed, or that is gone and had counted something, of a project."""
        ...


def judge(of: Replica) -> Verdict:
    """See `Verdict`."""
    counted = of.counted
    if counted is None:
        return Verdict(state="unknown", causes=("nothing was heard of its engine",))
    read = counted.tokens[0] + counted.before[0] - counted.probes[0] - sum(one.read for one in of.billed.values())
    wrote = counted.tokens[1] + counted.before[1] - counted.probes[1] - sum(one.wrote for one in of.billed.values())
    said = {"read": read, "wrote": wrote}
    if not of.gone and _in_use(of, counted):
        return Verdict(state="unsettled", causes=("it is in use",), **said)
    if not read and not wrote:
        return Verdict(state="equal", causes=(), **said)
    causes = list(_causes(of, counted))
    may_read, may_write = sum(one.read for one in causes), sum(one.wrote for one in causes)
    # Of a process that ended unseen more may have been billed than was read of its counters.
    least = -(1 << 62) if counted.unseen else -sum(one.missed for one in causes)
    fine = least <= read <= may_read and least <= wrote <= may_write
    words = tuple(one.words for one in causes)
    state = "explained" if fine else "unexplained"
    return Verdict(state=state, may_read=may_read, may_write=may_write, causes=words, **said)


def _in_use(of: Replica, counted: Counted) -> bool:
    last = max((one.until for one in of.billed.values()), default=0)
    return bool(counted.busy) or last + SETTLE_SECONDS > counted.at


@dataclass(frozen=True, slots=True)
class _Cause:
    """``read`` and ``wrote`` may have been counted and not billed, ``missed`` of each the other way about."""

    words: str
    read: int = 0
    wrote: int = 0
    missed: int = 0


def _causes(of: Replica, counted: Counted) -> Iterator[_Cause]:
    for how, words, read, wrote in (
        ("cancelled", "left by their clients", 0, TAIL_TOKENS),
        ("cut", "cut off", 0, TAIL_TOKENS),
        ("killed", "under way in a gateway that was killed", 0, UNTOLD_TOKENS + TAIL_TOKENS),
        ("unpaid", "of which nothing was sent", counted.context, counted.context),
    ):
        many = of.billed[how].requests if how in of.billed else 0
        if many:
            # It may be its host that cut it off, once its engine's counters were read for the last time.
            missed = many * counted.context if of.gone and how == "cut" else 0
            yield _Cause(f"{many} {words}", many * read, many * wrote, missed)
    if of.gone and counted.busy:
        yield _Cause(f"{counted.busy} under way when it was last heard", missed=counted.busy * counted.context)
    if counted.unseen:
        yield _Cause(f"{counted.unseen} engines ended unseen")
