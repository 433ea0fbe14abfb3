"""`Numbers`: small numbers for names, so that arrays can hold them."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

from bessemer.placement.vectors import NONE

Named = TypeVar("Named", bound=Hashable)


class Numbers(Generic[Named]):
    """Small numbers for what is in use. One that nobody uses any more is given to the next newcomer, so that hosts that
    keep changing their words use up neither numbers nor memory."""

    def __init__(self) -> None:
        self.all: list[Named] = []
        self._users: list[int] = []
        self._index: dict[Named, int] = {}
        self._vacant: list[int] = []

    def take(self, name: Named) -> int:
        """The number of ``name`` for one more user, a new one where it is new."""
        number = self._index.get(name)
        if number is None:
            number = self._index[name] = self._new(name)
        self._users[number] += 1
        return number

    def give_back(self, number: int) -> None:
        """One user less. ``all`` keeps the name until its number is given anew."""
        self._users[number] -= 1
        if not self._users[number]:
            del self._index[self.all[number]]
            self._vacant.append(number)

    def find(self, name: Named) -> int:
        """The number of ``name``, or `NONE`."""
        return self._index.get(name, NONE)

    def copy(self) -> Numbers[Named]:
        """One that goes its own way, with the same numbers."""
        other = Numbers[Named]()
        other.all, other._users = list(self.all), list(self._users)
        other._index, other._vacant = dict(self._index), list(self._vacant)
        return other

    def _new(self, name: Named) -> int:
        if self._vacant:
            number = self._vacant.pop()
            self.all[number] = name
            return number
        self.all.append(name)
        self._users.append(0)
        return len(self.all) - 1
