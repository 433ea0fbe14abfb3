"""Sixty-four clients fight over HTTPS for the last of a tenant's quota, through two replicas over PostgreSQL and
through one server over SQLite, which is one process's: exactly what is left is granted, never one too many, never one
lost."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio

from tests.failover.cluster import QUICK, cluster, embedded
from tests.failover.proxy import Wire
from tests.failover.rivals import FIGHTS, LIMITS, Arena, arena
from tests.failover.work import furnish
from tests.store.server import Server

PATIENT = QUICK.model_copy(update={"controller_lease_seconds": 6.0})
"""Longer leases: whoever leads has sixty-four instances to look at, on a machine that may be busy."""

Amid = Callable[[Arena], Awaitable[None]]
pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def two(server: Server, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Arena]:
    async with cluster(server, tmp_path_factory.mktemp("two"), settings=PATIENT) as found:
        await furnish(found.replicas[0].client)
        async with arena(found) as made:
            yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def one(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Arena]:
    async with embedded(tmp_path_factory.mktemp("one")) as found:
        await furnish(found.client)
        async with arena(found) as made:
            yield made


# --- what befalls the servers meanwhile -------------------------------------------------------------------------------


async def nothing(_: Arena) -> None:
    """Nobody's trouble but that of those who hang up."""


async def cut(found: Arena) -> None:
    """A replica loses its database for a moment; of one embedded server, everybody loses their connections."""
    wire = found.replicas[-1].wire
    wire.cut(Wire.CLOSED)
    await asyncio.sleep(0.3)
    wire.cut(Wire.OPEN)


async def killed(found: Arena) -> None:
    """kill -9 of the one whose controllers lead; it is started again."""
    chosen = await found.leader()
    await chosen.end(signal.SIGKILL)
    await chosen.start()
    await chosen.ready()


async def stopped(found: Arena) -> None:
    """SIGSTOP past its leases, until the other one leads: then it goes on amid what it was about to do."""
    assert found.cluster is not None
    chosen = await found.leader()
    assert chosen.process is not None
    chosen.process.send_signal(signal.SIGSTOP)
    try:
        async with asyncio.timeout(60):
            while found.cluster.leader() in (None, chosen):
                await asyncio.sleep(0.05)
    finally:
        chosen.process.send_signal(signal.SIGCONT)


TROUBLES = (nothing, cut, killed)


@pytest.mark.parametrize("what", ["instances", "keys"])
async def test_over_one_file(one: Arena, what: str) -> None:
    assert await FIGHTS[what](one, f"last-{what}") == LIMITS[what]


@pytest.mark.long
@pytest.mark.parametrize("what", FIGHTS)
@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda one: one.__name__)
async def test_over_one_file_amid_trouble(one: Arena, what: str, trouble: Amid) -> None:
    """Of 64 clients of one server over SQLite, killed or cut off meanwhile, exactly the last is granted."""
    most = await FIGHTS[what](one, f"{what}-{trouble.__name__}", rounds=2, trouble=lambda: trouble(one))
    assert most == LIMITS[what]


@pytest.mark.long
@pytest.mark.parametrize("what", FIGHTS)
@pytest.mark.parametrize("trouble", [*TROUBLES, stopped], ids=lambda one: one.__name__)
async def test_over_two_replicas_amid_trouble(two: Arena, what: str, trouble: Amid) -> None:
    """Of 64 clients of two replicas, of which one is killed, stopped or cut off, exactly the last is granted."""
    most = await FIGHTS[what](two, f"{what}-{trouble.__name__}", rounds=2, trouble=lambda: trouble(two))
    assert most == LIMITS[what]
