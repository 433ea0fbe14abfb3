"""How the control plane grows with objects, agents and watches, in steps, up to 200,000 objects and 2,000 agents.

Over TLS, RBAC and audit on, SQLite with synchronous=FULL; one process is api, controller and portal. Objects have
1.6 kB and are created by 32 clients; all but the newest 20,000 changes are dropped while they write. Agents are those
of fake hosts, 500 to a process, each with a certificate, a socket, two watches and a heartbeat each twenty seconds.
Watches are of one kind by one administrator, all of which are told of each of some changes.

At each step, after it has come to rest: resident memory, the share of a core that it takes while nobody asks (agents
go on with what they do), and what a neighbour waits for a get. The line through the steps is what the last rows read.
"""

from __future__ import annotations

import asyncio
import re
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson
import psutil

from _common import Figure, Options, Plane, Target, figure, median, percentile, plane, program, rss_mib, start, stop
from _page import markdown
from _wire import Server, Wire, client_tls, load, request
from bessemer.main import identities

CLIENTS = 32
BODY_BYTES = 1600
KEEP_REVISIONS = 20_000
COLLECTION = "/apis/bessemer.dev/v1beta1/flavors"
HOSTS = 10_000
AGENTS_EACH = 500
EVENTS = 20
JOIN_SECONDS = 300.0
BAR = 40

OBJECTS, AGENTS, WATCHES = "objects", "agents", "watches"
RESIDENT, IDLE, GET = "resident", "a core's share at rest", "a neighbour's get, p99"
_STEP = re.compile(r"([\d,]+) (objects|agents|watches): (.+)")


@dataclass(frozen=True, slots=True)
class Steps:
    """How far each goes, and how long a rest is looked at."""

    objects: Sequence[int] = (0, 50_000, 100_000, 150_000, 200_000)
    agents: Sequence[int] = (0, 500, 1_000, 1_500, 2_000)
    watches: Sequence[int] = (0, 500, 1_000, 2_000)
    rest_seconds: float = 20.0


QUICK = Steps(objects=(0, 2_000, 4_000), agents=(0, 20, 40), watches=(0, 50, 100), rest_seconds=2.0)


async def measure(options: Options) -> list[Figure]:
    """Each of the three on a control plane of its own."""
    steps = QUICK if options.quick else Steps()
    found = []
    for grow in (_objects, _agents, _watches):
        async with _ground() as ground:
            found += await grow(ground, steps)
    return [*found, *_read_off(found)]


@dataclass(frozen=True, slots=True)
class Ground:
    """A control plane, and a neighbour's connection to it."""

    running: Plane
    target: Target
    server: Server
    wire: Wire

    async def rest(self, count: int, what: str, *, seconds: float) -> list[Figure]:
        """What it takes while nobody asks, but for a neighbour now and then."""
        await asyncio.sleep(min(seconds, 3.0))
        before, began, waits = self.target.cpu_seconds(), time.perf_counter(), list[float]()
        while time.perf_counter() < began + seconds:
            asked = time.perf_counter()
            status, _ = await self.wire.ask(request("GET", f"{COLLECTION}/size-000000"))
            assert status == 200
            waits.append(time.perf_counter() - asked)
            await asyncio.sleep(0.05)
        share = (self.target.cpu_seconds() - before) / (time.perf_counter() - began)
        at = f"{count:,} {what}"
        return [
            figure(f"{at}: {RESIDENT}", self.target.rss_mib(), "MiB"),
            figure(f"{at}: {IDLE}", share * 100, "%"),
            figure(f"{at}: {GET}", percentile(waits, 0.99) * 1e3, "ms"),
        ]

    async def gauge(self, name: str) -> float:
        """A figure that the control plane tells of itself."""
        _, body = await self.wire.ask(request("GET", "/metrics"))
        return next(float(line.split()[-1]) for line in body.decode().splitlines() if line.startswith(name))

    async def watched(self, by: float) -> None:
        """Return once so many watches are open."""
        async with asyncio.timeout(JOIN_SECONDS):
            while await self.gauge("bessemer_store_watchers") < by:  # noqa: ASYNC110 - another process has them
                await asyncio.sleep(0.2)


@asynccontextmanager
async def _ground() -> AsyncIterator[Ground]:
    async with plane(settings={"keep_revisions": KEEP_REVISIONS}) as (running, pid):
        ca, port = running.paths.ca_certificate, running.settings.api_port
        target = Target(port=port, ca=ca, cert=running.paths.certificate(identities.ADMIN), pids=(pid,))
        server = Server(port=port, tls=client_tls(ca, target.cert))
        await load(server, [_create(0)], clients=1)
        wire = await Wire.open(server)
        try:
            yield Ground(running, target, server, wire)
        finally:
            wire.close()


def _create(number: int) -> bytes:
    body = {
        "apiVersion": "bessemer.dev/v1beta1",
        "kind": "Flavor",
        "metadata": {
            "name": f"size-{number:06}",
            "labels": {"app": "bench", "of": f"group-{number // 100}"},
            "annotations": {"bench/note": "x" * (BODY_BYTES - 450)},
        },
        "spec": {"description": "a flavor of the bench", "cores": 2, "memory": "256Mi", "disk": "1Gi"},
    }
    return request("POST", COLLECTION, orjson.dumps(body))


