"""Words that the store's tests share: bodies, hosts, claims, writers."""

from __future__ import annotations

import json
from typing import Any

from bessemer.core.asking import Allocation
from bessemer.core.hosts import Device, Inventory, NumaNode
from bessemer.core.ports import Stored, Writer
from bessemer.core.resource import Key
from bessemer.core.values import ClaimSpec, WorkloadRef
from bessemer.drivers.inspect.tables import known

ALICE = Writer("user", "alice")
SYSTEM = Writer("system", "api")
PROJECT = "acme--lab"


def agent(host: str) -> Writer:
    return Writer("agent", host)


def body(kind: str, name: str, *, spec: Any = None, namespace: str = PROJECT, **metadata: Any) -> dict[str, Any]:
    place = {"namespace": namespace} if namespace else {}
    return {
        "apiVersion": "bessemer.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, **place, **metadata},
        "spec": {"size": 1} if spec is None else spec,
    }


def read(stored: Stored) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(stored.body)
    return document


def inventory(gpus: int = 8, *, model: str = "H100", threads: int = 32, memory: int = 1 << 38) -> Inventory:
    """Its devices can be cut, as an H100 with 80 GB can."""
    return Inventory(
        fake=True,
        numa=[NumaNode(id=0, cores=threads // 2, threads=threads, memory_bytes=memory)],
        devices=[Device(id=f"gpu-{i}", kind="gpu", model=model) for i in range(gpus)],
        sharing="time",
        partitions={model: known()["H100-80GB"]},
    )


Part = tuple[int, str, int]
"""Thousandths of each device, profile of an instance, its first slice."""


def claim(
    name: str,
    *,
    host: str = "h1",
    devices: tuple[str, ...] = (),
    cores: int = 1000,
    memory: int = 1 << 30,
    replica: int = 0,
    part: Part = (1000, "", 0),
    **metadata: Any,
) -> tuple[Key, ClaimSpec, dict[str, Any]]:
    spec = ClaimSpec(
        host=host,
        tenant="acme",
        workload=WorkloadRef(kind="Instance", name=name, uid=f"uid-{name}", replica=replica),
        devices=list(devices),
        device_milli=part[0],
        device_profile=part[1],
        device_start=part[2],
        device_model="H100" if devices else "",
        allocations=[Allocation(numa_node=0, milli_cores=cores, memory_bytes=memory)],
    )
    return Key("Claim", PROJECT, f"instance-{name}-{replica}"), spec, metadata
