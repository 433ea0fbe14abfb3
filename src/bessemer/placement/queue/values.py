"""What the queue is told and what it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from bessemer.core.asking import Asker, Decision, Gang, GangDecision, Request
from bessemer.core.resource import tenant_of
from bessemer.placement.arrays import Arrays
from bessemer.placement.facts import Hold

Wants = Request | Gang

Placed = Decision | GangDecision


class Places(Protocol):
    """Who says where something goes now, over the same arrays that the queue reads; None where it fits nowhere: of
    those who wait most do not, and why is dear to say."""

    def place(self, request: Request) -> Decision | None: ...

    def place_gang(self, gang: Gang, among: Arrays | None = None) -> GangDecision | None:
        """``among`` are some of the hosts alone."""
        ...


@dataclass(frozen=True, slots=True)
class Pending:
    """Who waits, and for what."""

    asker: Asker
    wants: Wants

    @property
    def uid(self) -> str:
        return self.asker.uid

    @property
    def tenant(self) -> str:
        return tenant_of(self.asker.project)

    @property
    def member(self) -> Request:
        """What is wanted of one host."""
        return self.wants.member if isinstance(self.wants, Gang) else self.wants

    @property
    def count(self) -> int:
        return self.wants.count if isinstance(self.wants, Gang) else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What a tenant or a project may expect beside its siblings: a part by ``weight``, and never more than ``bounds``
    (resource → amount; what is not named has none)."""

    weight: int = 1
    bounds: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        if self.weight < 1:
            raise ValueError(f"a weight of {self.weight}; it is 1 at least")


EQUAL = Share()
"""Of whoever is not named in a tree of shares."""

Tree = Mapping[str, Share]
"""Shares by name: ``TENANT`` among all tenants, ``TENANT--PROJECT`` among the tenant's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Times are seconds. Who waited for ``patience`` is overdue. What is stopped has ``grace`` to end, and is then
    ``cleared`` away: its place is free when both have passed. What is borrowed is not taken back in its first
    ``least_run``; what has not ended ``stuck`` after its time is not waited for. ``depth`` requests of the order are
    planned for, ``reservations`` of them at most in the future, and for ``stops`` somebody is stopped, at a time;
    ``told`` of the others hear when they start. Gangs are dear: for ``gangs`` of them it is asked whom to stop, and for
    as many when they would fit. For whoever is in ``vain``, by uid, nobody is."""

    patience: int = 600
    grace: int = 30
    cleared: int = 0
    least_run: int = 300
    stuck: int = 300
    depth: int = 32
    reservations: int = 8
    stops: int = 4
    told: int = 8
    gangs: int = 2
    vain: frozenset[str] = frozenset()

    @property
    def window(self) -> int:
        """Until a place is free for which somebody is stopped now."""
        return self.grace + self.cleared


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What is kept for a pending request: where it goes, and what of the hosts nobody of lower standing may have until
    then, who counts on the claims ``gone``. ``start`` is when it is free at the latest, None where nobody knows."""

    uid: str
    start: int | None
    places: tuple[Decision, ...]
    ghosts: Mapping[str, Hold]
    gone: Mapping[str, Hold] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def hosts(self) -> tuple[str, ...]:
        return tuple(sorted({place.host for place in self.places}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What is said of one pending request: ``ahead`` of it so many wait; it is ``placed`` now, or something is ``kept``
    for it, or neither. ``victims`` are uids of the claims that are to make room for it; ``expected`` is when it starts
    at the latest as far as is known, None where nobody knows."""

    ahead: int
    placed: Placed | None = None
    kept: Kept | None = None
    victims: tuple[str, ...] = ()
    expected: int | None = None


def decisions(placed: Placed) -> tuple[Decision, ...]:
    """One for each member."""
    return placed.members if isinstance(placed, GangDecision) else (placed,)
