"""Numeric users for confined processes, so that no two on a host ever share one.

A number is a file in one registry folder, made once and holding its owner; the folder is the host's, not a state
directory's, because the numbers are. They need no entry in ``/etc/passwd``. The range lies where no distribution
and no container tool allocates.
"""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

FIRST_USER = 1_900_000_000
USERS = 1 << 20


class Users:
    """The registry. An owner is any text, unique on the host."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def take(self, owner: str) -> int:
        """The owner's number, allocated on first use; where it starts looking follows from the owner's hash."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        known = self.find(owner)
        if known is not None:
            return known
        start = int.from_bytes(sha256(owner.encode()).digest()[:4], "big") % USERS
        for step in range(USERS):
            number = FIRST_USER + (start + step) % USERS
            if self._claim(number, owner):
                return number
        raise OSError("every number of the range is in use")

    def drop(self, owner: str) -> None:
        """Free the owner's number."""
        number = self.find(owner)
        if number is not None:
            (self._folder / str(number)).unlink(missing_ok=True)

    def find(self, owner: str) -> int | None:
        """The owner's number, if it has one."""
        if not self._folder.is_dir():
            return None
        held = (file for file in self._folder.iterdir() if file.name.isdigit() and _read(file) == owner)
        return next((int(file.name) for file in held), None)

    def _claim(self, number: int, owner: str) -> bool:
        # A file appears under its number with its owner inside, or not at all.
        file, draft = self._folder / str(number), self._folder / f"draft-{os.getpid()}"
        draft.write_text(owner, encoding="utf-8")
        try:
            os.link(draft, file)
        except FileExistsError:
            return False
        finally:
            draft.unlink()
        return True


def _read(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8")
    except OSError:
        return None
