"""Every value that crosses between store, placement, metering, kinds and drivers.

All are frozen. Times are whole seconds since the epoch (UTC) unless a name says otherwise, memory is bytes, cores are
milli-cores, money is micro-units of a currency. What becomes JSON is an `ApiModel`; what stays in memory is a
dataclass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, field_validator

from bessemer.core.beside import PAGE_SIZES, Companion, CompanionAsked, CompanionUse, CpuPolicy, PciPlace, require_apart
from bessemer.core.cpus import CPUS_MAX
from bessemer.core.notices import Stops
from bessemer.core.resource import ApiModel
from bessemer.core.slices import Partitioning

# --- a host as its agent sees it --------------------------------------------------------------------------------

DeviceKind = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,30}$")]
"""What a device is, in a word of its agent: ``gpu``, ``nic``, ``disk``, or whatever else it can give away. Nothing but
``gpu`` means anything to placement, which hands those out as devices and the others beside them."""


NODE_BYTES_MAX = 1 << 48
"""Of memory on one NUMA node: the sum over any fleet stays a number that arrays and databases hold."""

NODES_MAX = 64
DEVICES_MAX = 256
MODELS_MAX = 16
"""Of one host; models of GPUs. Placement's arrays are as wide as the widest host, and every decision reads them: room
for machines larger than any known, and no more."""

ADDRESSES_MAX = 256

Count = Annotated[int, Field(ge=0, le=1 << 20)]
Size = Annotated[int, Field(ge=0, le=1 << 53)]
Word = Annotated[str, Field(max_length=256)]
Note = Annotated[str, Field(max_length=4096)]


class Device(ApiModel):
    """Something scarce in a host that one Claim takes whole. ``id`` is unique and stable on its host."""

    id: Word = Field(description="Unique and stable on its host.")
    kind: DeviceKind = Field(description="What it is.")
    model: Word = Field(description="What it is sold as; flavors and prices name it.")
    vendor: Word = Field("", description="Who made it.")
    address: Word = Field("", description="Its PCI address.")
    memory_bytes: Size = Field(0, description="Memory of its own; 0 where it has none.")
    numa_node: Count = Field(0, description="The NUMA node that it is attached to.")
    pcie_switch: Word = Field("", description="The PCIe switch above it; empty where it hangs from the root.")
    nvlink_domain: Word = Field("", description="Devices of one domain reach each other by NVLink.")
    rail: Count | None = Field(None, description="The rail of the fabric that it is on.")
    speed_mbps: Size = Field(0, description="Speed of its link in Mbit/s; 0 where it has none.")
    functions: Count = Field(0, description="How many virtual functions it can give; 0 where it is given whole only.")
    healthy: bool = Field(True, description="Whether it may be given to anybody.")
    in_use: bool = Field(False, description="Whether the host needs it itself: its own disk, its own way out.")


class NumaNode(ApiModel):
    """One NUMA node: physical cores, hardware threads, memory and hugepages (count by page size in bytes)."""

    id: Count = Field(description="Its number on this host.")
    cores: Count = Field(description="Physical cores.")
    threads: Count = Field(description="Hardware threads, which are what is sold.")
    memory_bytes: int = Field(ge=0, le=NODE_BYTES_MAX, description="Memory attached to it.")
    hugepages: dict[Word, Size] = Field(
        default_factory=dict, max_length=16, description="Huge pages set aside, by their size in bytes."
    )
    siblings: list[Word] = Field(
        default_factory=list,
        max_length=CPUS_MAX,
        description="Numbers of the hardware threads of each physical core: 0,56. None where they are not known.",
    )

    @property
    def plain_bytes(self) -> int:
        """Memory that is not set aside for huge pages."""
        return max(0, self.memory_bytes - sum(int(size) * count for size, count in self.hugepages.items()))

    @field_validator("hugepages")
    @classmethod
    def _sizes(cls, hugepages: dict[str, int]) -> dict[str, int]:
        if not all(size.isdecimal() and size.isascii() and len(size) < 16 for size in hugepages):
            raise ValueError("huge pages are counted by their size in bytes")
        return hugepages


class Inventory(ApiModel):
    """What an agent found on its machine. ``fake`` hosts say so here and everywhere.

    An agent may lie: whatever fits these bounds does no harm but to its own host.
    """

    fake: bool = Field(False, description="Whether the host only pretends: nothing of it is real.")
    kernel: Word = Field("", description="The running kernel.")
    architecture: Word = Field("x86_64", description="The processor's architecture.")
    boot_id: Word = Field("", description="Another one after each boot.")
    cpu_model: Word = Field("", description="The processor's name.")
    numa: list[NumaNode] = Field(
        default_factory=list, max_length=NODES_MAX, description="Cores, threads and memory by NUMA node."
    )
    devices: list[Device] = Field(
        default_factory=list,
        max_length=DEVICES_MAX,
        description="What a Claim takes whole: GPUs, network cards, disks.",
    )
    addresses: list[Word] = Field(
        default_factory=list, max_length=ADDRESSES_MAX, description="Addresses of the host itself."
    )
    virtualization: Literal["kvm", "tcg", "none"] = Field(
        "none", description="What runs a guest: kvm, tcg (emulated, slow) or none."
    )
    virtualization_note: Note = Field("", description="Why it is no better, or how it was found.")
    isolation: Literal["strong", "weak", "none"] = Field(
        "none", description="How engines of several tenants are kept apart here: strong, weak or none."
    )
    isolation_note: Note = Field("", description="What is missing for more.")
    sharing: Literal["time", "mps", "none"] = Field(
        "none",
        exclude_if=lambda said: said == "none",
        description="How a device is shared by several claims here: by turns, by MPS, or not at all.",
    )
    partitions: dict[Word, Partitioning] = Field(
        default_factory=dict,
        max_length=MODELS_MAX,
        exclude_if=lambda said: not said,
        description="Into what GPUs can be cut here, by their model.",
    )
    site: Word = Field("", description="Where it stands.")
    rack: Word = Field("", description="The rack.")
    leaf: Word = Field("", description="The leaf switch that it is attached to.")
    spine: Word = Field("", description="The spine switch above its leaf.")
    agent_version: Word = Field("", description="The agent that says all this.")

    @field_validator("devices")
    @classmethod
    def _few_models(cls, devices: list[Device]) -> list[Device]:
        models = {device.model for device in devices if device.kind == "gpu"}
        if len(models) > MODELS_MAX:
            raise ValueError(f"GPUs of {len(models)} models; a host has {MODELS_MAX} at most")
        return devices

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
    """``key`` of a taint that the workload bears; ``*`` bears all that its tenant may."""

    key: str = Field(description="Key of a taint that is borne; * is every one that the tenant may bear.")


class Taint(ApiModel):
    """Nothing lands on a host with a taint unless its spec tolerates the key."""

    key: str = Field(description="What must be tolerated to land here.")
    value: str = Field("", description="A word for people.")


NumaPolicy = Literal["required", "preferred", "legacy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What one replica wants of one host. ``device_count`` 0 wants no devices; ``device_milli`` are thousandths of
    each, below 1000 a share of one; ``device_profile`` wants one instance of that profile in place of a device.
    ``device_models`` are those that will do, several of them together too; none: any.
    ``bearable`` are the taints that its tenant may tolerate at all; None is whoever has no bounds. ``virtualization``
    is for guests, ``isolation`` for engines: a host that has none of either kind runs none of them. ``sites`` are where
    its tenant may be (none: anywhere); with ``own_hosts`` it is kept to hosts that are dedicated to it.
    ``page_bytes`` is the size of the huge pages in which all its memory lies; 0: ordinary memory. No device could be of
    two of ``companions``."""

    tenant: str
    milli_cores: int
    memory_bytes: int
    device_count: int = 0
    device_milli: int = 1000
    device_profile: str = ""
    device_models: frozenset[str] = frozenset()
    numa: NumaPolicy = "preferred"
    same_switch: bool = False
    same_nvlink: bool = False
    tolerations: tuple[str, ...] = ()
    bearable: frozenset[str] | None = None
    sites: frozenset[str] = frozenset()
    own_hosts: bool = False
    virtualization: bool = False
    isolation: bool = False
    companions: tuple[Companion, ...] = ()
    cpu_policy: CpuPolicy = "shared"
    page_bytes: int = 0

    def __post_init__(self) -> None:
        require_apart(self.companions, devices=self.device_count)
        if self.cpu_policy != "shared" and self.milli_cores % 1000:
            raise ValueError(f"{self.milli_cores} thousandths of a core, of threads that are given whole")
        if self.page_bytes and (self.page_bytes not in PAGE_SIZES or self.memory_bytes % self.page_bytes):
            raise ValueError(f"{self.memory_bytes} bytes in pages of {self.page_bytes}")
        if not 0 < self.device_milli <= 1000:
            raise ValueError(f"{self.device_milli} thousandths of a device; it has 1000")
        if self.device_milli < 1000 and self.device_count != 1:
            raise ValueError(f"a share of {self.device_count} devices; it is of one")
        if self.device_profile and (self.device_milli < 1000 or self.device_count != 1):
            raise ValueError(f"{self.device_profile} is an instance of one device, and no share")


