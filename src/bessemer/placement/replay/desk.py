"""`seat`: a fleet of hosts, and who decides over it by the name of a policy.

The product's own policy learns as it goes how much is given back of what is taken (`Turnover`), as it would in a
running system; what is asked for it knows from the start, as FGD's artefact does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from bessemer.core.errors import Invalid
from bessemer.core.values import Decision, Request
from bessemer.placement.board import Board
from bessemer.placement.demand import Mix, Outlook, Turnover
from bessemer.placement.facts import HostFacts
from bessemer.placement.fleet import FleetArrays
from bessemer.placement.hostclass import HostClass
from bessemer.placement.moves.plan import Place, Planner
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
    fleet, kinds, devices = FleetArrays(), Counter[HostClass](), 0
    for host in hosts:
        fleet.set_host(host)
        kinds[HostClass.of(host)] += 1
        devices += sum(device.kind == "gpu" for device in host.inventory.devices)
    name, mix = known(policy), Mix.of(Counter(map(Shape.of, learned)))
    if name != OWN:
        board = Board(fleet, POLICIES[name](Outlook(mix=mix), dice))
        return Desk(fleet, board.place, mover=_mover(fleet, board.place, moves=moves))
    own = _Own(fleet, Outlook.derive(mix, kinds), window=devices)
    return Desk(fleet, own.decide, left=own.left, mover=_mover(fleet, own.place, moves=moves))


def _mover(fleet: FleetArrays, place: Place, *, moves: Allowance | None) -> Mover | None:
    return Mover(Planner(fleet, place), moves) if moves is not None and moves.per_hundred else None


class _Own:
    """A board by the product's own policy, made anew whenever the turnover is of another stage."""

    def __init__(self, fleet: FleetArrays, outlook: Outlook, *, window: float) -> None:
        self._fleet = fleet
        self._outlook = outlook
        self._turnover = Turnover(window=window)
        self._stage = self._turnover.stage()
        self._boards = 0
        self._board = self._made()

    def decide(self, request: Request) -> Decision | None:
        stage = self._turnover.stage()
        if stage != self._stage:
            self._stage, self._board = stage, self._made()
        decision = self._board.place(request)
        if decision is not None:
            self._turnover.took(milli_of(request))
        return decision

    def place(self, request: Request) -> Decision | None:
        """For what is moved: it was counted when it came."""
        return self._board.place(request)

    def left(self, request: Request) -> None:
        self._turnover.gave_back(milli_of(request))

    def _made(self) -> Board:
        self._boards += 1
        outlook = self._outlook.at(self._stage, version=self._boards)
        return Board(self._fleet, POLICIES[OWN](outlook, np.random.default_rng(0)))
