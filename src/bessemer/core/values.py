"""Every value that crosses between store, placement, metering, kinds and drivers.

All are frozen. Times are whole seconds since the epoch (UTC) unless a name says otherwise, memory is bytes, cores are
milli-cores, money is micro-units of a currency. What becomes JSON is an `ApiModel`; what stays in memory is a
dataclass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from pydantic import Field

from bessemer.core.resource import ApiModel

# --- a host as its agent sees it --------------------------------------------------------------------------------

DeviceKind = Literal["gpu", "nic", "disk"]


class Device(ApiModel):
    """Something scarce in a host that one Claim takes whole. ``id`` is unique and stable on its host."""

    id: str
    kind: DeviceKind
    model: str
    vendor: str = ""
    address: str = ""
    memory_bytes: int = 0
    numa_node: int = 0
    pcie_switch: str = ""
    nvlink_domain: str = ""
    rail: int | None = None
    speed_mbps: int = 0
    healthy: bool = True


class NumaNode(ApiModel):
    """One NUMA node: physical cores, hardware threads, memory and hugepages (count by page size in bytes)."""

    id: int
    cores: int
    threads: int
    memory_bytes: int
    hugepages: dict[str, int] = Field(default_factory=dict)


class Inventory(ApiModel):
    """What an agent found on its machine. ``fake`` hosts say so here and everywhere."""

    fake: bool = False
    kernel: str = ""
    architecture: str = "x86_64"
    boot_id: str = ""
    cpu_model: str = ""
    numa: list[NumaNode] = Field(default_factory=list)
    devices: list[Device] = Field(default_factory=list)
    addresses: list[str] = Field(default_factory=list)
    virtualization: Literal["kvm", "tcg", "none"] = "none"
    virtualization_note: str = ""
    isolation: Literal["strong", "weak", "none"] = "none"
    isolation_note: str = ""
    site: str = ""
    rack: str = ""
    leaf: str = ""
    spine: str = ""
    agent_version: str = ""

    @property
    def threads(self) -> int:
        return sum(node.threads for node in self.numa)

    @property
    def memory_bytes(self) -> int:
        return sum(node.memory_bytes for node in self.numa)


def door_name(host: str) -> str:
    """The name that a host's certificate answers to, wherever its doorways listen. The suffix keeps a host that is
    called ``localhost`` from being taken for one of our servers."""
    return f"{host}.hosts.bessemer.dev"


# --- placement --------------------------------------------------------------------------------------------------


class Toleration(ApiModel):
    """``key`` of a taint that the workload bears; ``*`` bears all."""

    key: str


class Taint(ApiModel):
    """Nothing lands on a host with a taint unless its spec tolerates the key."""

    key: str
    value: str = ""


NumaPolicy = Literal["required", "preferred", "legacy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What one replica wants of one host. ``device_model`` "" is any model; ``device_count`` 0 wants none."""

    tenant: str
    milli_cores: int
    memory_bytes: int
    device_count: int = 0
    device_model: str = ""
    numa: NumaPolicy = "preferred"
    same_switch: bool = False
    same_nvlink: bool = False
    tolerations: tuple[str, ...] = ()
    virtualization: bool = False
    strong_isolation: bool = False
    avoid_hosts: frozenset[str] = frozenset()


class Allocation(ApiModel):
    """Cores and memory of one NUMA node."""

    numa_node: int
    milli_cores: int
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Where a request goes: one host, the devices there, and cores and memory per NUMA node."""

    host: str
    devices: tuple[str, ...]
    allocations: tuple[Allocation, ...]
    fake: bool = False
    score: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Reason:
    """Why ``hosts`` hosts were set aside. ``code`` is CamelCase, ``text`` a phrase: "short of 2 cores"."""

    code: str
    hosts: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Nothing fits: every rejected set with its count, and the cheapest change that would make it fit ("" if none)."""

    reasons: tuple[Reason, ...]
    cheapest: str = ""

    def __str__(self) -> str:
        parts = [f"{r.hosts} host{'s' if r.hosts != 1 else ''}: {r.text}" for r in self.reasons]
        return "; ".join(parts) or "there are no hosts"


