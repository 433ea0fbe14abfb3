"""A builder whose image is a few bytes and takes no time: for control planes over fake hosts."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

from bessemer.drivers import Hook, no_hook
from bessemer.drivers.guest.protocol import BuiltImage, Progress

FAKE_KERNEL = "6.1.0-fake"


class FakeGuest:
    """Implements `guest.protocol.Guest`. What it builds boots on fake hosts alone."""

    def __init__(self, *, on_call: Hook = no_hook) -> None:
        self._on_call = on_call

    async def build(self, dest: Path, *, cache: Path, progress: Progress) -> BuiltImage:
        self._on_call("guest.build")
        progress("Writing a fake image", 0.5)
        members = {"kernel": b"fake kernel", "initrd": b"fake initrd"}
        content = b"fake micro-guest image\n" + b"\n".join(members.values())
        await asyncio.to_thread(_place, dest, content)
        progress("Done", 1.0)
        self._on_call("guest.build.done")
        return BuiltImage(
            path=dest,
            digest=_digest(content),
            size_bytes=len(content),
            kernel_version=FAKE_KERNEL,
            members={name: _digest(data) for name, data in members.items()},
        )


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _place(dest: Path, content: bytes) -> None:
    dest.parent.mkdir(parents=True, exist_ok=True)
    dest.write_bytes(content)
