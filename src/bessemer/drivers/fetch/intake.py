"""Bytes on their way to a name: written, hashed and counted together, and given their name only when they are whole."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from pathlib import Path

from bessemer.core.errors import DriverError

READ_BYTES = 4 << 20


class Intake:
    """One ``.part`` file, held by a lock that ends with the process. Methods block: call them from a thread.

    All raise DriverError ``DiskFull`` when there is no space; the part is then removed, to give back what it took.
    """

    def __init__(self, part: Path) -> None:
        self.part = part
        self.size_bytes = 0
        self._hash = hashlib.sha256()
        self._number = -1

    def open(self, *, resume: bool) -> bool:
        """Take the part, with what is in it or empty; False when another process has it."""
        try:
            self.part.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            number = os.open(self.part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise self._refusal(error) from error
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(number)
            return False
        self._number = number
        if resume:
            while chunk := os.read(number, READ_BYTES):
                self._hash.update(chunk)
                self.size_bytes += len(chunk)
        else:
            os.ftruncate(number, 0)
        return True

    def restart(self) -> None:
        """Forget what came so far."""
        os.ftruncate(self._number, 0)
        os.lseek(self._number, 0, os.SEEK_SET)
        self._hash, self.size_bytes = hashlib.sha256(), 0

    def write(self, chunk: bytes) -> None:
        """Add to the end."""
        rest = memoryview(chunk)
        try:
            while rest:
                rest = rest[os.write(self._number, rest) :]
        except OSError as error:
            raise self._refusal(error) from error
        self._hash.update(chunk)
        self.size_bytes += len(chunk)

    @property
    def digest(self) -> str:
        """Of what has come so far."""
        return "sha256:" + self._hash.hexdigest()

    def finish(self, path: Path) -> None:
        """Give the bytes their name, read-only and on the disk."""
        try:
            os.fchmod(self._number, 0o444)
            os.fsync(self._number)
            os.rename(self.part, path)
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise self._refusal(error) from error

    def discard(self) -> None:
        """Remove the part."""
        self.part.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the part, which stays for a later try."""
        if self._number >= 0:
            os.close(self._number)
            self._number = -1

    def _refusal(self, error: OSError) -> DriverError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            self.discard()
            return DriverError("DiskFull", "no space is left for content", internal=str(error))
        return DriverError("FetchFailed", "content cannot be written", internal=str(error))
