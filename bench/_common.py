"""What every program here shares: figures and their goals, the command line, and an installation to measure.

A program is an ``async def measure(options) -> list[Figure]`` handed to `program`. It starts what it measures in
processes of their own and is itself the load, so that the CPU seconds of the two are told apart.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import shutil
import signal
import statistics
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import uvloop

from _page import markdown
from bessemer.client import Ask, Client, connect
from bessemer.core.errors import BessemerError
from bessemer.main import identities
from bessemer.main.parts import CONTROL, command
from bessemer.main.settings import Paths, Settings, save, with_ports

READY_SECONDS = 240.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One row. ``goal`` is as text (``≥ 1,600``), "" where the figure only informs; then ``met`` is None."""

    metric: str
    value: float
    unit: str
    peer: str = ""
    peer_value: float | str | None = None
    goal: str = ""
    met: bool | None = None


def figure(
    metric: str,
    value: float,
    unit: str,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    peer: tuple[str, float | str] | None = None,
) -> Figure:
    """A figure and whether it meets its bound; the value is kept to four digits."""
    goal, met = "", None
    if at_least is not None:
        goal, met = f"≥ {at_least:,g}", value >= at_least
    elif at_most is not None:
        goal, met = f"≤ {at_most:,g}", value <= at_most
    name, there = peer or ("", None)
    return Figure(
        metric=metric, value=float(f"{value:.4g}"), unit=unit, peer=name, peer_value=there, goal=goal, met=met
    )


@dataclass(frozen=True, slots=True)
class Options:
    """How a program was asked: within a minute, with which peer and over which data (directories, or "" for none)."""

    quick: bool
    peer: str
    data: str = ""

    def runs(self, full: int) -> int:
        """How often to repeat: ``full`` times, once where it must be quick."""
        return 1 if self.quick else full


Measure = Callable[[Options], Coroutine[Any, Any, list[Figure]]]


def program(measure: Measure, *, about: str, peer: str = "", data: str = "") -> None:
    """The command line of a program. Ends the process: 0 also where a goal is missed, for a figure is no test."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--quick", action="store_true", help="fewer runs, within a minute")
    parser.add_argument(
        "--json", action="store_true", help="a list of {metric, value, unit, peer, peer_value, goal, met}"
    )
    parser.add_argument("--peer", default="", metavar="DIR", help=peer or "this program has no peer to start")
    parser.add_argument("--data", default="", metavar="DIR", help=data or "this program reads no data")
    given = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        figures = runner.run(_told(measure(Options(given.quick, given.peer, given.data))))
    if given.json:
        print(json.dumps([asdict(row) for row in figures], ensure_ascii=False, indent=1))
    else:
        print(table(figures))


async def _told(work: Coroutine[Any, Any, list[Figure]]) -> list[Figure]:
    """``work``, cancelled where the program is told to end, so that what it started goes with it."""
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


def table(figures: Iterable[Figure]) -> str:
    """The rows as a Markdown table."""
    rows = [("figure", "value", "goal", "peer")]
    for row in figures:
        goal = f"{row.goal} {'✓' if row.met else '✗'}" if row.goal else ""
        there = f"{row.peer_value:,g}" if isinstance(row.peer_value, float | int) else row.peer_value
        rows.append((row.metric, f"{shown(row.value)} {row.unit}", goal, f"{there} ({row.peer})" if row.peer else ""))
    return markdown(rows)


def shown(value: float) -> str:
    """``12345.6`` → ``12,346``; small values keep their digits."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


median = statistics.median


def percentile(values: list[float], share: float) -> float:
    """The value below which ``share`` (0 to 1) of the values lie."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


# --- processes --------------------------------------------------------------------------------------------------


def cpu_seconds(pid: int) -> float:
    """User and system seconds that a process has used."""
    used = psutil.Process(pid).cpu_times()
    return float(used.user + used.system)


def rss_mib(pid: int) -> float:
    """Resident memory now."""
    return float(psutil.Process(pid).memory_info().rss) / (1 << 20)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A server under load: where it listens, by whose authority, with which certificate, and the processes it is."""

    port: int
    ca: Path
    cert: tuple[Path, Path]
    pids: tuple[int, ...]

    def cpu_seconds(self) -> float:
        return sum(map(cpu_seconds, self.pids))

    def rss_mib(self) -> float:
        return sum(map(rss_mib, self.pids))


