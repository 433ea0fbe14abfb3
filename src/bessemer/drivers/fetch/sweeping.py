"""What nobody names any more is removed from a folder of content, some time after nobody did.

    ROOT/HEX.idle     since its time nobody names the content
    ROOT/HEX.gone     the content on its way out: it may still be called back

Processes that fetch, read and sweep may share the folder, and none of them waits for another: who sweeps takes the name
away, then looks whether somebody has asked for the content since the names were read, and gives it back if so; who asks
says so first and looks for the name afterwards. Whatever is cut short at any step is found again by the next sweep.
Where in doubt, content stays. Everything here blocks.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bessemer.drivers.fetch.protocol import Held, Swept

IDLE, GONE, SEEN, PART = ".idle", ".gone", ".seen", ".part"
APART_SECONDS = 60.0
"""By so much clocks of those who share a folder may differ."""


@dataclass(frozen=True, slots=True)
class _Round:
    """One sweep: who is ``named`` since ``began``, and from when on what is idle stays for ``grace`` seconds."""

    root: Path
    named: Collection[str]
    began: float
    grace: float

    def old(self, moment: float) -> bool:
        return moment < self.began - self.grace


def held(root: Path) -> Held:
    """What lies there, by what becomes of it. Changes nothing."""
    used = idle = coming = 0
    for file in _listing(root):
        size = _size(file)
        if file.suffix in (PART, GONE):
            coming += size if file.suffix == PART else 0
            idle += size if file.suffix == GONE else 0
        elif not file.suffix:
            idle, used = (idle + size, used) if file.with_suffix(IDLE).exists() else (idle, used + size)
    return Held(used_bytes=used, idle_bytes=idle, coming_bytes=coming)


def sweep(root: Path, *, named: Collection[str], began: float, grace: float) -> Swept:
    """Remove what is not among ``named`` digests, which were read from ``began`` (epoch seconds) on, and was neither
    named nor asked for in ``grace`` seconds; parts that nobody has written to for as long, and nobody has open."""
    this = _Round(root, named, began, grace)
    _call_back(this)
    gone, size, parts = [], 0, 0
    for file in _listing(root):
        if not file.suffix and _is_over(file, this):
            count = _size(file)
            if _remove(file, this):
                gone.append(f"sha256:{file.name}")
                size += count
        elif file.suffix == PART:
            count = _size(file)
            if _drop(file, this):
                parts, size = parts + 1, size + count
        elif file.suffix in (IDLE, SEEN) and not file.with_suffix("").exists() and this.old(_modified(file)):
            file.unlink(missing_ok=True)
    return Swept(digests=tuple(gone), parts=parts, freed_bytes=size)


def _call_back(this: _Round) -> None:
    """What an earlier sweep left on its way out goes, or is given back."""
    for file in _listing(this.root):
        if file.suffix == GONE:
            _end(file, this)


def _is_over(file: Path, this: _Round) -> bool:
    """Whether nobody has named it for long enough. Notes since when that is so."""
    mark = file.with_suffix(IDLE)
    if f"sha256:{file.name}" in this.named:
        mark.unlink(missing_ok=True)
        return False
    since = _modified(mark)
    if not since:
        with suppress(OSError):
            mark.touch()
        return False
    return this.old(since) and this.old(max(_changed(file), _modified(file.with_suffix(SEEN))))


def _remove(file: Path, this: _Round) -> bool:
    gone = file.with_suffix(GONE)
    with suppress(FileNotFoundError):  # another sweep has it
        file.rename(gone)
        return _end(gone, this)
    return False


def _end(gone: Path, this: _Round) -> bool:
    """Remove what lost its name, or give it back where somebody asked for it meanwhile; whether it went."""
    path = gone.with_suffix("")
    asked = _looked_at(path.with_suffix(SEEN)) > this.began - APART_SECONDS
    if (asked or f"sha256:{path.name}" in this.named) and not path.exists():
        with suppress(FileNotFoundError):
            gone.rename(path)
        return False
    try:
        gone.unlink()
    except FileNotFoundError:
        return False
    if not path.exists():
        for suffix in (SEEN, IDLE):
            path.with_suffix(suffix).unlink(missing_ok=True)
    return True


def _drop(part: Path, this: _Round) -> bool:
    if not this.old(_modified(part)):
        return False
    try:
        number = os.open(part, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        part.unlink(missing_ok=True)
    except OSError:  # somebody is at it
        return False
    finally:
        os.close(number)
    return True


def abandoned(root: Path, *, seconds: float) -> None:
    """Remove parts that nobody has written to for so long, and nobody has open."""
    for file in _listing(root):
        if file.suffix == PART:
            _drop(file, _Round(root, (), time.time(), seconds))


def _listing(root: Path) -> Iterator[Path]:
    """Its files of content and what stands beside them."""
    for file in sorted(root.iterdir()) if root.is_dir() else ():
        if len(file.stem) in (32, 64) and not file.is_dir():
            yield file


def _size(file: Path) -> int:
    with suppress(FileNotFoundError):
        return file.lstat().st_size
    return 0


def _modified(file: Path) -> float:
    """0.0 where it is not there."""
    with suppress(FileNotFoundError):
        return file.lstat().st_mtime
    return 0.0


def _changed(file: Path) -> float:
    with suppress(FileNotFoundError):
        return file.lstat().st_ctime
    return time.time()


def _looked_at(file: Path) -> float:
    """As `_modified`, through a descriptor: a folder that several machines have is asked anew by an open."""
    try:
        number = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return 0.0
    try:
        return os.fstat(number).st_mtime
    finally:
        os.close(number)
