"""The agent's figures, for the collector on its machine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from bessemer.agent.listener import serve_metrics
from bessemer.agent.metrics import AgentMetrics


async def begun(registry: CollectorRegistry, where: Path | int) -> asyncio.Task[None]:
    """What serves them, once it listens."""
    serving = asyncio.create_task(serve_metrics(registry, where))
    async with asyncio.timeout(30):
        while not serving.done():
            try:
                if isinstance(where, Path):
                    _, writer = await asyncio.open_unix_connection(where)
                else:
                    _, writer = await asyncio.open_connection("127.0.0.1", where)
            except OSError:
                await asyncio.sleep(0.01)
                continue
            writer.close()
            await writer.wait_closed()
            break
    return serving


@pytest.mark.parametrize("kind", ["socket", "port"])
async def test_serves_its_figures_and_nothing_else(kind: str, state_dir: Path, free_port: Callable[[], int]) -> None:
    registry = CollectorRegistry()
    AgentMetrics(registry).heartbeats.labels("heard").inc()
    where = state_dir / "metrics.sock" if kind == "socket" else free_port()
    serving = await begun(registry, where)
    connector = aiohttp.UnixConnector(path=str(where)) if isinstance(where, Path) else aiohttp.TCPConnector()
    base = "http://agent" if isinstance(where, Path) else f"http://127.0.0.1:{where}"
    async with aiohttp.ClientSession(connector=connector) as session:
        async with session.get(f"{base}/metrics") as response:
            text = await response.text()
        async with session.get(f"{base}/secrets") as other:
            assert other.status == 404
        async with session.post(f"{base}/metrics") as posted:
            assert posted.status == 404
    assert response.status == 200
    assert 'bessemer_agent_heartbeats_total{result="heard"} 1.0' in text
    assert "bessemer_loop_queue_depth" in text
    if isinstance(where, Path):
        assert where.stat().st_mode & 0o777 == 0o600
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


async def test_an_endless_head_is_cut_off(state_dir: Path) -> None:
    serving = await begun(CollectorRegistry(), state_dir / "m.sock")
    reader, writer = await asyncio.open_unix_connection(state_dir / "m.sock")
    writer.write(b"GET /metrics HTTP/1.1\r\n" + b"x" * 100_000)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await reader.readexactly(1)
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
