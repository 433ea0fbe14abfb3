"""What members are told of each other: pure, from decisions and what agents found."""

from __future__ import annotations

from bessemer.core.asking import Decision
from bessemer.core.hosts import Device, Inventory
from bessemer.kinds.jobs.job.ranks import (
    FIRST_PORT,
    PORTS,
    address_of,
    environment,
    port_of,
    visible,
    world_of,
)


def at(host: str) -> Decision:
    return Decision(host=host, devices=(), allocations=())


def gpu(bus: str, vendor: str = "nvidia") -> Device:
    return Device(id=f"gpu-{bus}", kind="gpu", model="X", vendor=vendor, address=bus)


FOUND = {
    "a": Inventory(addresses=["fd00::1", "10.0.0.1", "172.17.0.1"]),
    "b": Inventory(addresses=["10.0.0.2", "nonsense"]),
}


def test_ranks_on_two_hosts() -> None:
    world = world_of([at("a"), at("a"), at("b")], FOUND, subnet="", port=29_500)
    assert not isinstance(world, str)
    told = environment(world, 2, devices=())
    words = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK", "NNODES", "MASTER_ADDR")
    assert [told[word] for word in words] == ["2", "3", "0", "1", "1", "2", "10.0.0.1"]
    assert told["BESSEMER_HOSTS"] == "10.0.0.1:2,10.0.0.2:1"
    assert world.hostfile == "10.0.0.1 slots=2\n10.0.0.2 slots=1\n"


def test_the_subnet_chooses_the_interface() -> None:
    assert address_of(FOUND["a"].addresses, subnet="172.16.0.0/12") == "172.17.0.1"
    assert address_of(FOUND["a"].addresses, subnet="fd00::/8") == "fd00::1"
    assert world_of([at("a"), at("b")], FOUND, subnet="172.16.0.0/12", port=1) == (
        "Host b has no address in 172.16.0.0/12"
    )


def test_a_gang_on_one_host_needs_no_address() -> None:
    world = world_of([at("a"), at("a")], {"a": Inventory()}, subnet="", port=1)
    assert not isinstance(world, str)
    assert environment(world, 1, devices=())["MASTER_ADDR"] == "127.0.0.1"
    assert isinstance(world_of([at("a"), at("b")], {}, subnet="", port=1), str)


def test_a_members_devices_are_numbered_as_it_sees_them() -> None:
    found = [gpu("0000:18:00.0"), gpu("0000:20:00.0", "amd"), gpu("0000:28:00.0"), gpu("0000:38:00.0")]
    mine = ["gpu-0000:38:00.0", "gpu-0000:28:00.0"]
    assert visible(found, mine) == {
        "CUDA_VISIBLE_DEVICES": "0,1",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "HIP_VISIBLE_DEVICES": "",
    }
    assert visible([], []) == {}


def test_two_gangs_on_a_host_have_two_ports() -> None:
    first = port_of("u-1", 0, taken=frozenset())
    assert FIRST_PORT <= first < FIRST_PORT + PORTS
    assert port_of("u-1", 0, taken=frozenset({first})) != first
    full = frozenset(range(FIRST_PORT, FIRST_PORT + PORTS))
    assert port_of("u-1", 0, taken=full) in full
