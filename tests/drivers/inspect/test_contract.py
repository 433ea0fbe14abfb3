"""One contract for fake hosts, a drawn machine and this one."""

from __future__ import annotations

from pathlib import Path

import pytest

from bessemer.drivers.inspect.fake import FakeInspect
from bessemer.drivers.inspect.kvm import KvmProbe
from bessemer.drivers.inspect.protocol import Inspect
from bessemer.drivers.inspect.real import LocalInspect
from bessemer.drivers.inspect.sysfs import Machine
from tests.drivers.inspect.tree import two_socket_server


@pytest.fixture(params=["fake", "drawn", pytest.param("real", marks=pytest.mark.real)])
def inspect(request: pytest.FixtureRequest, tmp_path: Path) -> Inspect:
    if request.param == "fake":
        return FakeInspect(7)
    probe = KvmProbe(tmp_path / "kvm.json", device=tmp_path / "no-kvm")
    if request.param == "drawn":
        machine = Machine(two_socket_server(tmp_path / "root").root)
        return LocalInspect(probe, machine=machine, gpus=dict)
    return LocalInspect(KvmProbe(tmp_path / "kvm.json"))


async def test_an_inventory_is_whole_and_stable(inspect: Inspect) -> None:
    found = await inspect.inventory()
    assert found == await inspect.inventory()
    assert found.kernel
    assert found.boot_id
    assert found.threads > 0
    assert found.memory_bytes > 0
    assert all(0 < node.cores <= node.threads for node in found.numa)
    assert found.virtualization in {"kvm", "tcg"}
    ids = [device.id for device in found.devices]
    assert len(ids) == len(set(ids))
    nodes = {node.id for node in found.numa}
    assert all(device.numa_node in nodes and device.model for device in found.devices)