class Allocation(ApiModel):
    """Cores and memory of one NUMA node."""

    numa_node: int = Field(description="The NUMA node.")
    milli_cores: int = Field(description="Thousandths of a core.")
    memory_bytes: int = Field(description="Memory.")
    cpus: Note = Field("", description="Hardware threads that are its own, as 2-5,58-61; none: it shares.")
    spare_milli_cores: int = Field(
        0, description="Taken besides, for nobody shares its threads: idle siblings, and what would be sold again."
    )
    page_bytes: int = Field(0, description="Size of the huge pages that the memory lies in; 0: ordinary memory.")

    @property
    def taken_milli_cores(self) -> int:
        """What it takes of its node."""
        return self.milli_cores + self.spare_milli_cores

    @property
    def plain_bytes(self) -> int:
        """What it takes of its node's ordinary memory."""
        return 0 if self.page_bytes else self.memory_bytes


@dataclass(frozen=True, slots=True)
class Reason:
    """Why ``hosts`` hosts were set aside. ``code`` is CamelCase, ``text`` a phrase: "short of 2 cores"."""

    code: str
    hosts: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Where a request goes: one host, the devices there (``device_milli`` thousandths of each), and cores and memory
    per NUMA node. With a ``device_profile`` an instance of that is made of the device, from its slice ``device_start``
    on; the thousandths are what it is of the device.

    ``fitting`` hosts had room, of which ``score`` chose (its figures in the order in which they narrowed the field,
    small is good); ``reasons`` say why the others were set aside. ``tree`` are the devices and companions as the
    host reports them: where each hangs. ``request`` is what was asked for.
    """

    host: str
    devices: tuple[str, ...]
    allocations: tuple[Allocation, ...]
    device_milli: int = 1000
    device_profile: str = ""
    device_start: int = 0
    fake: bool = False
    score: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    fitting: int = 0
    reasons: tuple[Reason, ...] = ()
    request: Request | None = None
    companions: tuple[CompanionUse, ...] = ()
    tree: tuple[Device, ...] = ()


class ReasonView(ApiModel):
    """A `Reason` as a status carries it."""

    code: str = Field(description="Why, in one CamelCase word.")
    hosts: int = Field(description="How many hosts it set aside.")
    text: str = Field(description="What they lack.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Nothing fits: every rejected set with its count, and the cheapest change that would make it fit ("" if none).

    ``queued``: there is room, but for others first. ``expected`` is when it starts at the latest as far as is known
    (epoch seconds). ``stops`` are claims that are to make room for it."""

    reasons: tuple[Reason, ...]
    cheapest: str = ""
    queued: bool = False
    expected: int | None = None
    stops: Stops | None = None

    def __str__(self) -> str:
        parts = [f"{r.hosts} host{'s' if r.hosts != 1 else ''}: {r.text}" for r in self.reasons]
        return "; ".join(parts) or "there are no hosts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """Who asks for a place, as far as it decides whose turn it is. ``uid`` is the workload's; ``since`` when it was
    made; ``ends`` when it will have ended at the latest, None where nobody knows. What is ``preemptible`` may be
    stopped for what has more priority."""

    uid: str
    project: str
    priority: int = 0
    since: int = 0
    ends: int | None = None
    preemptible: bool = False


Level = Literal["host", "leaf", "spine", "site"]
"""Of the fabric, from near to far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gang:
    """``count`` members that are placed together or not at all, each as ``member`` says.

    All lie under one switch of ``level`` (``required``) or as low as they can (``preferred``), under as few switches as
    possible. Blocks of ``segment`` members in a row (0: no blocks) each lie under one switch of ``segment_level``.
    ``per_host`` members may share a host at most (0: as many as fit); ``spread`` has them on as many hosts as possible
    in place of as few.
    """

    member: Request
    count: int
    level: Level = "leaf"
    policy: Literal["required", "preferred"] = "preferred"
    segment: int = 0
    segment_level: Level = "leaf"
    per_host: int = 0
    spread: bool = False

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"a gang of {self.count} members")
        if self.segment and self.count % self.segment:
            raise ValueError(f"{self.count} members do not come in blocks of {self.segment}")


