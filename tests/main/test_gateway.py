"""What the gateway's process is put together from: whose doors it dials on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bessemer.core.clock import FakeClock
from bessemer.core.errors import Malformed
from bessemer.drivers.engine.doors import default_folder
from bessemer.gateway import Shares
from bessemer.gateway.errors import Refused
from bessemer.gateway.purse import Need
from bessemer.main.gateway import asking, doors_of
from bessemer.main.settings import Paths, Settings, host_name


def test_only_the_hosts_of_this_machine_have_doors_here(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    folder_of = doors_of(paths, Settings(fake_hosts=2))
    assert folder_of(host_name()) == default_folder(paths.agent)
    assert folder_of("fake-000") == folder_of("fake-001") == default_folder(paths.fake)
    assert [folder_of(name) for name in ("fake-002", "elsewhere", "")] == [None] * 3
    assert doors_of(paths, Settings(host_name="mine"))("mine") == default_folder(paths.agent)


class Replicas:
    """What a gateway's client hears of replicas of the api; ``older`` know nothing of money that is held."""

    def __init__(self) -> None:
        self.older = False
        self.asked: list[dict[str, Any]] = []

    async def share(self, _project: str, **said: Any) -> dict[str, Any]:
        self.asked.append(said)
        if self.older and "money" in said:
            raise Malformed("money: extra inputs are not permitted")
        given = {"amount": said["amount"], "seconds": 60.0, "left": None, "words": ""}
        if self.older:
            return given
        bound = {"number": said["money"]["after"] + 1, "stands": True, "left": 1_000}
        return {**given, "money": {**bound, "prices": {"currency": "EUR", "input": 1_000_000, "output": 1_000_000}}}


async def test_an_older_replica_serves_whom_nobody_bounds() -> None:
    replicas = Replicas()
    replicas.older = True
    held = await Shares(asking(replicas.share), clock=FakeClock()).hold("acme--lab", Need(10, 5))
    assert (held.micro, held.prices) == (0, None)
    assert ["money" in said for said in replicas.asked] == [True, False]


async def test_a_newer_api_may_say_more() -> None:
    replicas = Replicas()

    async def share(project: str, **said: Any) -> dict[str, Any]:
        given = await replicas.share(project, **said)
        prices = {**given["money"]["prices"], "request": 7}
        return {**given, "since": 3, "money": {**given["money"], "prices": prices, "forecast": 9}}

    assert (await Shares(asking(share), clock=FakeClock()).hold("acme--lab", Need(10, 5))).micro == 12


async def test_no_refusal_takes_a_bound_of_money_away() -> None:
    replicas, clock = Replicas(), FakeClock()
    shares = Shares(asking(replicas.share), clock=clock)
    shares.settle(await shares.hold("acme--lab", Need(10, 5)), 0)
    replicas.older = True
    await clock.advance(61)
    for _ in range(2):
        with pytest.raises(Refused) as caught:
            await shares.hold("acme--lab", Need(10, 5))
        assert (caught.value.status, caught.value.words.code) == (503, "limit_unknown")
    assert all("money" in said for said in replicas.asked)
    replicas.older = False
    assert (await shares.hold("acme--lab", Need(10, 5))).micro == 12
