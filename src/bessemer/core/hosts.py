"""A host as its agent sees it: what of it may be sold, and how it lies.

Memory is bytes, cores are counted, speeds are Mbit/s. An agent may lie: bounds hold what that may cost others.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator

from bessemer.core.cpus import CPUS_MAX
from bessemer.core.resource import ApiModel
from bessemer.core.slices import Partitioning

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

NVLINK_PARTITIONS_MAX = 64
"""Of one host; all of them together name four times as many devices as it may have at most."""

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
    functions: Count = Field(
        0,
        exclude_if=lambda said: not said,
        description="How many virtual functions it can give; 0 where it is given whole only.",
    )
    healthy: bool = Field(True, description="Whether it may be given to anybody.")
    in_use: bool = Field(
        False,
        exclude_if=lambda said: not said,
        description="Whether the host needs it itself: its own disk, its own way out.",
    )
    unfit: Word = Field(
        "",
        exclude_if=lambda said: not said,
        description="Why nobody may have it now, where its agent knows: it is being wiped.",
    )


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


UNSAID_ENGINES = ("llamacpp",)
"""The sorts of engines of a host whose report names none."""


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
    passthrough: bool = Field(
        True, exclude_if=lambda said: said, description="Whether a guest can be handed devices: needs an IOMMU."
    )
    isolation: Literal["strong", "weak", "none"] = Field(
        "none", description="How engines of several tenants are kept apart here: strong, weak or none."
    )
    isolation_note: Note = Field("", description="What is missing for more.")
    engines: list[Word] = Field(
        default_factory=list,
        max_length=16,
        exclude_if=lambda said: not said,
        description="Sorts of engines that it has; none said: llamacpp alone.",
    )
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
    nvlink_partitions: list[Annotated[list[Word], Field(min_length=1, max_length=DEVICES_MAX)]] = Field(
        default_factory=list,
        max_length=NVLINK_PARTITIONS_MAX,
        exclude_if=lambda said: not said,
        description="Sets of GPUs, by id, that can have NVLink among themselves; none said: any of one domain can.",
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

    @field_validator("nvlink_partitions")
    @classmethod
    def _each_once(cls, partitions: list[list[str]]) -> list[list[str]]:
        if any(len(set(partition)) < len(partition) for partition in partitions):
            raise ValueError("an NVLink partition names a device twice")
        if len({frozenset(partition) for partition in partitions}) < len(partitions):
            raise ValueError("an NVLink partition is said twice")
        if sum(map(len, partitions)) > 4 * DEVICES_MAX:
            raise ValueError(f"NVLink partitions of more than {4 * DEVICES_MAX} devices in all")
        return partitions

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