# --- claims -----------------------------------------------------------------------------------------------------


class WorkloadRef(ApiModel):
    """Which object holds a claim, and which replica of it."""

    kind: str
    name: str
    uid: str
    replica: int = 0


class ClaimSpec(ApiModel):
    """What one replica takes of one host, and the intent of the host side (JSON that only the workload's kind
    reads)."""

    host: str
    tenant: str
    workload: WorkloadRef
    devices: list[str] = Field(default_factory=list)
    device_model: str = ""
    allocations: list[Allocation] = Field(default_factory=list)
    flavor: str = ""
    fake: bool = False
    intent: dict[str, Any] = Field(default_factory=dict)

    @property
    def milli_cores(self) -> int:
        return sum(a.milli_cores for a in self.allocations)

    @property
    def memory_bytes(self) -> int:
        return sum(a.memory_bytes for a in self.allocations)


ClaimPhase = Literal["Pending", "Preparing", "Starting", "Running", "Stopping", "Stopped", "Lost", "Failed", "Gone"]
"""Gone is the agent's word that nothing of the claim is left on its host."""

BillingState = Literal["deploying", "running", "stopped", "lost"]

BILLING: Mapping[str, BillingState] = MappingProxyType(
    {
        "Pending": "deploying",
        "Preparing": "deploying",
        "Starting": "deploying",
        "Running": "running",
        "Stopping": "running",
        "Stopped": "stopped",
        "Lost": "lost",
        "Failed": "lost",
        "Gone": "stopped",
    }
)
"""Claim phase → what is billed. ``lost`` is time in which the platform or an image failed to run what should run."""


# --- ledger -----------------------------------------------------------------------------------------------------


class LedgerEntry(ApiModel):
    """One immutable row. Quantities only; a price meets them when an invoice is derived.

    ``open``, ``state`` and ``close`` rows of one ``claim_uid`` form an interval; ``tokens`` rows stand alone;
    a ``correction`` names the row that it replaces (``corrects``). ``at`` is the server's time, whole seconds, never
    before the claim's previous row.
    """

    id: int
    at: int
    kind: Literal["open", "state", "close", "tokens", "correction"]
    tenant: str
    project: str
    workload_kind: str
    workload_name: str
    workload_uid: str
    claim_uid: str = ""
    host: str = ""
    fake: bool = False
    state: BillingState | None = None
    flavor: str = ""
    device_model: str = ""
    devices: int = 0
    milli_cores: int = 0
    memory_bytes: int = 0
    model: str = ""
    api_key: str = ""
    requests: int = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    corrects: int | None = None


class UsageRecord(ApiModel):
    """What one answered request amounted to, as the gateway saw it. ``input_tokens`` includes the cached ones."""

    at: int
    request_id: str
    project: str
    endpoint: str
    endpoint_uid: str
    api_key: str
    model: str
    status: int
    input_tokens: int
    cached_input_tokens: int = 0
    output_tokens: int = 0
    latency_ms: int = 0
    first_token_ms: int = 0


class UsageBatch(ApiModel):
    """Records of one spool in order. (gateway_uid, spool_uid, first_sequence + i) settles record i exactly once.
    Sequences of a spool count from 1."""

    gateway_uid: str
    spool_uid: str
    first_sequence: int
    records: list[UsageRecord]


# --- quota ------------------------------------------------------------------------------------------------------


class Quota(ApiModel):
    """Upper bounds; None is no bound. ``devices`` is by model, with ``*`` for the sum of all."""

    milli_cores: int | None = None
    memory_bytes: int | None = None
    devices: dict[str, int] = Field(default_factory=dict)
    instances: int | None = None
    endpoints: int | None = None
    tokens_per_minute: int | None = None
    claims: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """One meter of a scope (``tenant/NAME`` or ``project/NAME``): what is used of what bound."""

    scope: str
    meter: str
    used: int
    limit: int | None
