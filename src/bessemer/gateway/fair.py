"""Who is next where all wait: a bounded line that is fair between classes, tenants and those who ask for them. Pure.

A tree of levels: at each the child is next that has had least so far, by the cost of what it was given over its weight
(start-time fair queueing). One that comes back after a while begins where the others are: nobody saves up turns, and
nobody pays for having been alone. At a leaf those who came first are first.

Starvation bound: of two children that both wait, the one with weight v is given at most `COST_MAX` over v more than its
share before the other has its turn; so whoever waits first in a class, tenant and key is served after a number of
others that their weights and numbers bound, and not the length of anybody's line.

Where the line is full, the last of whoever has most waiting gives way: who floods it, floods himself.

Sources: Goyal, Vin, Cheng: Start-time Fair Queueing (SIGCOMM 1996); Sheng et al.: Fairness in Serving Large Language
Models (OSDI 2024; counts in tokens); McKenney: Stochastic Fairness Queueing (1990; the longest line gives way).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Generic, TypeVar

COST_MAX = 1 << 15
"""In tokens; no request weighs more, so that one of a million tokens does not end its tenant's turn for the day."""
WEIGHTS: Mapping[str, float] = MappingProxyType({"priority": 16.0, "default": 4.0, "flex": 1.0})
"""Of classes."""
_IDLE_MAX = 64

W = TypeVar("W")


class Line(Generic[W]):
    """A level of the tree, or a leaf of it: ``weights`` of its children, 1 where they say nothing; ``count`` are those
    who wait below it."""

    __slots__ = ("_children", "_clock", "_had", "_waiting", "_weights", "count")

    def __init__(self, weights: Mapping[str, float] = MappingProxyType({})) -> None:
        self._weights = weights
        self._children: dict[str, Line[W]] = {}
        self._had: dict[str, float] = {}
        """Of each child, in cost over weight."""
        self._clock = 0.0
        """What the child had that was last given a turn."""
        self._waiting: deque[tuple[W, int]] = deque()
        self.count = 0

    def __len__(self) -> int:
        return self.count

    @property
    def known(self) -> int:
        """Children that are remembered, waiting or not."""
        return len(self._children)

    def push(self, path: Sequence[str], who: W, *, cost: int = 1) -> None:
        """Let somebody wait behind those of the same path: class, tenant, key."""
        level = self
        for name in path:
            level = level._enter(name)
        level.count += 1
        level._waiting.append((who, max(1, min(cost, COST_MAX))))

    def pop(self) -> W | None:
        """Who is next; None where nobody waits."""
        return self._pop()[0] if self.count else None

    def remove(self, path: Sequence[str], who: W) -> bool:
        """Somebody waits no more; whether he did."""
        level, levels = self, [self]
        for name in path:
            child = level._children.get(name)
            if child is None:
                return False
            level = child
            levels.append(level)
        entry = next((entry for entry in level._waiting if entry[0] is who), None)
        if entry is None:
            return False
        level._waiting.remove(entry)
        for one in levels:
            one._left()
        return True

    def yield_to(self, path: Sequence[str]) -> W | None:
        """The last of whoever has most waiting, out of the line, so that another of ``path`` has room; None where he
        who comes would have as many."""
        found: list[str] = []
        level, ours = self, True
        for name in path:
            longest = max(level._children, key=level._length, default="")
            if ours and longest != name:
                if level._length(longest) <= level._length(name, 1):
                    return None
                ours = False
            found.append(longest)
            level = level._children[longest]
        if ours:
            return None
        who = level._waiting[-1][0]
        self.remove(found, who)
        return who

    def _length(self, name: str, more: int = 0) -> float:
        """How many wait there, by weight."""
        child = self._children.get(name)
        return ((child.count if child is not None else 0) + more) / self._weights.get(name, 1.0)

    def _enter(self, name: str) -> Line[W]:
        child = self._children.get(name)
        if child is None:
            if len(self._children) > 2 * self.count + _IDLE_MAX:
                self._forget()
            child = self._children[name] = Line()
        if not child.count:
            self._had[name] = max(self._had.get(name, 0.0), self._clock)
        self.count += 1
        return child

    def _pop(self) -> tuple[W, int]:
        if self._waiting:
            who, cost = self._waiting.popleft()
        else:
            name = min((n for n, child in self._children.items() if child.count), key=self._had.__getitem__)
            self._clock = self._had[name]
            who, cost = self._children[name]._pop()
            self._had[name] = self._clock + cost / self._weights.get(name, 1.0)
        self._left()
        return who, cost

    def _left(self) -> None:
        self.count -= 1
        if not self.count:
            self._children.clear()
            self._had.clear()
            self._clock = 0.0

    def _forget(self) -> None:
        """Those who do not wait."""
        for name in [name for name, child in self._children.items() if not child.count]:
            del self._children[name], self._had[name]
