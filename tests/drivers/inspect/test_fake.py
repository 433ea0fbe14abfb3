"""Fake hosts: a machine of eight GPUs, placed by its ordinal."""

from __future__ import annotations

from collections import Counter

from bessemer.drivers.inspect.fake import FakeInspect


async def test_a_fake_host_says_so_and_has_the_shape_of_a_real_one() -> None:
    found = await FakeInspect(0).inventory()
    assert found.fake
    kinds = Counter(device.kind for device in found.devices)
    assert kinds == {"gpu": 8, "nic": 8, "disk": 8}
    gpus = [device for device in found.devices if device.kind == "gpu"]
    assert Counter(gpu.numa_node for gpu in gpus) == {0: 4, 1: 4}
    assert Counter(gpu.pcie_switch for gpu in gpus) == {f"switch-{n}": 2 for n in range(4)}
    assert {gpu.nvlink_domain for gpu in gpus} == {"nvlink-0"}
    assert [gpu.rail for gpu in gpus] == list(range(8))
    assert len({device.address for device in found.devices}) == len(found.devices)


async def test_the_place_follows_from_the_ordinal() -> None:
    hosts = [await FakeInspect(ordinal).inventory() for ordinal in range(200)]
    assert [(h.rack, h.leaf, h.spine) for h in (hosts[0], hosts[17], hosts[199])] == [
        ("rack-000", "leaf-00", "spine-0"),
        ("rack-004", "leaf-01", "spine-0"),
        ("rack-049", "leaf-12", "spine-3"),
    ]
    assert len({h.boot_id for h in hosts}) == len({tuple(h.addresses) for h in hosts}) == 200
    assert await FakeInspect(17).inventory() == hosts[17]


async def test_a_lost_device_is_left_out() -> None:
    inspect = FakeInspect(3)
    inspect.lost.add("gpu-5")
    assert "gpu-5" not in {device.id for device in (await inspect.inventory()).devices}
