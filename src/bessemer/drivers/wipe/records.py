"""Which disks went to guests, and how far each is wiped: what must be known after any crash.

One file per disk, named by its id; written beside itself, flushed, renamed, and the folder flushed. It is read anew
each time, for a person may change it by a command of another process. A file that cannot be read keeps its disk out.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Protocol
from urllib.parse import quote, unquote

import structlog
from pydantic import TypeAdapter, ValidationError

from bessemer.core import durable
from bessemer.core.errors import DriverError
from bessemer.drivers.wipe.protocol import Found

Phase = Literal["asked", "handed", "due", "marking", "erasing", "proving", "failed"]
"""asked: about to be handed over, no guest has had it. handed: a Claim's. due: its Claim has ended. marking: known
words are written to known places. erasing, proving: as they say. failed: a person is to look."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Debt:
    """A disk that carries, or may carry, what a Claim wrote. ``seed`` says where it is looked at and what is written
    there; ``done_bytes`` count within ``way`` while erasing, and of what was read back while proving."""

    device: str
    address: str
    uid: str
    phase: Phase = "asked"
    wwid: str = ""
    size_bytes: int = 0
    way: str = ""
    seed: str = ""
    done_bytes: int = 0
    tries: int = 0
    reason: str = ""
    message: str = ""

    @property
    def was(self) -> Found | None:
        """Which disk it was; None where nobody looked."""
        return Found(self.wwid, self.size_bytes) if self.size_bytes else None


class Records(Protocol):
    """Where debts are kept. Each method may raise DriverError ``DiskFull``, ``DiskFailed``."""

    def all(self) -> Sequence[Debt]:
        """By device."""
        ...

    def keep(self, debt: Debt) -> None:
        """Returns when it would survive the end of the machine's power."""
        ...

    def drop(self, device: str) -> None:
        """What is not there is fine."""
        ...


class MemoryRecords:
    """Of a fake host: nothing survives, as nothing that it runs does."""

    def __init__(self) -> None:
        self._debts: dict[str, Debt] = {}

    def all(self) -> Sequence[Debt]:
        return [self._debts[device] for device in sorted(self._debts)]

    def keep(self, debt: Debt) -> None:
        self._debts[debt.device] = debt

    def drop(self, device: str) -> None:
        self._debts.pop(device, None)


_SUFFIX = ".disk"
_READER = TypeAdapter(Debt)


class FolderRecords:
    """Of a real one, in a folder of its agent's own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._said: dict[str, str] = {}

    def all(self) -> Sequence[Debt]:
        files = sorted(self._folder.glob(f"*{_SUFFIX}")) if self._folder.is_dir() else ()
        return [debt for file in files if (debt := self._read(file)) is not None]

    def keep(self, debt: Debt) -> None:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            durable.put(self._file(debt.device), json.dumps(asdict(debt), indent=1).encode())
        except OSError as error:
            raise _refused(error) from error

    def drop(self, device: str) -> None:
        try:
            self._file(device).unlink(missing_ok=True)
            if self._folder.is_dir():
                durable.settle(self._folder)
        except OSError as error:
            raise _refused(error) from error

    def _read(self, file: Path) -> Debt | None:
        device = unquote(file.name.removesuffix(_SUFFIX))
        try:
            debt = _READER.validate_json(file.read_bytes())
            if debt.device == device:
                return debt
            error = "it speaks of another disk"
        except FileNotFoundError:
            return None  # wiped meanwhile
        except (OSError, ValidationError) as trouble:
            error = str(trouble)
        if self._said.get(device) != error:  # it is read every few seconds
            self._said[device] = error
            log.error("a record of a disk cannot be read", device=device, error=error)
        message = "what is recorded of it cannot be read"
        return Debt(device=device, address="", uid="", phase="failed", reason="RecordUnreadable", message=message)

    def _file(self, device: str) -> Path:
        return self._folder / f"{quote(device, safe='')}{_SUFFIX}"


def _refused(error: OSError) -> DriverError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    message = "which disks are to be wiped cannot be kept"
    return DriverError("DiskFull" if full else "DiskFailed", message, internal=str(error))
