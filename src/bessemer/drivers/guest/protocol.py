"""What the embedded micro-guest is: how its image is built, what its seed holds and what it reports.

An image is content: one file with one digest, an uncompressed tar of ``kernel``, ``initrd`` and ``manifest.json`` with
fixed owners and times. Two builds from the same packages are equal bit for bit.

A seed is a NoCloud disk (ISO 9660, label ``cidata``); `seed_files` makes what stands in it. The guest reads it, brings
up its NIC by DHCP and writes exactly one line of JSON to the virtio-serial port `REPORT_PORT`::

    {"nonce": …, "hostname": …, "kernel": "6.1.0-…", "cpus": 2, "memoryBytes": …, "addresses": ["10.0.2.15"],
     "uptimeSeconds": 1.5}

It is no distribution: a kernel, a shell as root on the serial console, and nothing that is kept on a disk.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

REPORT_PORT = "org.bessemer.report"
REPORT_LIMIT_BYTES = 4096
"""A longer report is invalid."""

MEMORY_SLACK_BYTES = 4 << 20
"""``memoryBytes`` is the RAM that the firmware gave the kernel: less than the machine's by at most this."""

Progress = Callable[[str, float], None]
"""Called with what is being done and the fraction of the whole that is done, 0.0 to 1.0."""

_WORD = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltImage:
    """A micro-guest image. ``members`` are the digests of what is inside; digests read ``sha256:HEX``."""

    path: Path
    digest: str
    size_bytes: int
    kernel_version: str
    members: Mapping[str, str]


class Guest(Protocol):
    """Builds images. Nothing is installed on this machine, and root is not needed."""

    async def build(self, dest: Path, *, cache: Path, progress: Progress) -> BuiltImage:
        """Build the image at ``dest`` (atomically; an older one there is replaced), keeping packages in ``cache``.

        Raises DriverError ``PackagesUnavailable``, ``DiskFull``, ``ImageBuildFailed``.
        """
        ...


def seed_files(*, instance_id: str, hostname: str, nonce: str) -> Mapping[str, str]:
    """What stands in a guest's seed: ``meta-data`` and ``user-data`` as NoCloud knows them, with the nonce beside.

    Raises ValueError for a word that could not stand unquoted in YAML and a shell.
    """
    for word in (instance_id, hostname, nonce):
        if not _WORD.match(word):
            raise ValueError(f"not a plain word: {word[:40]!r}")
    meta = {"instance-id": instance_id, "local-hostname": hostname, "bessemer-nonce": nonce}
    return {
        "meta-data": "".join(f"{key}: {value}\n" for key, value in meta.items()),
        "user-data": "#cloud-config\n{}\n",
    }


def parse_meta(text: str) -> Mapping[str, str]:
    """Read ``meta-data`` as the guest does: a ``key: value`` per line."""
    pairs = (line.partition(":") for line in text.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}
