"""What befalls a cluster at work: of its processes, of its database, and of the wires between any two of them.

Each measures from when others can go on (or from when the wire is whole again, where there are no others) until
something that is asked for from then on is done, and notes it in the cluster's ``times``.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from types import MappingProxyType

import orjson
import psycopg

from bessemer.core.resource import Key
from tests.failover.cluster import Cluster, Replica
from tests.failover.gateway import PROJECT
from tests.failover.proxy import Proxy, Wire
from tests.failover.work import TROUBLE, Work

Fault = Callable[[Cluster, Work, str], Awaitable[None]]
CUT_SECONDS = 7.0
"""Longer than a controller's leases in the tests, and than an agent waits for the answer to its heartbeat."""

UNHEARD_SECONDS = 3.0
"""For so long a log that does not come is waited for."""


async def stopped_past_its_lease(cluster: Cluster, work: Work, name: str) -> None:
    """The leader gets SIGSTOP for longer than its leases, and then goes on amid what it was about to do."""
    leader = await cluster.some_leader()
    assert leader.process is not None
    began = time.monotonic()
    leader.process.send_signal(signal.SIGSTOP)
    cluster.take_out(leader)
    try:
        await work.runs_again(name)
        cluster.measured(name, began)
        await cluster.past_the_leases(began)
        assert await cluster.some_leader() is not leader
    finally:
        leader.process.send_signal(signal.SIGCONT)
        cluster.put_back()


async def killed(cluster: Cluster, work: Work, name: str) -> None:
    """kill -9 of the leader; it is started again."""
    leader = await cluster.some_leader()
    began = time.monotonic()
    await leader.end(signal.SIGKILL)
    cluster.take_out(leader)
    await work.runs_again(name)
    cluster.measured(name, began)
    await leader.start()


async def database_restarts(cluster: Cluster, work: Work, name: str, *, how: signal.Signals) -> None:
    """The server is stopped, in order (SIGINT) or as in a crash (SIGQUIT), and started."""
    await asyncio.to_thread(cluster.server.stop, how)
    try:
        await asyncio.sleep(0.3)
    finally:
        await asyncio.to_thread(cluster.server.start)
    began = time.monotonic()
    await work.runs_again(name)
    cluster.measured(name, began)


async def cut_from_the_database(cluster: Cluster, work: Work, name: str) -> None:
    """The leader's wire takes bytes and forwards none, for longer than its leases."""
    leader = await cluster.some_leader()
    began = time.monotonic()
    leader.wire.cut(Wire.DROP)
    cluster.take_out(leader)
    try:
        await work.runs_again(name)
        cluster.measured(name, began)
        await cluster.past_the_leases(began)
    finally:
        leader.wire.mend()
        cluster.put_back()


async def agents_cut(cluster: Cluster, work: Work, name: str, *, wire: Wire) -> None:
    """No agent reaches an api; what is asked for meanwhile runs once they do."""
    cluster.agents.cut(wire)
    asker = cluster.replicas[0].client
    try:
        assert await work.asks_for(asker, name)
        await asyncio.sleep(CUT_SECONDS)
        body = orjson.loads((await asker.get(Key("Instance", PROJECT, name))).body)
        assert body.get("status", {}).get("phase") != "Running", "the wire is not cut"
    finally:
        whole(cluster.agents, wire)
    began = time.monotonic()
    await work.runs_again(name)
    cluster.measured(name, began)


