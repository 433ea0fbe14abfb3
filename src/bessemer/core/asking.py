"""What is asked of placement, and what it answers: values of one decision.

All are frozen. Times are whole seconds since the epoch (UTC), memory is bytes, cores are milli-cores, devices are
thousandths where it says milli.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Literal

from pydantic import Field

from bessemer.core.beside import PAGE_SIZES, Companion, CompanionUse, CpuPolicy, require_apart
from bessemer.core.hosts import Device, Note
from bessemer.core.notices import Stops
from bessemer.core.resource import ApiModel


class Toleration(ApiModel):
    """``key`` of a taint that the workload bears; ``*`` bears all that its tenant may."""

    key: str = Field(description="Key of a taint that is borne; * is every one that the tenant may bear.")


class Taint(ApiModel):
    """Nothing lands on a host with a taint unless its spec tolerates the key."""

    key: str = Field(description="What must be tolerated to land here.")
    value: str = Field("", description="A word for people.")


NumaPolicy = Literal["required", "preferred", "legacy"]


# By position too: of each decision a `Shape` is made, and that takes little more than half the time so.
@dataclass(frozen=True, slots=True)
class Needs:
    """What a `Request` asks of a host's hardware, and all that it asks of it: answered alike for whoever asks. A field
    that has its default asks for nothing. ``device_count`` 0 wants no devices; ``device_milli`` are thousandths of
    each, below 1000 a share of one; ``device_profile`` wants one instance of that profile in place of a device.
    ``device_bytes`` want a share of one with so much of its memory: of each device as many thousandths as that is,
    rounded up, whatever ``device_milli`` says, which is then 1, for it is no less.
    ``device_models`` are those that will do, several of them together too; none: any.
    ``page_bytes`` is the size of the huge pages in which all its memory lies; 0: ordinary memory. No device could be of
    two of ``companions``."""

    milli_cores: int
    memory_bytes: int
    device_count: int = 0
    device_milli: int = 1000
    device_profile: str = ""
    device_models: frozenset[str] = frozenset()
    numa: NumaPolicy = "preferred"
    same_switch: bool = False
    same_nvlink: bool = False
    companions: tuple[Companion, ...] = ()
    cpu_policy: CpuPolicy = "shared"
    page_bytes: int = 0
    device_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Request(Needs):
    """What one replica wants of one host: what it needs of the hardware, and whose it is, which says where it may land.
    ``bearable`` are the taints that its tenant may tolerate at all; None is whoever has no bounds. ``virtualization``
    is for guests, ``isolation`` for engines: a host that has none of either kind runs none of them; ``engine`` is the
    sort that it must have ("": any, or none). ``sites`` are where its tenant may be (none: anywhere); with
    ``own_hosts`` it is kept to hosts that are dedicated to it."""

    tenant: str
    tolerations: tuple[str, ...] = ()
    bearable: frozenset[str] | None = None
    sites: frozenset[str] = frozenset()
    own_hosts: bool = False
    virtualization: bool = False
    isolation: bool = False
    engine: str = ""

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
        if self.device_bytes and (self.device_bytes < 0 or self.device_milli != 1 or self.device_profile):
            raise ValueError(f"{self.device_bytes} bytes of a device, and so many thousandths, or an instance")
        if self.device_profile and (self.device_milli < 1000 or self.device_count != 1):
            raise ValueError(f"{self.device_profile} is an instance of one device, and no share")

    def needing(self, needs: Needs) -> Request:
        """The same of other hardware."""
        return replace(self, **{field.name: getattr(needs, field.name) for field in fields(Needs)})


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


@dataclass(frozen=True, slots=True)
class Taken:
    """What is taken of one host: devices (``device_milli`` thousandths of each), and cores and memory per NUMA node.
    With a ``device_profile`` an instance of that is made of the device, from its slice ``device_start`` on; the
    thousandths are what it is of the device."""

    host: str
    devices: tuple[str, ...]
    allocations: tuple[Allocation, ...]
    device_milli: int = 1000
    device_profile: str = ""
    device_start: int = 0
    companions: tuple[CompanionUse, ...] = ()

    def taken(self) -> dict[str, Any]:
        """By the names of the fields, and no more than they are: for what keeps it in JSON."""
        return dict(zip(_TAKEN, _taken(self), strict=True))


_TAKEN = tuple(one.name for one in fields(Taken))
_taken = attrgetter(*_TAKEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision(Taken):
    """Where a request goes, and what it takes there.

    ``fitting`` hosts had room, of which ``score`` chose (its figures in the order in which they narrowed the field,
    small is good); ``reasons`` say why the others were set aside. ``tree`` are the devices and companions as the
    host reports them: where each hangs. ``request`` is what was asked for.
    """

    fake: bool = False
    score: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    fitting: int = 0
    reasons: tuple[Reason, ...] = ()
    request: Request | None = None
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


RailPolicy = Literal["", "required", "preferred"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gang:
    """``count`` members that are placed together or not at all, each as ``member`` says.

    All lie under one switch of ``level`` (``required``) or as low as they can (``preferred``), under as few switches as
    possible. Blocks of ``segment`` members in a row (0: no blocks) each lie under one switch of ``segment_level``.
    ``per_host`` members may share a host at most (0: as many as fit); ``spread`` has them on as many hosts as possible
    in place of as few. With ``rails`` each member has a host to itself, and all have devices on the same rails of the
    fabric, as many on each: they must (``required``), or do where that can be (``preferred``).
    """

    member: Request
    count: int
    level: Level = "leaf"
    policy: Literal["required", "preferred"] = "preferred"
    segment: int = 0
    segment_level: Level = "leaf"
    per_host: int = 0
    spread: bool = False
    rails: RailPolicy = ""

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
