"""From apply to Ready: thousands of instances on fake hosts, through one control plane.

The fake agents run in one more process and speak HTTPS like real ones, a certificate, two watches and a socket each;
the guests alone are fake, and take two seconds to boot. The load applies all instances over 32 connections without a
pause and watches until every one is Ready. Linear growth: ten times the instances take at most ten times as long.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from prometheus_client.parser import text_string_to_metric_families

from _common import Figure, Options, cpu_seconds, figure, plane, program, rss_mib
from _wire import Server, Wire, client_tls, load, request
from bessemer.core.clock import SystemClock
from bessemer.core.ports import CONTROLLER, Writer
from bessemer.core.resource import API_VERSION
from bessemer.kinds import KINDS
from bessemer.main import identities
from bessemer.main.settings import Paths
from bessemer.main.supervisor import FAKE
from bessemer.store import open_store, store_kinds

PROJECT, FLAVOR, IMAGE = "bench--one", "tenth", "none"
BEARS = [{"key": "bessemer.dev/fake"}]
PER_HOST = 10
API = "/apis/bessemer.dev/v1alpha1"
HOSTS_SECONDS, ALL_SECONDS = 400.0, 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one size came to; seconds, and CPU seconds of the two processes."""

    count: int
    joined: float
    applied: float
    took: float
    control_cpu: float
    agents_cpu: float
    control_mib: float
    agents_mib: float
    wait_p50: float
    wait_p99: float

    @property
    def rate(self) -> float:
        return self.count / self.took


