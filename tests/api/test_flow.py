"""Turns: fair between flows, bounded for each, given back by who is slow."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.api import flow
from bessemer.api.ca import Peer
from bessemer.api.context import Credentials
from bessemer.api.flow import (
    ARRIVALS_SHARED,
    CROWD_SECONDS,
    REFUSAL_SECONDS,
    SEAT_SECONDS,
    STRANGERS,
    TENANTS,
    WAIT_SECONDS,
    Bounds,
    Flows,
    Lane,
    Turn,
)
from bessemer.api.limit import network
from bessemer.core.clock import FakeClock, settle
from bessemer.core.errors import TooMany
from tests.api.world import BASE, GATEWAY, PATIENCE_SECONDS, World

PORTAL = Peer("system:portal", (), "f")

SMALL = Bounds(alone=4, shared=2, each=1, waiting=8, lingering=3)


async def entered(lane: Lane, flow: str, count: int) -> list[asyncio.Task[Turn]]:
    """Requests of the flow that ask for a turn, in order."""
    tasks = [asyncio.ensure_future(lane.enter(flow)) for _ in range(count)]
    await settle()
    return tasks


def seated(tasks: list[asyncio.Task[Turn]]) -> int:
    return sum(task.done() for task in tasks)


async def refused(lane: Lane, clock: FakeClock) -> None:
    """One more request of the flow ``a`` is told that too many are open."""
    (more,) = await entered(lane, "a", 1)
    await clock.advance(REFUSAL_SECONDS)
    assert isinstance(more.exception(), TooMany)
    assert "open at once" in str(more.exception())


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


async def test_alone_it_has_all_seats_and_one_of_several_few(clock: FakeClock) -> None:
    """A batch is cheaper; a newcomer finds little before it, from the moment that it has asked."""
    lane = Lane(clock, SMALL)
    storm = await entered(lane, "a", 6)
    assert seated(storm) == 4
    calm = await entered(lane, "b", 2)
    assert seated(calm) == 1, "the first begins at once, whatever others hold; the second is one more than each has"
    for task in storm[:3]:
        task.result().leave()
    await settle()
    assert seated(storm) == 4, "what is left to it is still all that it may have"
    calm[0].result().leave()
    storm[3].result().leave()
    await settle()
    assert seated(storm) == 5
    assert seated(calm) == 2
    storm[4].result().leave()
    calm[1].result().leave()
    await settle()
    assert seated(storm) == 6
    storm[5].result().leave()
    await clock.advance(CROWD_SECONDS + 1)
    again = await entered(lane, "a", 4)
    assert seated(again) == 1, "who was last to ask was another"
    await clock.advance(CROWD_SECONDS + 1)
    assert seated(again) == 4


async def test_of_many_that_ask_none_has_more_than_each_and_all_no_more_than_is_shared(clock: FakeClock) -> None:
    """One that is at its bound stands in nobody's way, and has its next turn when it ends one."""
    lane = Lane(clock, Bounds(alone=8, shared=4, each=2, waiting=8, lingering=8))
    first, second, third = [await entered(lane, flow, 3) for flow in "abc"]
    assert [seated(tasks) for tasks in (first, second, third)] == [3, 2, 0], "the first asked while it was alone"
    second[0].result().leave()
    await settle()
    assert [seated(tasks) for tasks in (first, second, third)] == [3, 2, 1], "the newcomer was served least"
    first[0].result().leave()
    await settle()
    assert [seated(tasks) for tasks in (first, second, third)] == [3, 2, 1], "two are left to the first"
    first[1].result().leave()
    await settle()
    assert [seated(tasks) for tasks in (first, second, third)] == [3, 3, 1]
    second[1].result().leave()
    await settle()
    assert [seated(tasks) for tasks in (first, second, third)] == [3, 3, 2]
    third[0].result().leave()
    await settle()
    assert [seated(tasks) for tasks in (first, second, third)] == [3, 3, 3]


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(1, 50), min_size=2, max_size=6))
async def test_each_flow_is_served_alike_however_much_it_asks(costs: list[int]) -> None:
    """Over any while in which all of them wait, what two flows were served differs by a few requests of theirs."""
    clock = FakeClock()
    lane = Lane(clock, Bounds(alone=1, shared=1, each=1, waiting=1000, lingering=1000))
    waiting = {n: await entered(lane, f"flow {n}", 60) for n in range(len(costs))}
    served: Counter[int] = Counter()
    for _ in range(200):
        who = next((n for n, tasks in waiting.items() if any(t.done() and t.result().seated for t in tasks)), None)
        assert who is not None
        turn = next(t for t in waiting[who] if t.done() and t.result().seated).result()
        cost = costs[who] / 1000
        await clock.advance(cost)
        served[who] += costs[who]
        turn.leave()
        await settle()
        waiting[who] += await entered(lane, f"flow {who}", 1)
    assert max(served[n] for n in waiting) - min(served[n] for n in waiting) <= 4 * max(costs)
    for tasks in waiting.values():
        for task in tasks:
            task.cancel()
    await settle()


