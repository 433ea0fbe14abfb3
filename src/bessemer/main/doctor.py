"""``bessemer doctor``: what this machine can do, and what to install or allow where it cannot.

``missing`` is what guests or engines cannot do without; what they can, or what nothing uses yet, is ``limited``.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.markup import escape

from bessemer.cli.output import DOCUMENTS, document
from bessemer.cli.verbs import DoctorOptions
from bessemer.core.descriptors import obtainable
from bessemer.core.errors import DriverError
from bessemer.core.hosts import Inventory
from bessemer.core.units import show_bytes
from bessemer.drivers.fetch.protocol import Held
from bessemer.drivers.fetch.sweeping import held
from bessemer.drivers.process.protocol import Isolation
from bessemer.main.hostdrivers import local_drivers
from bessemer.main.process import FILES_WANTED
from bessemer.main.settings import Paths, state_directory

Verdict = Literal["ok", "limited", "missing"]
_MARKS = {"ok": "[green]✓[/green]", "limited": "[yellow]~[/yellow]", "missing": "[red]✗[/red]"}
_DISK_WANTED = 5 << 30


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at; ``remedy`` is what to do, "" where nothing is."""

    what: str
    verdict: Verdict
    found: str
    remedy: str = ""


def doctor(options: DoctorOptions) -> int:
    """Print the findings; 1 where something is missing that guests or engines cannot do without."""
    findings = asyncio.run(examine(state_directory(options.state)))
    if options.output in DOCUMENTS:
        print(document([asdict(f) for f in findings], options.output))
    else:
        show(findings)
    return int(any(f.verdict == "missing" for f in findings))


async def examine(state: Path) -> list[Finding]:
    """Look at everything; changes nothing that stays."""
    with tempfile.TemporaryDirectory(prefix="bessemer-doctor-") as scratch:
        drivers = local_drivers(Path(scratch))
        inventory = await drivers.inspect.inventory()
        return [
            _cpu(inventory),
            *_virtualization(inventory),
            _qemu_img(),
            await _isolation(drivers.processes),
            _engine(),
            *_devices(inventory),
            _filters(),
            _disk(state),
            *_content(state),
            _files(),
        ]


def show(findings: Sequence[Finding]) -> None:
    """A line per finding, the remedy below it."""
    console = Console()
    for finding in findings:
        words = escape(f"{finding.what:<16} {finding.found}")
        console.print(f"{_MARKS[finding.verdict]} {words}", highlight=False, soft_wrap=True)
        if finding.remedy:
            console.print(f"                     → {escape(finding.remedy)}", highlight=False, soft_wrap=True)


def _cpu(inventory: Inventory) -> Finding:
    cores = sum(node.cores for node in inventory.numa)
    text = f"{inventory.cpu_model}: {cores} cores, {inventory.threads} threads, {len(inventory.numa)} NUMA node(s)"
    return Finding("processor", "ok", f"{text}, {show_bytes(inventory.memory_bytes)} memory")


def lacking() -> list[Finding]:
    """What guests and engines cannot do without and is not here; looked at without trying anything."""
    return [finding for finding in (_qemu(), _qemu_img(), _engine()) if finding.verdict == "missing"]


def _qemu() -> Finding:
    return _program("qemu-system-x86_64", "qemu-system-x86", use="guests")


def _qemu_img() -> Finding:
    return _program("qemu-img", "qemu-utils", use="disks of guests")


def _filters() -> Finding:
    """No guest has a network between hosts yet, so that a machine without it does all there is to do."""
    found = _program("nft", "nftables", use="packet filters between tenants' networks, which are to come")
    return replace(found, verdict="limited") if found.verdict == "missing" else found


def _virtualization(inventory: Inventory) -> list[Finding]:
    qemu = _qemu()
    if qemu.verdict == "missing":
        return [qemu, Finding("KVM", "missing", "not tried without QEMU")]
    if inventory.virtualization == "kvm":
        return [qemu, Finding("KVM", "ok", "runs a guest")]
    remedy = "enable (nested) virtualization"
    if os.path.exists("/dev/kvm") and not os.access("/dev/kvm", os.R_OK | os.W_OK):
        remedy = f"`usermod -aG kvm {getpass.getuser()}` as root, then sign in anew"
    remedy += ", to run guests at full speed; until then they are emulated"
    return [qemu, Finding("KVM", "limited", inventory.virtualization_note or "does not run a guest", remedy)]


async def _isolation(processes: object) -> Finding:
    from bessemer.drivers.process.real import HostProcesses

    assert isinstance(processes, HostProcesses)
    try:
        found = await processes.isolation()
    except DriverError as error:
        remedy = "apt-get install bubblewrap util-linux; then run the agent as root, or allow user namespaces"
        return Finding("isolation", "missing", error.message, remedy)
    if found is Isolation.STRONG:
        return Finding("isolation", "ok", "strong: own user, namespaces, seccomp, control group")
    return Finding("isolation", "limited", "weak: user namespaces only", "run the agent as root for the strong class")


def _engine() -> Finding:
    import importlib.util

    if importlib.util.find_spec("xllamacpp") is None:
        return Finding("llama.cpp", "missing", "no engine", 'pip install "bessemer[engine]"')
    return Finding("llama.cpp", "ok", "embedded engine is installed")


def _devices(inventory: Inventory) -> list[Finding]:
    gpus = [d for d in inventory.devices if d.kind == "gpu"]
    models = sorted({d.model for d in gpus})
    pages = {size: count for node in inventory.numa for size, count in node.hugepages.items() if count}
    groups = Path("/sys/kernel/iommu_groups")
    count = len(list(groups.iterdir())) if groups.is_dir() else 0
    return [
        Finding("GPUs", "ok" if gpus else "limited", f"{len(gpus)}: {', '.join(models)}" if gpus else "none"),
        Finding("hugepages", "ok" if pages else "limited", str(pages) if pages else "none reserved"),
        Finding(
            "IOMMU groups",
            "ok" if count else "limited",
            str(count),
            "" if count else "needed for GPU passthrough alone: enable the IOMMU in firmware and kernel",
        ),
    ]


def _program(name: str, package: str, *, use: str) -> Finding:
    path = shutil.which(name) or next(
        (p for p in (f"/usr/sbin/{name}", f"/sbin/{name}") if os.access(p, os.X_OK)), None
    )
    if path is None:
        return Finding(package, "missing", f"no {name}", f"apt-get install {package}   (for {use})")
    return Finding(package, "ok", path)


def _disk(state: Path) -> Finding:
    place = next(p for p in (state, *state.parents) if p.exists())
    free = shutil.disk_usage(place).free
    text = f"{show_bytes(free)} free at {place}"
    if free < _DISK_WANTED:
        return Finding("disk", "limited", text, f"{show_bytes(_DISK_WANTED)} leave room for images and models")
    return Finding("disk", "ok", text)


def _content(state: Path) -> list[Finding]:
    """What images and models take; nothing where no control plane is."""
    found = held(Paths(state).content)
    if found == Held():
        return []
    text = f"{show_bytes(found.used_bytes)} in use, {show_bytes(found.idle_bytes)} that nobody names any more"
    return [Finding("content", "ok", f"{text}, {show_bytes(found.coming_bytes)} on the way")]


def _files() -> Finding:
    most = obtainable()
    text = f"{most:,} may be open in a process"
    if most < FILES_WANTED:
        remedy = f"raise the hard limit to {FILES_WANTED:,} or more: `LimitNOFILE=` of the service, or limits.conf"
        return Finding("files", "limited", text, remedy)
    return Finding("files", "ok", text)
