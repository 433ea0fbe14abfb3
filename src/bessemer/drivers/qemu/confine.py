"""What stands around a guest's QEMU: limits, a network of its own with nothing in it, and a user that owns nothing.

As root each guest's QEMU runs as a number of its own that no account has, made from its uid, in a control group. Other
users get a user namespace with an empty network where the kernel allows it, and no limits: the weaker class.
"""

from __future__ import annotations

import hashlib
import os
import resource
from contextlib import suppress
from dataclasses import dataclass

from bessemer.core.descriptors import of_children
from bessemer.drivers.qemu.protocol import MachineSpec

_FIRST_USER = 1_879_048_192
_USERS = 1 << 28
"""The range that no distribution and no container runtime hands out."""

_FILE_SLACK_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Confinement:
    """How a guest of this agent is confined. ``namespaces`` is False where an unprivileged user may make none."""

    root: bool
    namespaces: bool

    @staticmethod
    def here(*, namespaces: bool) -> Confinement:
        return Confinement(os.geteuid() == 0, namespaces)

    def words(self, spec: MachineSpec, disk_bytes: int) -> list[str]:
        """What to put before the command. The process that is started ends at once; the guest's has another parent."""
        # Memory in huge pages is a file as well, which has its full length before `bound_files` bounds the others.
        limit = max(_file_limit(disk_bytes), spec.memory_bytes if spec.page_bytes else 0)
        return [
            *(("taskset", "--cpu-list", spec.own_cpus) if spec.own_cpus else ()),
            *("prlimit", f"--fsize={limit}:{limit}", "--core=0:0", f"--nofile={of_children()}:", *_locked(spec)),
            *("env", "--ignore-signal=XFSZ"),
            *("setsid", "--fork"),
            *self._namespaces(),
            *self._user(spec),
        ]

    def _namespaces(self) -> list[str]:
        if not self.namespaces:
            return []
        return ["unshare", "--net", "--ipc", *([] if self.root else ["--user", "--map-current-user"])]

    def _user(self, spec: MachineSpec) -> list[str]:
        words = ["setpriv", "--no-new-privs"]
        if not self.root:
            return words
        user = user_of(spec.uid)
        groups = ["--groups", str(_kvm_group())] if spec.accel == "kvm" else ["--clear-groups"]
        return [*words, f"--reuid={user}", f"--regid={user}", *groups, "--inh-caps=-all", "--bounding-set=-all"]


def bound_files(pid: int, disk_bytes: int) -> None:
    """No file that QEMU writes grows past its disk, so a guest that floods its serial log stays within what it has."""
    limit = _file_limit(disk_bytes)
    with suppress(OSError):  # it is gone
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, limit))


def _file_limit(disk_bytes: int) -> int:
    return disk_bytes + disk_bytes // 64 + _FILE_SLACK_BYTES


def let_open(spec: MachineSpec) -> None:
    """Give the guest's user the device files that are its. Raises OSError."""
    for node in spec.nodes:
        os.chown(node, user_of(spec.uid), -1)


def _locked(spec: MachineSpec) -> tuple[str, ...]:
    """A device that is handed in writes to the guest's memory by itself, so all of that stays where it is."""
    return ("--memlock=unlimited:unlimited",) if spec.nodes else ()


def user_of(uid: str) -> int:
    """The numeric user of a guest's QEMU."""
    return _FIRST_USER + int.from_bytes(hashlib.sha256(uid.encode()).digest()[:4], "big") % _USERS


def _kvm_group() -> int:
    """The group that may open ``/dev/kvm``: a guest's QEMU is given that one alone."""
    try:
        return os.stat("/dev/kvm").st_gid
    except OSError:
        return 0