# --- objects ----------------------------------------------------------------------------------------------------


async def _objects(ground: Ground, steps: Steps) -> list[Figure]:
    found, made = [], 1
    for count in steps.objects:
        if count:
            at = f"{count:,} {OBJECTS}"
            done = await load(ground.server, [_create(number) for number in range(made, count)], clients=CLIENTS)
            made = count
            found += [
                figure(f"{at}: creates until there", done.rate, "/s"),
                figure(f"{at}: longest create meanwhile", max(done.seconds) * 1e3, "ms"),
            ]
        found += await ground.rest(count, OBJECTS, seconds=steps.rest_seconds / 2)
        if count:
            found += await _reads(ground, count)
    dropped = await ground.gauge("bessemer_store_compacted_total")
    return [*found, figure(f"{steps.objects[-1]:,} {OBJECTS}: changes dropped while they were written", dropped, "")]


async def _reads(ground: Ground, count: int) -> list[Figure]:
    """What each list takes, and what a neighbour waits meanwhile for a get."""
    found = []
    asked = {
        "100 by label": (f"{COLLECTION}?labelSelector=of%3Dgroup-7", 100),
        "a page of 500": (f"{COLLECTION}?limit=500", min(500, count)),
        "all listed": (COLLECTION, count),
    }
    for name, (path, expected) in asked.items():
        wire = await Wire.open(ground.server)
        began, longest = time.perf_counter(), 0.0
        reading = asyncio.ensure_future(_counted(wire, path))
        while not reading.done():
            waits = time.perf_counter()
            await ground.wire.ask(request("GET", f"{COLLECTION}/size-000001"))
            longest = max(longest, time.perf_counter() - waits)
            await asyncio.sleep(0.001)
        took = reading.result()
        wire.close()
        assert took[0] == expected, (name, took)
        found.append(figure(f"{count:,} {OBJECTS}: {name}", (took[1] - began) * 1e3, "ms"))
        if name == "all listed":
            found.append(figure(f"{count:,} {OBJECTS}: longest get of a neighbour meanwhile", longest * 1e3, "ms"))
    return found


async def _counted(wire: Wire, path: str) -> tuple[int, float]:
    """How many items a list has, and when it was whole."""
    status, body = await wire.ask(request("GET", path))
    whole = time.perf_counter()
    assert status == 200, body[:200]
    return body.count(b'"kind":"Flavor"'), whole


# --- agents -----------------------------------------------------------------------------------------------------


async def _agents(ground: Ground, steps: Steps) -> list[Figure]:
    found, processes = [], list[subprocess.Popen[bytes]]()
    before = await ground.gauge("bessemer_store_watchers")
    try:
        for previous, count in zip((0, *steps.agents), steps.agents, strict=False):
            began = time.perf_counter()
            for first in range(previous, count, AGENTS_EACH):
                processes.append(_join(ground, first, min(AGENTS_EACH, count - first)))
            await ground.watched(before + 2 * count)
            at = f"{count:,} {AGENTS}"
            if count:
                joined = (count - previous) / (time.perf_counter() - began)
                found.append(figure(f"{at}: joined until there", joined, "/s"))
            found += await ground.rest(count, AGENTS, seconds=steps.rest_seconds)
            found.append(figure(f"{at}: connections", _connections(ground), ""))
        each = sum(rss_mib(one.pid) for one in processes) / steps.agents[-1] * 1024
        return [*found, figure(f"{steps.agents[-1]:,} {AGENTS}: resident of each, where it runs", each, "KiB")]
    finally:
        for one in processes:
            stop(one)


def _join(ground: Ground, first: int, count: int) -> subprocess.Popen[bytes]:
    program = Path(__file__).with_name("_agents.py")
    paths = ground.running.paths
    return start([sys.executable, str(program), str(paths.state), str(first), str(count)], log=paths.logs / "agents")


def _connections(ground: Ground) -> int:
    """TLS connections that the api holds."""
    (pid,) = ground.target.pids
    found = psutil.Process(pid).net_connections("tcp")
    return sum(one.status == psutil.CONN_ESTABLISHED and one.laddr.port == ground.target.port for one in found)


# --- watches ----------------------------------------------------------------------------------------------------


class Watcher(Wire):
    """A watch that counts the lines that it was told, and keeps none of them."""

    def __init__(self) -> None:
        super().__init__()
        self.told: Callable[[], None] = lambda: None

    def on_body(self, part: bytes) -> None:
        for _ in range(part.count(b"\n")):
            self.told()


