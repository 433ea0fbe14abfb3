"""`Own`: a board by the product's own policy, for a fleet that runs and for one that is replayed.

The policy is made anew when the outlook is another, or the turnover is of another stage. Who gives and takes back says
so: a decision alone is no claim.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from bessemer.core.asking import Decision, Refusal, Request
from bessemer.placement.board import Board
from bessemer.placement.cheapest import Propose
from bessemer.placement.demand import Outlook, Turnover
from bessemer.placement.fleet import FleetArrays
from bessemer.placement.hostclass import HostClass
from bessemer.placement.policies import Policy
from bessemer.placement.policies.potential import Potential
from bessemer.placement.vectors import NONE


class Own:
    """``window``: devices of the fleet, about; see `Turnover`. ``order`` as for `Board`. Who is
    ``patient`` sees to it himself that the policy is not ``behind``."""

    def __init__(
        self,
        fleet: FleetArrays,
        *,
        outlook: Outlook | None = None,
        window: float = 0.0,
        order: str = "",
        patient: bool = False,
    ) -> None:
        self.outlook = outlook or Outlook()
        self.turnover = Turnover(window=window)
        self._stage = self.turnover.stage()
        self._policies = 0
        self._patient = patient
        self._board = Board(fleet, self._made(), order=order)

    def decide(self, request: Request) -> Decision | Refusal:
        """As `Board.decide`."""
        return self._current().decide(request)

    def concede(self, slack: float) -> None:
        """See `Board.slack`."""
        self._board.slack = slack

    def place(self, request: Request) -> Decision | None:
        """As `Board.place`."""
        return self._current().place(request)

    @property
    def policy(self) -> Policy:
        """What it decides by now."""
        return self._current().policy

    def over(self, fleet: FleetArrays) -> Callable[[Request], Decision | None]:
        """Who places on a fork of the fleet by the policy of now."""
        return Board(fleet, self.policy).place

    def remedy(self, remedies: Sequence[Propose]) -> None:
        """What others may do for a request that fits nowhere is proposed to it."""
        self._board.remedies = remedies

    def foresee(self, outlook: Outlook) -> None:
        """Go by another outlook at once; its turnover and version are nothing here."""
        self.outlook, self._stage = outlook, self.turnover.stage()
        self._board.policy = self._made()

    def turn_to(self, outlook: Outlook) -> Iterator[None]:
        """The same in the end, in small steps; see `Board.turn_to`."""
        self.outlook, self._stage = outlook, self.turnover.stage()
        return self._board.turn_to(self._made())

    @property
    def behind(self) -> bool:
        """Whether the turnover is of another stage than the policy is for."""
        return self.turnover.stage() != self._stage

    def _current(self) -> Board:
        if not self._patient and self.behind:
            self.foresee(self.outlook)
        return self._board

    def _made(self) -> Potential:
        self._policies += 1
        return Potential(self.outlook.at(self._stage, version=self._policies))


def classes(fleet: FleetArrays) -> Mapping[HostClass, int]:
    """How many hosts there are of each class."""
    kinds, counts = np.unique(fleet.kind[: fleet.size], return_counts=True)
    found = Counter[HostClass]()
    for kind, count in zip(kinds.tolist(), counts.tolist(), strict=True):
        if kind != NONE:
            found[fleet.kinds.all[kind]] += count
    return found


def devices(fleet: FleetArrays) -> int:
    """How many GPUs there are, sound or not."""
    return int((fleet.device_model[: fleet.size] != NONE).sum())
