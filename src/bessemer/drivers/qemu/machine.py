"""The command line of a guest: pure, from a spec and open files.

QEMU gets everything it uses as an open file and can reach nothing by path, so it needs no rights of its own. Its user
network is cut off (``restrict=on``): the guest gets an address by DHCP and reaches neither the host nor anything else.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from bessemer.drivers.guest.protocol import REPORT_PORT
from bessemer.drivers.qemu.protocol import MachineSpec, NumaCell
from bessemer.drivers.qemu.tree import tree_words

PROGRAM = "qemu-system-x86_64"
_MARK = "guest=bessemer-"
_NAMESPACE = uuid.UUID("7c1d4a52-3f0e-5d0b-9a51-0d6a4a0b7b11")
_TRANSLATED_CODE_MIB = 128
_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """Descriptors that QEMU inherits. Sockets listen, ``report`` writes a fifo, ``log`` appends."""

    kernel: int
    initrd: int
    qmp: int
    console: int
    report: int
    log: int
    disks: tuple[int, ...] = ()
    seed: int | None = None


def mark(uid: str) -> str:
    """The argument of ``-name`` by which a guest's process is known."""
    return _MARK + uid


def uid_of(argv: list[str]) -> str | None:
    """The uid of the guest that a process with this command line runs; None for any other process."""
    if not argv or not argv[0].rsplit("/", 1)[-1].startswith("qemu-system-"):
        return None
    marks = [word for flag, word in pairwise(argv) if flag == "-name" and word.startswith(_MARK)]
    return marks[0].removeprefix(_MARK).split(",")[0] if marks else None


def command(spec: MachineSpec, files: Files) -> list[str]:
    """``qemu-system-x86_64 …`` for the guest."""
    return [
        PROGRAM,
        *("-name", mark(spec.uid)),
        *("-uuid", str(_uuid(spec.uid))),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-sandbox", _SANDBOX),
        *_processors(spec),
        *_memory(spec),
        *tree_words(spec),
        *("-smbios", "type=1,manufacturer=Bessemer,product=Instance"),
        *_boot(spec, files),
        *("-chardev", f"socket,id=qmp,fd={files.qmp},server=on,wait=off", "-mon", "chardev=qmp,mode=control"),
        *_serial(files),
        *_report(files),
        *("-netdev", "user,id=net0,restrict=on,ipv6=off"),
        *("-device", f"virtio-net-pci,netdev=net0,mac={_mac(spec.uid)},romfile="),
        *("-device", "virtio-rng-pci"),
        *_disks(files),
    ]


def _processors(spec: MachineSpec) -> list[str]:
    # A socket for each node, where they are equal: else one, and the nodes' CPUs are counted off it.
    sizes = {cell.cpus for cell in spec.numa}
    sockets = len(spec.numa) if len(sizes) == 1 and sizes != {0} else 1
    accel = ["kvm"] if spec.accel == "kvm" else ["tcg", "thread=multi", f"tb-size={_TRANSLATED_CODE_MIB}"]
    return [
        *("-machine", "q35,vmport=off" + (",memory-backend=ram" if spec.page_bytes and not spec.numa else "")),
        *("-accel", ",".join(accel)),
        *("-cpu", "host" if spec.accel == "kvm" else "qemu64"),
        *("-smp", f"cpus={spec.cpus},sockets={sockets},cores={spec.cpus // sockets},threads=1"),
    ]


def _memory(spec: MachineSpec) -> list[str]:
    words = ["-m", f"size={spec.memory_bytes >> 10}k"]
    if spec.page_bytes and not spec.numa:
        words += ["-object", json.dumps(_backend(spec, "ram", size=spec.memory_bytes))]
    first = 0
    for number, cell in enumerate(spec.numa):
        cpus = f",cpus={first}-{first + cell.cpus - 1}" if cell.cpus else ""
        backed = f",memdev=ram{number}" if cell.memory_bytes else ""
        words += _cell_memory(spec, number, cell=cell) if backed else []
        words += ["-numa", f"node,nodeid={number}{cpus}{backed}"]
        first += cell.cpus
    for number, row in enumerate(spec.distances):
        words += [
            word
            for other, value in enumerate(row)
            if other != number
            for word in ("-numa", f"dist,src={number},dst={other},val={value}")
        ]
    return words