@dataclass(frozen=True, slots=True, kw_only=True)
class GangDecision:
    """Where a gang goes: a decision for each member in the order of ranks, neighbours in rank near each other.

    ``leaves`` and ``spines`` are the switches above them, counted; ``score`` as in a `Decision`."""

    members: tuple[Decision, ...]
    leaves: int
    spines: int
    score: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))


# --- claims -----------------------------------------------------------------------------------------------------


class WorkloadRef(ApiModel):
    """Which object holds a claim, and which replica of it."""

    kind: str = Field(description="Kind of the workload.")
    name: str = Field(description="Its name in this project.")
    uid: str = Field(description="Its uid: another workload of its name is another.")
    replica: int = Field(0, description="Which of its replicas, from 0.")


class Placement(ApiModel):
    """Why a claim is where it is, as it was when its host was chosen."""

    fitting: int = Field(0, description="How many hosts had room.")
    score: dict[str, float] = Field(
        default_factory=dict, description="What chose between them, in the order in which it was looked at; least wins."
    )
    reasons: list[ReasonView] = Field(default_factory=list, description="Why the other hosts were set aside.")


def whole(milli: int) -> bool:
    """Whether thousandths are all of them."""
    return milli == 1000


def nothing(value: object) -> bool:
    """Whether a field says nothing."""
    return not value