async def measure(options: Options) -> list[Figure]:
    """Two sizes, one ten times the other; each on a new installation with ten instances to a host."""
    sizes = (100, 400) if options.quick else (1_000, 10_000)
    small, large = [await _run(count, hosts=max(10, count // PER_HOST)) for count in sizes]
    name = f"{large.count:,} instances on {max(10, large.count // PER_HOST):,} hosts"
    growth = (large.took / large.count) / (small.took / small.count)
    return [
        figure(f"{name}, apply to all Ready", large.took, "s"),
        figure(f"{name}, Ready", large.rate, "/s"),
        figure(f"{small.count:,} instances, Ready", small.rate, "/s"),
        figure(f"time per instance, {large.count:,} against {small.count:,}", growth, "×", at_most=1.0),
        figure(
            f"CPU per instance, {large.count:,} against {small.count:,}",
            (large.control_cpu / large.count) / (small.control_cpu / small.count),
            "×",
        ),
        figure("CPU of the control plane per instance", large.control_cpu / large.count * 1e3, "ms"),
        figure("CPU of the agents per instance", large.agents_cpu / large.count * 1e3, "ms"),
        figure("queue wait, p50", large.wait_p50 * 1e3, "ms"),
        figure("queue wait, p99", large.wait_p99 * 1e3, "ms"),
        figure("control plane, resident", large.control_mib, "MiB"),
        figure(f"agents of {max(10, large.count // PER_HOST):,} hosts, resident", large.agents_mib, "MiB"),
        figure("hosts joined and Ready", max(10, large.count // PER_HOST) / large.joined, "/s"),
    ]


async def _run(count: int, *, hosts: int) -> Run:
    async with plane(settings={"fakeHosts": hosts}, seed=_seed) as (running, pid):
        tls = client_tls(running.paths.ca_certificate, running.paths.certificate(identities.ADMIN))
        server = Server(port=running.settings.api_port, tls=tls)
        began = time.monotonic()
        agents = running.start(FAKE)
        await _all_ready(server, "hosts", hosts, seconds=HOSTS_SECONDS)
        joined = time.monotonic() - began
        before = cpu_seconds(pid), cpu_seconds(agents)
        waits = await _waits(server)
        began = time.monotonic()
        requests = [_create(n) for n in range(count)]
        path = f"namespaces/{PROJECT}/instances"
        watching = asyncio.ensure_future(_all_ready(server, path, count, seconds=ALL_SECONDS))
        await load(server, requests, clients=32)
        applied = time.monotonic() - began
        await watching
        took = time.monotonic() - began
        later = await _waits(server)
        return Run(
            count=count,
            joined=joined,
            applied=applied,
            took=took,
            control_cpu=cpu_seconds(pid) - before[0],
            agents_cpu=cpu_seconds(agents) - before[1],
            control_mib=rss_mib(pid),
            agents_mib=rss_mib(agents),
            wait_p50=_quantile(waits, later, 0.5),
            wait_p99=_quantile(waits, later, 0.99),
        )


async def _seed(paths: Paths) -> None:
    """A project without quotas, a flavor of which ten fill a tenth of a host, and an image that needs no import."""
    store = open_store(
        paths.store,
        clock=SystemClock(),
        kinds=store_kinds(KINDS),
        seal_key=identities.key_of(paths, identities.SEAL_KEY),
    )
    admin = Writer("user", "admin")
    try:
        for kind, name, spec in (
            ("PricePlan", "standard", {}),
            ("Tenant", PROJECT.partition("--")[0], {"tolerations": BEARS}),
            ("Project", PROJECT, {}),
            ("Flavor", FLAVOR, {"cpus": 4, "memory": "16Gi", "disk": "20Gi"}),
            ("Image", IMAGE, {}),
        ):
            body = {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
            await store.objects.create(body, admin)
        ready = {"phase": "Ready", "digest": "sha256:" + "0" * 64, "sizeBytes": 1 << 24}
        body = {"apiVersion": API_VERSION, "kind": "Image", "metadata": {"name": IMAGE}, "status": ready}
        await store.objects.replace(body, CONTROLLER, part="status")
    finally:
        store.close()


def _create(n: int) -> bytes:
    spec = {"flavor": FLAVOR, "image": IMAGE, "tolerations": BEARS}
    metadata = {"name": f"vm-{n:05}", "namespace": PROJECT}
    body = {"apiVersion": API_VERSION, "kind": "Instance", "metadata": metadata, "spec": spec}
    return request("POST", f"{API}/namespaces/{PROJECT}/instances", orjson.dumps(body))


async def _all_ready(server: Server, path: str, count: int, *, seconds: float) -> None:
    """Return once ``count`` objects of a collection are Ready. Raises TimeoutError with how many are."""
    ready: set[str] = set()
    wire = await Wire.open(server)
    try:
        async with asyncio.timeout(seconds):
            _, body = await wire.ask(request("GET", f"{API}/{path}"))
            listed = orjson.loads(body)
            ready.update(item["metadata"]["name"] for item in listed["items"] if _is_ready(item))
            revision = listed["metadata"]["resourceVersion"]
            watch = request("GET", f"{API}/{path}?watch=1&resourceVersion={revision}")
            if len(ready) < count:
                async for line in wire.lines(watch):
                    # Most events are of objects on their way; only one that says Ready is worth reading.
                    if b'"type":"Ready"' in line and _is_ready(item := orjson.loads(line)["object"]):
                        ready.add(item["metadata"]["name"])
                        if len(ready) >= count:
                            return
    except TimeoutError as error:
        raise TimeoutError(f"{len(ready)} of {count} {path} are Ready after {seconds:.0f} s") from error
    finally:
        wire.close()


def _is_ready(item: Mapping[str, Any]) -> bool:
    conditions = item.get("status", {}).get("conditions", ())
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


async def _waits(server: Server) -> dict[float, float]:
    """The loop's own histogram of queue waits over all kinds: upper bound → how many waited no longer."""
    wire = await Wire.open(server)
    _, body = await wire.ask(request("GET", "/metrics"))
    wire.close()
    found: dict[float, float] = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            if sample.name == "bessemer_loop_wait_seconds_bucket":
                bound = float(sample.labels["le"])
                found[bound] = found.get(bound, 0.0) + sample.value
    return found


def _quantile(before: dict[float, float], after: dict[float, float], share: float) -> float:
    """Within the bucket that holds it, as Prometheus does it; the last finite bound where it lies beyond that."""
    counts = [(bound, after[bound] - before.get(bound, 0.0)) for bound in sorted(after)]
    wanted = counts[-1][1] * share if counts else 0.0
    low = below = 0.0
    for bound, count in counts:
        if count >= wanted > 0:
            return low if bound == float("inf") else low + (bound - low) * (wanted - below) / (count - below)
        low, below = bound, count
    return 0.0


if __name__ == "__main__":
    program(measure, about=__doc__.splitlines()[0])
