"""Each process of an installation tells its metrics: the control plane at the api, any other at its own socket."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import aiohttp
import pytest

from bessemer.client import tls_context
from bessemer.drivers.process.parts import HostParts
from bessemer.main import identities
from bessemer.main.down import stop_all
from bessemer.main.parts import AGENT, CONTROL, FAKE, GATEWAY, ORDER, command
from bessemer.main.settings import METRICS_SOCKET, Paths, Settings, load, save
from tests.main.residue import Residue
from tests.main.starting import is_up, start, until

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.real


@pytest.fixture
def paths(state_dir: Path) -> Paths:
    return Paths(state_dir)


async def asked(socket: Path) -> str:
    """What is told at a unix socket, once somebody listens there: it is seen a moment before."""
    session = aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket)))
    async with session, asyncio.timeout(60):
        while True:
            try:
                async with session.get("http://process/metrics") as answer:
                    assert answer.status == 200
                    return await answer.text()
            except aiohttp.ClientConnectorError:
                await asyncio.sleep(0.02)


async def asked_of_api(paths: Paths) -> str:
    pair = tuple(path.read_bytes() for path in paths.certificate(identities.ADMIN))
    tls = tls_context(paths.ca_certificate.read_bytes(), (pair[0], pair[1]))
    url = f"{identities.urls(load(paths))['api']}/metrics"
    async with aiohttp.ClientSession() as session, session.get(url, ssl=tls) as answer:
        assert answer.status == 200
        return await answer.text()


async def test_each_process_of_up_tells_its_metrics(paths: Paths) -> None:
    process = await start(paths, fake_hosts=1)
    try:
        await until(lambda: is_up(paths) and (paths.state / METRICS_SOCKET).exists())
        await until((paths.fake / METRICS_SOCKET).exists)
        told = {
            "up": await asked(paths.state / METRICS_SOCKET),
            CONTROL: await asked_of_api(paths),
            GATEWAY: await asked(paths.spool.parent / METRICS_SOCKET),
            AGENT: await asked(paths.agent / METRICS_SOCKET),
            FAKE: await asked(paths.fake / METRICS_SOCKET),
        }
        assert set(told) == {"up", *ORDER}
        families = ("up_part_running", "loop_", "gateway_", "agent_streams", "agent_streams")
        for (name, text), family in zip(told.items(), families, strict=True):
            assert f"\nbessemer_{family}" in f"\n{text}", name
        for name in ORDER:
            assert f'bessemer_up_part_running{{part="{name}"}} 1.0' in told["up"]
            assert f'bessemer_up_restarts_total{{part="{name}"}} 0.0' in told["up"]
        (gateway,) = await HostParts().find(command(paths, GATEWAY).marker)
        os.kill(gateway.pid, signal.SIGKILL)
        async with asyncio.timeout(60):
            while f'bessemer_up_restarts_total{{part="{GATEWAY}"}} 1.0' not in await asked(
                paths.state / METRICS_SOCKET
            ):
                await asyncio.sleep(0.05)
    finally:
        process.send_signal(signal.SIGINT)
        await process.wait()
        await stop_all(paths)
    assert Residue(paths.state).left() == []


@pytest.mark.parametrize(
    ("part", "family"), [("portal", "process_cpu_seconds_total"), ("controller", "bessemer_loop_")]
)
async def test_a_part_without_an_api_beside_it_tells_its_metrics(paths: Paths, part: str, family: str) -> None:
    save(paths, Settings(api_port=0, portal_port=0, gateway_port=0))
    words = ("server", "--parts", part, "--state", str(paths.state))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bessemer", *words),
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        stdout=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        await until((paths.state / part / METRICS_SOCKET).exists)
        assert f"\n{family}" in f"\n{await asked(paths.state / part / METRICS_SOCKET)}"
    finally:
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
