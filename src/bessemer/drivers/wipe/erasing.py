"""One disk wiped, a step after the other, and proven to be.

How is recorded before anything is written, so that a successor goes on from there. The proof: before the erasure known
words are written to places all over the disk, drawn anew for each. None of them may be there afterwards; where the way
leaves zeros, zeros must be there and at other places; where it is advice to the device, all of the disk is read. This
is Clear or Purge of NIST SP 800-88 Rev. 1, by what the disk can, verified by representative sampling as it asks.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from dataclasses import replace

import structlog

from bessemer.core.errors import DriverError
from bessemer.drivers import Hook
from bessemer.drivers.inspect.sysfs import disk_id
from bessemer.drivers.wipe.protocol import Media, Medium, Way
from bessemer.drivers.wipe.records import Debt, Phase, Records

PLACES = 64
"""At which a disk is looked at, and again as many where it must read as zeros."""

PLACE_BYTES = 4096
READ_BYTES = 64 << 20
"""Of a disk that is read whole, in one step."""

_PIECE = bytes(4 << 20)
"""What is read of it at once, as it must be: it is compared without letting anybody else run."""

TRIES = 6
"""Looks at a disk that the host has in use, before it is left alone: what scans a new disk lets go of it soon."""

TRIES_AMID = 400
"""The same of one that is being erased: an agent that was killed has it until the kernel has answered, which takes as
long as a format does."""

_WAITING = frozenset({"DiskMissing", "DiskFull", "DiskFailed"})
"""What is tried for ever: no person could decide anything about it."""

log = structlog.get_logger(__name__)


class Erasing:
    """What is done to a disk that is owed, after what its record says. Blocks."""

    def __init__(self, records: Records, media: Media, *, on_call: Hook) -> None:
        self._records = records
        self._media = media
        self._on_call = on_call

    def step(self, debt: Debt) -> bool:
        """A bounded piece of work; whether there is more to do at once. What is wrong stands in the record then."""
        try:
            debt = self._known(debt) if debt.was is None else debt
            with self._media.open(debt.address, debt.was) as medium:
                return self._worked(debt, medium)
        except DriverError as error:
            return self._troubled(debt, error)

    def _known(self, debt: Debt) -> Debt:
        """One of which nobody kept which disk it was: what is called so, if it says who it is."""
        found = self._media.look(debt.address)
        if found.wwid and disk_id(found.wwid, "") != debt.device:
            raise DriverError("DiskChanged", f"at {debt.address} is another disk than {debt.device}")
        return replace(debt, wwid=found.wwid, size_bytes=found.size_bytes)

    def _worked(self, debt: Debt, medium: Medium) -> bool:
        if debt.phase == "due":
            way, size = medium.ways()[0], medium.size_bytes
            seed = secrets.token_hex(16)
            self._keep(
                replace(debt, phase="marking", way=way.name, seed=seed, size_bytes=size, tries=0, reason="", message="")
            )
        elif debt.phase == "marking":
            for offset in places(debt.seed, debt.size_bytes):
                medium.write(offset, witness(debt.seed, offset))
            medium.flush()
            self._on_call("wipe.marked")
            self._keep(replace(debt, phase="erasing", done_bytes=0))
        elif debt.phase == "erasing":
            if not debt.done_bytes:
                # Where nothing can be kept nothing is begun: it would be again at each look, and wear the disk out.
                self._records.keep(debt)
            done = medium.erase(debt.way, debt.done_bytes)
            self._on_call("wipe.erased")
            over = done >= debt.size_bytes
            phase: Phase = "proving" if over else "erasing"
            self._keep(replace(debt, phase=phase, done_bytes=0 if over else done, tries=0, reason="", message=""))
            return over or done > debt.done_bytes
        else:
            return self._proven(debt, medium)
        return True

    def _proven(self, debt: Debt, medium: Medium) -> bool:
        way = _way(medium, debt.way)
        if way.advice and debt.done_bytes < debt.size_bytes:
            at, end = debt.done_bytes, min(debt.size_bytes, debt.done_bytes + READ_BYTES)
            while at < end:
                data = medium.read(at, min(len(_PIECE), end - at))
                if data != _PIECE[: len(data)]:
                    raise DriverError("WayRefused", f"{way.name} left something")
                at += len(data)
            self._keep(replace(debt, done_bytes=end, tries=0, reason="", message=""))
            return True
        for offset in places(debt.seed, debt.size_bytes):
            data = medium.read(offset, PLACE_BYTES)
            if any(data) if way.zeros else data == witness(debt.seed, offset):
                raise DriverError("WayRefused", f"{way.name} left what was at byte {offset}")
        for offset in places(f"{debt.seed}/beside", debt.size_bytes) if way.zeros else ():
            if any(medium.read(offset, PLACE_BYTES)):
                raise DriverError("WayRefused", f"{way.name} left what was at byte {offset}")
        self._on_call("wipe.proven")
        self._records.drop(debt.device)
        log.info("disk wiped", device=debt.device, address=debt.address, way=way.name, object_uid=debt.uid)
        return True

    def _troubled(self, debt: Debt, error: DriverError) -> bool:
        """What comes of it: another look, another way, or a person."""
        told = replace(debt, reason=error.reason, message=error.message)
        if error.reason in _WAITING:
            return self._note(told, busy=False) if told != debt else False
        if error.reason == "DiskInUse" and debt.tries < (TRIES if debt.phase == "due" else TRIES_AMID):
            return self._note(replace(told, tries=debt.tries + 1), busy=False)
        if error.reason == "WayRefused" and (following := self._following(debt)) is not None:
            log.warning("disk is wiped another way", device=debt.device, way=following.name, error=error.message)
            seed = secrets.token_hex(16)
            return self._note(replace(debt, phase="marking", way=following.name, seed=seed, done_bytes=0), busy=True)
        log.error("disk not wiped", device=debt.device, error=error.message, internal=error.internal)
        return self._note(replace(told, phase="failed"), busy=False)

    def _following(self, debt: Debt) -> Way | None:
        try:
            with self._media.open(debt.address, debt.was) as medium:
                ways = medium.ways()
        except DriverError:
            return None
        names = [way.name for way in ways]
        return next(iter(ways[names.index(debt.way) + 1 :]), None) if debt.way in names else None

    def _note(self, debt: Debt, *, busy: bool) -> bool:
        """Keep it, or at least what was kept before: that is owed as well."""
        try:
            self._keep(debt)
        except DriverError as error:
            log.error("how a disk is wiped cannot be kept", device=debt.device, error=error.internal)
            return False
        return busy

    def _keep(self, debt: Debt) -> None:
        self._on_call("wipe.keep")
        self._records.keep(debt)
        self._on_call("wipe.keep.done")


def places(seed: str, size_bytes: int) -> Iterator[int]:
    """Where a disk is looked at: its first and its last bytes, and one place in each of as many equal parts."""
    blocks = size_bytes // PLACE_BYTES
    drawn = int.from_bytes(hashlib.blake2b(seed.encode()).digest())
    parts = min(PLACES, blocks)
    found = {0, max(0, blocks - 1)}
    for part in range(parts):
        first, end = part * blocks // parts, (part + 1) * blocks // parts
        drawn = int.from_bytes(hashlib.blake2b(drawn.to_bytes(64)).digest())
        found.add(first + drawn % (end - first))
    return (block * PLACE_BYTES for block in sorted(found))


def witness(seed: str, offset: int) -> bytes:
    """What is written there: no other place nor wipe has it, and no part of it is zeros."""
    return hashlib.shake_128(f"{seed}/{offset}".encode()).digest(PLACE_BYTES)


def _way(medium: Medium, name: str) -> Way:
    """Raises DriverError ``WipeFailed``."""
    found = next((way for way in medium.ways() if way.name == name), None)
    if found is None:
        raise DriverError("WipeFailed", f"the disk has no {name} any more")
    return found