class Asked(ApiModel):
    """A `Request` as a claim keeps it: fields of equal names and meanings, less the tenant, which the claim names."""

    milli_cores: int = Field(description="Thousandths of a core.")
    memory_bytes: int = Field(description="Memory.")
    device_count: int = Field(0, description="How many devices; 0 for none.")
    device_milli: int = Field(1000, description="Thousandths of each device; below 1000 it is a share of one.")
    device_profile: str = Field("", exclude_if=nothing, description="The profile of an instance of one, if it was one.")
    device_models: list[str] = Field(default_factory=list, description="Models that would have done; none: any.")
    numa: NumaPolicy = Field("preferred", description="Whether all had to lie on one NUMA node.")
    same_switch: bool = Field(False, description="Whether the devices had to lie on one PCIe switch.")
    same_nvlink: bool = Field(False, description="Whether the devices had to lie in one NVLink domain.")
    tolerations: list[str] = Field(default_factory=list, description="Keys of the taints that it would have borne.")
    bearable: list[str] | None = Field(None, description="Taints that its tenant might bear; without, any.")
    sites: list[str] = Field(default_factory=list, description="Sites where its tenant might be; none: anywhere.")
    own_hosts: bool = Field(False, description="Whether its tenant was kept to hosts of its own.")
    virtualization: bool = Field(False, description="Whether it had to be a host that runs guests.")
    isolation: bool = Field(False, description="Whether it had to be a host that keeps engines apart.")
    companions: list[CompanionAsked] = Field(default_factory=list, description="What was to lie beside the devices.")
    cpu_policy: CpuPolicy = Field("shared", description="Whether threads or cores of its own.")
    page_bytes: int = Field(0, description="Size of the huge pages that its memory was to lie in; 0: ordinary memory.")

    @classmethod
    def of(cls, request: Request) -> Asked:
        fields = {name: getattr(request, name) for name in cls.model_fields}
        fields["companions"] = [CompanionAsked.of(one) for one in request.companions]
        return cls.model_validate({k: sorted(v) if isinstance(v, frozenset) else v for k, v in fields.items()})

    def request(self, tenant: str) -> Request:
        """The same as a request of that tenant. Raises ValueError where it is none that could be asked."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        sets = {name: frozenset(fields[name] or ()) for name in ("device_models", "sites")}
        bearable = None if self.bearable is None else frozenset(self.bearable)
        fields |= {"companions": tuple(one.wanted() for one in self.companions)}
        return Request(
            **{**fields, **sets, "tenant": tenant, "tolerations": tuple(self.tolerations), "bearable": bearable}
        )


class ClaimSpec(ApiModel):
    """What one replica takes of one host, and the intent of the host side (JSON that only the workload's kind
    reads)."""

    host: str = Field(description="The host that it is on, for good.")
    tenant: str = Field(description="Who pays.")
    workload: WorkloadRef = Field(description="Which workload holds it, and which replica of it.")
    devices: list[str] = Field(default_factory=list, description="Ids of the devices that it has, whole or in part.")
    # Left out where they say nothing: a release that does not know them reads a claim of whole devices as well.
    device_milli: int = Field(
        1000, ge=1, le=1000, exclude_if=whole, description="Thousandths of each; below 1000 a share of one."
    )
    device_profile: str = Field(
        "", max_length=63, exclude_if=nothing, description="The profile of the instance that it has of one device."
    )
    device_start: int = Field(
        0, ge=0, exclude_if=nothing, description="The slice of memory with which that instance begins."
    )
    device_model: str = Field("", description="The devices' model, as it is priced.")
    allocations: list[Allocation] = Field(default_factory=list, description="Cores and memory, by NUMA node.")
    flavor: str = Field("", description="The flavor by which it was placed.")
    companions: list[CompanionUse] = Field(
        default_factory=list, description="What it has beside them: network cards, disks, or functions of them."
    )
    tree: list[PciPlace] = Field(
        default_factory=list, description="Where each of them hangs, as a guest may be shown it."
    )
    asked: Asked | None = Field(None, description="What was asked for; older claims do not say.")
    fake: bool = Field(False, description="Whether the host is fake; so is the bill.")
    priority: int = Field(0, description="Priority of the workload when it was taken.")
    preemptible: bool = Field(False, description="Whether it may be stopped for others.")
    since: int = Field(0, description="When it was taken (epoch seconds).")
    ends: int | None = Field(None, description="When it will have ended at the latest (epoch seconds).")
    placement: Placement = Field(default_factory=Placement, description="Why that host.")
    intent: dict[str, Any] = Field(
        default_factory=dict, description="What the host is asked for; only the workload's kind reads it."
    )

    @property
    def milli_cores(self) -> int:
        return sum(a.milli_cores for a in self.allocations)

    @property
    def memory_bytes(self) -> int:
        return sum(a.memory_bytes for a in self.allocations)

    @property
    def pinned(self) -> bool:
        """Whether it takes what no row counts: threads by number, huge pages, functions of a device."""
        parts = any(part.cpus or part.page_bytes for part in self.allocations)
        return parts or bool(self.companions)

    @property
    def milli_devices(self) -> int:
        """Thousandths of devices, all together."""
        return len(self.devices) * self.device_milli

    @property
    def shared(self) -> bool:
        """Whether it has one device in part."""
        return bool(self.devices) and (self.device_milli < 1000 or bool(self.device_profile))


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
        "Gone": "lost",
    }
)
"""Claim phase → what is billed. ``lost`` is time in which the platform or an image failed to run what should run;
so is what passes from the agent's word that nothing is left to the release."""


