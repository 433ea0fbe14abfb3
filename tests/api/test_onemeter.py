"""A meter joins with one line: in a tree of the product that differs in that line alone."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from tests.api.onemeter import with_one_line_more

ROOT = Path(__file__).parents[2]


async def test_one_line_more_is_counted_shown_and_refused(tmp_path: Path) -> None:
    with_one_line_more(tmp_path / "src")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.api.onemeter", str(tmp_path / "store.db")),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{tmp_path / 'src'}{os.pathsep}{ROOT}"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(240):
        said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    assert said.decode().endswith("counted, shown and refused\n")
