"""Disks that guests had whole, from the moment that they are handed over until it is proven that nothing is left.

What holds, also after a crash at any point:

* A disk is on record before a guest can have it, and off it only once it is proven to carry nothing; while it is on
  record, it is handed to nobody but the Claim that has it, and nothing but a disk on record is ever written to.
* What was recorded as about to be handed over, and then was not, no guest has had: it is not wiped.
* How a disk is wiped is recorded before anything of it is written; a successor goes on from there.

The proof: before the erasure known words are written to places all over the disk, drawn anew for each. None of them may
be there afterwards; where the way leaves zeros, zeros must be there and at other places; where it is advice to the
device, all of the disk is read. This is Clear or Purge of NIST SP 800-88 Rev. 1 by what the disk can, verified as its
section 4.7 asks, by representative sampling.

It is stepwise, a step a bounded piece of work: so several disks take turns, and a step is what a crash may repeat.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import structlog

from bessemer.core.errors import DriverError
from bessemer.drivers import Hook, no_hook
from bessemer.drivers.passthrough.protocol import Wanted
from bessemer.drivers.wipe.protocol import Found, Media, Medium, Way
from bessemer.drivers.wipe.records import Debt, Phase, Records

PLACES = 64
"""At which a disk is looked at, and again as many where it must read as zeros."""

PLACE_BYTES = 4096
READ_BYTES = 64 << 20
"""Of a disk that is read whole, in one step."""

TRIES = 6
"""Looks at a disk that the host has in use, before it is left alone: what scans a new disk lets go of it soon."""

_WAITING = frozenset({"DiskMissing", "DiskFull", "DiskFailed"})
"""What is tried for ever: no person could decide anything about it."""

_OWED: frozenset[Phase] = frozenset({"due", "marking", "erasing", "proving"})

log = structlog.get_logger(__name__)


class Wipes:
    """The disks of one host. ``on_call`` is called between any two things that a crash could part."""

    def __init__(self, records: Records, media: Media, *, on_call: Hook = no_hook) -> None:
        self._records = records
        self._media = media
        self._on_call = on_call
        self.news = asyncio.Event()
        """Set where there may be something to do."""
        self.news.set()

    async def asked(self, uid: str, wanted: Sequence[Wanted]) -> None:
        """The disks among these are about to be handed over. What was handed to the uid before is its own.

        Raises DriverError ``BeingWiped`` where one is another's, or was; ``DiskMissing``, ``DiskChanged``,
        ``FunctionsMissing``, ``DiskFull``, ``DiskFailed``.
        """
        await asyncio.to_thread(self._asked, uid, wanted)

    async def handed(self, uid: str) -> None:
        """A guest may have them from here on. Raises DriverError."""
        await asyncio.to_thread(self._handed, uid)

    async def end(self, uid: str, wanted: Sequence[Wanted] = ()) -> None:
        """The uid's Claim has ended: what it had is owed; so are ``wanted`` of which an earlier release kept nothing.
        Raises DriverError."""
        await asyncio.to_thread(self._end, uid, wanted)
        self.news.set()

    async def uids(self) -> frozenset[str]:
        """Every uid that has, or may have, a disk."""
        debts = await asyncio.to_thread(self._records.all)
        return frozenset(debt.uid for debt in debts if debt.phase in ("asked", "handed"))

    async def unfit(self) -> Mapping[str, str]:
        """What is to be given to nobody now, by id and by PCI address, and why: in words that change seldom."""
        found: dict[str, str] = {}
        for debt in await asyncio.to_thread(self._records.all):
            if debt.phase not in ("asked", "handed"):
                found |= dict.fromkeys(filter(None, (debt.device, debt.address)), said_of(debt))
        return found

    async def step(self) -> bool:
        """A piece of work on each disk that is owed; whether there is more to do at once.

        Raises nothing: what is wrong with a disk stands in its record.
        """
        busy = False
        for debt in await asyncio.to_thread(self._records.all):
            if debt.phase in _OWED:
                busy |= await asyncio.to_thread(self._advance, debt)
        return busy

    async def waits(self) -> bool:
        """Whether any disk is still owed."""
        return any(debt.phase in _OWED for debt in await asyncio.to_thread(self._records.all))

    def _asked(self, uid: str, wanted: Sequence[Wanted]) -> None:
        disks = [one for one in wanted if one.kind == "disk"]
        debts = self._records.all() if disks else ()
        for one in disks:
            if one.functions:
                message = f"functions of {one.device} cannot be wiped by themselves"
                raise DriverError("FunctionsMissing", message)
            before = [
                debt for debt in debts if one.device == debt.device or (one.address and one.address == debt.address)
            ]
            mine = [debt for debt in before if debt.uid == uid and debt.phase in ("asked", "handed")]
            if len(mine) < len(before):
                said = next(said_of(debt) for debt in before if debt not in mine)
                raise DriverError("BeingWiped", f"disk {one.device} goes to nobody yet: {said}")
            if any(debt.phase == "handed" for debt in mine):
                continue
            found = self._look(one.address, mine)
            self._keep(
                Debt(device=one.device, address=one.address, uid=uid, wwid=found.wwid, size_bytes=found.size_bytes)
            )

    def _look(self, address: str, mine: Sequence[Debt]) -> Found:
        try:
            return self._media.look(address)
        except DriverError as error:
            # A crash came after it was taken from the host's driver and before that was recorded.
            if error.reason != "DiskMissing" or not mine or mine[0].was is None:
                raise
            return mine[0].was

    def _handed(self, uid: str) -> None:
        for debt in self._records.all():
            if debt.uid == uid and debt.phase == "asked":
                self._keep(replace(debt, phase="handed"))

    def _end(self, uid: str, wanted: Sequence[Wanted]) -> None:
        debts = self._records.all()
        known = {debt.device for debt in debts} | {debt.address for debt in debts}
        for one in wanted:
            if one.kind == "disk" and not known & {one.device, one.address}:
                self._keep(Debt(device=one.device, address=one.address, uid=uid, phase="due"))
        for debt in debts:
            if debt.uid == uid and debt.phase == "handed":
                self._keep(replace(debt, phase="due"))
            elif debt.uid == uid and debt.phase == "asked":
                self._records.drop(debt.device)

    def _advance(self, debt: Debt) -> bool:
        try:
            with self._media.open(debt.address, debt.was) as medium:
                return self._worked(debt, medium)
        except DriverError as error:
            return self._troubled(debt, error)

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
            data = medium.read(debt.done_bytes, min(READ_BYTES, debt.size_bytes - debt.done_bytes))
            if data.count(0) < len(data):
                raise DriverError("WayRefused", f"{way.name} left something")
            self._keep(replace(debt, done_bytes=debt.done_bytes + len(data)))
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
        if error.reason == "DiskInUse" and debt.tries < TRIES:
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


def said_of(debt: Debt) -> str:
    """Of a disk that is owed, in a line."""
    if debt.phase == "failed":
        return f"not wiped: {debt.message}; on its host: bessemer disks --help"
    if debt.phase == "due":
        return "being wiped: it waits" + (f", for {debt.message}" if debt.message else "")
    doing = "it is read back" if debt.phase == "proving" else debt.way
    tenths = debt.done_bytes * 10 // debt.size_bytes if debt.size_bytes else 0
    held = f" ({debt.message})" if debt.message else ""
    return f"being wiped: {doing}, {tenths}0 %{held}"


def _way(medium: Medium, name: str) -> Way:
    """Raises DriverError ``WipeFailed``."""
    found = next((way for way in medium.ways() if way.name == name), None)
    if found is None:
        raise DriverError("WipeFailed", f"the disk has no {name} any more")
    return found
