"""What threads chose for themselves among those of their control group, kept where the kernel forgets it.

Before Linux 6.2 each change of a cpuset gives every thread inside the whole of it (``user_cpus_ptr``, which keeps the
choice, came with that release: kernel/sched/core.c): a guest's CPUs would leave the NUMA node that they were put on,
and stay wherever they come to lie. So the choice is looked at before the change, and made again after it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_REMEMBERS = (6, 2)


def forgets(release: str = "") -> bool:
    """Whether a kernel of that release does (as ``5.15.0-91-generic``); this machine's, where none is said."""
    found = re.match(r"(\d+)\.(\d+)", release or os.uname().release)
    return found is not None and (int(found[1]), int(found[2])) < _REMEMBERS


def tasks(pid: int) -> list[int]:
    """Every thread of a process; none where it is gone."""
    with suppress(OSError):
        return [int(entry.name) for entry in Path(f"/proc/{pid}/task").iterdir()]
    return []


class Chosen:
    """By thread. What was chosen while there was less is had again when there is more, unless it was chosen before this
    process began."""

    def __init__(self) -> None:
        self._held: dict[str, frozenset[int]] = {}
        self._masks: dict[int, frozenset[int]] = {}

    def look(self, uid: str, pids: Iterable[int]) -> None:
        """What those of a group have by now, which is about to be changed."""
        now = _now(pids)
        # Who does not know what the group was held to takes it for what the freest of them may: few choose at all.
        whole = self._held.get(uid) or frozenset().union(*now.values())
        for tid, mask in now.items():
            known = self._masks.get(tid)
            if known is not None and mask == (known & whole or whole):
                continue
            if mask < whole:
                self._masks[tid] = mask
            else:
                self._masks.pop(tid, None)

    def restore(self, uid: str, pids: Iterable[int], *, wanted: frozenset[int]) -> None:
        """The group is held to ``wanted``: whoever chose has what it chose of it, if anything is left of that."""
        self._held[uid] = wanted
        for tid, mask in _now(pids).items():
            left = self._masks.get(tid, wanted) & wanted
            if left and mask != left and mask == wanted:
                with suppress(OSError):
                    os.sched_setaffinity(tid, left)

    def forget(self, uids: Iterable[str], pids: Iterable[int]) -> None:
        """All but these are gone."""
        there, tids = set(uids), {tid for pid in pids for tid in tasks(pid)}
        self._held = {uid: held for uid, held in self._held.items() if uid in there}
        self._masks = {tid: mask for tid, mask in self._masks.items() if tid in tids}


def _now(pids: Iterable[int]) -> dict[int, frozenset[int]]:
    found = {}
    for tid in (tid for pid in pids for tid in tasks(pid)):
        with suppress(OSError):
            found[tid] = frozenset(os.sched_getaffinity(tid))
    return found
