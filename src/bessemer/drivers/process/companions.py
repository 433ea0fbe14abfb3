"""Processes of ours beside a confined one: in its cgroup, ended by what ends it, outside its namespaces."""

from __future__ import annotations

from collections.abc import Sequence

from bessemer.core.errors import DriverError
from bessemer.drivers.process import procfs
from bessemer.drivers.process.parts import spawn
from bessemer.drivers.process.protocol import Part
from bessemer.drivers.process.walls import ENVIRONMENT, Walls, companion


def accompany(walls: Walls, uid: str, *, argv: Sequence[str], keep: Sequence[int]) -> Part:
    """Start one. The word by which it is found again is added as its last argument."""
    enter = walls.cgroups.enter(uid) if walls.cgroups is not None else ()
    words = (*enter, *argv, companion(walls.marker(uid)))
    try:
        pid = spawn(words, env=ENVIRONMENT, output=walls.folder(uid) / "companions", keep=keep)
    except OSError as error:
        raise DriverError("ProcessFailed", "a companion cannot be started", internal=str(error)) from error
    walls.children.add(pid)
    found = procfs.entry(pid)
    return Part(pid, found.started_ticks if found is not None else 0)


def companions(walls: Walls, uid: str) -> tuple[tuple[Part, tuple[str, ...]], ...]:
    """Those that live. A tenant that takes their name is in a namespace of its own, and none of them."""
    procfs.reap(walls.children)
    found = [procfs.entry(pid) for pid in procfs.with_argument(companion(walls.marker(uid)))]
    ours = sorted((e for e in found if e and len(e.depth_pids) == walls.depth), key=lambda e: (e.started_ticks, e.pid))
    return tuple((Part(e.pid, e.started_ticks), procfs.arguments(e.pid)[:-1]) for e in ours)
