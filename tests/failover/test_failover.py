"""Two replicas over one database: whichever is stopped, killed or cut off, and whatever befalls the database, nothing
that was acknowledged is lost, nothing is done twice, and work goes on within seconds."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.failover.cluster import LEASE_SECONDS, Cluster, cluster
from tests.failover.proxy import Wire
from tests.failover.work import Work, working
from tests.store.server import Server

pytestmark = pytest.mark.real

Fault = Callable[[Cluster, Work, str], Awaitable[None]]
RESUMES_SECONDS = 25.0
"""Far above what is measured: the machine may be busy."""


async def stopped_past_its_lease(cluster: Cluster, work: Work, name: str) -> None:
    """The leader gets SIGSTOP for longer than its leases, and then goes on amid what it was about to do."""
    leader = await cluster.some_leader()
    assert leader.process is not None
    began = time.monotonic()
    leader.process.send_signal(signal.SIGSTOP)
    cluster.take_out(leader)
    try:
        cluster.times[name] = await work.runs_again(began, name)
        await asyncio.sleep(max(0.0, 1.5 * LEASE_SECONDS - (time.monotonic() - began)))
        assert cluster.leader() is cluster.other(leader)
    finally:
        leader.process.send_signal(signal.SIGCONT)
        cluster.put_back()


async def killed(cluster: Cluster, work: Work, name: str) -> None:
    """kill -9 of the leader; it is started again."""
    leader = await cluster.some_leader()
    began = time.monotonic()
    await leader.end(signal.SIGKILL)
    cluster.take_out(leader)
    cluster.times[name] = await work.runs_again(began, name)
    await leader.start()
    await leader.ready()
    cluster.put_back()


async def database_restarts(cluster: Cluster, work: Work, name: str) -> None:
    """The server is stopped and started, once in order and once as in a crash."""
    how = random.choice([signal.SIGINT, signal.SIGQUIT])
    await asyncio.to_thread(cluster.server.stop, how)
    try:
        await asyncio.sleep(0.3)
    finally:
        await asyncio.to_thread(cluster.server.start)
    cluster.times[name] = await work.runs_again(time.monotonic(), name)


async def cut_from_the_database(cluster: Cluster, work: Work, name: str) -> None:
    """The leader's wire takes bytes and forwards none, for longer than its leases."""
    leader = await cluster.some_leader()
    began = time.monotonic()
    leader.wire.cut(Wire.DROP)
    cluster.take_out(leader)
    try:
        cluster.times[name] = await work.runs_again(began, name)
        await asyncio.sleep(max(0.0, 1.5 * LEASE_SECONDS - (time.monotonic() - began)))
    finally:
        leader.wire.cut(Wire.OPEN)
        cluster.put_back()


FAULTS: dict[str, Fault] = {
    "sigstop": stopped_past_its_lease,
    "kill": killed,
    "restart": database_restarts,
    "cut": cut_from_the_database,
}


async def test_one_of_each(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """SIGSTOP past a lease, kill -9, a restart of PostgreSQL and a cut wire, with work going on through all of them."""
    async with cluster(server, tmp_path) as replicas, working(replicas) as work:
        await work.runs_again(time.monotonic(), "first")
        for name, fault in FAULTS.items():
            await fault(replicas, work, name)
    tell(replicas, work, capsys)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(4))
async def test_many_of_each(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], seed: int) -> None:
    """The same with three replicas, many times over and in any order."""
    chosen = random.Random(seed)
    async with cluster(server, tmp_path, count=3) as replicas, working(replicas) as work:
        for number in range(10):
            kind = chosen.choice(sorted(FAULTS))
            await FAULTS[kind](replicas, work, f"{kind}-{number}")
    tell(replicas, work, capsys)


def tell(cluster: Cluster, work: Work, capsys: pytest.CaptureFixture[str]) -> None:
    """Print what was measured, and hold it against its bound."""
    words = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in cluster.times.items())
    with capsys.disabled():
        print(f"\n  work went on after: {words}; {len(work.acknowledged)} acknowledged writes, none lost")  # noqa: T201
    assert max(cluster.times.values()) < RESUMES_SECONDS
