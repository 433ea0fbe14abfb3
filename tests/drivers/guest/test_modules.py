"""Kernel modules in the order in which they load."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from bessemer.core.errors import DriverError
from bessemer.drivers.guest.modules import ModuleTree


def module(root: Path, name: str, depends: str = "", softdep: str = "") -> None:
    soft = f"softdep=pre: {softdep}\0" if softdep else ""
    path = root / "kernel" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    content = f"\x7fELF\0depends={depends}\0{soft}name=x\0".encode()
    path.write_bytes(lzma.compress(content) if name.endswith(".xz") else content)


def test_dependencies_come_first_and_once(tmp_path: Path) -> None:
    module(tmp_path, "virtio_net.ko", "virtio,net_failover")
    module(tmp_path, "net_failover.ko", "failover")
    module(tmp_path, "failover.ko")
    module(tmp_path, "virtio.ko.xz", "virtio_ring")
    module(tmp_path, "virtio_ring.ko")
    module(tmp_path, "virtio-rng.ko", "virtio", softdep="absent failover")
    order = [*ModuleTree(tmp_path).load_order(["virtio_net", "virtio-rng"])]
    assert order == ["virtio_ring", "virtio", "failover", "net_failover", "virtio_net", "virtio_rng"]


def test_what_is_built_in_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "modules.builtin").write_text("kernel/drivers/nvme/host/nvme-core.ko\n")
    module(tmp_path, "isofs.ko", "nvme-core")
    assert [*ModuleTree(tmp_path).load_order(["nvme_core", "isofs"])] == ["isofs"]


def test_a_module_that_is_missing_is_named(tmp_path: Path) -> None:
    module(tmp_path, "isofs.ko", "cdrom")
    with pytest.raises(DriverError, match="no module cdrom") as caught:
        ModuleTree(tmp_path).load_order(["isofs"])
    assert caught.value.reason == "ImageBuildFailed"