async def gateway_cut(cluster: Cluster, work: Work, name: str, *, wire: Wire) -> None:
    """The gateway reaches no api, or hears no answer of one: whom it knows it serves, and bills once it may. A key that
    is made meanwhile it knows when it does."""
    gateway, asker = cluster.gateway, cluster.replicas[0].client
    gateway.wire.cut(wire)
    try:
        token = await gateway.new_key(asker, f"key-{name}")
        served = gateway.answered["requests"]
        await asyncio.sleep(CUT_SECONDS)
        assert gateway.answered["requests"] > served, "it serves whom it knows"
        assert await gateway.refuses(token), "the wire is not cut"
        if wire is Wire.DROP:
            assert (await asyncio.to_thread(gateway.billed))[0] < gateway.answered["requests"] - 1
    finally:
        whole(gateway.wire, wire)
    began, owed = time.monotonic(), gateway.answered["requests"]
    await gateway.serves(token)
    while (await asyncio.to_thread(gateway.billed))[0] < owed:
        assert time.monotonic() - began < 90, "what was answered is not billed"
        await asyncio.sleep(0.1)
    cluster.measured(name, began)


async def replicas_cut(cluster: Cluster, work: Work, name: str, *, wire: Wire) -> None:
    """A replica is not reached by the others: a log of a host whose socket it holds is not read through them, and is
    once the wire is whole."""
    await work.runs_again(name)
    holder = await holder_of(cluster, name)
    assert holder.front is not None
    other = cluster.other(holder)
    expected = await log_of(other, name)
    assert expected == await log_of(holder, name) != b""
    holder.front.cut(wire)
    try:
        try:
            async with asyncio.timeout(UNHEARD_SECONDS):
                assert await log_of(other, name) != expected, "the wire is not cut"
        except (*TROUBLE, TimeoutError):
            pass
    finally:
        whole(holder.front, wire)
    began = time.monotonic()
    while await said(other, name) != expected:
        assert time.monotonic() - began < 90, "the log is not read"
        await asyncio.sleep(0.1)
    cluster.measured(name, began)


def whole(proxy: Proxy, was: Wire) -> None:
    """Mend it: what dropped has forgotten its connections and tells nobody, what let nobody in lets them in."""
    if was is Wire.CLOSED:
        proxy.cut(Wire.OPEN)
    else:
        proxy.mend()


async def holder_of(cluster: Cluster, name: str) -> Replica:
    """Who has the socket of the host on which the Instance runs, by the host's lease."""
    body = orjson.loads((await cluster.replicas[0].client.get(Key("Instance", PROJECT, name))).body)
    with psycopg.connect(cluster.database) as connection:
        asked = "SELECT note FROM leases WHERE name = %s"
        (note,) = connection.execute(asked, [f"host/{body['status']['host']}"]).fetchone() or ("",)
    return next(replica for replica in cluster.replicas if replica.address == note)


async def log_of(replica: Replica, name: str) -> bytes:
    """What the Instance has said, through this one."""
    async with replica.client.workloads.log(Key("Instance", PROJECT, name)) as parts:
        return b"".join([part async for part in parts])


async def said(replica: Replica, name: str) -> bytes:
    """The same, b"" where it is not told in a moment."""
    try:
        async with asyncio.timeout(UNHEARD_SECONDS):
            return await log_of(replica, name)
    except (*TROUBLE, TimeoutError):
        return b""


FAULTS: Mapping[str, Fault] = MappingProxyType(
    {
        "sigstop": stopped_past_its_lease,
        "kill": killed,
        "restart": partial(database_restarts, how=signal.SIGINT),
        "crash": partial(database_restarts, how=signal.SIGQUIT),
        "cut": cut_from_the_database,
    }
)
"""Of a replica, of the database, and of what is between them."""

CUTS: Mapping[str, Fault] = MappingProxyType(
    {
        "agents-drop": partial(agents_cut, wire=Wire.DROP),
        "agents-deaf": partial(agents_cut, wire=Wire.DEAF),
        "agents-closed": partial(agents_cut, wire=Wire.CLOSED),
        "gateway-drop": partial(gateway_cut, wire=Wire.DROP),
        "gateway-deaf": partial(gateway_cut, wire=Wire.DEAF),
        "gateway-closed": partial(gateway_cut, wire=Wire.CLOSED),
        "replicas-drop": partial(replicas_cut, wire=Wire.DROP),
        "replicas-closed": partial(replicas_cut, wire=Wire.CLOSED),
    }
)
"""Of the wires between all others."""
