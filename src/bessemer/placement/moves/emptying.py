"""`emptiest`: which hosts are cheapest to empty, and the moves that do it.

What a set of hosts costs is what its claims cost, wherever they go. So sets are tried from the cheapest on, and the
first whose claims all find a place elsewhere is the one. Only hosts that could be emptied by themselves are looked at:
what finds no room with one host shut finds none with more. Where too many sets fail, hosts are taken one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np

from bessemer.placement.moves.plan import Plan, Planner

LOOKED = 64
"""Hosts that are tried by themselves at most, beyond as many as are to be emptied."""

SPARE = 8
"""Hosts that sets are made of, beyond as many as are to be emptied."""

TRIES = 32
"""Sets that are tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Emptying:
    """``hosts`` are empty after ``plan``. ``proven``: no set of as many that this planner could empty is cheaper."""

    hosts: tuple[str, ...]
    plan: Plan
    proven: bool


@dataclass(frozen=True, slots=True)
class _Host:
    """What emptying it costs, and the claims that move."""

    price: float
    name: str
    claims: int


def emptiest(planner: Planner, *, count: int, most: int) -> Emptying | None:
    """The cheapest ``count`` hosts to empty, of those that are open, by ``most`` moves at most; None where none was
    found. One that holds nothing costs nothing."""
    hosts = [host for host in _hosts(planner) if host.claims <= most]
    able: list[_Host] = []
    for looked, host in enumerate(hosts):
        if len(able) == count + SPARE or looked == count + LOOKED:
            break
        if not host.claims or not planner.emptied([host.name]).stuck:
            able.append(host)
    rest = hosts[hosts.index(able[-1]) + 1 :] if able else []
    if len(able) < count:
        return None
    # A set with a host that was not looked at costs as much as this at least.
    beyond = sum(host.price for host in able[: count - 1]) + rest[0].price if rest else np.inf
    for _, (price, chosen) in zip(range(TRIES), _sets(able, count), strict=False):
        if sum(host.claims for host in chosen) > most:
            continue
        plan = planner.emptied([host.name for host in chosen])
        if not plan.stuck:
            return Emptying(hosts=tuple(sorted(h.name for h in chosen)), plan=plan, proven=price <= beyond)
    return _one_by_one(planner, able, count=count, most=most)


def _hosts(planner: Planner) -> list[_Host]:
    """The hosts that are open, by price; those with a claim that must stay are left out."""
    fleet = planner.fleet
    prices = planner.prices()
    found = []
    open_ = fleet.present[: fleet.size] & fleet.reachable[: fleet.size] & fleet.schedulable[: fleet.size]
    for row in np.flatnonzero(open_).tolist():
        slots = planner.holdings.at(row)
        price = float(sum(prices[slot] for slot in slots))
        if np.isfinite(price):
            found.append(_Host(price, fleet.names[row], len(slots)))
    return sorted(found, key=lambda host: (host.price, host.name))


def _sets(hosts: Sequence[_Host], count: int) -> Iterator[tuple[float, Sequence[_Host]]]:
    """Sets of so many hosts with what they cost, the cheapest first. ``hosts`` are by price."""
    first = tuple(range(count))
    heap = [(sum(host.price for host in hosts[:count]), first)]
    known = {first}
    while heap:
        price, chosen = heappop(heap)
        yield price, [hosts[n] for n in chosen]
        for place, n in enumerate(chosen):
            following = (*chosen[:place], n + 1, *chosen[place + 1 :])
            if n + 1 < len(hosts) and n + 1 not in chosen and following not in known:
                known.add(following)
                heappush(heap, (price - hosts[n].price + hosts[n + 1].price, following))


def _one_by_one(planner: Planner, hosts: Sequence[_Host], *, count: int, most: int) -> Emptying | None:
    """The cheapest first, and each further one that can be emptied with those before it."""
    chosen: list[_Host] = []
    plan = Plan(moves=())
    for host in hosts:
        more = [*chosen, host]
        if sum(one.claims for one in more) > most:
            continue
        tried = planner.emptied([one.name for one in more])
        if not tried.stuck:
            chosen, plan = more, tried
        if len(chosen) == count:
            return Emptying(hosts=tuple(sorted(one.name for one in chosen)), plan=plan, proven=False)
    return None
