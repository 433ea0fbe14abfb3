"""What is held and what is billed: claims, the ledger and usage. What hosts are stands in `core.hosts`, and what is
asked of placement in `core.asking`.

All are frozen. Times are whole seconds since the epoch (UTC) unless a name says otherwise, memory is bytes, cores are
milli-cores, money is micro-units of a currency. What becomes JSON is an `ApiModel`; what stays in memory is a
dataclass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import Field

from bessemer.core.asking import Allocation, NumaPolicy, ReasonView, Request
from bessemer.core.beside import CompanionAsked, CompanionUse, CpuPolicy, PciPlace
from bessemer.core.hosts import UNSAID_ENGINES
from bessemer.core.resource import ApiModel


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


def usual(engine: str) -> bool:
    """Whether a sort of engine is none, or the one that hosts have which name none."""
    return engine in ("", *UNSAID_ENGINES)


Movable = Literal["", "Restart", "Replace"]
"""How a claim may be moved: not at all; stopped and started anew elsewhere, so that what it had in memory and on its
host's disks is lost; or replaced by another that is there before it goes, so that nothing is."""


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
    engine: str = Field("", exclude_if=usual, description="The sort of engine that its host had to have; empty: none.")
    companions: list[CompanionAsked] = Field(default_factory=list, description="What was to lie beside the devices.")
    cpu_policy: CpuPolicy = Field("shared", description="Whether threads or cores of its own.")
    page_bytes: int = Field(0, description="Size of the huge pages that its memory was to lie in; 0: ordinary memory.")
    device_bytes: int = Field(
        0, exclude_if=nothing, description="Memory of one device that a share was to have, whatever part that is."
    )

    @classmethod
    def of(cls, request: Request) -> Asked:
        # What the request has, and not what is known here: a field that is missing here is refused, and not forgotten.
        said = {one.name: getattr(request, one.name) for one in fields(request) if one.name != "tenant"}
        said["companions"] = [CompanionAsked.of(one) for one in request.companions]
        return cls.model_validate({k: sorted(v) if isinstance(v, frozenset) else v for k, v in said.items()})

    def request(self, tenant: str) -> Request:
        """The same as a request of that tenant. Raises ValueError where it is none that could be asked."""
        said = {name: getattr(self, name) for name in type(self).model_fields}
        sets = {name: frozenset(said[name] or ()) for name in ("device_models", "sites")}
        bearable = None if self.bearable is None else frozenset(self.bearable)
        said |= {"companions": tuple(one.wanted() for one in self.companions)}
        return Request(
            **{**said, **sets, "tenant": tenant, "tolerations": tuple(self.tolerations), "bearable": bearable}
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
    movable: Movable = Field(
        "", exclude_if=nothing, description="How it may be moved to another host; empty: not at all."
    )
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
    def own_cpus(self) -> str:
        """Hardware threads that are its own, on all nodes; "" for none."""
        return ",".join(part.cpus for part in self.allocations if part.cpus)

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


AnswerEnd = Literal["cancelled", "cut", "killed", "unpaid"]
"""How an answer ended that is not whole: its client left; its replica was lost; its gateway was; or nothing of it was
sent, so that nothing is paid, though its replica may have counted some."""


class UsageRecord(ApiModel):
    """What one answered request amounted to, as the gateway saw it. ``input_tokens`` includes the cached ones.
    ``latency_ms`` is until its end, ``first_token_ms`` until the first token of a stream, 0 where there was none.
    ``held_micro`` is what was held for it, of a quota of money; None without one. ``owner`` is whose key it was, and
    ``held_bounds`` of which bounds what it came to was held, each as ``key micro/month``; None where of none.
    ``replica`` is the uid of the claim that answered; ``asked`` the endpoint that was asked, where another answered."""

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
    owner: str | None = Field(None, max_length=253)
    held_bounds: list[Annotated[str, Field(max_length=32)]] | None = Field(None, max_length=64)
    # Left out where they say nothing: what is sent to an older api leaves them out, too (`gateway.settle`).
    replica: str = Field("", max_length=63, exclude_if=nothing)
    ended: AnswerEnd | None = Field(None, exclude_if=nothing)
    asked: str = Field("", max_length=253, exclude_if=nothing)


class UsageBatch(ApiModel):
    """Records of one spool in order. (spool_uid, first_sequence + i) settles record i exactly once; the gateway's own
    uid only says who sent it. Sequences of a spool count from 1."""

    gateway_uid: str
    spool_uid: str
    first_sequence: int
    records: list[UsageRecord]
