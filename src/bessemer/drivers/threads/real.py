"""Hardware threads on this machine: the control groups of what runs hold it, and affinity what has none.

A control group cannot be left, so a tenant that sets its own affinity stays within it. Without control groups (the
weaker class) affinity alone is set, which a process may undo until it is set again.

The agent's own affinity is the record of what is not anybody's own: whatever it starts inherits that, and a control
group that it makes is held to the same (`drivers.cgroup`). So it is held first: what begins while the others are looked
for, which takes a walk through all processes and is done beside the loop, begins where it may.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from bessemer.core.cpus import parse_cpus, show_cpus
from bessemer.core.errors import DriverError
from bessemer.drivers.threads.chosen import Chosen, forgets, tasks
from bessemer.drivers.threads.protocol import Herd, Kin

_ROUNDS = 50
"""Of moving what forks meanwhile: each child begins where its parent was, so few are ever needed."""


class HostThreads:
    """Implements `threads.protocol.Threads` over what these drivers run. ``mine`` are the threads that the agent may
    use at all: as it finds itself, for it never goes beyond. ``chosen`` is for a kernel that forgets what threads chose
    within their groups."""

    def __init__(self, herds: Sequence[Herd], *, mine: Iterable[int] = (), chosen: Chosen | None = None) -> None:
        self._herds = herds
        self._mine = frozenset(mine) or frozenset(os.sched_getaffinity(0))
        self._last: dict[str, frozenset[int]] = {}
        self._was: frozenset[int] | None = None
        self._chosen = chosen or (Chosen() if forgets() else None)
        self._turn = asyncio.Lock()

    async def keep(self, own: Mapping[str, str]) -> None:
        async with self._turn:
            await self._keep(own)

    async def _keep(self, own: Mapping[str, str]) -> None:
        sets = {uid: frozenset(parse_cpus(cpus)) for uid, cpus in own.items()}
        # Where every thread is somebody's own we run on all of them: somewhere we must.
        rest = self._mine.difference(*sets.values()) or self._mine
        refused: list[str] = []
        with _noted(refused):
            self._hold(os.getpid(), rest)
        found = await asyncio.to_thread(self._found, refused)
        for herd, kin in found:
            with _noted(refused):  # the others are held all the same
                wanted = sets.get(kin.uid, rest)
                if not self._pinned(herd, kin, wanted=wanted):
                    self._herd(kin, wanted=wanted, own=kin.uid in sets)
                for pid in kin.helpers:
                    self._hold(pid, rest)
        if self._chosen is not None and not refused:
            self._chosen.forget([kin.uid for _, kin in found], [pid for _, kin in found for pid in kin.inside])
        if not refused:  # else some may only not have been listed
            self._last = {kin.uid: self._last[kin.uid] for _, kin in found if kin.uid in self._last}
        self._was = rest
        if refused:
            internal = "; ".join(refused)[:500]
            raise DriverError("ThreadsRefused", "the kernel refused hardware threads", internal=internal)

    def _found(self, refused: list[str]) -> list[tuple[Herd, Kin]]:
        found: list[tuple[Herd, Kin]] = []
        for herd in self._herds:
            with _noted(refused):
                found += [(herd, kin) for kin in herd.kin()]
        return found

    def _pinned(self, herd: Herd, kin: Kin, *, wanted: frozenset[int]) -> bool:
        """Whether a control group holds it."""
        if self._chosen is not None:
            self._chosen.look(kin.uid, kin.inside)
        if not herd.pin(kin.uid, show_cpus(wanted)):
            return False
        if self._chosen is not None:
            self._chosen.restore(kin.uid, kin.inside, wanted=wanted)
        return True

    def _herd(self, kin: Kin, *, wanted: frozenset[int], own: bool) -> None:
        """By affinity alone. What has chosen fewer threads for itself keeps them, as far as they are among these; what
        an earlier agent began may have been held to fewer by that one, and is given all of them. Threads of its ``own``
        are the same for good: fewer of them it has chosen, whoever began it."""
        last = wanted if own else self._last.get(kin.uid, self._was)
        self._last[kin.uid] = wanted
        for pid in kin.inside:
            self._hold(pid, wanted, before=last)

    def _hold(self, pid: int, wanted: frozenset[int], *, before: frozenset[int] | None = None) -> None:
        """Every thread of the process, and those that it begins meanwhile."""
        for _ in range(_ROUNDS):
            moved = [tid for tid in tasks(pid) if _move(tid, wanted, before=before)]
            if not moved:
                return


@contextmanager
def _noted(refused: list[str]) -> Iterator[None]:
    try:
        yield
    except DriverError as error:
        refused.append(f"{error.reason}: {error.internal}")
    except OSError as error:
        refused.append(str(error))


def _move(tid: int, wanted: frozenset[int], *, before: frozenset[int] | None) -> bool:
    """Whether it was to be moved, and was. ``before``: what it was held to, where that is known."""
    with suppress(ProcessLookupError):
        now = frozenset(os.sched_getaffinity(tid))
        by_itself = before is not None and now < before
        if now == wanted or (by_itself and now <= wanted):
            return False
        os.sched_setaffinity(tid, wanted)
        return frozenset(os.sched_getaffinity(tid)) == wanted
    return False
