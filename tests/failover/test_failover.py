"""Two replicas over one database: whichever is stopped, killed or cut off, and whatever befalls the database, nothing
that was acknowledged is lost, nothing is done twice, and work goes on within seconds."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest
import pytest_asyncio

from bessemer.client import an_object, connect
from bessemer.core.errors import BessemerError, Expired, Forbidden
from bessemer.core.ports import Bookmark, Scope
from bessemer.core.resource import Key
from tests.failover.cluster import HOSTS, QUICK, Cluster, cluster
from tests.failover.faults import CUTS, FAULTS, holder_of, log_of
from tests.failover.gateway import PROJECT
from tests.failover.rivals import FIGHTS, LIMITS, arena
from tests.failover.work import Work, furnish_all, instance, is_ready, working
from tests.store.server import Server

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

TENANTS = Scope(kind="Tenant")
STEADY = QUICK.model_copy(update={"controller_lease_seconds": 4.0})
"""Leases that outlive a stall of a second or two, as a busy machine has it: whoever leads sixty-four instances would
begin anew after each."""

RESUMES_SECONDS = 30.0
"""Some times what is measured with leases of a second or a few, for the machine may be busy all of a sudden; more where
it has more to do than it has processors."""

AT_ONCE = 12
"""Lists."""

BRIEF = "gateway-deaf"
"""Of the cuts that which proves most: usage is stored, and its sender does not hear of it."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(server: Server, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    """Two replicas, with hosts and all that an Instance wants."""
    async with cluster(server, tmp_path_factory.mktemp("pair"), settings=STEADY) as found:
        await furnish_all(found)
        yield found


async def test_what_is_written_through_one_is_watched_through_the_other(pair: Cluster) -> None:
    one, other = pair.replicas
    watching = other.client.watch(Scope(kind="Flavor"))
    while not isinstance(await anext(watching), Bookmark):
        continue
    took, heard = list[float](), time.monotonic()
    for number in range(6):
        made = await one.client.create(an_object(Key("Flavor", "", f"told-{number}"), {"cores": 1, "memory": "1Gi"}))
        event = await asyncio.wait_for(anext(watching), 60)
        assert event.revision == made.revision
        took.append(time.monotonic() - heard)
        heard += took[-1]
    await watching.aclose()
    # From one look of its own to the next it is a second. A busy machine takes its time, and not each time.
    assert min(took[1:]) < 0.5, f"by NOTIFY, and not by looking once a second: {took}"


async def test_lists_at_once_are_each_of_one_revision_whichever_replica_is_asked(pair: Cluster) -> None:
    """Each page comes from the other replica, and others write between: so they may be of as many revisions as there
    are lists, which are fewer than a replica has places for one asker."""
    one, _ = pair.replicas
    for number in range(6):
        await one.client.create(an_object(Key("Tenant", "", f"listed-{number}"), {}))
    begun = (pair.replicas[number % 2].client.list(TENANTS, limit=2) for number in range(AT_ONCE))
    lists = [[page] for page in await asyncio.gather(*begun)]
    for turn in range(1, 10):
        await pair.replicas[turn % 2].client.create(an_object(Key("Tenant", "", f"listed-{turn}-late"), {}))
        going = [(number, pages) for number, pages in enumerate(lists) if pages[-1].next]
        asked = (pair.replicas[(n + turn) % 2].client.list(TENANTS, limit=2, after=p[-1].next) for n, p in going)
        for (_, pages), page in zip(going, await asyncio.gather(*asked), strict=True):
            pages.append(page)
    for pages in lists:
        assert not pages[-1].next
        assert len({page.revision for page in pages}) == 1
        named = [item.key.name for page in pages for item in page.items]
        assert [name for name in named if name.startswith("listed")] == [f"listed-{number}" for number in range(6)]


async def test_tenants_and_sessions_of_one_count_on_the_other(pair: Cluster) -> None:
    """A person signs in on one; what they may do follows what is written through the other."""
    one, other = pair.replicas
    password = "correct horse battery"
    await one.client.create(an_object(Key("User", "", "ada"), {}))
    await one.client.account.set_password("ada", password)
    signed_in = await one.client.account.login("ada", password)
    ada = connect(f"https://127.0.0.1:{other.settings.api_port}", ca=other.paths.ca_certificate, token=signed_in.token)
    try:
        assert (await ada.account.whoami()).name == "ada"
        with pytest.raises(BessemerError):
            await ada.list(Scope(kind="Instance", namespace=PROJECT))
        await one.client.patch(Key("Tenant", "", "acme"), {"spec": {"members": [{"user": "ada", "role": "member"}]}})
        await eventually(lambda: ada.list(Scope(kind="Instance", namespace=PROJECT)))
        await one.client.delete(Key("Session", "", signed_in.token.removeprefix("bss_").partition(".")[0]))
        await eventually(lambda: refused(ada.account.whoami()))
    finally:
        await ada.close()


async def test_what_a_host_hears_from_one_is_known_to_the_other(pair: Cluster) -> None:
    """Its heartbeat renews one lease, whichever replica it reaches."""
    for replica in pair.replicas:
        hosts = (await replica.client.list(Scope(kind="Host"))).items
        assert len(hosts) == HOSTS
        assert all(is_ready(orjson.loads(host.body)) for host in hosts)


async def test_a_log_is_read_through_either(pair: Cluster) -> None:
    """Its host has one socket, to one replica; the other asks that one."""
    client = pair.replicas[0].client
    made = await client.create(instance("talks"))
    body: dict[str, Any] = {}
    async with asyncio.timeout(90):
        while body.get("status", {}).get("phase") != "Running":
            await asyncio.sleep(0.05)
            body = orjson.loads((await client.get(made.key)).body)
    assert await holder_of(pair, "talks") in pair.replicas
    heard = [await log_of(replica, "talks") for replica in pair.replicas]
    assert heard[0] == heard[1] != b""
    await client.delete(made.key)


async def test_nobody_else_asks_a_replica_for_streams(pair: Cluster) -> None:
    """An administrator has rights enough, and a way of their own."""
    with pytest.raises(Forbidden):
        async with pair.replicas[0].client.transport.socket("/relay", {}):
            raise AssertionError("it was let in")


async def test_a_controller_that_is_told_to_end_lets_go_at_once(pair: Cluster) -> None:
    leader = await pair.some_leader()
    pair.take_out(leader)
    began, ended = time.monotonic(), leader.pid
    assert await leader.end(signal.SIGTERM) == 0
    with psycopg.connect(pair.database) as connection:
        held = connection.execute("SELECT holder FROM leases WHERE name = 'loop/Instance'").fetchone()
    assert held is not None
    assert f"-{ended}-" not in held[0], "it is nobody's, or the other's by now"
    await pair.some_leader()
    pair.measured("told to end", began)
    await leader.start()


async def test_one_of_each(pair: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    """SIGSTOP past a lease, kill -9, PostgreSQL restarted in order and as in a crash, a cut wire to it, and a gateway
    that hears no answer of the api: with work going on through all of them."""
    await pair.whole()
    async with working(pair) as work:
        for name, fault in {**FAULTS, BRIEF: CUTS[BRIEF]}.items():
            if name != "restart":  # during that one, whoever was killed comes back
                await pair.whole()
            await fault(pair, work, name)
    check_times(pair, work, capsys)


@pytest.mark.parametrize("what", FIGHTS)
async def test_of_64_clients_exactly_the_last_is_granted(pair: Cluster, what: str) -> None:
    """Through both, while some of them hang up; what befalls replicas meanwhile is in `test_rivals`."""
    await pair.whole()
    async with arena(pair) as found:
        assert await FIGHTS[what](found, f"last-{what}") == LIMITS[what]


async def test_a_list_whose_replica_is_killed_may_go_on_at_what_there_is(pair: Cluster) -> None:
    """The last of the pair's, for it is left as it is."""
    await pair.whole()
    one, other = pair.replicas
    every = [item.key.name for item in (await other.client.list(TENANTS)).items]
    before = holders(pair.database)
    first = await one.client.list(TENANTS, limit=2)
    held = holders(pair.database) - before
    assert len(held) == 1
    pair.take_out(one)
    await one.end(signal.SIGKILL)
    async with asyncio.timeout(90):
        while held & holders(pair.database):
            await asyncio.sleep(0.05)
    with pytest.raises(Expired) as expired:
        await other.client.list(TENANTS, limit=2, after=first.next)
    rest = await other.client.list(TENANTS, after=expired.value.proceed)
    assert [item.key.name for item in (*first.items, *rest.items)] == every


