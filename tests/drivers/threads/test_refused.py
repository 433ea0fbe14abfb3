"""What the kernel refuses to one is no reason to hold nobody."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

from bessemer.core.cpus import show_cpus
from bessemer.core.errors import DriverError
from bessemer.drivers.threads.protocol import Kin
from bessemer.drivers.threads.real import HostThreads


class Stubborn:
    """Runs nothing; of one uid the kernel refuses what is asked. ``pinned`` is what was asked of the others."""

    def __init__(self, uids: Sequence[str]) -> None:
        self.uids = uids
        self.pinned: dict[str, str] = {}

    def kin(self) -> Sequence[Kin]:
        if not self.uids:
            raise PermissionError("groups cannot be listed")
        return [Kin(uid, frozenset()) for uid in self.uids]

    def pin(self, uid: str, cpus: str) -> bool:
        if uid == "refused":
            raise DriverError("CgroupRefused", "the kernel refused threads to a group")
        self.pinned[uid] = cpus
        return True


async def test_the_others_are_held_all_the_same() -> None:
    herds = Stubborn(()), Stubborn(("before", "refused", "behind")), Stubborn(("beside",))
    mine = show_cpus(os.sched_getaffinity(0))
    with pytest.raises(DriverError) as caught:
        await HostThreads(herds).keep({"refused": "8191"})
    assert caught.value.reason == "ThreadsRefused"
    assert "CgroupRefused" in caught.value.internal
    assert "groups cannot be listed" in caught.value.internal
    assert [herd.pinned for herd in herds] == [{}, {"before": mine, "behind": mine}, {"beside": mine}]


class Passing:
    """Runs nothing, in no control groups."""

    def __init__(self, *uids: str) -> None:
        self.uids = uids

    def kin(self) -> Sequence[Kin]:
        return [Kin(uid, frozenset()) for uid in self.uids]

    def pin(self, uid: str, cpus: str) -> bool:
        return False


async def test_what_runs_no_more_is_forgotten() -> None:
    herd, beside = Passing("a", "b"), Stubborn(("refused",))
    host = HostThreads([herd, beside])
    with pytest.raises(DriverError):
        await host.keep({})
    beside.uids, herd.uids = ("beside",), ("b", "c")
    await host.keep({})
    assert set(host._last) == {"b", "c"}
