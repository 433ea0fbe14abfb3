"""Things that wait, by turns: groups take turns, and within a group its members, first come first within one.

Ten thousand things of one member keep no thing of another waiting for more than a turn of each. It holds no more than
what waits, and knows nothing of what the groups and members are.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """A queue of things by group and member. Both `add` and `take` cost the same however much waits."""

    def __init__(self) -> None:
        self._groups: deque[str] = deque()
        self._members: dict[str, deque[str]] = {}
        self._things: dict[tuple[str, str], deque[T]] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __contains__(self, group: str) -> bool:
        return group in self._members

    def add(self, thing: T, *, group: str, member: str = "") -> None:
        """Let it wait."""
        things = self._things.get((group, member))
        if things is None:
            things = self._things[group, member] = deque()
            members = self._members.get(group)
            if members is None:
                members = self._members[group] = deque()
                self._groups.append(group)
            members.append(member)
        things.append(thing)
        self._length += 1

    def take(self) -> T:
        """The next. Raises IndexError where nothing waits."""
        group = self._groups.popleft()
        members = self._members[group]
        member = members.popleft()
        things = self._things[group, member]
        thing = things.popleft()
        self._length -= 1
        if things:
            members.append(member)
        else:
            del self._things[group, member]
        if members:
            self._groups.append(group)
        else:
            del self._members[group]
        return thing
