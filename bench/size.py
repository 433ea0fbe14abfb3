"""How the control plane grows with objects, agents and watches, in steps, up to 200,000 objects and 2,000 agents.

Over TLS, RBAC and audit on, SQLite with synchronous=FULL; one process is api, controller and portal. It is started over
each number of objects of 1.6 kB; then 32 clients create more, while all but the newest 20,000 changes are dropped.
Agents are those of fake hosts, 500 to a process, each with a certificate, a socket, two watches and a heartbeat each
twenty seconds. Watches are of one kind by one administrator, all of which are told of each of some changes.

At each step, after it has come to rest: resident memory, the share of a core that it takes while nobody asks (agents
go on with what they do), and what a neighbour waits for a get. The last rows are read off the line through the steps,
as far as they bear one.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import orjson
import psutil

from _common import Figure, Options, figure, median, program, rss_mib, scratch, start, stop
from _ground import (
    ANSWER_SECONDS,
    COLLECTION,
    LATER,
    NEIGHBOURS,
    Failed,
    Ground,
    create,
    flavor,
    ground,
    say,
    within,
)
from _size import AGENTS, OBJECTS, WATCHES, read_off
from _wire import Wire, load, request
from bessemer.core.clock import SystemClock
from bessemer.core.descriptors import raise_limit
from bessemer.core.ports import Writer
from bessemer.kinds import KINDS
from bessemer.main.settings import Paths
from bessemer.store import open_store, store_kinds

CLIENTS = 32
SYSTEM = Writer("system", "bench")
COMPACTS_SECONDS = 600.0
AGENTS_EACH = 500
FILES_OF_AGENT = 5
"""More than an agent opens, at either end."""
EVENTS = 20
OPEN = ('bessemer_api_watches{resource="flavors"}',)
WATCHED = ('bessemer_api_watches{resource="claims"}', 'bessemer_api_watches{resource="hosts"}')
"""What each agent watches."""


@dataclass(frozen=True, slots=True)
class Steps:
    """How far each goes, how long a rest is looked at, how many creates are one round, and how many changes stay."""

    objects: Sequence[int] = (0, 50_000, 100_000, 150_000, 200_000)
    agents: Sequence[int] = (0, 500, 1_000, 1_500, 2_000)
    watches: Sequence[int] = (0, 250, 500, 750, 1_000)
    rest_seconds: float = 20.0
    writes: int = 1_000
    keep: int = 20_000


QUICK = Steps(
    objects=(0, 2_000, 4_000), agents=(0, 20, 40), watches=(0, 50, 100), rest_seconds=2.0, writes=100, keep=1_000
)


async def measure(options: Options) -> list[Figure]:
    """Each of the three on a control plane of its own."""
    steps = QUICK if options.quick else Steps()
    require_files(steps)
    found = await objects(steps)
    for grow in (agents, watches):
        async with ground(steps.keep) as plane:
            found += await grow(plane, steps)
    return [*found, *read_off(found)]


def require_files(steps: Steps) -> None:
    """Raise `Failed` where the system lets no process have as many sockets as the last step asks for."""
    wanted = max(steps.agents[-1] * FILES_OF_AGENT, steps.watches[-1]) + 1_000
    if (most := raise_limit()) < wanted:
        raise Failed(f"{wanted:,} files are wanted open in one process, and {most:,} may be: raise the hard limit")


# --- objects ----------------------------------------------------------------------------------------------------


async def objects(steps: Steps) -> list[Figure]:
    """Each step is a start over a file that has so many; then it is written to, while its history is compacted."""
    found = []
    async with scratch() as folder:
        grown, before = folder / "store.db", 0
        for count in steps.objects:
            await fill(grown, range(before, count))
            before = count
            async with ground(steps.keep, partial(laid, grown)) as plane:
                at = f"{count:,} {OBJECTS}"
                found.append(figure(f"{at}: start until it answers", plane.started_seconds, "s"))
                if count:
                    found += await written(plane, at, writes=steps.writes, drops=count - steps.keep)
                found += await plane.rest(count, OBJECTS, seconds=steps.rest_seconds / 2)
                found += await _reads(plane, count) if count else []
    return found


async def fill(path: Path, numbers: range) -> None:
    """As the api would, but that nobody asks for it."""
    store = open_store(path, clock=SystemClock(), kinds=store_kinds(KINDS), seal_key=bytes(32))
    try:
        for first in range(numbers.start, numbers.stop, 256):
            part = numbers[first - numbers.start : first - numbers.start + 256]
            await asyncio.gather(*(store.objects.create(flavor(number), SYSTEM) for number in part))
    finally:
        store.close()
    say(f"{numbers.stop:,} {OBJECTS} are in the file")


async def laid(grown: Path, paths: Paths) -> None:
    await asyncio.to_thread(shutil.copyfile, grown, paths.store)


async def written(plane: Ground, at: str, *, writes: int, drops: int) -> list[Figure]:
    """It is written to until at least so many changes were dropped, which begins five seconds after the start, and no
    more are. Raises Failed where a create is refused or lost, or where they are not dropped in time."""
    seconds, rates, number, dropped, before = list[float](), list[float](), LATER, -1.0, -2.0
    async with within(COMPACTS_SECONDS, f"{drops:,} changes dropped", lambda: f"{dropped:,.0f} were"):
        while dropped < drops or before != dropped:
            if number + writes >= NEIGHBOURS:
                raise Failed(f"{number - LATER:,} objects were made, and only {dropped:,.0f} changes dropped")
            done = await load(plane.server, [create(number + n) for n in range(writes)], clients=CLIENTS)
            number += writes
            seconds += done.seconds
            rates.append(done.rate)
            before, dropped = dropped, await plane.gauge("bessemer_store_compacted_total")
    if (stands := await plane.made_later()) != number - LATER:
        raise Failed(f"{number - LATER:,} objects were made, and {stands:,} stand")
    say(f"{at}: {number - LATER:,} made while {dropped:,.0f} changes were dropped")
    return [
        figure(f"{at}: creates, 32 clients, while history is dropped", median(rates), "/s"),
        figure(f"{at}: longest of these creates", max(seconds) * 1e3, "ms"),
        figure(f"{at}: changes dropped meanwhile", dropped, ""),
    ]


async def _reads(plane: Ground, count: int) -> list[Figure]:
    """What each list takes, and what a neighbour waits meanwhile for a get."""
    found = []
    asked = {
        "100 by label": (f"{COLLECTION}?labelSelector=of%3Dgroup-7", 100),
        "a page of 500": (f"{COLLECTION}?limit=500", min(500, count)),
        "all listed": (COLLECTION, count),
    }
    for name, (path, expected) in asked.items():
        async with within(ANSWER_SECONDS, name), plane.neighbour() as reader, plane.neighbour() as wire:
            began, longest = time.perf_counter(), 0.0
            reading = asyncio.ensure_future(_counted(reader, path))
            while not reading.done():
                waits = time.perf_counter()
                await wire.ask(request("GET", f"{COLLECTION}/size-{NEIGHBOURS}"))
                longest = max(longest, time.perf_counter() - waits)
                await asyncio.sleep(0.001)
            took = reading.result()
        if took[0] < expected:  # some were added meanwhile
            raise Failed(f"{name}: {took[0]:,} objects, and {expected:,} stand")
        found.append(figure(f"{count:,} {OBJECTS}: {name}", (took[1] - began) * 1e3, "ms"))
        if name == "all listed":
            found.append(figure(f"{count:,} {OBJECTS}: longest get of a neighbour meanwhile", longest * 1e3, "ms"))
    return found


async def _counted(wire: Wire, path: str) -> tuple[int, float]:
    """How many items a list has, and when it was whole."""
    status, body = await wire.ask(request("GET", path))
    whole = time.perf_counter()
    if status != 200:
        raise Failed(f"GET {path}: {status} {body[:200].decode(errors='replace')}")
    return body.count(b'"kind":"Flavor"'), whole


# --- agents -----------------------------------------------------------------------------------------------------


async def agents(plane: Ground, steps: Steps) -> list[Figure]:
    """Each step is so many that have joined, and are all still there after it was looked at."""
    found, processes = [], list[subprocess.Popen[bytes]]()
    try:
        for previous, count in zip((0, *steps.agents), steps.agents, strict=False):
            began = time.perf_counter()
            for first in range(previous, count, AGENTS_EACH):
                processes.append(_join(plane, first, min(AGENTS_EACH, count - first)))
            await plane.watched(2 * count, WATCHED, partial(_ended, plane, processes))
            at = f"{count:,} {AGENTS}"
            if count:
                joined = (count - previous) / (time.perf_counter() - began)
                found.append(figure(f"{at}: joined until there", joined, "/s"))
                say(f"{at}: joined, {joined:.1f}/s")
            async with within(ANSWER_SECONDS, f"{at} heard"):
                while await _heard(plane) < count:  # noqa: ASYNC110 - other processes are
                    await asyncio.sleep(1.0)
            found += await plane.rest(count, AGENTS, seconds=steps.rest_seconds)
            found.append(figure(f"{at}: connections", _connections(plane), ""))
            if (heard := await _heard(plane)) < count:
                raise Failed(f"{at} had joined, and {heard:,} are still heard")
        each = sum(rss_mib(one.pid) for one in processes) / max(steps.agents[-1], 1) * 1024
        return [*found, figure(f"{steps.agents[-1]:,} {AGENTS}: resident of each, where it runs", each, "KiB")]
    finally:
        for one in processes:
            stop(one)


async def _heard(plane: Ground) -> int:
    """How many hosts are heard, and have told what they have."""
    return sum(
        any((one["type"], one["status"]) == ("Reachable", "True") for one in host["status"].get("conditions", ()))
        for host in orjson.loads(await plane.read("/apis/bessemer.dev/v1alpha1/hosts"))["items"]
        if host.get("status", {}).get("report")
    )


def _join(plane: Ground, first: int, count: int) -> subprocess.Popen[bytes]:
    program = Path(__file__).with_name("_agents.py")
    paths = plane.running.paths
    return start([sys.executable, str(program), str(paths.state), str(first), str(count)], log=_log(plane))


def _log(plane: Ground) -> Path:
    return plane.running.paths.logs / "agents"


def _ended(plane: Ground, processes: Sequence[subprocess.Popen[bytes]]) -> str:
    """Why no more will join, "" where they may."""
    codes = [code for one in processes if (code := one.poll()) is not None]
    return f"a process of agents has ended ({codes[0]}): {_log(plane).read_text()[-2000:]}" if codes else ""


def _connections(plane: Ground) -> int:
    """TLS connections that the api holds."""
    (pid,) = plane.target.pids
    found = psutil.Process(pid).net_connections("tcp")
    return sum(one.status == psutil.CONN_ESTABLISHED and one.laddr.port == plane.target.port for one in found)


# --- watches ----------------------------------------------------------------------------------------------------


class Watcher(Wire):
    """A watch that counts the lines that it was told, and keeps none of them."""

    def __init__(self) -> None:
        super().__init__()
        self.told: Callable[[], None] = lambda: None

    def on_body(self, part: bytes) -> None:
        for _ in range(part.count(b"\n")):
            self.told()


async def watches(plane: Ground, steps: Steps, *, made: int = 1, select: str = "") -> list[Figure]:
    """Each step is so many watches, each of which is told of each of some changes: of the objects from number ``made``
    on. Where others make more meanwhile these are not theirs by ``select``."""
    found, wires = [], list[Watcher]()
    tasks = list[asyncio.Task[tuple[int, bytes]]]()
    try:
        for count in steps.watches:
            listed = orjson.loads(await plane.read(f"{COLLECTION}?limit=1"))
            path = f"{COLLECTION}?watch=1&resourceVersion={listed['metadata']['resourceVersion']}{select}"
            async with within(ANSWER_SECONDS, f"{count:,} connections", lambda: f"{len(wires):,} are open"):
                while len(wires) < count:
                    watcher = await Watcher.open(plane.server)
                    assert isinstance(watcher, Watcher)
                    wires.append(watcher)
                    tasks.append(asyncio.create_task(watcher.ask(request("GET", path))))
            await plane.watched(count, OPEN, partial(_over, tasks))
            await asyncio.sleep(1.0)  # what was changed before is told to those who have just come
            found += await plane.rest(count, WATCHES, seconds=steps.rest_seconds / 2)
            if count:
                found += await _tell(plane, wires, first=made, fault=partial(_over, tasks))
                made += EVENTS
        return found
    finally:
        for watcher in wires:
            watcher.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _over(tasks: Sequence[asyncio.Task[tuple[int, bytes]]]) -> str:
    """Why not all watches go on, "" where they do."""
    over = [task for task in tasks if task.done()]
    if not over:
        return ""
    why = over[0].exception() or over[0].result()
    return f"{len(over):,} have ended: {why!r}"


async def _tell(plane: Ground, wires: Sequence[Watcher], *, first: int, fault: Callable[[], str]) -> list[Figure]:
    """Some changes, one after the other, each told to all."""
    waits, before, at = list[float](), plane.target.cpu_seconds(), f"{len(wires):,} {WATCHES}"
    left = 0
    for number in range(first, first + EVENTS):
        left, last = len(wires), asyncio.get_running_loop().create_future()

        def told(last: asyncio.Future[None] = last) -> None:
            nonlocal left
            left -= 1
            if not left:
                last.set_result(None)

        for watcher in wires:
            watcher.told = told
        began = time.perf_counter()
        async with within(ANSWER_SECONDS, f"{at} told of a change", fault):
            await load(plane.server, [create(number)], clients=1)
            await last
        waits.append(time.perf_counter() - began)
    cpu = (plane.target.cpu_seconds() - before) / EVENTS / len(wires)
    return [
        figure(f"{at}: create until the last was told, p50", median(waits) * 1e3, "ms"),
        figure(f"{at}: CPU of each event of each watch", cpu * 1e6, "µs"),
    ]


if __name__ == "__main__":
    program(measure, about=__doc__.splitlines()[0])
