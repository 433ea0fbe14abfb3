"""The system calls that a confined process may not make, as the kernel reads them.

A deny list: what reaches other processes, other namespaces, the kernel's own code or its least tested doors. Sockets
are limited to the families that a network namespace contains; AF_VSOCK would reach the hypervisor, AF_ALG and the rest
are attack surface. It is the second wall; the first are the user, the namespaces and the lack of capabilities.
"""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Mapping

# (x86_64, aarch64); None where the architecture has no such call.
_DENIED: Mapping[str, tuple[int, int | None]] = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "bpf": (321, 280),
    "chroot": (161, 51),
    "clock_adjtime": (305, 266),
    "clock_settime": (227, 112),
    "delete_module": (176, 106),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "init_module": (175, 105),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "ioperm": (173, None),
    "iopl": (172, None),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "move_pages": (279, 239),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "pivot_root": (155, 41),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "setns": (308, 268),
    "settimeofday": (164, 170),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
    "vhangup": (153, 58),
}
_CLONE, _CLONE3, _SOCKET = (56, 220), (435, 435), (41, 198)
_FAMILIES = (1, 2, 10, 16)  # AF_UNIX, AF_INET, AF_INET6, AF_NETLINK
_CLONE_NEW = 0x7E020080  # every CLONE_NEW* flag
_X32 = 0x40000000

_LOAD, _JUMP_EQUAL, _JUMP_ABOVE, _JUMP_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER, _ARCHITECTURE, _ARGUMENT = 0, 4, 16
_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}


def program(machine: str = "") -> bytes:
    """The BPF program for this machine, as ``bwrap --seccomp`` reads it; KeyError for an unknown architecture."""
    arch, column = _ARCHITECTURES[machine or platform.machine()]
    denied = [numbers[column] for numbers in _DENIED.values()]
    steps = [
        _step(_LOAD, _ARCHITECTURE),
        _step(_JUMP_EQUAL, arch, yes=1),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER),
        # The x32 calls have other numbers for the same things.
        _step(_JUMP_ABOVE, _X32, no=1),
        _step(_RETURN, _REFUSE | errno.ENOSYS),
        # glibc falls back to clone, whose flags can be looked at, when clone3 is not there.
        _step(_JUMP_EQUAL, _CLONE3[column], no=1),
        _step(_RETURN, _REFUSE | errno.ENOSYS),
        _step(_JUMP_EQUAL, _CLONE[column], no=4),
        _step(_LOAD, _ARGUMENT),
        _step(_JUMP_SET, _CLONE_NEW, no=1),
        _step(_RETURN, _REFUSE | errno.EPERM),
        _step(_RETURN, _ALLOW),
        _step(_JUMP_EQUAL, _SOCKET[column], no=3 + len(_FAMILIES)),
        _step(_LOAD, _ARGUMENT),
        *(_step(_JUMP_EQUAL, family, yes=len(_FAMILIES) - i) for i, family in enumerate(_FAMILIES)),
        _step(_RETURN, _REFUSE | errno.EAFNOSUPPORT),
        _step(_RETURN, _ALLOW),
    ]
    numbers = [number for number in denied if number is not None]
    steps += [_step(_JUMP_EQUAL, number, yes=len(numbers) - i) for i, number in enumerate(numbers)]
    steps += [_step(_RETURN, _ALLOW), _step(_RETURN, _REFUSE | errno.EPERM)]
    return b"".join(steps)


def _step(code: int, value: int, *, yes: int = 0, no: int = 0) -> bytes:
    """One instruction; ``yes`` and ``no`` are how many of the next ones a jump passes over."""
    return struct.pack("=HBBI", code, yes, no, value)