def _cell_memory(spec: MachineSpec, number: int, *, cell: NumaCell) -> list[str]:
    backend = _backend(spec, f"ram{number}", size=cell.memory_bytes)
    if cell.bound and cell.host_node is not None:
        # Huge pages are counted by node, so they are there; ordinary ones may be short for a while, and a guest that
        # reads over the bridge is better than one that the kernel ends.
        backend |= {"host-nodes": [cell.host_node], "policy": "bind" if spec.page_bytes else "preferred"}
    return ["-object", json.dumps(backend)]


def _backend(spec: MachineSpec, name: str, *, size: int) -> dict[str, Any]:
    """Huge pages by a file in memory: QEMU may open none by path."""
    if not spec.page_bytes:
        return {"qom-type": "memory-backend-ram", "id": name, "size": size}
    huge = {"hugetlb": True, "hugetlbsize": spec.page_bytes}
    return {"qom-type": "memory-backend-memfd", "id": name, "size": size, "share": False, **huge}


def _boot(spec: MachineSpec, files: Files) -> list[str]:
    # Without KVM there is no speculation to guard against, and the guards are slow.
    kernel_line = "console=ttyS0 quiet panic=1 net.ifnames=0" + (" mitigations=off" if spec.accel == "tcg" else "")
    return [
        *("-kernel", f"/proc/self/fd/{files.kernel}"),
        *("-initrd", f"/proc/self/fd/{files.initrd}"),
        *("-append", kernel_line),
    ]


def _serial(files: Files) -> list[str]:
    return [
        *_pass(files.log),
        *(
            "-chardev",
            f"socket,id=console,fd={files.console},server=on,wait=off,logfile={_set(files.log)},logappend=on",
        ),
        *("-serial", "chardev:console"),
    ]


def _report(files: Files) -> list[str]:
    return [
        *_pass(files.report),
        *("-chardev", f"file,id=report,path={_set(files.report)},append=on"),
        *("-device", "virtio-serial-pci,max_ports=2"),
        *("-device", f"virtserialport,chardev=report,name={REPORT_PORT}"),
    ]


def _disks(files: Files) -> list[str]:
    words: list[str] = []
    for number, file in enumerate(files.disks):
        # A guest's disk has no backing file, whatever stands in its header.
        words += [*_pass(file), *_node(f"file{number}", driver="file", filename=_set(file), discard="unmap")]
        words += _node(f"disk{number}", driver="qcow2", file=f"file{number}", backing=None, discard="unmap")
        words += ["-device", f"virtio-blk-pci,drive=disk{number},serial=disk{number}"]
    if files.seed is not None:
        seed = {"read-only": True}
        words += [*_pass(files.seed), *_node("seedfile", driver="file", filename=_set(files.seed), **seed)]
        words += _node("seed", driver="raw", file="seedfile", **seed)
        # On NVMe: cloud-init looks for its seed before the modules of virtio-blk are loaded.
        words += ["-device", "nvme,serial=seed,drive=seed"]
    return words


def _node(name: str, **options: Any) -> list[str]:
    return ["-blockdev", json.dumps({"node-name": name, **options})]


def _pass(file: int) -> list[str]:
    return ["-add-fd", f"fd={file},set={file}"]


def _set(file: int) -> str:
    return f"/dev/fdset/{file}"


def _uuid(uid: str) -> uuid.UUID:
    try:
        return uuid.UUID(uid)
    except ValueError:
        return uuid.uuid5(_NAMESPACE, uid)


def _mac(uid: str) -> str:
    tail = hashlib.sha256(uid.encode()).digest()[:3]
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in tail)
