"""A folder for the time being. A disk that has no room for it is said as drivers say it."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from bessemer.core.errors import DriverError


@contextmanager
def scratch(prefix: str, *, reason: str, within: Path | None = None) -> Iterator[Path]:
    """A folder that goes with all that is in it. Raises DriverError ``DiskFull``, or ``reason``, where none can be
    made."""
    try:
        folder = TemporaryDirectory(prefix=prefix, dir=within)
    except OSError as error:
        raise refusal(error, "a folder cannot be made", reason=reason) from error
    with folder as name:
        yield Path(name)


def refusal(error: OSError, message: str, *, reason: str) -> DriverError:
    """What a disk refused: DriverError ``DiskFull`` where that is why, else with ``reason``."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return DriverError("DiskFull" if full else reason, message, internal=str(error))
