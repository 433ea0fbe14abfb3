"""Handing devices over on a real kernel with a real IOMMU: that of a guest, in which our driver is run as it is."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from bessemer.drivers.guest import newc
from bessemer.drivers.guest.modules import ModuleTree
from bessemer.drivers.guest.packages import Packages
from bessemer.drivers.guest.real import KERNELS
from tests.drivers import micro_guest

pytestmark = [pytest.mark.real, pytest.mark.long]

MODULES = ("vfio", "vfio_iommu_type1", "vfio_pci")
ROOT = Path(__file__).parents[3]
INIT = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t tmpfs run /run
/bin/busybox mount -t cgroup2 cgroup2 /sys/fs/cgroup
for module in $(/bin/busybox cat /modules/order); do /bin/busybox insmod "/modules/$module"; done
PYTHONPATH={ROOT}/src:{ROOT}:{LIBRARIES} {PYTHON} -B -m tests.drivers.passthrough.in_guest
/bin/busybox poweroff -f
"""
LOADED = (
    "import sys, asyncio, runpy, encodings.ascii, concurrent.futures.thread, importlib._abc\n"
    "import tests.drivers.passthrough.in_guest\n"
    "print('\\n'.join(m.__file__ for m in list(sys.modules.values()) if getattr(m, '__file__', None)))"
)
DISK = "driver=null-co,size=16M,if=none"


def output(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True, cwd=ROOT).stdout


def libraries(files: Iterable[str]) -> set[str]:
    """What the loader finds for these programs and libraries."""
    return {path for file in files for path in re.findall(r"(/\S+) \(0x", output("ldd", file))}


def python() -> tuple[str, set[str]]:
    """The interpreter, and all files that it needs to run the program."""
    binary = str(Path(sys.executable).resolve())
    loaded = set(output(sys.executable, "-c", LOADED).split())
    landmark = {str(Path(sys.base_prefix) / f"lib/python3.{sys.version_info.minor}/os.py")}
    native = {binary, *(file for file in loaded if file.endswith(".so"))}
    return binary, loaded | landmark | native | libraries(native)


async def unpacked(folder: Path) -> Path:
    packages = Packages(micro_guest.package_cache())
    for name in (await packages.kernel(KERNELS), "busybox-static"):
        await packages.unpack(await packages.download(name), folder)
    return folder


def initrd(root: Path) -> bytes:
    lib = next(path for path in (root / "lib/modules", root / "usr/lib/modules") if path.is_dir())
    modules = ModuleTree(next(lib.iterdir())).load_order(MODULES)
    binary, files = python()
    busybox = next(root.glob("**/bin/busybox"))
    tree = {
        "init": newc.file(
            INIT.format(ROOT=ROOT, PYTHON=binary, LIBRARIES=sysconfig.get_path("purelib")).encode(), executable=True
        ),
        "bin/sh": newc.link("busybox"),
        "bin/busybox": newc.file(busybox.read_bytes(), executable=True),
        "modules/order": newc.file("".join(f"{name}.ko\n" for name in modules).encode()),
        "dev/console": newc.character_device(5, 1),
        **{f"modules/{name}.ko": newc.file(content) for name, content in modules.items()},
        **{name: newc.directory() for name in ("proc", "sys", "run", "tmp")},
    }
    for file in sorted(files):
        tree[file.lstrip("/")] = newc.file(Path(file).read_bytes(), executable=True)
    return newc.archive(tree)


def devices(disk: Path) -> list[str]:
    """An NVMe alone; two that are one card, which nothing keeps apart; and one with functions."""
    ports = [f"pcie-root-port,id=rp{n},chassis={n + 1},slot={n}" for n in range(3)]
    subsystem = "sriov_max_vfs=3,sriov_vq_flexible=6,sriov_vi_flexible=3,max_ioqpairs=12,msix_qsize=13"
    nvme = [
        "nvme,serial=a,drive=a,bus=rp0",
        "nvme,serial=b,drive=b,bus=rp1,addr=0.0,multifunction=on",
        "nvme,serial=c,drive=c,bus=rp1,addr=0.1",
        "nvme-subsys,id=ss",
        f"nvme,serial=d,subsys=ss,bus=rp2,{subsystem}",
    ]
    words = ["-drive", f"id=a,file={disk},format=raw,if=none"]
    words += [word for name in "bc" for word in ("-drive", f"id={name},{DISK}")]
    return words + [word for one in (*ports, *nvme) for word in ("-device", one)]


async def said_of(tmp_path: Path) -> dict[str, Any]:
    root = await unpacked(tmp_path / "root")
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(16 << 20)
    (tmp_path / "initrd").write_bytes(await asyncio.to_thread(initrd, root))
    guest = await asyncio.create_subprocess_exec(
        *(
            "qemu-system-x86_64",
            "-machine",
            "q35",
            "-accel",
            "tcg",
            "-cpu",
            "qemu64",
            "-m",
            "512M",
            "-smp",
            "2",
            "-nodefaults",
        ),
        *("-no-reboot", "-display", "none", "-serial", "stdio", "-device", "intel-iommu,intremap=off,caching-mode=on"),
        *devices(disk),
        *("-kernel", str(next(root.glob("boot/vmlinuz-*"))), "-initrd", str(tmp_path / "initrd")),
        *("-append", "console=ttyS0 quiet panic=-1 intel_iommu=on mitigations=off"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(180):
            text, _ = await guest.communicate()
    finally:
        if guest.returncode is None:
            guest.kill()
            await guest.wait()
    found = re.search(rb"SAID (\{.*\})", text)
    assert found is not None, text.decode(errors="replace")[-4000:]
    said: dict[str, Any] = json.loads(found[1])
    return said


async def test_a_kernel_gives_devices_to_vfio_and_takes_them_back(tmp_path: Path) -> None:
    said = await said_of(tmp_path)
    assert said["before"] == ["nvme"] * 4
    assert said["alone"] == said["again"] == {"drivers": ["vfio-pci"], "nodes": [True], "groups": 1}
    assert said["of another"]["reason"] == "DeviceBusy"
    assert said["of a group"]["reason"] == "GroupShared"
    assert said["of a group"]["message"].endswith("is in use by the host (nvme)")
    assert said["a whole group"] == {"drivers": ["vfio-pci"] * 2, "nodes": [True], "groups": 1}
    assert said["functions"] == {"drivers": ["vfio-pci"] * 2, "nodes": [True, True], "groups": 2}
    assert said["more functions"]["reason"] == "FunctionsMissing"
    assert said["card"]["reason"] == "DeviceBusy"
    assert said["made"] == 3
    assert said["threads"] == {
        "available": True,
        "groups": ["/sys/fs/cgroup"],
        "owned": ["0", "0"],
        "given back": ["0-1", "0-1"],
    }
    wiped = said["wiped"]
    assert wiped["ways"][0] == "NVMe format (user data erase)"
    assert wiped["did"] == wiped["ways"][:1], "by a command of its own, and proven"
    assert (wiped["handed"], wiped["handed again"]) == (["vfio-pci"], ["vfio-pci"])
    assert wiped["while it is a's"] == wiped["while it is wiped"] == "BeingWiped"
    assert (wiped["left"], wiped["records"], wiped["unfit"]) == (0, [], {})
    assert (said["after"], said["left"]) == (["nvme"] * 4, [0, []])
