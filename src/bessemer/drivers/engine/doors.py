"""The folders that hold engines' sockets.

Each engine has a folder of its own: it owns it while it makes its socket, and loses it when the door is *sealed*, so
that it can neither swap the socket for a link to somebody else's nor fill the disk. Paths are short, since a socket's
may have 107 bytes, and lie in memory where the machine has such a file system: what is written there then counts
against the engine's own memory.
"""

from __future__ import annotations

import os
import shutil
import socket
import stat
from hashlib import sha256
from pathlib import Path

from bessemer.core.errors import DriverError

SOCKET = "e.sock"
_PATH_BYTES_MAX = 107
_CANDIDATES = (Path("/run"), Path("/dev/shm"))


def default_folder(state: Path) -> Path:
    """Where the doors of a state folder go on this machine, if nobody says otherwise."""
    name = f"bessemer-{sha256(str(state.absolute()).encode()).hexdigest()[:12]}"
    mounts = [line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for base in _CANDIDATES:
        if [str(base), "tmpfs"] in mounts and os.access(base, os.W_OK):
            return base / name
    inside = state.absolute() / "doors"
    if len(bytes(inside / ("x" * 12) / SOCKET)) <= _PATH_BYTES_MAX:
        return inside
    return Path("/tmp") / name


class Doors:
    """The doors below one folder, which is made for this user alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()

    def socket(self, uid: str) -> Path:
        """Where the engine's socket is, or will be."""
        return self.folder(uid) / SOCKET

    def folder(self, uid: str) -> Path:
        """The engine's own folder."""
        return self._folder / sha256(uid.encode()).hexdigest()[:12]

    def clear(self, uid: str) -> None:
        """Make an empty folder for an engine that does not run. Raises DriverError ``PortTaken``."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for place in (self._folder, self.folder(uid)):
            if place.is_symlink() or (place.exists() and not place.is_dir()):
                raise DriverError(
                    "PortTaken", "something that is no folder sits at the engine's door", internal=str(place)
                )
        if self._folder.stat().st_uid != os.geteuid():
            raise DriverError("PortTaken", "the folder of doors belongs to another user", internal=str(self._folder))
        if _answers(self.socket(uid)):
            raise DriverError("PortTaken", "another process listens at the engine's door")
        shutil.rmtree(self.folder(uid), ignore_errors=True)
        self.folder(uid).mkdir(mode=0o700)

    def seal(self, uid: str) -> bool:
        """Take the folder from the engine; True once its socket is there and is one.

        Raises DriverError ``ProbeFailed`` for anything else in its place. Taken before it is looked at: an engine that
        swaps it in between must lose.
        """
        folder, door = self.folder(uid), self.socket(uid)
        try:
            kind = os.lstat(door).st_mode
            if os.geteuid() == 0:
                os.chown(folder, 0, 0, follow_symlinks=False)
                kind = os.lstat(door).st_mode
        except FileNotFoundError:
            return False
        if not stat.S_ISSOCK(kind):
            raise DriverError("ProbeFailed", "the engine put something else than a socket at its door")
        return True

    def remove(self, uid: str) -> None:
        """Take the folder away."""
        shutil.rmtree(self.folder(uid), ignore_errors=True)
        try:
            self._folder.rmdir()
        except OSError:
            return  # others have doors here


def _answers(door: Path) -> bool:
    if not door.is_socket():
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(door))
        except OSError:
            return False
    return True