@pytest.mark.long
@pytest.mark.parametrize("seed", range(4))
async def test_many_of_each(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], seed: int) -> None:
    """Every fault of replicas and database with three replicas, many times over and in any order: nothing is lost."""
    chosen = random.Random(seed)
    async with cluster(server, tmp_path, count=3) as replicas:
        await furnish_all(replicas)
        async with working(replicas) as work:
            for number in range(10):
                kind = chosen.choice(sorted(FAULTS))
                await replicas.whole()
                await FAULTS[kind](replicas, work, f"{kind}-{number}")
    check_times(replicas, work, capsys)


def holders(database: str) -> set[int]:
    """The server's processes that hold a snapshot for somebody."""
    asked = "SELECT pid FROM pg_stat_activity WHERE state = 'idle in transaction' AND query ~ 'pg_export_snapshot'"
    with psycopg.connect(database) as connection:
        return {pid for (pid,) in connection.execute(asked)}


async def refused(asking: Awaitable[Any]) -> None:
    with pytest.raises(BessemerError):
        await asking


async def eventually(ask: Callable[[], Awaitable[Any]]) -> None:
    """Ask until it is answered."""
    until = time.monotonic() + 60
    while True:
        try:
            await ask()
            return
        except (BessemerError, pytest.fail.Exception):
            assert time.monotonic() < until
            await asyncio.sleep(0.02)


def check_times(
    cluster: Cluster, work: Work, capsys: pytest.CaptureFixture[str], *, most: float = RESUMES_SECONDS
) -> None:
    """Print what was measured, and hold it against its bound."""
    words = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in cluster.times.items())
    counted = (
        f"{len(work.acknowledged)} acknowledged writes and {cluster.gateway.owed[0]} answers, none lost or doubled"
    )
    with capsys.disabled():
        print(f"\n  work went on after: {words}; {counted}")  # noqa: T201
    late = {name: seconds for name, seconds in cluster.times.items() if seconds > most * cluster.crowds[name]}
    assert not late, f"work went on late, with {cluster.crowds} processes for each processor"
