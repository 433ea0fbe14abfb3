"""Disks as files below one directory: ``UID/root.qcow2`` and ``UID/seed.iso``.

Each is written beside its place and renamed, so what stands there is whole; a crash leaves at most a hidden file, which
the next call for that uid, or `remove`, takes away.
"""

from __future__ import annotations

import asyncio
import errno
import io
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from pycdlib import PyCdlib

from bessemer.core.errors import DriverError
from bessemer.drivers.disks.header import virtual_size
from bessemer.drivers.disks.protocol import SEED_LIMIT_BYTES, DiskPaths, Space

_UID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_CLUSTER_SLACK_BYTES = 1 << 20
"""What qemu-img writes for an empty disk, and more."""

_TIMEOUT_SECONDS = 60.0


class QcowDisks:
    """Implements `disks.protocol.Disks` below ``root``, with ``qemu-img``."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def create(self, uid: str, size_bytes: int) -> Path:
        path = self._home(uid) / "root.qcow2"
        if path.exists():
            if virtual_size(path) < size_bytes:
                await _qemu_img("resize", "-q", "-f", "qcow2", str(path), str(size_bytes))
            return path
        beside = self._beside(path)
        try:
            self._make_home(uid)
            await _qemu_img("create", "-q", "-f", "qcow2", str(beside), str(size_bytes))
            _settle(beside, path)
        except OSError as error:
            raise _failure(error) from error
        finally:
            beside.unlink(missing_ok=True)
        return path

    async def seed(self, uid: str, files: Mapping[str, str]) -> Path:
        content = {name: text.encode() for name, text in files.items()}
        if sum(map(len, content.values())) > SEED_LIMIT_BYTES:
            raise ValueError("the seed is too large")
        path = self._home(uid) / "seed.iso"
        beside = self._beside(path)
        image = await asyncio.to_thread(_iso, content)
        try:
            self._make_home(uid)
            beside.touch(mode=0o600)
            beside.write_bytes(image)
            _settle(beside, path)
        except OSError as error:
            raise _failure(error) from error
        finally:
            beside.unlink(missing_ok=True)
        return path

    async def paths(self, uid: str) -> DiskPaths:
        root, seed = (self._home(uid) / name for name in ("root.qcow2", "seed.iso"))
        return DiskPaths(root if root.exists() else None, seed if seed.exists() else None)

    async def remove(self, uid: str) -> None:
        try:
            await asyncio.to_thread(shutil.rmtree, self._home(uid))
        except FileNotFoundError:
            return
        except OSError as error:
            raise _failure(error) from error

    async def uids(self) -> frozenset[str]:
        if not self._root.is_dir():
            return frozenset()
        return frozenset(entry.name for entry in self._root.iterdir() if entry.is_dir())

    async def space(self) -> Space:
        self._root.mkdir(parents=True, exist_ok=True)
        promised = [virtual_size(path) for path in sorted(self._root.glob("*/root.qcow2"))]
        usage = shutil.disk_usage(self._root)
        return Space(usage.total, usage.free, sum(promised))

    def _home(self, uid: str) -> Path:
        if not _UID.match(uid):
            raise ValueError(f"not a uid: {uid[:40]!r}")
        return self._root / uid

    def _make_home(self, uid: str) -> None:
        self._home(uid).mkdir(parents=True, exist_ok=True, mode=0o700)
        if shutil.disk_usage(self._root).free < _CLUSTER_SLACK_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _beside(self, path: Path) -> Path:
        return path.with_name(f".{path.name}.new")


def _settle(beside: Path, path: Path) -> None:
    """Make what is written survive a power cut, then show it."""
    with open(beside, "rb") as stream:
        os.fsync(stream.fileno())
    beside.chmod(0o600)
    beside.replace(path)


def _iso(files: Mapping[str, bytes]) -> bytes:
    """An ISO 9660 image labelled ``cidata``: the NoCloud data source of cloud-init."""
    iso = PyCdlib()
    iso.new(interchange_level=3, vol_ident="cidata", joliet=3, rock_ridge="1.09")
    for number, (name, data) in enumerate(files.items()):
        iso.add_fp(io.BytesIO(data), len(data), f"/F{number}.;1", rr_name=name, joliet_path=f"/{name}")
    out = io.BytesIO()
    iso.write_fp(out)
    iso.close()
    return out.getvalue()


async def _qemu_img(*arguments: str) -> bytes:
    try:
        process = await asyncio.create_subprocess_exec(
            "qemu-img",
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except FileNotFoundError as error:
        raise DriverError("QemuMissing", "qemu-img is not on this machine: install qemu-utils") from error
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            out, words = await process.communicate()
    except TimeoutError as error:
        raise DriverError("DiskFailed", "qemu-img does not end") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        said = words.decode(errors="replace")
        if os.strerror(errno.ENOSPC) in said:
            raise DriverError("DiskFull", "the host's disk is full", internal=said)
        raise DriverError("DiskFailed", "the disk could not be made", internal=said)
    return out


def _failure(error: OSError) -> DriverError:
    if error.errno in _FULL:
        return DriverError("DiskFull", "the host's disk is full", internal=str(error))
    return DriverError("DiskFailed", "the disk could not be written", internal=str(error))
