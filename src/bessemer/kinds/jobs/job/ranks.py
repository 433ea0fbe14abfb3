"""What each member of a gang is told of itself and the others. Pure.

The words are torchrun's (``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``, ``LOCAL_WORLD_SIZE``, ``NODE_RANK``, ``NNODES``,
``MASTER_ADDR``, ``MASTER_PORT``; PyTorch, "torchrun (Elastic Launch)") and, for mpirun, a host file of ``ADDRESS
slots=N`` lines and the same as ``ADDRESS:N,…`` (Open MPI, "mpirun(1)"). A member's devices are named in the variables
that their makers' libraries read.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from zlib import crc32

from bessemer.core.asking import Decision
from bessemer.core.hosts import Device, Inventory
from bessemer.kinds.jobs.job.spec import PREFIX

FIRST_PORT, PORTS = 29_500, 1_000
"""Where a gang's rank 0 listens: one of so many ports from there on."""

VISIBLE: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "nvidia": ("CUDA_VISIBLE_DEVICES",),
        "amd": ("HIP_VISIBLE_DEVICES",),
        "intel": ("ZE_AFFINITY_MASK",),
    }
)
"""By the devices' vendor, the variables that hold the numbers of those that a process may use."""

ORDER: Mapping[str, Mapping[str, str]] = MappingProxyType({"nvidia": {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}})
"""What makes a vendor's numbers those of the bus."""


@dataclass(frozen=True, slots=True)
class Node:
    """A host of the gang, with what its agent found and the ranks that are on it, in order."""

    name: str
    address: str
    devices: Sequence[Device]
    ranks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class World:
    """The gang: its nodes in the order of their lowest ranks, and the port of rank 0."""

    nodes: Sequence[Node]
    port: int

    @property
    def size(self) -> int:
        return sum(len(node.ranks) for node in self.nodes)

    @property
    def hostfile(self) -> str:
        return "".join(f"{node.address} slots={len(node.ranks)}\n" for node in self.nodes)


def world_of(
    members: Sequence[Decision], found: Mapping[str, Inventory | None], *, subnet: str, port: int
) -> World | str:
    """The gang that these decisions make, by rank; or what is in the way: a host without an address in ``subnet``."""
    ranks: dict[str, list[int]] = {}
    for rank, decision in enumerate(members):
        ranks.setdefault(decision.host, []).append(rank)
    nodes = []
    for name, here in ranks.items():
        inventory = found.get(name)
        address = address_of(inventory.addresses if inventory else (), subnet=subnet)
        if not address and (subnet or len(ranks) > 1):
            return f"Host {name} has no address {f'in {subnet}' if subnet else 'that others reach'}"
        gpus = sorted((d for d in (inventory.devices if inventory else ()) if d.kind == "gpu"), key=_by_bus)
        nodes.append(Node(name, address or "127.0.0.1", gpus, tuple(here)))
    return World(nodes, port)


def address_of(addresses: Sequence[str], *, subnet: str) -> str:
    """A host's address in the network, or its first one, of version 4 before 6; "" where there is none."""
    network = ipaddress.ip_network(subnet) if subnet else None
    known = [found for text in addresses if (found := _address(text)) is not None]
    usable = [a for a in known if (a in network if network else not (a.is_loopback or a.is_link_local))]
    return str(min(usable, key=lambda a: a.version)) if usable else ""


def environment(world: World, rank: int, *, devices: Sequence[str]) -> Mapping[str, str]:
    """What the member of that rank is told; ``devices`` are the ids that it has."""
    number, node = next((n, node) for n, node in enumerate(world.nodes) if rank in node.ranks)
    told = {
        "RANK": str(rank),
        "WORLD_SIZE": str(world.size),
        "LOCAL_RANK": str(node.ranks.index(rank)),
        "LOCAL_WORLD_SIZE": str(len(node.ranks)),
        "NODE_RANK": str(number),
        "NNODES": str(len(world.nodes)),
        "MASTER_ADDR": world.nodes[0].address,
        "MASTER_PORT": str(world.port),
        f"{PREFIX}ADDRESS": node.address,
        f"{PREFIX}HOSTS": ",".join(f"{one.address}:{len(one.ranks)}" for one in world.nodes),
        f"{PREFIX}DEVICES": ",".join(devices),
    }
    return {**told, **visible(node.devices, devices)}


def visible(found: Sequence[Device], mine: Sequence[str]) -> Mapping[str, str]:
    """The makers' variables. A library counts the devices that it can open, by their place on the bus, and a member can
    open its own alone; one that has none of a maker is told so."""
    words: dict[str, str] = {}
    for vendor in sorted({device.vendor for device in found} & VISIBLE.keys()):
        own = [device.id for device in found if device.vendor == vendor and device.id in mine]
        numbers = ",".join(map(str, range(len(own))))
        words |= dict.fromkeys(VISIBLE[vendor], numbers)
        words |= ORDER.get(vendor, {})
    return words


def port_of(uid: str, attempt: int, *, taken: frozenset[int]) -> int:
    """Where rank 0 of the attempt listens: a port that follows from both, or the next that no other gang there has."""
    start = crc32(f"{uid}/{attempt}".encode()) % PORTS
    ports = (FIRST_PORT + (start + step) % PORTS for step in range(PORTS))
    return next((port for port in ports if port not in taken), FIRST_PORT + start)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """A host may be anybody's in the end: what is no address is none."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _by_bus(device: Device) -> tuple[str, str]:
    return device.address, device.id
