"""Everything that stands under the uids of some walls, for whoever says on which hardware threads it runs."""

from __future__ import annotations

from collections.abc import Sequence

from bessemer.drivers.process import procfs, shim
from bessemer.drivers.process.walls import Walls
from bessemer.drivers.threads.protocol import Kin


class WallsHerd:
    """Implements `threads.protocol.Herd`."""

    def __init__(self, walls: Walls) -> None:
        self._walls = walls

    def kin(self) -> Sequence[Kin]:
        """What is behind the walls, the walls themselves, and what of ours is beside them."""
        walls = self._walls
        procfs.reap(walls.children)
        marked = _marked(f"{walls.scope}/", walls.depth)
        found = []
        for uid in sorted(walls.uids()):
            around, beside = marked.get(uid, (set(), set()))
            inside = frozenset(one.pid for one in walls.inside(uid)) | around
            found.append(Kin(uid, inside, frozenset(beside) - inside))
        return found

    def pin(self, uid: str, cpus: str) -> bool:
        return self._walls.cgroups is not None and self._walls.cgroups.pin(uid, cpus)


def _marked(prefix: str, depth: int) -> dict[str, tuple[set[int], set[int]]]:
    """What of ours carries a scope's markers, by uid, in one look at all processes: walls, and helpers beside them."""
    found: dict[str, tuple[set[int], set[int]]] = {}
    for pid in procfs.pids():
        words = procfs.arguments(pid)
        marks = [word.removeprefix(prefix).partition("/") for word in words if word.startswith(prefix)]
        one = procfs.entry(pid) if marks else None
        if one is not None and len(one.depth_pids) == depth:
            uid, beside, _ = marks[0]
            found.setdefault(uid, (set(), set()))[bool(beside) or shim.__file__ in words].add(pid)
    return found
