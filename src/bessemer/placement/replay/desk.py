"""`seat`: a fleet of hosts, and who decides over it by the name of a policy.

The product's own policy learns as it goes how much is given back of what is taken (`Turnover`), as it would in a
running system; what is asked for it knows from the start, as FGD's artefact does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from bessemer.core.asking import Decision, Request
from bessemer.core.errors import Invalid
from bessemer.placement.board import Board
from bessemer.placement.demand import Mix, Outlook
from bessemer.placement.facts import HostFacts
from bessemer.placement.fleet import FleetArrays
from bessemer.placement.moves.plan import Place, Planner
from bessemer.placement.own import Own, classes, devices
from bessemer.placement.policies.table import POLICIES
from bessemer.placement.replay.moving import Allowance, Mover
from bessemer.placement.replay.run import Desk
from bessemer.placement.replay.trace import milli_of
from bessemer.placement.shape import Shape

OWN = "LPG"
"""The policy of the product."""


def known(policy: str) -> str:
    """The name as the table has it, however it is written. Raises Invalid, with those that there are, for another."""
    names = {name.lower(): name for name in POLICIES}
    if policy.lower() not in names:
        raise Invalid(f"no policy is called {policy!r}; there are {', '.join(names.values())}")
    return names[policy.lower()]


def seat(
    hosts: Iterable[HostFacts],
    *,
    policy: str,
    learned: Sequence[Request],
    dice: np.random.Generator,
    moves: Allowance | None = None,
) -> Desk:
    """Nothing is placed yet. ``learned`` are the requests from which the policy knows what is asked for; ``dice`` are
    for a policy that throws some; ``moves`` are what may be moved, None: nothing."""
    fleet = FleetArrays()
    for host in hosts:
        fleet.set_host(host)
    name, mix = known(policy), Mix.of(Counter(map(Shape.of, learned)))
    if name != OWN:
        board = Board(fleet, POLICIES[name](Outlook(mix=mix), dice))
        return Desk(fleet, board.place, mover=_mover(fleet, board.place, moves=moves))
    own = Own(fleet, outlook=Outlook.derive(mix, classes(fleet)), window=devices(fleet))
    learning = _Learning(own)
    # What is moved was counted when it came.
    return Desk(
        fleet,
        learning.decide,
        left=learning.left,
        mover=_mover(fleet, own.place, moves=moves),
        look=own.place,
        took=learning.took,
    )


def _mover(fleet: FleetArrays, place: Place, *, moves: Allowance | None) -> Mover | None:
    return Mover(Planner(fleet, place), moves) if moves is not None and moves.per_hundred else None


class _Learning:
    """Decides, and learns as it goes."""

    def __init__(self, own: Own) -> None:
        self._own = own

    def decide(self, request: Request) -> Decision | None:
        decision = self._own.place(request)
        if decision is not None:
            self.took(request)
        return decision

    def took(self, request: Request) -> None:
        self._own.turnover.took(milli_of(request))

    def left(self, request: Request) -> None:
        self._own.turnover.gave_back(milli_of(request))
