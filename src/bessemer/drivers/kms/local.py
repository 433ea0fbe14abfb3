"""Key files on this machine, or keys from the environment.

``seal.key`` wraps; ``seal-ID.key`` are those that did before, and still unwrap. A rotation puts the key aside under its
id and writes a new ``seal.key``: whole or not at all, and seen by running processes at their next look. Where several
machines have the keys, the new one is staged (``seal-next.key``: it unwraps) and copied to all before the first of them
rotates. Keys from the environment come first, and there, too, one may be staged. It is for whoever has no KMS; who
reads the folder reads every value.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Sequence
from pathlib import Path

from bessemer.core.errors import Conflict, Unavailable
from bessemer.core.sealing import KeyRing, key_id

CURRENT = "seal.key"
_OLD, _NEXT = "seal-*.key", "seal-next.key"
AGE_SECONDS_MIN = 60.0
"""A key that was current until a moment ago may still be wrapping something in a process that has not looked again."""


class LocalKeys:
    """Implements `Kms` over a folder. ``given`` are keys from elsewhere, of which the first wraps; ``coming`` is one
    that is staged beside them."""

    def __init__(self, folder: Path, *, given: Sequence[bytes] = (), coming: bytes = b"") -> None:
        self._folder = folder
        self._given = list(given)
        self._coming = coming
        self._seen: list[tuple[str, int, int]] = []
        self._ring: KeyRing | None = None

    @property
    def ring(self) -> KeyRing:
        """The keys as they are now. Raises Unavailable where there is none, or one is no key."""
        seen = self._look()
        if self._ring is None or seen != self._seen:
            self._ring, self._seen = self._read(), seen
        return self._ring

    async def current(self) -> str:
        """See `Kms.current`."""
        return await self.ring.current()

    async def ahead(self) -> frozenset[str]:
        """See `Kms.ahead`: what is staged, which other machines may have taken."""
        staged = self._staged()
        return frozenset([staged] if staged else [])

    async def wrap(self, key: bytes, *, context: bytes) -> tuple[str, bytes]:
        """See `Kms.wrap`."""
        return await self.ring.wrap(key, context=context)

    async def unwrap(self, wrapped: bytes, *, name: str, context: bytes) -> bytes:
        """See `Kms.unwrap`."""
        return await self.ring.unwrap(wrapped, name=name, context=context)

    def stage(self) -> str:
        """Make the key that the next rotation takes, unless it is there; its id. Raises OSError, and Conflict where
        keys come from the environment."""
        if self._given:
            raise Conflict("the keys come from the environment: put the new one there as `next:KEY`, on every replica")
        staged = self._folder / _NEXT
        if not staged.exists():
            _write(staged, secrets.token_bytes(32))
        return key_id(staged.read_bytes())

    def rotate(self) -> str:
        """Make a new key the current one, or that which is staged; its id. Raises Conflict where keys come from the
        environment, OSError."""
        if self._given:
            raise Conflict(
                "the keys come from the environment: put the new one there before the old one, where there are several "
                "replicas first as `next:KEY` on each"
            )
        current, staged = self._folder / CURRENT, self._folder / _NEXT
        old, fresh = current.read_bytes(), staged.read_bytes() if staged.exists() else secrets.token_bytes(32)
        aside = self._folder / f"seal-{key_id(old)}.key"
        if not aside.exists():
            _write(aside, old)
        _write(current, fresh)
        staged.unlink(missing_ok=True)
        return key_id(fresh)

    def remove(self, needed: frozenset[str]) -> list[str]:
        """Remove the files of keys that nothing is under; their ids. Raises Conflict within a minute of a rotation, and
        before one that is staged."""
        current = self._folder / CURRENT
        if staged := self._staged():
            raise Conflict(
                f"{staged} is staged, and until it is taken here the keys before it are in use: rotate first"
            )
        if time.time() - current.stat().st_mtime < AGE_SECONDS_MIN:
            raise Conflict(
                f"the current key is younger than {AGE_SECONDS_MIN:.0f} s, and the old one may be in use yet"
            )
        gone = []
        for file in sorted(self._folder.glob(_OLD)):
            name = key_id(file.read_bytes())
            if file.name != _NEXT and name not in needed and name != key_id(current.read_bytes()):
                file.unlink()
                gone.append(name)
        return gone

    def _staged(self) -> str:
        """The id of the key that the next rotation takes, or ""."""
        if self._given:
            return key_id(self._coming) if self._coming else ""
        try:
            staged, current = ((self._folder / name).read_bytes() for name in (_NEXT, CURRENT))
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise Unavailable(f"no key that seals can be read in {self._folder}", internal=str(error)) from error
        return key_id(staged) if staged != current else ""  # else a rotation was stopped amid its files

    def _files(self) -> list[Path]:
        return [self._folder / CURRENT, *sorted(self._folder.glob(_OLD))]

    def _look(self) -> list[tuple[str, int, int]]:
        found = [(file.name, file.stat()) for file in self._files() if file.exists()]
        return [(name, stat.st_mtime_ns, stat.st_ino) for name, stat in found]

    def _read(self) -> KeyRing:
        try:
            coming = [self._coming] if self._coming else []
            return KeyRing([*self._given, *coming, *(file.read_bytes() for file in self._files() if file.exists())])
        except (OSError, ValueError) as error:
            raise Unavailable(f"no key that seals can be read in {self._folder}", internal=str(error)) from error


def _write(file: Path, key: bytes) -> None:
    """A file of mode 0600, on the disk as a whole before it has its name."""
    fresh = file.with_name(file.name + ".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(key)
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
