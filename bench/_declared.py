"""A fleet without agents: thousands of hosts with eight GPUs each, as rows of a store that no control plane has yet.

Each Host has joined, has reported and is heard: its lease runs for hours, so that nobody need renew it. The controller
tells capacity of them by itself once it starts, as it does of any host.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import orjson

from _wire import Server, Wire, request
from bessemer.client.paths import api_version
from bessemer.core.clock import SystemClock
from bessemer.core.ports import CONTROLLER, HEARTBEATS, Writer
from bessemer.core.resource import API_VERSION
from bessemer.drivers.fetch.real import HostContent
from bessemer.main import settings
from bessemer.main.settings import Paths
from bessemer.main.storage import open_state
from bessemer.store import Store

PROJECT, FLAVOR, IMAGE = "bench--one", "one-gpu", "none"
MODEL, DEVICES, THREADS, MEMORY = "H100-SXM-80GB", 8, 192, 2 << 40
CORES_EACH, MEMORY_EACH = 16, "128Gi"
LEAF_HOSTS = 32
LEASE_SECONDS = 24 * 3600.0
READY_SECONDS = 900.0
AT_ONCE = 256

_ADMIN = Writer("user", "admin")


async def seed(paths: Paths, hosts: int) -> None:
    """So many hosts, a project without quotas, a flavor of one GPU, and an image whose content is here."""
    store = open_state(paths, settings.load(paths), clock=SystemClock())
    try:
        await _catalogue(store, HostContent(paths.content))
        for first in range(0, hosts, AT_ONCE):
            await asyncio.gather(*(_host(store, n) for n in range(first, min(hosts, first + AT_ONCE))))
    finally:
        store.close()


async def _catalogue(store: Store, content: HostContent) -> None:
    devices = {"count": 1, "model": MODEL}
    for kind, name, spec in (
        ("PricePlan", "standard", {}),
        ("Tenant", PROJECT.partition("--")[0], {}),
        ("Project", PROJECT, {}),
        ("Flavor", FLAVOR, {"cores": CORES_EACH, "memory": MEMORY_EACH, "disk": "20Gi", "devices": devices}),
        ("Image", IMAGE, {}),
    ):
        body = {"apiVersion": api_version(kind), "kind": kind, "metadata": {"name": name}, "spec": spec}
        await store.objects.create(body, _ADMIN)
    found = content.adopt([b"nobody boots it"], digest=None)
    ready = {"phase": "Ready", "digest": found.digest, "sizeBytes": found.size_bytes}
    body = {"apiVersion": API_VERSION, "kind": "Image", "metadata": {"name": IMAGE}, "status": ready}
    await store.objects.replace(body, CONTROLLER, part="status")


async def _host(store: Store, number: int) -> None:
    name = f"host-{number:05}"
    body = {"apiVersion": API_VERSION, "kind": "Host", "metadata": {"name": name}}
    await store.objects.create({**body, "spec": {}}, _ADMIN)
    await store.leases.acquire(HEARTBEATS + name, name, LEASE_SECONDS)
    joined = {"keyFingerprint": f"{number:064x}", "joinedAt": "2026-01-01T00:00:00Z"}
    await store.objects.replace({**body, "status": joined}, CONTROLLER, part="status")
    report = {**body, "status": {"report": _report(number)}}
    await store.objects.replace(report, Writer("agent", name), part="report")


def _report(number: int) -> dict[str, Any]:
    """What its agent would say: two NUMA nodes, eight GPUs in pairs under a switch, one leaf for 32 hosts."""
    node = {"cores": THREADS // 4, "threads": THREADS // 2, "memoryBytes": MEMORY // 2}
    return {
        "kernel": "6.1.0",
        "cpuModel": "a processor",
        "bootId": f"{number}",
        "numa": [{"id": id, **node} for id in (0, 1)],
        "devices": [*_devices()],
        "virtualization": "kvm",
        "isolation": "strong",
        "leaf": f"leaf-{number // LEAF_HOSTS}",
        "spine": f"spine-{number // LEAF_HOSTS // LEAF_HOSTS}",
        "agentVersion": "bench",
    }


def _devices() -> Iterator[dict[str, Any]]:
    for n in range(DEVICES):
        yield {
            "id": f"gpu-{n}",
            "kind": "gpu",
            "model": MODEL,
            "vendor": "NVIDIA",
            "address": f"0000:{n + 1:02x}:00.0",
            "memoryBytes": 80 << 30,
            "numaNode": n // 4,
            "pcieSwitch": f"switch-{n // 2}",
            "nvlinkDomain": "nvlink-0",
            "rail": n,
        }


async def declared(server: Server, hosts: int) -> None:
    """Return once every host is Ready, as its controller has it. Raises TimeoutError."""
    async with asyncio.timeout(READY_SECONDS):
        while await _ready(server) < hosts:  # noqa: ASYNC110 - another process works on it
            await asyncio.sleep(2.0)


async def _ready(server: Server) -> int:
    wire = await Wire.open(server)
    try:
        status, body = await wire.ask(request("GET", "/apis/bessemer.dev/v1alpha1/hosts"))
    finally:
        wire.close()
    if status != 200:
        raise RuntimeError(f"hosts: {status} {body[:300].decode(errors='replace')}")
    return sum(host.get("status", {}).get("phase") == "Ready" for host in orjson.loads(body)["items"])
