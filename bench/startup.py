"""How long a person waits, and what the product costs while nobody uses it.

``bessemer --help`` and ``bessemer up`` from a cold state directory to "Gateway answers", as a shell sees them; the
size of the base install in an environment of its own; the CPU of everything that ``up`` with 200 fake hosts runs, over
a quiet minute. Help is the median of fifteen runs and up of five; the install, the start with 200 hosts and the quiet
minute are each run once.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import psutil

from _common import Figure, Options, environment, figure, median, of_state, program, scratch, start, stop
from bessemer.client import from_kubeconfig
from bessemer.core.errors import BessemerError
from bessemer.core.ports import Scope
from bessemer.main.settings import Paths

ROOT = Path(__file__).resolve().parents[1]
FAKE_HOSTS = 200
KEPT_INSTALL_MB = 178.2
"""Of requirements/base.txt, measured by this program; a quick run has no time for it."""


async def measure(options: Options) -> list[Figure]:
    """Help, up, install, idle."""
    rows = [figure("bessemer --help", median(_helps(5 if options.quick else 15)), "s", at_most=0.25)]
    ups = [await _up() for _ in range(1 if options.quick else 5)]
    rows.append(figure("bessemer up, until all is ready", median(ups), "s", at_most=3))
    rows.append(await _install(options))
    return rows + await _idle(20.0 if options.quick else 60.0, FAKE_HOSTS)


def _bessemer(*words: str) -> list[str]:
    return [sys.executable, "-m", "bessemer", *words]


def _up_words(state: Path, hosts: int) -> list[str]:
    ports = [word for part in ("api", "portal", "gateway") for word in (f"--{part}-port", "0")]
    return _bessemer("up", "--state", str(state), *ports, *(["--fake-hosts", str(hosts)] if hosts else []))


def _helps(runs: int) -> list[float]:
    found = []
    for _ in range(runs):
        began = time.perf_counter()
        subprocess.run(_bessemer("--help"), env=environment(), stdout=subprocess.DEVNULL, check=True)
        found.append(time.perf_counter() - began)
    return found


async def _up() -> float:
    """Seconds from the command to its addresses, which it prints when all is ready."""
    async with scratch() as folder:
        state, log = folder / "state", folder / "up.log"
        began = time.perf_counter()
        process = start(_up_words(state, 0), log=log)
        try:
            while "OpenAI API" not in log.read_text():
                if process.poll() is not None or time.perf_counter() - began > 60:
                    raise RuntimeError(log.read_text())
                await asyncio.sleep(0.01)
            return time.perf_counter() - began
        finally:
            stop(process)


async def _install(options: Options) -> Figure:
    if options.quick:
        return figure("base install (kept)", KEPT_INSTALL_MB, "MB", at_most=200)
    async with scratch() as folder:
        target = folder / "site-packages"
        into = [str(Path(sys.executable).with_name("uv")), "pip", "install", "--quiet", "--target", str(target)]
        for what in (["-r", str(ROOT / "requirements/base.txt")], ["--no-deps", str(ROOT)]):
            await asyncio.to_thread(subprocess.run, [*into, *what], check=True)
        size = sum(path.stat().st_blocks * 512 for path in target.rglob("*") if path.is_file())
    return figure("base install", size / 1e6, "MB", at_most=200)


async def _idle(seconds: float, hosts: int) -> list[Figure]:
    """After every fake host is Ready and the first reports are through."""
    async with scratch() as folder:
        state = folder / "state"
        process = start(_up_words(state, hosts), log=folder / "up.log")
        try:
            began = time.perf_counter()
            await _hosts_ready(Paths(state), hosts + 1)
            joined = time.perf_counter() - began
            await asyncio.sleep(8.0)
            parts = [psutil.Process(process.pid), *of_state(state)]
            parts = list({part.pid: part for part in parts}.values())
            before, began = _cpu(parts), time.perf_counter()
            await asyncio.sleep(seconds)
            passed = time.perf_counter() - began
            used = {pid: value - before[pid] for pid, value in _cpu(parts).items()}
            memory = sum(part.memory_info().rss for part in parts) / (1 << 20)
        finally:
            stop(process)
    return [
        figure(f"up with {hosts} fake hosts, until all are Ready", joined, "s"),
        figure(f"idle, {hosts} fake hosts, all processes", sum(used.values()) / passed * 100, "% of a core", at_most=3),
        figure(f"idle, {hosts} fake hosts, resident", memory, "MiB"),
    ]


def _cpu(parts: list[psutil.Process]) -> dict[int, float]:
    return {part.pid: sum(part.cpu_times()[:2]) for part in parts if part.is_running()}


async def _hosts_ready(paths: Paths, count: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        await asyncio.sleep(0.5)
        if not paths.kubeconfig.exists():
            continue
        client = from_kubeconfig(paths.kubeconfig)
        try:
            page = await client.list(Scope(kind="Host"))
        except (BessemerError, OSError):  # it is not up yet; the deadline bounds this
            continue
        finally:
            await client.close()
        if sum(b'"phase":"Ready"' in item.body for item in page.items) >= count:
            return
    raise TimeoutError("the fake hosts are not Ready after 120 s")


if __name__ == "__main__":
    program(measure, about=__doc__.splitlines()[0])