async def _watches(ground: Ground, steps: Steps) -> list[Figure]:
    found, wires, made = [], list[Watcher](), 1
    _, listed = await ground.wire.ask(request("GET", f"{COLLECTION}?limit=1"))
    path = f"{COLLECTION}?watch=1&resourceVersion={orjson.loads(listed)['metadata']['resourceVersion']}"
    before = await ground.gauge("bessemer_store_watchers")
    tasks = set[asyncio.Task[object]]()
    try:
        for count in steps.watches:
            while len(wires) < count:
                wire = await Watcher.open(ground.server)
                assert isinstance(wire, Watcher)
                wires.append(wire)
                tasks.add(asyncio.ensure_future(wire.ask(request("GET", path))))
            await ground.watched(before + count)
            await asyncio.sleep(1.0)  # what was changed before is told to those who have just come
            found += await ground.rest(count, WATCHES, seconds=steps.rest_seconds / 2)
            if count:
                found += await _tell(ground, wires, first=made)
                made += EVENTS
        return found
    finally:
        for task in tasks:
            task.cancel()
        for wire in wires:
            wire.close()


async def _tell(ground: Ground, wires: Sequence[Watcher], *, first: int) -> list[Figure]:
    """Some changes, one after the other, each told to all."""
    waits, before, at = list[float](), ground.target.cpu_seconds(), f"{len(wires):,} {WATCHES}"
    for number in range(first, first + EVENTS):
        left, last = len(wires), asyncio.get_running_loop().create_future()

        def told(last: asyncio.Future[None] = last) -> None:
            nonlocal left
            left -= 1
            if not left:
                last.set_result(None)

        for wire in wires:
            wire.told = told
        began = time.perf_counter()
        status, body = await ground.wire.ask(_create(number))
        assert status == 201, body[:200]
        await asyncio.wait_for(last, 60)
        waits.append(time.perf_counter() - began)
    cpu = (ground.target.cpu_seconds() - before) / EVENTS / len(wires)
    return [
        figure(f"{at}: create until the last was told, p50", median(waits) * 1e3, "ms"),
        figure(f"{at}: CPU of each event of each watch", cpu * 1e6, "µs"),
    ]


# --- what it comes to -------------------------------------------------------------------------------------------


def _steps_of(figures: Sequence[Figure]) -> dict[tuple[str, str], dict[int, float]]:
    """(what grows, what is measured) → how many → value."""
    found: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for row in figures:
        if match := _STEP.fullmatch(row.metric):
            found[match[2], match[3]][int(match[1].replace(",", ""))] = row.value
    return found


def _read_off(figures: Sequence[Figure]) -> list[Figure]:
    """The lines through the steps: what each more costs, and what 10,000 hosts would."""
    steps, found = _steps_of(figures), list[Figure]()
    for what in (OBJECTS, AGENTS, WATCHES):
        slope, _ = statistics.linear_regression(*_points(steps[what, RESIDENT]))
        found.append(figure(f"each of the {what} adds", max(slope, 0.0) * 1024, "KiB"))
    for measured, unit in ((RESIDENT, "MiB"), (IDLE, "%")):
        slope, base = statistics.linear_regression(*_points(steps[AGENTS, measured]))
        found.append(figure(f"{HOSTS:,} hosts, by the line: {measured}", max(base + slope * HOSTS, 0.0), unit))
    return found


def _points(by_count: dict[int, float]) -> tuple[list[int], list[float]]:
    return list(by_count), list(by_count.values())


def page(figures: Sequence[Figure], *, how: str) -> str:
    """docs/size.md: the steps as bars and tables, then what is read off them."""
    parts = ["# How big", "", "Written by `python bench/_report.py size`; no figure is written by hand.", ""]
    parts += [(__doc__ or "").strip(), "", f"*{how}.*"]
    steps = _steps_of(figures)
    for what in (OBJECTS, AGENTS, WATCHES):
        rows = {measured: values for (grows, measured), values in steps.items() if grows == what}
        counts = list(rows[RESIDENT])
        parts += ["", f"## {what.capitalize()}", "", "```", *_bars(rows[RESIDENT], RESIDENT, "MiB")]
        parts += ["", *_bars(rows[IDLE], IDLE, "%"), "```", ""]
        units = {match[3]: row.unit for row in figures if (match := _STEP.fullmatch(row.metric)) and match[2] == what}
        head = [what, *(f"{count:,}" for count in counts)]
        body = [
            [f"{name}, {units[name]}" if units[name] else name, *(_cell(values.get(count)) for count in counts)]
            for name, values in rows.items()
        ]
        parts.append(markdown([head, *body]))
    rest = [row for row in figures if not _STEP.fullmatch(row.metric)]
    parts += ["", "## Read off", "", markdown([["figure", "value"], *([r.metric, _with_unit(r)] for r in rest)])]
    return "\n".join(parts) + "\n"


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _with_unit(row: Figure) -> str:
    return f"{_cell(row.value)} {row.unit}"


def _bars(values: dict[int, float], what: str, unit: str) -> list[str]:
    """A bar for each step."""
    most = max([*values.values(), 1e-9])
    lines = [f"{what}, {unit}"]
    for count, value in values.items():
        lines.append(f"{count:>9,} {'█' * max(1, round(value / most * BAR))} {_cell(value)}")
    return lines


if __name__ == "__main__":
    program(measure, about=__doc__.splitlines()[0])
