"""How the control plane bears objects, agents and watches: by what must not be lost, never by how long it takes."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

from tests.bench.conftest import ROOT

HOURS_MAX = 1.5
"""Many times what it takes where nothing else runs; each of its parts has a bound of its own."""

pytestmark = pytest.mark.real


@pytest.fixture
def size(of_bench: Callable[[str], ModuleType]) -> ModuleType:
    return of_bench("size")


async def test_none_is_lost_while_history_is_dropped(size: ModuleType, tmp_path: Path) -> None:
    """Agents join over HTTPS and watches open while 32 clients create and the log is compacted: no create fails or is
    lost, every agent is heard, every watch is told of every change."""
    steps = size.Steps(agents=(12,), watches=(40,), rest_seconds=0.2, keep=1_000)
    await size.fill(tmp_path / "store.db", range(1_400))
    async with size.ground(steps.keep, partial(size.laid, tmp_path / "store.db")) as plane:
        async with asyncio.TaskGroup() as group:
            made = group.create_task(size.written(plane, "1,400 objects", writes=100, drops=400))
            joined = group.create_task(size.agents(plane, steps))
            told = group.create_task(size.watches(plane, steps, made=2_000, select="&labelSelector=made%3Dbefore"))
        said = {row.metric: row.value for row in (*made.result(), *joined.result(), *told.result())}
    assert said["1,400 objects: changes dropped meanwhile"] >= 400
    assert said["12 agents: connections"] >= 2 * 12
    assert said["40 watches: create until the last was told, p50"] > 0


@pytest.mark.long
async def test_none_is_lost_in_full(
    size: ModuleType, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """200,000 objects, 2,000 agents and 1,000 watches on one control plane after the other: each step comes to be."""
    steps, told = size.Steps(), tmp_path / "told"
    assert (steps.objects[-1], steps.agents[-1], steps.watches[-1]) == (200_000, 2_000, 1_000)
    with told.open("wb") as progress:
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(ROOT / "bench" / "size.py"), "--json", stdout=asyncio.subprocess.PIPE, stderr=progress
        )
        try:
            async with asyncio.timeout(HOURS_MAX * 3600):
                found, _ = await process.communicate()
        except TimeoutError:
            pytest.fail(f"it did not end; it said {told.read_text()[-2000:]}")
        finally:
            if process.returncode is None:
                process.terminate()
                await process.wait()
    assert process.returncode == 0, told.read_text()[-4000:]
    said = {row["metric"]: row["value"] for row in json.loads(found)}
    for what in ("objects", "agents", "watches"):
        for count in getattr(steps, what):
            assert said[f"{count:,} {what}: resident"] > 0
        record_property(what, getattr(steps, what)[-1])
    assert said["200,000 objects: changes dropped meanwhile"] >= 200_000 - steps.keep
    assert said["2,000 agents: connections"] >= 2 * 2_000
