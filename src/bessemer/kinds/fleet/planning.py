"""Where a workload would go, its replicas one after the other, or all of a gang at once: decided by what decides in
earnest, upon arrays that are changed in thought alone and are afterwards as they were, also where something goes wrong.
It awaits nothing, so that nobody sees them meanwhile. What is said of it is `outlining`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bessemer.core.asking import Asker, Decision, Gang, GangDecision, Refusal, Request
from bessemer.kinds.fleet.foresight import Foreseen
from bessemer.kinds.fleet.moving import Fork
from bessemer.placement import FleetArrays
from bessemer.placement.ever import ever, takers
from bessemer.placement.gangs import place_gang
from bessemer.placement.own import Own
from bessemer.placement.preview import Scored, ranked
from bessemer.placement.queue import Pending
from bessemer.placement.thought import Thought

REPLICAS_MAX = 64
"""Of one question, and as many of all that goes before: nobody else is served while they are decided."""

MEMBERS_AS_ONE = 64
"""Members of a gang that goes before count as one: they are decided in one go, but each is held by itself."""

OTHERS = 3
"""Next best hosts that are told, of the first `EXPLAINED` replicas; they are dear: all hosts are looked at."""

EXPLAINED = 4

TAKERS_MAX = 64
"""Hosts that are looked at for what would be in the way on them besides room."""


class Planner(Protocol):
    """Who decides over the fleet, and the arrays by which it does."""

    @property
    def arrays(self) -> FleetArrays: ...

    @property
    def own(self) -> Own: ...

    def ready(self) -> bool: ...

    def forked(self) -> Fork:
        """The fleet of this moment, for who plans moves. Raises Unavailable until it has been read."""
        ...

    def decide(self, request: Request) -> Decision | Refusal: ...

    def decide_gang(self, gang: Gang) -> GangDecision | Refusal: ...

    def others(self) -> bool:
        """Whether somebody waits for a place already."""
        ...

    def foresee(self, pending: Pending) -> Foreseen | None:
        """Whose turn it would be; None of whom nobody keeps an order."""
        ...


@dataclass(slots=True)
class Planned:
    """What was decided of ``asked`` replicas or gangs, with what was beside each; ``refusal`` says why there are not
    more. ``before`` is what went before, of which not everything was ``counted`` where it was too many. ``decisions``
    are of replicas, or of the members of the ``gang`` by rank. ``foreseen`` is of the first replica, or the gang. What
    is ``never`` placed finds no room for one of it in an empty fleet either; ``takers`` are hosts that would take a
    member of a gang then."""

    wants: Request | Gang
    asked: int
    before: list[Planned] = field(default_factory=list)
    counted: bool = True
    decisions: list[Decision] = field(default_factory=list)
    beside: list[Sequence[Scored]] = field(default_factory=list)
    gang: GangDecision | None = None
    refusal: Refusal | None = None
    foreseen: Foreseen | None = None
    never: bool = False
    takers: Sequence[str] = ()

    @property
    def request(self) -> Request:
        """Of one replica or member."""
        return self.wants.member if isinstance(self.wants, Gang) else self.wants

    @property
    def wanted(self) -> int:
        """Replicas or members."""
        return self.asked * (self.wants.count if isinstance(self.wants, Gang) else 1)

    @property
    def tried(self) -> int:
        if isinstance(self.wants, Gang):
            return self.wanted
        return len(self.decisions) + (self.refusal is not None)


@dataclass(frozen=True, slots=True)
class Earlier:
    """What goes before: ``after`` as many replicas of each as if they stood, and claims that are ``left_out`` as if
    they did not. ``asker`` is who would ask, where it is to be foreseen when it starts."""

    after: Sequence[tuple[Request | Gang, int]] = ()
    left_out: Iterable[str] = ()
    asker: Asker | None = None


def plan(fleet: Planner, wants: Request | Gang, *, replicas: int, earlier: Earlier | None = None) -> Planned:
    """Decide the first `REPLICAS_MAX` of them, or the gang, as if what is ``earlier``, of which as many are counted,
    had gone before, as far as it finds room. Raises Unavailable until the fleet has been read."""
    found, earlier = Planned(wants, replicas), earlier or Earlier()
    with Thought(fleet.arrays) as thought:
        thought.leave_out(earlier.left_out)
        left = REPLICAS_MAX
        for asked, wanted in earlier.after:
            each = -(-asked.count // MEMBERS_AS_ONE) if isinstance(asked, Gang) else 1
            most = min(wanted, left // each)
            found.before.append(_suppose(fleet, asked, replicas=most, thought=thought))
            found.counted &= most == wanted
            left -= most * each
        if earlier.asker is not None and replicas:
            found.foreseen = fleet.foresee(Pending(earlier.asker, wants))
        if isinstance(wants, Gang):
            _together(fleet, wants, found=found)
        else:
            _by_turns(fleet, wants, found=found, thought=thought)
    if found.refusal is not None and not found.decisions:
        found.never = not ever(fleet.arrays, wants)
    if isinstance(wants, Gang):
        found.takers = takers(fleet.arrays, wants, most=TAKERS_MAX)
    return found


def _by_turns(fleet: Planner, request: Request, *, found: Planned, thought: Thought) -> None:
    """Replicas, each as if those before it stood."""
    for _ in range(min(found.asked, REPLICAS_MAX)):
        answer = fleet.decide(request)
        if isinstance(answer, Refusal):
            found.refusal = answer
            return
        found.decisions.append(answer)
        most = OTHERS if len(found.beside) < EXPLAINED else 0
        found.beside.append(ranked(fleet.arrays, request, policy=fleet.own.policy, first=answer.host, most=most))
        thought.take(answer)


def _together(fleet: Planner, gang: Gang, *, found: Planned) -> None:
    """All members, or none."""
    answer = fleet.decide_gang(gang)
    if isinstance(answer, Refusal):
        found.refusal = answer
        return
    found.gang, found.decisions = answer, list(answer.members)
    for member in answer.members[:EXPLAINED]:
        found.beside.append(ranked(fleet.arrays, gang.member, policy=fleet.own.policy, first=member.host, most=0))


def _suppose(fleet: Planner, wants: Request | Gang, *, replicas: int, thought: Thought) -> Planned:
    """Count as many as find room. Nobody asks why the others do not, and what would help is dear to say."""
    found = Planned(wants, replicas)
    for _ in range(replicas):
        if isinstance(wants, Gang):
            together = place_gang(fleet.arrays, wants, policy=fleet.own.policy)
            places: Sequence[Decision] = together.members if together is not None else ()
        else:
            place = fleet.own.place(wants)
            places = [place] if place is not None else ()
        if not places:
            break
        found.decisions += places
        for one in places:
            thought.take(one)
    return found
