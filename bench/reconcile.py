"""From apply to Ready: thousands of instances on fake hosts, through one control plane.

The fake agents run in one more process and speak HTTPS like real ones, a certificate, two watches and a socket each;
the guests alone are fake, and take two seconds to boot. In the burst all instances are applied over 32 connections
without a pause, faster than they can be placed, so what waits in the queue is most of the burst: a wait is the time
that the burst takes. Then, on the same hosts, instances come at a pace, and the waits are what an applicant sees.
CPU per instance is above what the same hosts cost while nothing is asked of them. Memory per instance is what instances
and hosts add to a control plane that has neither: a heap keeps what joining freed, so what the burst alone adds cannot
be told. Linear growth: ten times the instances take at most ten times as long, ten times the CPU and ten times the
memory. Each size is run once, and two runs of one size differ by a tenth: so much more than linear is allowed as noise.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import orjson
from prometheus_client.parser import text_string_to_metric_families

from _common import Figure, Options, cpu_seconds, figure, percentile, plane, program, rss_mib
from _wire import Server, Wire, client_tls, load, request
from bessemer.client.paths import api_version
from bessemer.core.clock import SystemClock
from bessemer.core.ports import CONTROLLER, Writer
from bessemer.core.resource import API_VERSION
from bessemer.drivers.fetch.real import HostContent
from bessemer.main import identities, settings
from bessemer.main.parts import FAKE
from bessemer.main.settings import Paths
from bessemer.main.storage import open_state

PROJECT, FLAVOR, IMAGE = "bench--one", "tenth", "none"
BEARS = [{"key": "bessemer.dev/fake"}]
PER_HOST = 10
PACE = 20
API = "/apis/bessemer.dev/v1alpha1"
INSTANCES = f"namespaces/{PROJECT}/instances"
HOSTS_SECONDS, PACED_SECONDS = 400.0, 120.0

Waits = dict[float, float]
"""Upper bound of a wait in seconds → how many names waited no longer."""


@dataclass(frozen=True, slots=True)
class Used:
    """CPU seconds of the control plane and of the agents."""

    control: float
    agents: float

    def __sub__(self, other: Used) -> Used:
        return Used(self.control - other.control, self.agents - other.agents)

    def above(self, idle: Used, seconds: float) -> Used:
        """What was used beyond ``idle`` (CPU seconds per second) within ``seconds``."""
        return Used(max(0.0, self.control - idle.control * seconds), max(0.0, self.agents - idle.agents * seconds))


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one size came to; times in seconds. ``idle`` is CPU seconds per second, ``used`` that of the burst beyond
    it; ``added_mib`` is what hosts and burst added to the control plane."""

    count: int
    hosts: int
    joined: float
    idle: Used
    took: float
    used: Used
    waits: Waits
    others: Waits
    ready: list[float]
    paced: Waits
    added_mib: float
    control_mib: float
    agents_mib: float

    @property
    def rate(self) -> float:
        return self.count / self.took


async def measure(options: Options) -> list[Figure]:
    """Two sizes, one ten times the other; each on a new installation with ten instances to a host."""
    sizes = (100, 400) if options.quick else (1_000, 10_000)
    small, large = [await _run(count, quick=options.quick) for count in sizes]
    name = f"{large.count:,} instances on {large.hosts:,} hosts"
    against = f"{large.count:,} against {small.count:,}"
    growth = (large.took / large.count) / (small.took / small.count)
    cpu = (large.used.control / large.count) / (small.used.control / small.count)
    memory = _kib(large) / _kib(small)
    return [
        figure(f"{name}, apply to all Ready", large.took, "s"),
        figure(f"{name}, Ready", large.rate, "/s"),
        figure(f"{small.count:,} instances, Ready", small.rate, "/s"),
        figure(f"time per instance, {against}", growth, "×", at_most=1.1),
        figure(f"CPU per instance, {against}", cpu, "×", at_most=1.1),
        figure(f"memory per instance, {against}", memory, "×", at_most=1.1),
        figure("CPU of the control plane per instance", large.used.control / large.count * 1e3, "ms"),
        figure("CPU of the agents per instance", large.used.agents / large.count * 1e3, "ms"),
        figure("memory of the control plane per instance, with its share of a host", _kib(large), "KiB"),
        figure(f"CPU of the control plane, {large.hosts:,} idle hosts", large.idle.control * 100, "% of a core"),
        figure(f"CPU of the agents, {large.hosts:,} idle hosts", large.idle.agents * 100, "% of a core"),
        *_queued("queue wait of instances in the burst", large.waits, unit="s"),
        *_queued("queue wait of all other kinds meanwhile", large.others),
        *_queued(f"queue wait at {PACE} instances per second", large.paced),
        figure(f"apply to Ready at {PACE} per second, p50", percentile(large.ready, 0.5), "s"),
        figure(f"apply to Ready at {PACE} per second, p99", percentile(large.ready, 0.99), "s"),
        figure("control plane, resident", large.control_mib, "MiB"),
        figure(f"agents of {large.hosts:,} hosts, resident", large.agents_mib, "MiB"),
        figure("hosts joined and Ready", large.hosts / large.joined, "/s"),
    ]


