"""A loop beside others in one event loop: it gives way, whatever it has to do, and by turns of tenants."""

from __future__ import annotations

import asyncio
from typing import Any

from bessemer.core.resource import Done, Key, Outcome
from tests.loop.shelf import pots, start


async def test_what_one_commit_woke_goes_on_a_few_at_a_time_and_by_turns() -> None:
    """Sixty names of one tenant and one of another wait for the same thing: no turn of the event loop has more than
    four steps of theirs, and the other tenant's is among the first."""
    gate, went = asyncio.Event(), list[str]()

    async def waits(ctx: Any, obj: Any) -> Outcome:
        await gate.wait()
        went.append(obj.key.namespace)
        return Done()

    bench = start(pots(waits), workers=64)
    try:
        await bench.idle()
        for n in range(60):
            bench.shelf.put(Key("Pot", "storm--one", f"p{n}"))
        bench.shelf.put(Key("Pot", "calm--one", "mine"))
        while bench.metric("busy", kind="Pot") < 61:
            await asyncio.sleep(0)
        for _ in range(200):
            await asyncio.sleep(0)
        assert not went
        gate.set()
        most = 0
        while len(went) < 61:
            before = len(went)
            await asyncio.sleep(0)
            most = max(most, len(went) - before)
        assert 0 < most <= 4
        assert went.index("calm--one") < 10
        await bench.idle()
    finally:
        await bench.loop.stop()
        await bench.task
