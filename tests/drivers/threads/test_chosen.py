"""What threads chose within their control group, on a kernel that forgets it; and who is looked for beside the loop."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence

import pytest

from bessemer.core.cpus import parse_cpus
from bessemer.drivers.threads.chosen import Chosen, forgets, tasks
from bessemer.drivers.threads.protocol import Kin
from bessemer.drivers.threads.real import HostThreads

MINE = sorted(os.sched_getaffinity(0))


class OldGroup:
    """One process in a group, as Linux before 6.2 holds it: each change gives every thread all of it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.held = ""

    def kin(self) -> Sequence[Kin]:
        return [Kin("guest", frozenset({self.pid}))]

    def pin(self, uid: str, cpus: str) -> bool:
        if cpus != self.held:
            self.held = cpus
            for tid in tasks(self.pid):
                os.sched_setaffinity(tid, parse_cpus(cpus))
        return True


@pytest.fixture
def group() -> Iterator[OldGroup]:
    words = (
        "import sys, threading; threading.Thread(target=sys.stdin.read).start(); print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", words], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield OldGroup(process.pid)
        finally:
            process.kill()
            os.sched_setaffinity(0, MINE)


async def test_what_was_chosen_is_chosen_again_after_each_change(group: OldGroup) -> None:
    first, last = MINE[0], MINE[-1]
    main, worker = sorted(tasks(group.pid))
    host = HostThreads([group], mine=MINE, chosen=Chosen())
    await host.keep({})
    os.sched_setaffinity(worker, {first})
    for own in ({"other": str(last)}, {}, {"other": str(last)}, {}):
        await host.keep(own)
        rest = set(MINE) - ({last} if own else set())
        assert os.sched_getaffinity(main) == rest
        assert os.sched_getaffinity(worker) == {first}
    # Where nothing is left of what it chose it runs somewhere, and has it back later.
    await host.keep({"other": str(first)})
    assert os.sched_getaffinity(worker) == set(MINE) - {first}
    await host.keep({})
    assert os.sched_getaffinity(worker) == {first}
    # Who chooses anew is asked anew.
    os.sched_setaffinity(worker, {last})
    await host.keep({"other": str(first)})
    assert os.sched_getaffinity(worker) == {last} & (set(MINE) - {first})


async def test_a_new_agent_sees_who_chose(group: OldGroup) -> None:
    _, worker = sorted(tasks(group.pid))
    os.sched_setaffinity(worker, {MINE[0]})
    await HostThreads([group], mine=MINE, chosen=Chosen()).keep({"other": str(MINE[-1])})
    assert os.sched_getaffinity(worker) == {MINE[0]}


@pytest.mark.parametrize(
    ("release", "old"), [("5.15.0-91-generic", True), ("6.1.0", True), ("6.2.0-rc1", False), ("6.18.44", False)]
)
def test_kernels_that_forget(release: str, old: bool) -> None:
    assert forgets(release) == old


class Slow:
    """Looks for long, and says from where."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.seen: list[threading.Thread] = []

    def kin(self) -> Sequence[Kin]:
        self.seen.append(threading.current_thread())
        assert self.go.wait(60)
        return []

    def pin(self, uid: str, cpus: str) -> bool:
        return False


async def test_processes_are_looked_for_beside_the_loop_and_one_change_after_the_other() -> None:
    herd = Slow()
    host = HostThreads([herd], mine=MINE)
    both = [asyncio.create_task(host.keep({})) for _ in range(2)]
    try:
        async with asyncio.timeout(30):
            while not herd.seen:
                await asyncio.sleep(0)
        assert len(herd.seen) == 1
    finally:
        herd.go.set()
    await asyncio.gather(*both)
    assert len(herd.seen) == 2
    assert threading.main_thread() not in herd.seen
