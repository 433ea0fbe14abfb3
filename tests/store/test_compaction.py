"""History is dropped a little at a time: who writes meanwhile waits for a little of it, and keeps it from no end."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bessemer.core.clock import FakeClock
from bessemer.store import open_store
from bessemer.store.compaction import History
from tests.store.conftest import KEY, KINDS
from tests.store.make import ALICE, body

CHANGES, KEPT = 700, 10


async def test_who_writes_meanwhile_has_a_turn_between(tmp_path: Path, clock: FakeClock) -> None:
    store = open_store(
        tmp_path / "s.db", clock=clock, kinds=KINDS, seal_key=KEY, history=History(revisions=KEPT, seconds=10**6)
    )
    try:
        await asyncio.gather(*(store.objects.create(body("Thing", f"t{n}"), ALICE) for n in range(CHANGES)))
        tidying = asyncio.ensure_future(store.tidy())
        dropped = list[int]()
        async with asyncio.timeout(60):
            while not tidying.done():
                await store.objects.create(body("Thing", f"u{len(dropped)}"), ALICE)
                dropped.append(store.metrics.compacted)
        await tidying
    finally:
        store.close()
    steps = [after - before for before, after in zip([0, *dropped], dropped, strict=False)]
    assert sum(steps) >= CHANGES - KEPT
    assert max(steps) <= 400, "two bites at most between one write and the next"
