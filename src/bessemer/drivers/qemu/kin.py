"""The guests of one state directory, for whoever says on which hardware threads they run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bessemer.drivers.cgroup import Cgroups
from bessemer.drivers.qemu import proc
from bessemer.drivers.threads.protocol import Kin


class GuestHerd:
    """Implements `threads.protocol.Herd` over what `LocalQemu` of the same directory and groups runs."""

    def __init__(self, root: Path, *, cgroups: Cgroups | None) -> None:
        self._root = root.absolute()
        self._cgroups = cgroups

    def kin(self) -> Sequence[Kin]:
        grouped = {uid: self._cgroups.pids(uid) for uid in self._cgroups.uids()} if self._cgroups else {}
        found = {guest.uid: frozenset({guest.pid}) for guest in proc.guests(self._root)}
        return [Kin(uid, found.get(uid, frozenset()) | grouped.get(uid, frozenset())) for uid in found | grouped]

    def pin(self, uid: str, cpus: str) -> bool:
        return self._cgroups is not None and self._cgroups.pin(uid, cpus)
