"""Each reader, fed by a fuzzer that is led by the lines it reaches: nothing but values and errors of ours."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMES = (
    "protobuf",
    "json",
    "yaml",
    "json-patch",
    "merge-patch",
    "strategic-patch",
    "apply",
    "managed-fields",
    "selectors",
    "gguf",
    "safetensors",
    "model-text",
)
SECONDS = 30
RUNS = re.compile(r"Done (\d+) runs")

pytestmark = pytest.mark.long


async def fed(name: str, folder: Path, *options: str) -> tuple[int, str]:
    """The exit status of a run, and what it said."""
    # A shell between: a process begins with the largest memory of the one it is a copy of, and libFuzzer counts it.
    shell = ("/bin/sh", "-c", '"$@"; exit $?', "sh")
    argv = (*shell, sys.executable, "-m", "tests.fuzz.readers", name, str(folder), *options)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT)))}
    process = await asyncio.create_subprocess_exec(
        *argv,
        cwd=folder,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(10 * SECONDS):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return process.returncode or 0, said.decode(errors="replace")


@pytest.mark.parametrize("name", NAMES)
async def test_a_reader_answers_any_bytes(
    name: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """A fuzzer that sees which lines it reaches finds no bytes that a reader breaks on, hangs at or swells from."""
    code, said = await fed(
        name, tmp_path, f"-max_total_time={SECONDS}", "-max_len=4096", "-timeout=5", "-rss_limit_mb=1024"
    )
    found = RUNS.search(said)
    assert code == 0, said[-3000:]
    assert found is not None, said[-3000:]
    assert int(found.group(1)) > 1000
    record_property("inputs", int(found.group(1)))


async def test_a_reader_that_breaks_is_found(tmp_path: Path) -> None:
    """The fuzzer sees what a reader raises: with a reader that raises at once, the run fails."""
    code, said = await fed("broken", tmp_path, "-runs=10")
    assert code != 0
    assert "ZeroDivisionError" in said
