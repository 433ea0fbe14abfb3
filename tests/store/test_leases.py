"""Leases: one holder, a fence that grows, and a wall clock that may jump."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bessemer.core.clock import FakeClock, SystemClock
from bessemer.core.errors import Conflict
from bessemer.core.hosts import Inventory
from bessemer.core.ports import CONTROLLER, UNDER, Fence
from bessemer.core.quota import Quota
from bessemer.store import Store, open_store
from tests.store.conftest import KEY, KINDS
from tests.store.make import ALICE, body, claim, inventory


async def test_one_holder_at_a_time(store: Store, clock: FakeClock) -> None:
    mine = await store.leases.acquire("work", "a", 10, note="x")
    assert mine is not None
    assert (mine.holder, mine.fence, mine.expires_at, mine.note) == ("a", 1, clock.now() + 10, "x")
    assert await store.leases.acquire("work", "b", 10) is None
    await clock.advance(9)
    renewed = await store.leases.acquire("work", "a", 10)
    assert renewed is not None
    assert (renewed.fence, renewed.expires_at) == (1, clock.now() + 10)
    await clock.advance(11)
    theirs = await store.leases.acquire("work", "b", 10)
    assert theirs is not None
    assert theirs.fence == 2
    assert await store.leases.acquire("work", "a", 10) is None


async def test_release_frees_and_the_fence_grows(store: Store) -> None:
    await store.leases.acquire("work", "a", 10)
    await store.leases.release("work", "b")
    assert await store.leases.acquire("work", "b", 10) is None
    await store.leases.release("work", "a")
    again = await store.leases.acquire("work", "a", 10)
    assert again is not None
    assert again.fence == 2


async def test_those_that_end_soon_are_had_without_the_others(store: Store, clock: FakeClock) -> None:
    for name, seconds in {"host/a": 5, "host/b": 20, "host/c": 20, "kind/x": 5}.items():
        await store.leases.acquire(name, "me", seconds)
    await store.leases.acquire("host/free", "me", 5)
    await store.leases.release("host/free", "me")

    async def ending(within: float) -> list[tuple[str, float]]:
        found = await store.leases.ending("host/", within)
        return [(lease.name, lease.expires_at - clock.now()) for lease in found]

    assert await ending(4.0) == []
    assert await ending(5.0) == [("host/a", 5.0)]
    await clock.advance(16)
    assert await ending(4.0) == [("host/a", -11.0), ("host/b", 4.0), ("host/c", 4.0)]
    await store.leases.acquire("host/a", "me", 20)
    assert [name for name, _ in await ending(4.0)] == ["host/b", "host/c"]


async def test_what_is_written_under_a_lease_that_another_has_had_since_is_refused(store: Store) -> None:
    """However late it arrives; a lease that merely ran out has no rival yet."""
    await store.leases.acquire("work", "a", 10)
    under = UNDER.set(Fence("work", 1))
    try:
        kept = await store.objects.create(body("Thing", "kept"), ALICE)
        await store.leases.release("work", "a")
        await store.capacity.declare("h1", inventory())
        await store.leases.acquire("work", "b", 10)
        for late in (
            store.objects.create(body("Thing", "late"), ALICE),
            store.objects.delete(kept.key, ALICE),
            store.capacity.declare("h1", Inventory(), schedulable=False),
            store.capacity.take([claim("c")], CONTROLLER),
            store.capacity.set_quota("tenant/acme", Quota(claims=0)),
        ):
            with pytest.raises(Conflict, match="work is another's by now"):
                await late
    finally:
        UNDER.reset(under)
    await store.capacity.take([claim("c")], CONTROLLER)


async def test_of_many_who_ask_one_gets_it(store: Store) -> None:
    got = await asyncio.gather(*(store.leases.acquire("work", f"h{i}", 10) for i in range(50)))
    assert sum(lease is not None for lease in got) == 1


async def test_renewals_that_can_wait_are_written_together(store: Store) -> None:
    """Beside whoever comes first and cannot wait; the time of each runs from its call on."""
    patient = [asyncio.ensure_future(store.leases.acquire(f"host/{n}", "me", 10, patience=60)) for n in range(5)]
    await asyncio.sleep(0)
    before = store.metrics.groups
    assert await store.leases.acquire("work", "a", 10) is not None
    got = await asyncio.gather(*patient)
    assert [lease.name for lease in got if lease is not None] == [f"host/{n}" for n in range(5)]
    assert store.metrics.groups == before + 1


async def test_what_can_wait_is_written_in_its_time_and_at_the_closing(tmp_path: Path) -> None:
    store = open_store(tmp_path / "s.db", clock=SystemClock(), kinds=KINDS, seal_key=KEY)
    assert await store.leases.acquire("host/a", "me", 10, patience=0.01) is not None
    last = asyncio.ensure_future(store.leases.acquire("host/b", "me", 10, patience=600))
    await asyncio.sleep(0)
    store.close()
    assert await last is not None


async def test_held_lists_what_is_under_a_prefix(store: Store, clock: FakeClock) -> None:
    for name in ("host/b", "host/a", "hosts", "loop/x"):
        await store.leases.acquire(name, "me", 10)
    await store.leases.release("host/none", "me")
    await clock.advance(20)
    held = await store.leases.held("host/")
    assert [(lease.name, lease.expires_at) for lease in held] == [
        ("host/a", clock.now() - 10),
        ("host/b", clock.now() - 10),
    ]
    await store.leases.release("host/a", "me")
    assert [lease.name for lease in await store.leases.held("host/")] == ["host/b"]


async def test_a_lease_changes_no_object(store: Store) -> None:
    await store.leases.acquire("work", "a", 10)
    assert store.revision == 0


@pytest.mark.parametrize("jump", [86_400, -86_400])
async def test_a_wall_clock_that_jumps_moves_no_lease(store: Store, clock: FakeClock, jump: int) -> None:
    await store.leases.acquire("work", "a", 10)
    await clock.advance(4)
    clock.jump(jump)
    assert await store.leases.acquire("work", "b", 10) is None
    (held,) = await store.leases.held("work")
    assert held.expires_at - clock.now() == pytest.approx(6)
    await clock.advance(7)
    assert await store.leases.acquire("work", "b", 10) is not None


async def test_a_clock_set_back_while_the_store_was_closed(tmp_path: Path) -> None:
    late, early = FakeClock(2_000_000_000), FakeClock(1_900_000_000)
    store = open_store(tmp_path / "store.db", clock=late, kinds=KINDS, seal_key=KEY)
    await store.leases.acquire("work", "dead", 10)
    store.close()
    store = open_store(tmp_path / "store.db", clock=early, kinds=KINDS, seal_key=KEY)
    try:
        assert await store.leases.acquire("work", "b", 10) is None
        await early.advance(11)
        lease = await store.leases.acquire("work", "b", 10)
        assert lease is not None
        assert lease.fence == 2
    finally:
        store.close()


def reopened(path: Path, clock: FakeClock) -> Store:
    return open_store(path / "store.db", clock=clock, kinds=KINDS, seal_key=KEY)


@pytest.mark.parametrize("jump", [0, 86_400, -86_400])
@pytest.mark.parametrize("stopped_well", [True, False])
async def test_silence_while_the_store_was_away_is_no_silence(tmp_path: Path, stopped_well: bool, jump: int) -> None:
    """Whoever was heard until then has its whole time again; whoever was silent by then stays silent."""
    clock = FakeClock()
    store = reopened(tmp_path, clock)
    await store.leases.acquire("host/silent", "silent", 60)
    await clock.advance(61)
    await store.leases.acquire("host/heard", "heard", 60)
    await store.leases.acquire("host/leaving", "leaving", 5)
    await clock.advance(4)
    await store.leases.acquire("loop/Host", "control", 15)
    if stopped_well:
        await store.leases.release("loop/Host", "control")
    store.close()
    await clock.advance(3_600)
    clock.jump(jump)
    store = reopened(tmp_path, clock)
    try:
        left = {lease.name: lease.expires_at - clock.now() for lease in await store.leases.held("host/")}
        assert left["host/heard"] == pytest.approx(60)
        assert left["host/leaving"] == pytest.approx(5), "what was cut short is not made long"
        assert left["host/silent"] <= 0
        assert await store.leases.acquire("loop/Host", "other", 15) is not None or not (stopped_well or jump >= 0)
    finally:
        store.close()


async def test_an_opening_hears_nobody_anew_of_whom_another_process_knows(tmp_path: Path) -> None:
    """What the other renewed says until when the store was there."""
    clock = FakeClock()
    store = reopened(tmp_path, clock)
    await store.leases.acquire("host/silent", "silent", 60)
    await clock.advance(600)
    await store.leases.acquire("loop/Host", "another", 15)
    store.close()
    store = reopened(tmp_path, clock)
    try:
        (silent,) = await store.leases.held("host/")
        assert silent.expires_at <= clock.now()
    finally:
        store.close()


async def test_the_lease_of_a_host_that_is_withdrawn_goes(store: Store) -> None:
    await store.capacity.declare("h1", inventory())
    await store.leases.acquire("host/h1", "h1", 60)
    await store.leases.acquire("host/h10", "h10", 60)
    await store.capacity.withdraw("h1")
    assert [lease.name for lease in await store.leases.held("host/")] == ["host/h10"]
