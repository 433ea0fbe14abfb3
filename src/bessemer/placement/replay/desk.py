"""`seat`: a fleet of hosts, and who decides over it by the name of a policy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from bessemer.core.errors import Invalid
from bessemer.core.values import Request
from bessemer.placement.decide import decide
from bessemer.placement.facts import HostFacts
from bessemer.placement.fleet import FleetArrays
from bessemer.placement.replay.run import Desk

OWN = "own"
"""The policy of the product."""


def known(policy: str) -> str:
    """The name itself. Raises Invalid, with those that there are, for one that is none of them."""
    names = [OWN]
    if policy not in names:
        raise Invalid(f"no policy is called {policy!r}; there are {', '.join(names)}")
    return policy


def seat(hosts: Iterable[HostFacts], *, policy: str, learned: Sequence[Request]) -> Desk:
    """Nothing is placed yet. ``learned`` are the requests from which the policy knows what is asked for."""
    known(policy)
    fleet = FleetArrays()
    for host in hosts:
        fleet.set_host(host)
    return Desk(fleet, partial(decide, fleet))