def _kib(run: Run) -> float:
    return run.added_mib / run.count * 1024


def _queued(about: str, waits: Waits, *, unit: str = "ms") -> list[Figure]:
    """Median and tail of waits, and of how many; where nothing waited there is no figure."""
    number = max(waits.values(), default=0.0)
    if not number:
        return []
    each = 1e3 if unit == "ms" else 1.0
    return [
        figure(f"{about} ({number:,.0f}), p50", _quantile(waits, 0.5) * each, unit),
        figure(f"{about} ({number:,.0f}), p99", _quantile(waits, 0.99) * each, unit),
    ]


async def _run(count: int, *, quick: bool) -> Run:
    hosts = max(10, count // PER_HOST)
    async with plane(settings={"fakeHosts": hosts}, seed=_seed) as (running, pid):
        tls = client_tls(running.paths.ca_certificate, running.paths.certificate(identities.ADMIN))
        server = Server(port=running.settings.api_port, tls=tls)
        empty, began = rss_mib(pid), time.monotonic()
        agents = running.start(FAKE)
        await _all_ready(server, "hosts", hosts, seconds=HOSTS_SECONDS)
        joined = time.monotonic() - began

        def used() -> Used:
            return Used(cpu_seconds(pid), cpu_seconds(agents))

        idle = await _idle(used, seconds=3.0 if quick else 30.0)
        before, waits, others = used(), await _waits(server), await _waits(server, others=True)
        took = await _burst(server, count)
        spent, added = used() - before, rss_mib(pid) - empty
        waits, others = _since(waits, await _waits(server)), _since(others, await _waits(server, others=True))
        earlier = await _waits(server)
        ready = await _paced(server, 60 if quick else 600)
        return Run(
            count=count,
            hosts=hosts,
            joined=joined,
            idle=idle,
            took=took,
            used=spent.above(idle, took),
            waits=waits,
            others=others,
            ready=ready,
            paced=_since(earlier, await _waits(server)),
            added_mib=added,
            control_mib=rss_mib(pid),
            agents_mib=rss_mib(agents),
        )


async def _idle(used: Callable[[], Used], *, seconds: float) -> Used:
    """CPU seconds per second of hosts of which nothing is asked, once the last of them has settled."""
    await asyncio.sleep(seconds / 3)
    before, began = used(), time.monotonic()
    await asyncio.sleep(seconds)
    spent, passed = used() - before, time.monotonic() - began
    return Used(spent.control / passed, spent.agents / passed)


async def _burst(server: Server, count: int) -> float:
    """Apply all at once; seconds until the last is Ready."""
    began = time.monotonic()
    watching = asyncio.ensure_future(_all_ready(server, INSTANCES, count, seconds=60 + count / 10))
    await load(server, [_create(f"vm-{n:05}") for n in range(count)], clients=32)
    await watching
    return time.monotonic() - began


async def _paced(server: Server, count: int) -> list[float]:
    """Apply `PACE` in each second, whatever becomes of them; seconds from each apply to its Ready."""
    names = [f"paced-{n:05}" for n in range(count)]
    seen: dict[str, float] = {}
    applied: dict[str, float] = {}
    watching = asyncio.ensure_future(_note_ready(server, seen, names=names))
    wires = [await Wire.open(server) for _ in range(8)]
    began = time.monotonic()

    async def apply(wire: Wire, mine: range) -> None:
        for n in mine:
            await asyncio.sleep(max(0.0, began + n / PACE - time.monotonic()))
            applied[names[n]] = time.monotonic()
            await wire.ask(_create(names[n]))

    try:
        await asyncio.gather(*(apply(wire, range(n, count, len(wires))) for n, wire in enumerate(wires)))
        await watching
    finally:
        for wire in wires:
            wire.close()
    return [seen[name] - applied[name] for name in names]


async def _note_ready(server: Server, seen: dict[str, float], *, names: list[str]) -> None:
    """Note when each name became Ready, until all are. Raises TimeoutError."""
    missing = set(names)
    async with asyncio.timeout(PACED_SECONDS), aclosing(_becoming_ready(server, INSTANCES)) as found:
        async for name in found:
            if name in missing:
                missing.discard(name)
                seen[name] = time.monotonic()
                if not missing:
                    return


async def _seed(paths: Paths) -> None:
    """A project without quotas, a flavor of which ten fill a tenth of a host, and an image whose content is here."""
    store = open_state(paths, settings.load(paths), clock=SystemClock())
    admin = Writer("user", "admin")
    try:
        for kind, name, spec in (
            ("PricePlan", "standard", {}),
            ("Tenant", PROJECT.partition("--")[0], {"tolerations": BEARS}),
            ("Project", PROJECT, {}),
            ("Flavor", FLAVOR, {"cores": 4, "memory": "16Gi", "disk": "20Gi"}),
            ("Image", IMAGE, {}),
        ):
            body = {"apiVersion": api_version(kind), "kind": kind, "metadata": {"name": name}, "spec": spec}
            await store.objects.create(body, admin)
        content = HostContent(paths.content).adopt([b"fake guests boot from anything"], digest=None)
        ready = {"phase": "Ready", "digest": content.digest, "sizeBytes": content.size_bytes}
        body = {"apiVersion": API_VERSION, "kind": "Image", "metadata": {"name": IMAGE}, "status": ready}
        await store.objects.replace(body, CONTROLLER, part="status")
    finally:
        store.close()


def _create(name: str) -> bytes:
    spec = {"flavor": FLAVOR, "image": IMAGE, "tolerations": BEARS}
    body = {
        "apiVersion": API_VERSION,
        "kind": "Instance",
        "metadata": {"name": name, "namespace": PROJECT},
        "spec": spec,
    }
    return request("POST", f"{API}/{INSTANCES}", orjson.dumps(body))


async def _all_ready(server: Server, path: str, count: int, *, seconds: float) -> None:
    """Return once ``count`` objects of a collection are Ready. Raises TimeoutError with how many are."""
    ready: set[str] = set()
    try:
        async with asyncio.timeout(seconds):
            async with aclosing(_becoming_ready(server, path)) as names:
                async for name in names:
                    ready.add(name)
                    if len(ready) >= count:
                        return
    except TimeoutError as error:
        raise TimeoutError(f"{len(ready)} of {count} {path} are Ready after {seconds:.0f} s") from error


async def _becoming_ready(server: Server, path: str) -> AsyncGenerator[str, None]:
    """The names of a collection as they are, or become, Ready; some more than once."""
    wire = await Wire.open(server)
    try:
        _, body = await wire.ask(request("GET", f"{API}/{path}"))
        listed = orjson.loads(body)
        for item in listed["items"]:
            if _is_ready(item):
                yield item["metadata"]["name"]
        watch = request("GET", f"{API}/{path}?watch=1&resourceVersion={listed['metadata']['resourceVersion']}")
        async for line in wire.lines(watch):
            # Most events are of objects on their way; only one that says Ready is worth reading.
            if b'"type":"Ready"' in line and _is_ready(item := orjson.loads(line)["object"]):
                yield item["metadata"]["name"]
    finally:
        wire.close()


def _is_ready(item: Mapping[str, Any]) -> bool:
    conditions = item.get("status", {}).get("conditions", ())
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


async def _waits(server: Server, *, others: bool = False) -> Waits:
    """The loop's own histogram of queue waits so far: of instances, or of all other kinds."""
    wire = await Wire.open(server)
    _, body = await wire.ask(request("GET", "/metrics"))
    wire.close()
    found: Waits = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            if sample.name == "bessemer_loop_wait_seconds_bucket" and (sample.labels["kind"] != "Instance") == others:
                bound = float(sample.labels["le"])
                found[bound] = found.get(bound, 0.0) + sample.value
    return found


def _since(before: Waits, after: Waits) -> Waits:
    return {bound: after[bound] - before.get(bound, 0.0) for bound in sorted(after)}


def _quantile(waits: Waits, share: float) -> float:
    """Within the bucket that holds it, as Prometheus does it; the last finite bound where it lies beyond that."""
    counts = list(waits.items())
    wanted = counts[-1][1] * share if counts else 0.0
    low = below = 0.0
    for bound, count in counts:
        if count >= wanted > 0:
            return low if bound == float("inf") else low + (bound - low) * (wanted - below) / (count - below)
        low, below = bound, count
    return 0.0


if __name__ == "__main__":
    program(measure, about=__doc__.splitlines()[0])
