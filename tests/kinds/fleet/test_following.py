"""Following: while many are read whole, others have their turns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any, cast

from bessemer.core.clock import FakeClock, settle
from bessemer.core.ports import Bookmark, Objects, Scope
from bessemer.core.resource import Change, Key
from bessemer.kinds.fleet.following import STEP, Following

HOSTS = 20 * STEP


class Listed:
    """A kind whose list is there at once, as a page that was read."""

    async def watch(self, scope: Scope, **_: Any) -> AsyncIterator[Change | Bookmark]:
        for number in range(HOSTS):
            name = f"h{number:04}"
            yield Change(number + 1, "ADDED", Key("Host", "", name), name, name, b"{}")
        yield Bookmark(HOSTS)
        await asyncio.Event().wait()


async def test_who_reads_a_fleet_gives_way_to_others() -> None:
    heard, listed, at_turns = list[str](), list[set[str]](), [0]

    async def take(change: Change) -> str:
        heard.append(change.key.name)
        return change.key.name

    async def others() -> None:
        while not listed:
            await asyncio.sleep(0)
            at_turns.append(len(heard))

    following = Following(cast("Objects", Listed()), FakeClock())
    running = asyncio.create_task(following.run("Host", take=take, listed=listed.append))
    await others()
    await settle()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert listed == [set(heard)]
    assert len(heard) == HOSTS
    assert max(b - a for a, b in pairwise(at_turns)) <= STEP