async def test_past_its_bound_a_flow_is_refused_and_no_other(clock: FakeClock) -> None:
    shed: list[int] = []
    lane = Lane(clock, SMALL, shed=lambda: shed.append(1))
    tasks = await entered(lane, "a", 4 + SMALL.waiting)
    (more,) = await entered(lane, "a", 1)
    assert shed == [1]
    assert not more.done(), "whoever asks again at once is told slowly"
    await clock.advance(REFUSAL_SECONDS)
    refused = more.exception()
    assert isinstance(refused, TooMany)
    assert refused.retry_after_seconds >= 1
    for task in tasks[:4]:
        assert not task.result().seated, "meanwhile the slow have given their seats on"
    (other,) = await entered(lane, "b", 1)
    assert other.done()
    for task in tasks:
        task.cancel()


async def test_whoever_is_slow_gives_the_seat_back_and_is_counted(clock: FakeClock) -> None:
    """A body that never comes, a stream, a reader of nothing: none keeps others from their turn."""
    lane = Lane(clock, SMALL)
    slow = await entered(lane, "a", 4)
    others = await entered(lane, "b", 2)
    assert seated(others) == 1
    await clock.advance(2 * SEAT_SECONDS)
    assert seated(others) == 2
    await refused(lane, clock)
    slow[0].result().leave()
    slow[1].result().leave()
    assert (await lane.enter("a")).seated


async def test_who_waits_in_vain_is_told(clock: FakeClock) -> None:
    lane = Lane(clock, Bounds(alone=1, shared=1, each=1, waiting=100, lingering=100))
    slow = await entered(lane, "a", 100)
    await clock.advance(WAIT_SECONDS + 1)
    assert all(task.done() for task in slow)
    failed = [task for task in slow if isinstance(task.exception(), TooMany)]
    assert 0 < len(failed) < 100 - int(WAIT_SECONDS / SEAT_SECONDS / 2)
    assert lane.waiting == 0


async def test_a_client_that_goes_leaves_nothing(clock: FakeClock) -> None:
    lane = Lane(clock, SMALL)
    held = await entered(lane, "a", 4)
    gone = await entered(lane, "a", 3)
    gone[1].cancel()
    await settle()
    assert lane.waiting == 2
    held[0].result().leave()  # whose seat is given at once to one that goes in the same turn of the loop
    gone[0].cancel()
    await settle()
    held[1].result().leave()
    await settle()
    assert gone[2].done()
    gone[2].result().leave()
    for task in held[2:]:
        task.result().leave()
    again = await entered(lane, "a", 4)
    assert seated(again) == 4, "no seat was lost"


