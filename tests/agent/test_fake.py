"""Fake hosts by the dozen: the same agents, each with its own certificate, on the fake drivers."""

from __future__ import annotations

import asyncio
from pathlib import Path

from prometheus_client import CollectorRegistry

from bessemer.agent.fake import FakeHosts, FakeSettings, run_fake_hosts
from bessemer.agent.metrics import AgentMetrics
from bessemer.core.clock import FakeClock
from bessemer.kinds import HOST_SIDES
from tests.agent.standin import BASE, Api, claim, host_body

NAMES = [f"fake-{n:03d}" for n in range(40)]


def reports(api: Api) -> list[dict[str, object]]:
    found = [
        body["status"].get("report") for path, body in api.objects.items() if path.startswith(f"{BASE}/hosts/fake")
    ]
    return [report for report in found if report]


def fleet(api: Api, clock: FakeClock, directory: Path) -> FakeHosts:
    return FakeHosts(
        settings=FakeSettings(directory=directory),
        connect=api.connect,
        sides=HOST_SIDES,
        clock=clock,
        metrics=AgentMetrics(CollectorRegistry()),
    )


async def test_joins_them_all_places_them_and_runs_on_them(clock: FakeClock, tmp_path: Path) -> None:
    api = Api(clock)
    asked: list[str] = []

    async def token_for(name: str) -> str:
        asked.append(name)
        api.tokens.add(f"token-{name}")
        api.put(host_body(name))
        return f"token-{name}"

    hosts = fleet(api, clock, tmp_path)
    running = asyncio.create_task(run_fake_hosts(NAMES, hosts, token_for=token_for))
    try:
        await clock.advance(20)
        assert len(reports(api)) == len(NAMES)
        assert {report["leaf"] for report in reports(api)} == {"leaf-00", "leaf-01", "leaf-02"}
        assert all(report["fake"] for report in reports(api))
        body = api.put(claim(host=NAMES[7], uid="uid-7"))
        await clock.advance(20)
        assert api.status(body)["phase"] == "Running"
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    before = list(asked)
    running = asyncio.create_task(run_fake_hosts(NAMES, hosts, token_for=token_for))
    await clock.advance(20)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert asked == before == NAMES, "a host that has a certificate asks for no token"
    assert api.status(body)["phase"] == "Running", "its guest began anew, with the process that it lived in"


async def test_hosts_that_are_refused_keep_no_other_out(clock: FakeClock, tmp_path: Path) -> None:
    """As many as are let in at a time, with tokens that nobody knows: the others join behind them."""
    api = Api(clock)

    async def token_for(name: str) -> str:
        if name in NAMES[16:]:
            api.tokens.add(f"token-{name}")
        api.put(host_body(name))
        return f"token-{name}"

    hosts = fleet(api, clock, tmp_path)
    running = asyncio.create_task(run_fake_hosts(NAMES, hosts, token_for=token_for))
    await clock.advance(60)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert len(reports(api)) == len(NAMES[16:])


async def test_an_idle_host_asks_for_nothing_but_its_lease(clock: FakeClock, tmp_path: Path) -> None:
    api = Api(clock)
    api.hearts = True

    async def token_for(name: str) -> str:
        api.tokens.add(f"token-{name}")
        api.put(host_body(name))
        return f"token-{name}"

    hosts = fleet(api, clock, tmp_path)
    running = asyncio.create_task(run_fake_hosts(NAMES[:2], hosts, token_for=token_for))
    await clock.advance(60)
    api.calls.clear()
    await clock.advance(600)
    asked = dict(api.calls)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert set(asked) == {f"BEAT {name}" for name in NAMES[:2]}
    assert all(20 <= count <= 35 for count in asked.values())
