"""Every driver call and every commit of a life, counted, and the end of a part of the process at one of them.

A part is ``control`` (store, loop, fleet) or ``agent``. What dies does nothing more: its calls raise `Stop`, as kill -9
ends them. Whoever lives and asks a dead control plane is told Unavailable, before the call or in place of its answer.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

from bessemer.core.errors import Unavailable
from bessemer.core.resource import Key

Sort = Literal["driver", "commit"]
Moment = Literal["before", "after"]
Point = tuple[Sort, int, Moment]
"""The how-many-eth call of its sort, and on which side of it."""

PartName = Literal["control", "agent"]
EVERYTHING: frozenset[PartName] = frozenset(("control", "agent"))

WRITES = frozenset({"create", "replace", "delete", "take", "amend", "retire", "release", "set_quota", "emit", "tell"})


class Stop(BaseException):
    """The process ends here, as kill -9 ends it: nothing catches this."""


class Points:
    """The calls in order; ``stop`` names the one at which ``victims`` end."""

    def __init__(self) -> None:
        self.arm(None)

    def arm(self, stop: Point | None, victims: frozenset[PartName] = EVERYTHING) -> None:
        """Count from here on, and end the victims at ``stop``."""
        self.names: dict[Sort, list[str]] = {"driver": [], "commit": []}
        self.stop = stop
        self.victims = victims
        self.dead: frozenset[PartName] = frozenset()

    async def pass_by(self, sort: Sort, name: str, call: Callable[[], Awaitable[Any]], *, part: PartName) -> Any:
        """Make the call, unless the part that makes it, or the one that it asks, ends before or after it."""
        self._end(sort, part)
        index = len(self.names[sort])
        self.names[sort].append(name)
        self._perhaps_stop((sort, index, "before"))
        self._end(sort, part)
        result = await call()
        self._perhaps_stop((sort, index, "after"))
        self._end(sort, part)
        return result

    def _perhaps_stop(self, here: Point) -> None:
        if here == self.stop:
            self.stop = None
            self.dead = self.victims

    def _end(self, sort: Sort, part: PartName) -> None:
        if part in self.dead:
            raise Stop
        if sort == "commit" and "control" in self.dead:
            raise Unavailable("the server cannot be reached")


class Tap:
    """Something whose async methods pass by the points under ``prefix.method``; a commit's name says of which kind too.

    Only what is named in ``only`` counts, where that names something.
    """

    def __init__(
        self,
        inner: Any,
        points: Points,
        *,
        sort: Sort,
        prefix: str,
        only: frozenset[str] = frozenset(),
        part: PartName = "control",
    ) -> None:
        self._inner = inner
        self._points = points
        self._sort: Sort = sort
        self._prefix = prefix
        self._only = only
        self._part: PartName = part

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if not inspect.iscoroutinefunction(value) or (self._only and name not in self._only):
            return value

        async def call(*args: Any, **kwargs: Any) -> Any:
            about = _kind_of(args[0]) if self._sort == "commit" and args else ""
            called = f"{self._prefix}.{name} {about}".rstrip()
            return await self._points.pass_by(self._sort, called, lambda: value(*args, **kwargs), part=self._part)

        return call


def _kind_of(about: Any) -> str:
    """The kind of the object that a key or a body is of; "" for anything else."""
    if isinstance(about, Key):
        return about.kind
    return str(about.get("kind", "")) if isinstance(about, Mapping) else ""