# --- ledger -----------------------------------------------------------------------------------------------------


class LedgerEntry(ApiModel):
    """One immutable row. Quantities only; a price meets them when an invoice is derived.

    ``open``, ``state`` and ``close`` rows of one ``claim_uid`` form an interval; ``tokens`` rows stand alone;
    a ``correction`` names the row that it replaces (``corrects``). ``at`` is the server's time, whole seconds, never
    before the claim's previous row. ``tenant_uid`` and ``project_uid`` say whose it is, since a name may be given
    again; "" where there was no such object.
    """

    id: int
    at: int
    kind: Literal["open", "state", "close", "tokens", "correction"]
    tenant: str
    project: str
    workload_kind: str
    workload_name: str
    workload_uid: str
    tenant_uid: str = ""
    project_uid: str = ""
    claim_uid: str = ""
    host: str = ""
    fake: bool = False
    state: BillingState | None = None
    flavor: str = ""
    device_model: str = ""
    devices: int = 0
    device_milli: int = 1000
    milli_cores: int = 0
    memory_bytes: int = 0
    model: str = ""
    api_key: str = ""
    requests: int = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    corrects: int | None = None

    @property
    def milli_devices(self) -> int:
        """Thousandths of devices, all together: ``device_milli`` of each."""
        return self.devices * self.device_milli


QUANTITIES = (
    "devices",
    "milli_cores",
    "memory_bytes",
    "requests",
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
)
"""What of a ledger row is counted, and what a correction may say anew."""

TOKENS_MAX = 1 << 40
"""Of one answer. More is a lie, and the sum of many must stay a number that a database can hold."""

Tokens = Annotated[int, Field(ge=0, le=TOKENS_MAX)]


class UsageRecord(ApiModel):
    """What one answered request amounted to, as the gateway saw it. ``input_tokens`` includes the cached ones.
    ``held_micro`` is what was held for it, of a bound of money; None without one."""

    at: int
    request_id: str
    project: str
    endpoint: str
    endpoint_uid: str
    api_key: str
    model: str
    status: int
    input_tokens: Tokens
    cached_input_tokens: Tokens = 0
    output_tokens: Tokens = 0
    latency_ms: int = 0
    first_token_ms: int = 0
    held_micro: int | None = Field(None, ge=0, le=1 << 53)


class UsageBatch(ApiModel):
    """Records of one spool in order. (spool_uid, first_sequence + i) settles record i exactly once; the gateway's own
    uid only says who sent it. Sequences of a spool count from 1."""

    gateway_uid: str
    spool_uid: str
    first_sequence: int
    records: list[UsageRecord]