def of_state(state: Path) -> list[psutil.Process]:
    """Every process whose command line names the state directory, and their children."""
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter(["cmdline"]):
        if str(state) in (process.info["cmdline"] or ()):
            found[process.pid] = process
            found.update({child.pid: child for child in process.children(recursive=True)})
    found.pop(os.getpid(), None)
    return list(found.values())


def environment() -> dict[str, str]:
    """For what is started here: none of the shell's settings, no colours, and compiled code kept as anybody's is."""
    ours = ("BESSEMER_", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, "NO_COLOR": "1", "TERM": "dumb"}


def start(argv: list[str], *, log: Path) -> subprocess.Popen[bytes]:
    """Start a process that writes to ``log``."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        return subprocess.Popen(argv, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=environment())


def stop(process: subprocess.Popen[bytes], *, number: int = signal.SIGTERM) -> None:
    """End it, by force after ten seconds."""
    if process.poll() is None:
        process.send_signal(number)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@asynccontextmanager
async def scratch() -> AsyncIterator[Path]:
    """A directory on this checkout's disk (a tmpfs would make fsync free), gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir="/var/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# --- an installation --------------------------------------------------------------------------------------------


class Plane:
    """A control plane (api, controller, portal) in a process of its own, as ``up`` starts it, over a scratch state."""

    def __init__(self, paths: Paths, settings: Settings) -> None:
        self.paths = paths
        self.settings = settings
        self.url = identities.urls(settings)["api"]
        self.client: Client = connect(self.url, ca=paths.ca_certificate, cert=paths.certificate(identities.ADMIN))
        self._parts: list[subprocess.Popen[bytes]] = []

    def start(self, part: str) -> int:
        """Start one part of ``up``; its process id."""
        asked = command(self.paths, part)
        self._parts.append(start(list(asked.argv), log=asked.log_path))
        return self._parts[-1].pid

    async def ready(self) -> None:
        """Return when the api answers. Raises RuntimeError with the end of the log where it dies, or is late."""
        try:
            async with asyncio.timeout(READY_SECONDS):
                while not await self._answers():  # noqa: ASYNC110 - another process does
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise RuntimeError(f"no answer in {READY_SECONDS:.0f} s: {self._end_of_log()}") from None

    async def _answers(self) -> bool:
        try:
            await self.client.transport.request(Ask(method="GET", path="/readyz"))
        except (BessemerError, OSError):
            if self._parts[0].poll() is not None:
                raise RuntimeError(self._end_of_log()) from None
            return False
        return True

    def _end_of_log(self) -> str:
        return command(self.paths, CONTROL).log_path.read_text()[-2000:]

    async def close(self) -> None:
        """End every part."""
        await self.client.close()
        for part in reversed(self._parts):
            stop(part)


@asynccontextmanager
async def plane(
    *, settings: dict[str, Any] | None = None, seed: Callable[[Paths], Awaitable[None]] | None = None
) -> AsyncIterator[tuple[Plane, int]]:
    """A control plane that answers, and its process id. ``seed`` fills the store before it starts."""
    async with scratch() as folder:
        paths = Paths(folder)
        zero = {"api_port": 0, "portal_port": 0, "gateway_port": 0}
        chosen = with_ports(Settings.model_validate({**zero, **(settings or {})}), find_free=True)
        identities.prepare(paths, chosen)
        save(paths, chosen)
        if seed is not None:
            await seed(paths)
        running = Plane(paths, chosen)
        try:
            pid = running.start(CONTROL)
            await running.ready()
            gc.collect()
            yield running, pid
        finally:
            await running.close()
