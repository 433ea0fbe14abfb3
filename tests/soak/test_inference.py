"""Two hundred clients of an endpoint whose replicas are replaced by those of another revision, again and again, while
gateways and engines are killed, clocks jump and the control plane is away: none fails that could be tried again, what
is billed is what engines wrote down, and nobody's memory grows.

``BESSEMER_SOAK_SECONDS`` is how long the long form takes: an hour, where it is not said.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from tests.soak.clients import FAILED, converse
from tests.soak.comparing import compare
from tests.soak.plant import Plant, plant
from tests.soak.rolling import Rolling

LONG_SECONDS = int(os.environ.get("BESSEMER_SOAK_SECONDS", "3600"))
CLIENTS = 200
AWAY_SECONDS = 3.0
TROUBLE_SECONDS = 120.0
"""At most, until all that is to befall has befallen once more."""
MIB = 1 << 20
KINDS = ("gateway", "engine", "clock", "api", "engine", "control plane")


@pytest.mark.parametrize(
    ("seconds", "pause"),
    [
        pytest.param(20, 4.0, id="short", marks=pytest.mark.real),
        pytest.param(LONG_SECONDS, 4.0, id="long", marks=pytest.mark.long),
    ],
)
async def test_clients_notice_nothing_and_pay_for_what_was_made(
    seconds: int, pause: float, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """200 clients amid rolling updates, killed gateways and engines: none fails, usage is the engines', memory flat."""
    async with plant(tmp_path, gateways=3, engines=3, keys=CLIENTS // 2, rolls=True) as made:
        assert made.rolling is not None
        over, trouble = asyncio.Event(), Trouble(made, made.rolling)
        connector = aiohttp.TCPConnector(ssl=made.tls, limit=0)
        async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as group:
            clients = [
                group.create_task(converse(made, session, seed=seed, until=over, pause=pause))
                for seed in range(CLIENTS)
            ]
            try:
                await trouble.run(session, seconds=seconds)
            finally:
                over.set()
            await asyncio.gather(*clients)
        billed = await made.settled()
    compared = compare(made, billed)
    statuses = Counter(one.status for one in made.asked)
    failed = {status: many for status, many in statuses.items() if status in FAILED}
    told = {
        "requests": len(made.asked),
        "whole answers to the token": compared.whole,
        "tokens of those by engines": compared.made,
        "that their clients left or that were cut": compared.parts,
        "of which the client heard nothing": compared.unseen,
        "tokens billed": compared.read + compared.wrote,
        "connections that broke": statuses[0],
        "told to try again": len(made.asked) - statuses[200] - statuses[0] - sum(failed.values()),
        "failed": sum(failed.values()),
        **{f"times {what}": many for what, many in made.befell.items()},
        **{f"MiB of a gateway {when}": size // MIB for when, size in trouble.sizes().items()},
    }
    for name, number in told.items():
        record_property(name, number)
    assert not failed, statuses
    assert statuses[200] > CLIENTS
    assert set(made.befell) >= {*KINDS, "rolled"}
    sizes = trouble.sizes()
    assert sizes["at last"] < sizes["at first"] * 1.15 + 8 * MIB, ("memory grows", sizes)


@dataclass
class Trouble:
    """One thing after the other; the first gateway is spared, and its ``memory`` is looked at, in bytes."""

    made: Plant
    rolling: Rolling
    memory: list[int] = field(default_factory=list)
    dice: random.Random = field(default_factory=lambda: random.Random(7))

    async def run(self, session: aiohttp.ClientSession, *, seconds: int) -> None:
        """For so long, and until each has befallen, and a revision has come whole."""
        ends = time.monotonic() + seconds
        late, turns, befell = ends + TROUBLE_SECONDS, 0, self.made.befell
        while time.monotonic() < ends or not all(befell[kind] for kind in (*KINDS, "rolled")):
            assert time.monotonic() < late, befell
            if await self.rolling.whole():
                befell["rolled"] += bool(self.rolling.begun)
                await self.rolling.roll()
            kind = KINDS[turns % len(KINDS)]
            befell[kind] += await self._befall(kind, session)
            turns += 1
            for _ in range(3):
                await asyncio.sleep(self.dice.uniform(0.4, 1.0))
                self.memory.append(self.made.gateways[0].rss)

    async def _befall(self, kind: str, session: aiohttp.ClientSession) -> bool:
        """Whether it did."""
        made, dice = self.made, self.dice
        match kind:
            case "gateway":
                number = dice.randrange(1, len(made.gateways))
                await made.gateways[number].restart(signal.SIGKILL)
                await made.ready(made.urls[number], session)
            case "engine":
                return self.rolling.kill(dice)
            case "clock":
                dice.choice(made.gateways[1:]).tell(dice.choice([signal.SIGUSR1, signal.SIGUSR2]))
            case "api":
                made.api.tell(signal.SIGSTOP)
                await asyncio.sleep(AWAY_SECONDS)
                made.api.tell(signal.SIGCONT)
            case _:
                await made.api.restart(signal.SIGKILL)
                await made.heard(session)
        return True

    def sizes(self) -> dict[str, int]:
        """The spared gateway's memory in bytes: of the second eighth, once it is warm, of that amid it, and of the
        last."""
        eighth = len(self.memory) // 8
        at = {"at first": 1, "in the middle": 4, "at last": 7}
        return {when: int(statistics.median(self.memory[n * eighth : (n + 1) * eighth])) for when, n in at.items()}
