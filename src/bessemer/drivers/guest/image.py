"""The micro-guest's image as content: a tar with one digest, packed the same way each time, opened only if whole."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bessemer.core.errors import DriverError

FORMAT = "bessemer-micro-guest/1"
MEMBERS = ("kernel", "initrd")
IMAGE_LIMIT_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class OpenedImage:
    """What a guest boots, verified."""

    kernel: bytes
    initrd: bytes
    kernel_version: str


def digest_of(data: bytes) -> str:
    """``sha256:HEX``, as every digest here reads."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def pack(kernel: bytes, initrd: bytes, *, kernel_version: str, packages: Mapping[str, str]) -> bytes:
    """The image's bytes. ``packages`` are the versions by name that it was made of."""
    members = {"kernel": kernel, "initrd": initrd}
    manifest = {
        "format": FORMAT,
        "kernelVersion": kernel_version,
        "packages": dict(sorted(packages.items())),
        "members": {name: digest_of(data) for name, data in members.items()},
    }
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in {"manifest.json": json.dumps(manifest, indent=1).encode(), **members}.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o444
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def open_image(path: Path, digest: str) -> OpenedImage:
    """Read the image if it is the one with this digest: the bytes returned are the bytes that were checked.

    Raises DriverError ``DigestMismatch``, ``ImageInvalid``.
    """
    try:
        with open(path, "rb") as stream:
            content = stream.read(IMAGE_LIMIT_BYTES + 1)
    except OSError as error:
        raise DriverError("ImageInvalid", "the image cannot be read", internal=str(error)) from error
    if digest_of(content) != digest:
        raise DriverError("DigestMismatch", "the image is not the one that was imported", internal=str(path))
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
            manifest = json.loads(_member(tar, "manifest.json"))
            kernel, initrd = (_member(tar, name) for name in MEMBERS)
            return OpenedImage(kernel, initrd, str(manifest["kernelVersion"]))
    except (tarfile.TarError, ValueError, KeyError, TypeError) as error:
        raise DriverError("ImageInvalid", "the image is no micro-guest image", internal=str(error)) from error


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    stream = tar.extractfile(name)
    if stream is None:
        raise KeyError(name)
    return stream.read()
