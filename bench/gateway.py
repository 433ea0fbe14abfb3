"""What the gateway adds to a request, beside nginx and beside no gateway at all.

One fake engine answers at once at a unix socket. The same requests go to it directly, through the gateway (TLS, key,
endpoint, metering, spool) and, where nginx is installed, through nginx (TLS and nothing else, one worker). All three
run in this one run; added latency is the difference of medians to the direct way, which has no TLS.
Each figure is the median of nine rounds, in which the ways take turns.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import orjson
import psutil

from _common import Figure, Options, figure, median, percentile, program, scratch, start, stop
from _serve import ENDPOINT, TOKEN
from _wire import Server, Wire, client_tls, load, request
from bessemer.main import identities
from bessemer.main.settings import Paths, Settings, with_ports

BUSY_CLIENTS = 32
SERVE = Path(__file__).with_name("_serve.py")

NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5; keepalive_requests 1000000;
  upstream engine {{ server unix:{socket}; }}
  server {{
    listen 127.0.0.1:{port} ssl; ssl_certificate {certificate}; ssl_certificate_key {key};
    location / {{ proxy_pass http://engine; proxy_buffering off; }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Way:
    """One way to the engine: what is connected to, and the processes whose CPU it costs (none when direct)."""

    server: Server
    processes: tuple[psutil.Process, ...] = ()

    def cpu(self) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in self.processes)


@dataclass(frozen=True, slots=True)
class Came:
    """What a way came to: seconds alone and of a stream, requests per second and CPU seconds each when busy."""

    alone: float
    streamed: float
    rate: float
    p99: float
    cpu: float


async def measure(options: Options) -> list[Figure]:
    """The ways in turn, round by round, so that what else the machine does falls on all of them."""
    rounds, count = (3, 600) if options.quick else (9, 2_000)
    async with scratch() as folder:
        paths, settings = Paths(folder), with_ports(Settings(api_port=0, portal_port=0, gateway_port=0), find_free=True)
        identities.prepare(paths, settings)
        socket = str(folder / "engine.sock")
        started = [start([sys.executable, str(SERVE), "engine", socket], log=folder / "engine.log")]
        argv = [sys.executable, str(SERVE), "gateway", str(folder), str(settings.gateway_port), socket]
        started.append(start(argv, log=folder / "gateway.log"))
        tls = client_tls(paths.ca_certificate)
        try:
            ways = {"direct": Way(Server(path=socket))}
            through = Server(port=settings.gateway_port, tls=tls)
            ways["gateway"] = Way(through, (psutil.Process(started[1].pid),))
            if nginx := shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin"):
                started.append(_nginx(nginx, paths, port=settings.api_port, socket=socket))
                ways["nginx"] = Way(Server(port=settings.api_port, tls=tls))
            for way in ways.values():
                await _answers(way.server)
            if nginx:
                master = psutil.Process(started[2].pid)
                ways["nginx"] = Way(ways["nginx"].server, tuple(master.children()))
            came: dict[str, list[Came]] = {name: [] for name in ways}
            for _ in range(rounds):
                for name, way in ways.items():
                    came[name].append(await _round(way, count))
        finally:
            for process in reversed(started):
                stop(process)
    return _figures(came)


def _nginx(program: str, paths: Paths, *, port: int, socket: str) -> subprocess.Popen[bytes]:
    certificate, key = paths.certificate(identities.GATEWAY)
    config = paths.state / "nginx.conf"
    text = NGINX.format(folder=paths.state, socket=socket, port=port, certificate=certificate, key=key)
    config.write_text("user root;\n" + text)
    return start([program, "-c", str(config), "-p", str(paths.state)], log=paths.state / "nginx.out")


async def _answers(server: Server) -> None:
    """Wait until a way is open."""
    deadline = time.monotonic() + 30
    while True:
        try:
            wire = await Wire.open(server)
        except OSError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)
        else:
            status, body = await wire.ask(_ask(stream=False))
            wire.close()
            if status != 200:
                raise RuntimeError(f"{status} {body[:300].decode(errors='replace')}")
            return


def _ask(*, stream: bool) -> bytes:
    messages = [{"role": "user", "content": "Say some words. " * 20}]
    body = {"model": ENDPOINT, "messages": messages, "max_tokens": 32, "stream": stream}
    return request("POST", "/v1/chat/completions", orjson.dumps(body), headers=f"Authorization: Bearer {TOKEN}\r\n")


async def _round(way: Way, count: int) -> Came:
    whole, stream = _ask(stream=False), _ask(stream=True)
    alone = await load(way.server, [whole] * (count // 4), clients=1)
    streamed = await load(way.server, [stream] * (count // 4), clients=1)
    before = way.cpu()
    busy = await load(way.server, [whole] * count, clients=BUSY_CLIENTS)
    used = (way.cpu() - before) / count
    return Came(median(alone.seconds), median(streamed.seconds), busy.rate, percentile(busy.seconds, 0.99), used)


def _figures(came: dict[str, list[Came]]) -> list[Figure]:
    def of(name: str, field: str) -> float:
        return float(median([getattr(row, field) for row in came[name]]))

    def added(name: str, field: str) -> float:
        return (of(name, field) - of("direct", field)) * 1e3

    here = "nginx" in came
    nothing = None
    rows = [
        figure(
            "latency added to a request, p50",
            added("gateway", "alone"),
            "ms",
            peer=("nginx", float(f"{added('nginx', 'alone'):.3g}")) if here else nothing,
        ),
        figure(
            "latency added to a stream of 32 tokens, p50",
            added("gateway", "streamed"),
            "ms",
            peer=("nginx", float(f"{added('nginx', 'streamed'):.3g}")) if here else nothing,
        ),
        figure(
            "CPU per request, 32 clients",
            of("gateway", "cpu") * 1e6,
            "µs",
            peer=("nginx", float(f"{of('nginx', 'cpu') * 1e6:.3g}")) if here else nothing,
        ),
        figure(
            "requests, 32 clients",
            of("gateway", "rate"),
            "/s",
            peer=("nginx", round(of("nginx", "rate"))) if here else ("direct", round(of("direct", "rate"))),
        ),
        figure("requests, 32 clients, p99", of("gateway", "p99") * 1e3, "ms"),
        figure("a direct request, p50", of("direct", "alone") * 1e3, "ms"),
    ]
    if here:
        rows.append(figure("added latency against nginx", added("gateway", "alone") / added("nginx", "alone"), "×"))
        rows.append(figure("CPU against nginx", of("gateway", "cpu") / of("nginx", "cpu"), "×"))
    return rows


if __name__ == "__main__":
    program(measure, about=__doc__.splitlines()[0], peer="nginx joins by itself where it is installed")
