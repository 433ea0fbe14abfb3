"""Every program of bench/ runs to its end with --quick --json, and says what it promises to say."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = sorted(path.stem for path in (ROOT / "bench").glob("[a-z]*.py"))
SLOW = (
    *("commit", "control_plane", "fairness", "firsttoken", "gangs", "reconcile", "size", "startup", "throughput"),
    *("turns", "waking"),
)
"""They take most of their minute: `make test-long` runs them."""

SECONDS_MAX = 240.0
"""Four times the minute that a program has on a quiet machine: CI is not quiet."""

pytestmark = pytest.mark.real


def test_there_are_programs() -> None:
    assert {"commit", "control_plane", "fairness", "gangs", "gateway", "placement", "reconcile", "size"} <= {*PROGRAMS}
    assert "startup" in PROGRAMS


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.long] if n in SLOW else []) for n in PROGRAMS])
async def test_a_program_says_its_figures(name: str) -> None:
    argv = (sys.executable, str(ROOT / "bench" / f"{name}.py"), "--quick", "--json")
    process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(SECONDS_MAX):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    assert process.returncode == 0
    figures = json.loads(said)
    assert figures
    for row in figures:
        assert set(row) == {"metric", "value", "unit", "peer", "peer_value", "goal", "met"}
        assert row["value"] >= 0 or "added" in row["metric"]
        assert (row["met"] is None) == (row["goal"] == "")
