"""Builds the micro-guest from Debian's kernel and busybox packages, whichever release this machine runs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

from bessemer.core.errors import DriverError
from bessemer.drivers.guest import newc
from bessemer.drivers.guest.image import digest_of, pack
from bessemer.drivers.guest.modules import ModuleTree
from bessemer.drivers.guest.packages import Package, Packages
from bessemer.drivers.guest.protocol import BuiltImage, Progress
from bessemer.drivers.scratch import refusal, scratch

KERNELS = ("linux-image-cloud-amd64", "linux-image-amd64")
"""The first that the distribution has is taken: the smaller, the faster it boots."""

MODULES = (
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_console",
    "virtio_rng",
    "nvme",
    "isofs",
    "button",
    "evdev",
)
_ROOT = Path(__file__).with_name("root")
_EMPTY_DIRECTORIES = ("dev", "mnt", "proc", "root", "run", "sbin", "sys", "tmp", "usr/bin", "usr/sbin")


class DebianGuest:
    """Implements `guest.protocol.Guest` with apt and dpkg-deb."""

    async def build(self, dest: Path, *, cache: Path, progress: Progress) -> BuiltImage:
        packages = Packages(cache)
        progress("Looking up the distribution's kernel", 0.0)
        name = await packages.kernel(KERNELS)
        progress(f"Downloading {name}", 0.05)
        kernel = await packages.download(name)
        progress("Downloading busybox-static", 0.6)
        busybox = await packages.download("busybox-static")
        progress("Unpacking", 0.65)
        with scratch("unpack-", reason="ImageBuildFailed", within=cache) as unpacked:
            for package in (kernel, busybox):
                await packages.unpack(package, unpacked)
            progress("Building the image", 0.85)
            built = await asyncio.to_thread(_build, unpacked, dest, packages=(kernel, busybox))
        progress("Done", 1.0)
        return built


def _build(root: Path, dest: Path, *, packages: tuple[Package, ...]) -> BuiltImage:
    kernel = _only(root / "boot", "vmlinuz-*")
    version = kernel.name.removeprefix("vmlinuz-")
    members = {"kernel": kernel.read_bytes(), "initrd": newc.archive(_tree(root, version))}
    content = pack(**members, kernel_version=version, packages={p.name: p.version for p in packages})
    _place(dest, content)
    return BuiltImage(
        path=dest,
        digest=digest_of(content),
        size_bytes=len(content),
        kernel_version=version,
        members={name: digest_of(data) for name, data in members.items()},
    )


def _tree(root: Path, version: str) -> Mapping[str, newc.Entry]:
    """The guest's files. The initramfs stays unpacked: it is small, and a guest without KVM unpacks slowly."""
    lib = next(path for path in (root / "lib/modules", root / "usr/lib/modules") if (path / version).is_dir())
    modules = ModuleTree(lib / version).load_order(MODULES)
    tree = {
        "init": newc.link("bin/busybox"),
        "bin/busybox": newc.file(_only(root, "*bin/busybox").read_bytes(), executable=True),
        "lib/modules/order": newc.file("".join(f"{name}.ko\n" for name in modules).encode()),
        "dev/console": newc.character_device(5, 1),
        "etc/hostname": newc.file(b"micro-guest\n"),
    }
    tree.update({f"lib/modules/{name}.ko": newc.file(content) for name, content in modules.items()})
    tree.update({name: newc.directory() for name in _EMPTY_DIRECTORIES})
    for path in sorted(_ROOT.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            tree[str(path.relative_to(_ROOT))] = newc.file(data, executable=data.startswith(b"#!"))
    return tree


def _only(root: Path, pattern: str) -> Path:
    found = sorted(root.glob(pattern)) or sorted((root / "usr").glob(pattern))
    if not found:
        raise DriverError("ImageBuildFailed", f"a package of the distribution lacks {pattern}")
    return found[0]


def _place(dest: Path, content: bytes) -> None:
    """Write beside and rename, so that ``dest`` is always a whole image."""
    beside = dest.with_name(f".{dest.name}.{os.getpid()}")
    try:
        dest.parent.mkdir(parents=True, exist_ok=True)
        with open(beside, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(dest)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise refusal(error, "the image cannot be written", reason="ImageBuildFailed") from error
