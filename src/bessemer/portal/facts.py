"""What pages need to know of objects: read once from their JSON when they arrive (``reading``) and kept compact.

A signed-in session mirrors thousands of objects; their bodies as dictionaries would take ten times the memory. Facts
are frozen and comparable. Times are seconds since the epoch. They are not the kinds' own types: a page shows what is
there and forgives what is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar

from bessemer.core.money import Prices
from bessemer.core.resource import Key


@dataclass(frozen=True, slots=True)
class Mark:
    """When a phase began."""

    phase: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """What every object says. ``since`` is when its phase began; ``stuck`` is the Stuck condition's text or ""."""

    KIND: ClassVar[str]

    key: Key
    uid: str
    created: float
    deleting: bool = False
    phase: str = ""
    since: float | None = None
    ready: bool = False
    reason: str = ""
    message: str = ""
    stuck: str = ""
    stuck_since: float | None = None
    changed: float | None = None

    @property
    def name(self) -> str:
        return self.key.name

    @property
    def project(self) -> str:
        return self.key.namespace


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload(Fact):
    """An Instance or an Endpoint, as far as they are alike."""

    flavor: str
    fake: bool = False
    reasons: tuple[tuple[int, str], ...] = ()
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceFact(Workload):
    KIND = "Instance"

    image: str = ""
    running: bool = True
    host: str = ""
    claim: str = ""
    restarts: int = 0
    kernel: str = ""
    cpus: int = 0
    memory_bytes: int = 0
    addresses: tuple[str, ...] = ()
    history: tuple[Mark, ...] = ()


@dataclass(frozen=True, slots=True)
class Replica:
    number: int
    claim: str
    host: str
    phase: str
    ready: bool
    message: str


@dataclass(frozen=True, slots=True)
class Revision:
    """What replicas were made of: ``what`` in words."""

    name: str
    number: int
    since: float | None
    what: str


@dataclass(frozen=True, slots=True)
class Scaling:
    """What was decided last of how many replicas are wanted, and between which bounds it may be."""

    wanted: int
    since: float | None
    why: str
    low: int
    high: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointFact(Workload):
    KIND = "Endpoint"

    model: str = ""
    embeds: bool = False
    """It only makes texts into vectors, and answers nothing."""
    slots: int = 0
    context_tokens: int = 0
    wanted: int = 0
    ready_replicas: int = 0
    replicas: tuple[Replica, ...] = ()
    adapters: tuple[str, ...] = ()
    backends: tuple[tuple[str, int], ...] = ()
    """(endpoint, weight): who answers for it, where it has no replicas of its own."""
    external: tuple[str, str] = ("", "")
    """(URL, what it calls the model) of a service elsewhere."""
    fallbacks: tuple[str, ...] = ()
    revision: str = ""
    updated: int = 0
    revisions: tuple[Revision, ...] = ()
    scaling: Scaling | None = None
    logged: str = ""
    """Where what it is asked and answers is logged, for how long, and what is wrong with that."""


@dataclass(frozen=True, slots=True)
class DeviceFact:
    id: str
    kind: str
    model: str
    memory_bytes: int
    numa: int
    switch: str
    nvlink: str
    rail: int | None
    speed_mbps: int
    healthy: bool


@dataclass(frozen=True, slots=True)
class NumaFact:
    id: int
    cores: int
    threads: int
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFact(Fact):
    KIND = "Host"

    site: str
    leaf: str
    rack: str
    spine: str
    fake: bool
    cordoned: bool
    fenced: bool
    reachable: bool | None
    silence: str
    overcommit_milli: int
    cpu_model: str
    kernel: str
    virtualization: str
    virtualization_note: str
    isolation: str
    isolation_note: str
    agent_version: str
    joined: float | None
    numa: tuple[NumaFact, ...]
    devices: tuple[DeviceFact, ...]
    gpus: tuple[DeviceFact, ...] = field(init=False, compare=False, repr=False)
    broken: tuple[str, ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        # Asked of every host at every change of a fleet: worked out once. GPUs stand in the order of their rails.
        gpus = sorted((d for d in self.devices if d.kind == "gpu"), key=lambda d: (d.rail is None, d.rail or 0))
        object.__setattr__(self, "gpus", tuple(gpus))
        object.__setattr__(self, "broken", tuple(d.id for d in self.devices if not d.healthy))

    @property
    def threads(self) -> int:
        return sum(n.threads for n in self.numa)

    @property
    def memory_bytes(self) -> int:
        return sum(n.memory_bytes for n in self.numa)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimFact(Fact):
    KIND = "Claim"

    host: str
    tenant: str
    workload_kind: str
    workload: str
    replica: int
    devices: tuple[str, ...]
    device_model: str
    device_milli: int = 1000
    device_profile: str = ""
    allocations: tuple[tuple[int, int, int], ...]
    fake: bool
    pid: int | None
    address: str
    restarts: int
    fitting: int = 0
    score: tuple[tuple[str, float], ...] = ()
    refused: tuple[tuple[int, str], ...] = ()
    answers: str = ""
    """As records of usage say who answers (`core.money.said_of`); of an endpoint's replica."""

    @property
    def milli_cores(self) -> int:
        return sum(milli for _, milli, _ in self.allocations)

    @property
    def memory_bytes(self) -> int:
        return sum(memory for _, _, memory in self.allocations)


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantFact(Fact):
    KIND = "Tenant"

    colour: int
    display: str
    plan: str
    members: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFact(Fact):
    KIND = "Event"

    about_kind: str
    about: str
    warning: bool
    last: float
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FlavorFact(Fact):
    KIND = "Flavor"

    cpus: int
    memory: str
    disk: str
    gpus: int
    gpu_model: str
    gpu_milli: int = 1000
    gpu_profile: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFact(Fact):
    KIND = "PricePlan"

    currency: str
    core_hour: int
    memory_gib_hour: int
    tokens: Prices
    devices: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFact(Fact):
    KIND = "ApiKey"

    hint: str
    endpoints: tuple[str, ...]
    expires: float | None
    description: str
    owner: str = ""
    networks: tuple[str, ...] = ()
    priority: str = "default"
    disabled: bool = False
    bounds: tuple[tuple[str, int], ...] = ()
    """(meter of `core.bounds`, bound)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectFact(Fact):
    KIND = "Project"

    display: str
