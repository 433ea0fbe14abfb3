"""Files that stand after a power cut: whole as they were before, or whole as they are meant to be."""

from __future__ import annotations

import os
from pathlib import Path

HALF = ".new"
"""How a file's name ends that is half written: beside the file, in place of its own ending."""


def put(path: Path, data: bytes) -> None:
    """Let the file have these bytes. What was half written beside it is gone where that fails. Raises OSError."""
    half = path.with_suffix(HALF)
    try:
        with half.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        half.rename(path)
        settle(path.parent)
    except OSError:
        half.unlink(missing_ok=True)
        raise


def settle(folder: Path) -> None:
    """Let what was renamed or removed there be so for good. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