async def test_one_tenants_storm_is_told_429_and_its_neighbour_is_served(
    w: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over the api: seats full of requests whose bodies never come; the neighbour's are answered."""
    # Else the first would give theirs on where the machine stalls before the last has come, who would then wait, too.
    monkeypatch.setattr(flow, "SEAT_SECONDS", 600.0)
    ann, eve = await w.login("ann"), await w.login("eve")
    never = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        await never.wait()
        yield b""

    path = f"{BASE}/namespaces/acme--lab/apikeys"
    async with AsyncExitStack() as stack:
        storm = [
            asyncio.ensure_future(w.call("POST", path, body(), token=ann))
            for _ in range(TENANTS.alone + TENANTS.waiting + 1)
        ]
        stack.callback(lambda: [task.cancel() for task in storm])
        done, _ = await asyncio.wait(storm, return_when=asyncio.FIRST_COMPLETED, timeout=PATIENCE_SECONDS)
        replies = [task.result() for task in done]
        assert {reply.code for reply in replies} == {429}, replies
        refused = replies[0]
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json["reason"] == "TooManyRequests"
        reply = await w.call("GET", f"{BASE}/namespaces/other--lab/apikeys", token=eve)
        assert reply.code == 200
        assert b'bessemer_api_shed_total{lane="people"}' in (await w.call("GET", "/metrics")).body


async def test_what_stays_open_gives_its_seat_on_at_once(clock: FakeClock) -> None:
    """Many watches that open at the same time wait for no clock."""
    lane = Lane(clock, SMALL)
    watches = await entered(lane, "a", 4)
    others = await entered(lane, "b", 2)
    assert seated(others) == 1
    others[0].result().linger()
    for task in watches[:3]:
        task.result().linger()
        task.result().linger()  # which is no other request
    await settle()
    assert seated(others) == 2
    await refused(lane, clock)
    for task in watches:
        task.result().leave()
    assert (await lane.enter("a")).seated


async def test_before_it_is_known_who_asks_few_are_looked_at_in_a_turn_and_all_by_turns(clock: FakeClock) -> None:
    """Five hundred requests of one token, and as many tokens made up at one network, let others pass."""
    flows = Flows(clock, lambda who, tenant: tenant, shed=lambda lane: None)
    for tenant in ("a", "b"):  # now several ask
        await entered(flows._people, tenant, 1)
    told: list[str] = []

    async def ask(name: str, shown: Credentials) -> None:
        await flows.arrive(shown)
        told.append(name)

    storm = [ask("storm", Credentials(None, "Bearer storm", "10.0.0.1")) for _ in range(500)]
    storm += [ask("storm", Credentials(None, f"Bearer {n}", "10.0.0.1")) for n in range(500)]
    tasks = [asyncio.ensure_future(work) for work in storm]
    await asyncio.sleep(0)
    calm = [ask("at their network", Credentials(None, "Bearer calm", "10.0.0.1"))]
    calm += [ask("elsewhere", Credentials(None, "Bearer calm", "10.0.0.2"))]
    calm += [ask("an agent", Credentials(Peer("system:host:h1", (), "f"), "", "10.0.0.3"))]
    tasks += [asyncio.ensure_future(work) for work in calm]
    most = 0
    while len(told) < 1003:
        before = len(told)
        await asyncio.sleep(0)
        most = max(most, len(told) - before)
    assert most <= ARRIVALS_SHARED + 1, "the agent has a door of its own"
    assert max(told.index("elsewhere"), told.index("an agent")) < 5 * ARRIVALS_SHARED
    assert told.index("at their network") < 520, "behind one of each that showed something else"
    await asyncio.gather(*tasks)


async def test_strangers_of_many_networks_keep_none_of_ours_at_the_door(clock: FakeClock) -> None:
    """Three hundred networks without a token, and a host that asks for much: the gateway and the portal wait for
    nobody, and each host has its turn among the hosts."""
    flows = Flows(clock, lambda who, tenant: tenant, shed=lambda lane: None)
    for tenant in ("a", "b"):  # now several ask
        await entered(flows._people, tenant, 1)
    told: list[str] = []

    async def ask(name: str, shown: Credentials) -> None:
        await flows.arrive(shown)
        told.append(name)

    def ours(name: str) -> Credentials:
        return Credentials(Peer(name, (), "f"), "", "127.0.0.1")

    storm = [ask("stranger", Credentials(None, "", f"10.0.{n // 250}.{n % 250}")) for n in range(300) for _ in range(2)]
    storm += [ask("greedy", ours("system:agent:greedy")) for _ in range(100)]
    tasks = [asyncio.ensure_future(work) for work in storm]
    await asyncio.sleep(0)
    names = ["system:gateway", "system:portal", *(f"system:agent:h{n}" for n in range(8))]
    tasks += [asyncio.ensure_future(ask(name, ours(name))) for name in names]
    await asyncio.sleep(0)
    assert {"system:gateway", "system:portal"} <= set(told)
    for _ in range(8):
        await asyncio.sleep(0)
    assert set(names) <= set(told)
    assert told.count("stranger") < 100
    await asyncio.gather(*tasks)


async def test_the_gateway_hears_that_the_api_is_there_whatever_strangers_of_its_network_ask(w: World) -> None:
    waiting = await entered(w.api.state.flows._strangers, network("192.0.2.1"), 500)
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert (await w.call("GET", "/livez", peer=GATEWAY)).code == 200
    assert seated(waiting) < 100, "they would have kept it for many seconds"
    for task in waiting:
        task.cancel()


async def test_what_the_portal_asks_for_strangers_waits_with_them(clock: FakeClock) -> None:
    flows = Flows(clock, lambda who, tenant: tenant, shed=lambda lane: None)
    shown = [Credentials(peer, "", "10.0.0.1") for peer in (None, PORTAL, GATEWAY)]
    await entered(flows._strangers, network("10.0.0.1"), STRANGERS.alone)
    tasks = [asyncio.ensure_future(flows.enter(None, tenant="", shown=each)) for each in shown]
    await settle()
    assert [task.done() for task in tasks] == [False, False, True]
    for task in tasks:
        task.cancel()
