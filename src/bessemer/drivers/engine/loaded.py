"""Adapters of engines that load them while they run: a folder per engine, which it sees read-only.

An adapter's files are hard links to those that were handed over, or copies where they lie on another disk.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from bessemer.core.errors import DriverError
from bessemer.drivers.engine.protocol import Adapter, EngineSpec, check_adapter

_FILES_MAX = 64
_PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,200}")


class Loaded:
    """The folders below ``state``."""

    def __init__(self, state: Path) -> None:
        self._state = state.absolute()

    def folder(self, uid: str) -> Path:
        return self._state / sha256(uid.encode()).hexdigest()[:12]

    def renew(self, spec: EngineSpec) -> Path:
        """The folder with the spec's adapters alone, for an engine that does not run. Raises as `put` does."""
        self.remove(spec.uid)
        self.folder(spec.uid).mkdir(mode=0o755, parents=True)
        for adapter in spec.adapters:
            self.put(spec.uid, adapter)
        return self.folder(spec.uid)

    def put(self, uid: str, adapter: Adapter) -> None:
        """Bring one in, whole or not at all; one that is there is renewed.

        Raises DriverError ``ContentMissing`` for what is no folder of plain files, and ``DiskFull``.
        """
        place = self.folder(uid) / adapter.name
        coming = place.with_name(f".{adapter.name}")
        shutil.rmtree(coming, ignore_errors=True)
        try:
            coming.mkdir(mode=0o755)
            for name, source in _files(adapter).items():
                _bring(source, coming / name)
            shutil.rmtree(place, ignore_errors=True)
            coming.rename(place)
        except OSError as error:
            shutil.rmtree(coming, ignore_errors=True)
            raise DriverError("DiskFull", "an adapter cannot be brought to its engine", internal=str(error)) from error

    def drop(self, uid: str, name: str) -> None:
        """Take one away; one that is not there is fine. Raises ValueError for what is no name of one."""
        check_adapter(name)
        shutil.rmtree(self.folder(uid) / name, ignore_errors=True)

    def remove(self, uid: str) -> None:
        shutil.rmtree(self.folder(uid), ignore_errors=True)


def _files(adapter: Adapter) -> Mapping[str, Path]:
    """By their plain names: what lies deeper is no part of an adapter."""
    if adapter.files:
        found = {name: path for name, path in adapter.files.items() if _PLAIN.fullmatch(name)}
    elif adapter.path.is_dir():
        found = {path.name: path for path in sorted(adapter.path.iterdir()) if stat.S_ISREG(path.stat().st_mode)}
    else:
        raise DriverError("ContentMissing", f"adapter {adapter.name} is no folder", internal=str(adapter.path))
    if not found or len(found) > _FILES_MAX:
        raise DriverError("ContentMissing", f"adapter {adapter.name} has no files, or more than {_FILES_MAX}")
    return found


def _bring(source: Path, target: Path) -> None:
    """As a link where its engine, which is another user, may read it as it is."""
    if source.stat().st_mode & stat.S_IROTH:
        with suppress(OSError):
            os.link(source.resolve(), target)
            return
    shutil.copyfile(source, target)
    target.chmod(0o644)
