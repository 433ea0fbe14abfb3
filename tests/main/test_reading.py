"""What a process reads before it does its work: four of ours start at once, and share the cores of a laptop."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest

from bessemer.api import listen
from bessemer.main import server

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@pytest.mark.parametrize(
    ("module", "spared"),
    [
        ("up", "rich structlog cryptography aiohttp yaml bessemer.kinds bessemer.client bessemer.store"),
        ("factory", "bessemer.kinds bessemer.api.app bessemer.store aiohttp sqlalchemy"),
        ("gateway", "bessemer.kinds bessemer.api.app bessemer.store sqlalchemy numpy typer"),
        ("agent", "bessemer.api.app bessemer.store sqlalchemy numpy typer uvicorn"),
        ("control", "bessemer.portal bessemer.gateway bessemer.agent alembic aiohttp jinja2 typer"),
        ("part", "typer rich structlog bessemer.kinds"),
    ],
)
def test_a_process_is_spared_what_another_reads(module: str, spared: str) -> None:
    code = f"import sys, bessemer.main.{module}; print(*sorted(set({spared.split()!r}) & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": os.path.join(_ROOT, "src")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


async def test_the_portal_is_read_when_somebody_knocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_PORTAL_SECONDS", 3600.0)
    with listen("127.0.0.1", 0) as on:
        waiting = asyncio.ensure_future(server._knocked(on))
        await asyncio.sleep(0)
        assert not waiting.done()
        async with asyncio.timeout(60):
            _, writer = await asyncio.open_connection(*on.getsockname())
            await waiting
        writer.close()


async def test_the_portal_is_read_in_a_moment_also_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_PORTAL_SECONDS", 0.0)
    with listen("127.0.0.1", 0) as on:
        waiting = asyncio.ensure_future(server._knocked(on))
        async with asyncio.timeout(60):
            await waiting
        assert waiting.done()
