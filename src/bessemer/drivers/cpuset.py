"""Control groups' sets of hardware threads, of either version. See `cgroup`.

In version 1 a group holds nothing before its set and its memory nodes are written, and no more than its parent: those
above a workload's are given all that there is. In version 2 a group that says nothing has what its parent has.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

_POSSIBLE = Path("/sys/devices/system/cpu/possible")
_FILES = ("cpuset.cpus", "cpuset.mems")


def hierarchy(v1: Mapping[str, Path], v2: Path | None) -> Path | None:
    """The mount whose groups have sets, if one does."""
    if "cpuset" in v1:
        return v1["cpuset"]
    if v2 is None:
        return None
    try:
        offered = (v2 / "cgroup.controllers").read_text().split()
    except OSError:
        return None
    return v2 if "cpuset" in offered else None


def hold(group: Path, cpus: str, *, mount: Path) -> None:
    """Make the group, if it is not there, and let its set be this one. Raises OSError."""
    group.mkdir(parents=True, exist_ok=True)
    if (mount / "cpuset.mems").exists():
        for level in reversed([parent for parent in group.parents if mount in parent.parents]):
            for name in _FILES:
                _say(level / name, _read(mount / name))
        _say(group / "cpuset.mems", _read(mount / "cpuset.mems"))
    _say(group / "cpuset.cpus", cpus)


def unbound() -> tuple[str, ...]:
    """Words to put before a command's: it gives up the choice of threads that it inherited. None where the program for
    it is missing."""
    taskset = shutil.which("taskset")
    return (taskset, "--cpu-list", _read(_POSSIBLE)) if taskset and _POSSIBLE.exists() else ()


def _say(file: Path, words: str) -> None:
    """Write it if it is another: each write goes through all that is inside."""
    if _read(file) != words:
        with open(file, "w", encoding="ascii") as stream:
            stream.write(words)


def _read(file: Path) -> str:
    return file.read_text().strip()
