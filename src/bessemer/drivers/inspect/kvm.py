"""Whether KVM truly runs a guest here.

An open ``/dev/kvm`` proves little: there are machines where QEMU aborts on it and machines where the guest hangs. So
one is run: a tiny firmware that does what every kernel does first and then tells QEMU to exit. The verdict holds for a
boot of the machine and a version of QEMU, and is kept on disk for them.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bessemer.drivers.inspect.firmware import EXIT_PORT, PASSED, firmware
from bessemer.drivers.qemu.machine import PROGRAM

PROBE_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """``virtualization`` as in `core.hosts.Inventory`, and why it is not more."""

    virtualization: Literal["kvm", "tcg", "none"]
    note: str = ""


class KvmProbe:
    """Finds the verdict, and keeps it in the file ``cache``."""

    def __init__(self, cache: Path, *, device: Path = Path("/dev/kvm"), program: str = PROGRAM) -> None:
        self._cache = cache
        self._device = device
        self._program = program

    async def verdict(self, boot_id: str) -> Verdict:
        """How guests run on this machine. Never raises; a probe that hangs is ended after `PROBE_SECONDS`."""
        version = await self._version()
        if not version:
            return Verdict("none", f"{self._program} is not installed")
        key = f"{boot_id} {version} {self._device}"
        kept = self._kept(key)
        if kept is None:
            kept = await self._probe()
            self._keep(key, kept)
        return kept

    async def _probe(self) -> Verdict:
        if not self._device.exists():
            return Verdict("tcg", f"there is no {self._device}")
        if not os.access(self._device, os.R_OK | os.W_OK):
            return Verdict("tcg", f"{self._device} is not open to this user")
        trouble = await run_guest("kvm", "host", program=self._program)
        if trouble:
            return Verdict("tcg", f"KVM runs no guest: {trouble}")
        if os.geteuid() == 0 and not _open_to_others(self._device):
            return Verdict("tcg", f"{self._device} is root's alone, and guests do not run as root: give it to a group")
        return Verdict("kvm")

    async def _version(self) -> str:
        try:
            process = await asyncio.create_subprocess_exec(
                self._program, "--version", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
            )
        except OSError:
            return ""
        out, _ = await process.communicate()
        return out.decode(errors="replace").partition("\n")[0] if process.returncode == 0 else ""

    def _kept(self, key: str) -> Verdict | None:
        try:
            kept = json.loads(self._cache.read_text())
            return Verdict(kept["virtualization"], kept["note"]) if kept["key"] == key else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _keep(self, key: str, verdict: Verdict) -> None:
        beside = self._cache.with_suffix(".new")
        try:
            self._cache.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text(json.dumps({"key": key, "virtualization": verdict.virtualization, "note": verdict.note}))
            beside.replace(self._cache)
        except OSError:
            # Without a cache the next look probes again, which is slower and no less right.
            return


def _open_to_others(device: Path) -> bool:
    mode = device.stat().st_mode
    return mode & 0o060 == 0o060 or mode & 0o006 == 0o006


async def run_guest(accel: str, cpu: str, *, program: str = PROGRAM, seconds: float = PROBE_SECONDS) -> str:
    """Run the probe's guest once: "" when it ran to its end, else in a phrase what happened instead."""
    with tempfile.TemporaryDirectory(prefix="bessemer-probe-") as scratch:
        rom = Path(scratch) / "probe.rom"
        rom.write_bytes(firmware())
        process = await asyncio.create_subprocess_exec(
            *(program, "-machine", "q35", "-accel", accel, "-cpu", cpu, "-smp", "1", "-m", "16M"),
            *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-bios", str(rom)),
            *("-device", f"isa-debug-exit,iobase={EXIT_PORT:#x},iosize=0x01"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(seconds):
                _, said = await process.communicate()
        except TimeoutError:
            return f"it hangs with -cpu {cpu}"
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()
    if process.returncode == PASSED:
        return ""
    words = said.decode(errors="replace").strip().partition("\n")[0][-200:]
    return f"QEMU ends with -cpu {cpu}: {words or 'without a word'}"
