"""The demo as a person runs it, and interrupts it: it ends by itself, or at Ctrl-C, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bessemer.main.down import stop_all
from bessemer.main.settings import Paths, save, state_directory
from tests.drivers import micro_guest
from tests.main.residue import Residue
from tests.ports import ANY, kept_ports

ROOT = Path(__file__).parents[2]
INTERRUPTED = 130
_STEP_SECONDS = 120.0


@dataclass
class Run:
    """One ``bessemer demo`` without a terminal, in a session of its own. ``lines`` is what it has said so far."""

    process: asyncio.subprocess.Process
    lines: list[str] = field(default_factory=list)

    async def until(self, words: str) -> None:
        """Read on until a line has the words."""
        async with asyncio.timeout(_STEP_SECONDS):
            while not any(words in line for line in self.lines):
                assert await self._read(), f"it ended before {words!r}:\n{self.text}"

    async def end(self) -> int:
        """Read to the end; the exit status."""
        async with asyncio.timeout(2 * _STEP_SECONDS):
            while await self._read():
                pass
            return await self.process.wait()

    @property
    def text(self) -> str:
        return "".join(self.lines)

    async def _read(self) -> bool:
        assert self.process.stdout is not None
        line = (await self.process.stdout.readline()).decode()
        if line:
            self.lines.append(line)
        return bool(line)


@dataclass
class Demo:
    """A state directory and the runs over it, one after the other."""

    paths: Paths
    residue: Residue
    runs: list[Run] = field(default_factory=list)

    async def start(self) -> Run:
        argv = (sys.executable, "-m", "bessemer", "demo", "--fake-hosts", "0", "--state", str(self.paths.state))
        process = await asyncio.create_subprocess_exec(
            *argv,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        self.runs.append(Run(process))
        return self.runs[-1]

    async def close(self) -> None:
        for run in self.runs:
            if run.process.returncode is None:
                run.process.kill()
                await run.process.wait()
        self.residue.close()
        await stop_all(self.paths)


@pytest.fixture
async def demo(state_dir: Path) -> AsyncIterator[Demo]:
    """On free ports, with the packages that earlier runs of the tests have downloaded."""
    paths = Paths(state_directory(state_dir))
    made = Demo(paths, Residue(paths.state))
    made.paths.cache.mkdir()
    (made.paths.cache / "packages").symlink_to(micro_guest.package_cache())
    with kept_ports(ANY) as settings:
        save(made.paths, settings)
        try:
            yield made
        finally:
            await made.close()


@pytest.mark.real
async def test_ctrl_c_while_the_guest_boots_stops_everything(demo: Demo) -> None:
    async with asyncio.timeout(240):
        run = await demo.start()
        await run.until("Model: ")
        while not (demo.residue.guests() and demo.residue.networks()):
            assert run.process.returncode is None, run.text
            await asyncio.sleep(0.05)
        run.process.send_signal(signal.SIGINT)
        assert await run.end() == INTERRUPTED, run.text
    assert "Interrupted." in run.text
    assert demo.residue.left() == []


_INTERRUPTIONS = (
    ("Control plane: ", signal.SIGKILL),
    ("Image: ", signal.SIGINT),
    ("Instance: ", signal.SIGKILL),
    ("Endpoint: ", signal.SIGINT),
    ("The official openai client", signal.SIGKILL),
)
"""After which step, and how."""


@pytest.mark.real
@pytest.mark.long
async def test_a_demo_works_after_any_interruption_of_others(demo: Demo) -> None:
    """Over one directory: Ctrl-C leaves nothing; what kill -9 leaves, the next demo stops; the last ends by itself."""
    for words, how in _INTERRUPTIONS:
        run = await demo.start()
        await run.until(words)
        demo.residue.networks()
        run.process.send_signal(how)
        status = await run.end()
        if how is signal.SIGINT:
            assert status == INTERRUPTED, run.text
            assert demo.residue.left() == []
        else:
            assert status == -signal.SIGKILL
            assert demo.residue.processes(), "its parts go on, and the next demo finds them"
    run = await demo.start()
    await run.until("Instance: ")
    demo.residue.networks()
    assert await run.end() == 0, run.text
    assert "difference 0" in run.text
    assert demo.residue.left() == []
