"""What a state directory left on this machine: processes, networks, control groups, mounts, engines' doors.

Seen from outside, through ``/proc`` and ``/sys`` alone: what our own code overlooks must show here. By itself,
``python -m tests.main.residue DIRECTORY`` prints what is there, a line each, and ends with 1 where there is any.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_DOORS = (Path("/run"), Path("/dev/shm"), Path("/tmp"))


@dataclass(frozen=True)
class Residue:
    """The traces of one state directory, given by its absolute path. To be closed where `networks` was asked."""

    state: Path
    _held: dict[str, int] = field(default_factory=dict)

    def close(self) -> None:
        while self._held:
            os.close(self._held.popitem()[1])

    @property
    def scopes(self) -> tuple[str, ...]:
        """The names that stand for its agents' directories where the whole path does not fit."""
        agents = (self.state / "agent", self.state / "fake")
        folders = [folder for agent in agents for folder in (agent, agent / "processes")]
        return tuple(hashlib.sha256(str(folder).encode()).hexdigest()[:12] for folder in folders)

    def processes(self) -> dict[int, str]:
        """Command lines by pid of all that name it, work below it, or are in a control group of its."""
        return {pid: _text(pid, "cmdline") for pid in _living() if self._is_its(pid)}

    def guests(self) -> list[int]:
        """The pids of QEMU that work in a guest's directory."""
        guests = str(self.state / "agent" / "guests")
        return [pid for pid in self.processes() if _link(pid, "cwd").startswith(guests)]

    def networks(self) -> frozenset[str]:
        """The network namespaces, other than this process's own, in which something of it runs.

        They are held open until `close`: the kernel gives the number of one that is gone to the next that is made,
        which may be another test's.
        """
        found = {_link(pid, "ns/net"): pid for pid in self.processes()}
        own = _link(os.getpid(), "ns/net")
        for name, pid in found.items():
            if name not in ("", own, *self._held):
                self._hold(name, pid)
        return frozenset(self._held.keys() & found.keys())

    def left(self) -> list[str]:
        """Everything that is there now, a line each; of the networks that were seen, those somebody still has."""
        lines = [f"process {pid}: {words}" for pid, words in self.processes().items()]
        for pid in _living():
            if (name := _link(pid, "ns/net")) in self._held:
                lines.append(f"network {name} of process {pid}: {_text(pid, 'cmdline')}")
        for scope in self.scopes:
            groups = [*_CGROUPS.glob(f"bessemer/{scope}"), *_CGROUPS.glob(f"*/bessemer/{scope}")]
            lines += [f"control group {group}" for group in groups]
            lines += [f"doors {base / f'bessemer-{scope}'}" for base in _DOORS if (base / f"bessemer-{scope}").exists()]
        mounts = Path("/proc/self/mountinfo").read_text().replace("\\040", " ").splitlines()
        return lines + [f"mount {line}" for line in mounts if str(self.state) in line]

    def _hold(self, name: str, pid: int) -> None:
        try:
            held = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        except OSError:
            return
        if os.readlink(f"/proc/self/fd/{held}") == name:
            self._held[name] = held
        else:
            os.close(held)

    def _is_its(self, pid: int) -> bool:
        if str(self.state) in _text(pid, "cmdline") or _link(pid, "cwd").startswith(str(self.state)):
            return True
        groups = _text(pid, "cgroup")
        return any(f"/bessemer/{scope}" in groups for scope in self.scopes)


def _living() -> Iterator[int]:
    """Every process but this one and those that have ended."""
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            state = _text(int(name), "stat").rpartition(")")[2].split()[:1]
            if state and state[0] not in ("Z", "X"):
                yield int(name)


def _text(pid: int, file: str) -> str:
    try:
        return Path(f"/proc/{pid}/{file}").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _link(pid: int, file: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/{file}")
    except OSError:
        return ""


def main() -> int:
    """The exit status; 2 without a directory."""
    if len(sys.argv) != 2:
        sys.stderr.write("usage: python -m tests.main.residue DIRECTORY\n")
        return 2
    left = Residue(Path(sys.argv[1]).resolve()).left()
    sys.stdout.writelines(f"{line}\n" for line in left)
    return int(bool(left))


if __name__ == "__main__":
    sys.exit(main())
