"""Disks that guests had whole, from the moment that they are handed over until it is proven that nothing is left.

What holds, also after a crash at any point:

* A disk is on record before a guest can have it, and off it only once it is proven to carry nothing; while it is on
  record, it is handed to nobody but the Claim that has it, and nothing but a disk on record is ever written to.
* What was recorded as about to be handed over, and then was not, no guest has had: it is not wiped.

How one is wiped is `erasing`'s. It is stepwise, a step a bounded piece of work: so several disks take turns, and a step
is what a crash may repeat.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Lock

from bessemer.core.errors import DriverError
from bessemer.drivers import Hook, no_hook
from bessemer.drivers.inspect.sysfs import disk_id
from bessemer.drivers.passthrough.protocol import Wanted
from bessemer.drivers.wipe.erasing import Erasing
from bessemer.drivers.wipe.protocol import Found, Media
from bessemer.drivers.wipe.records import Debt, Phase, Records

AT_ONCE = 16
"""Disks that are worked on beside each other."""

STEP_SECONDS = 10.0
"""How long all of them are waited for, for one that erases itself takes hours, and one may never answer; and how long a
disk that has to be waited for is let be while others are worked on."""

_OWED: frozenset[Phase] = frozenset({"due", "marking", "erasing", "proving"})


class Wipes:
    """The disks of one host. ``on_call`` is called between any two things that a crash could part."""

    def __init__(self, records: Records, media: Media, *, on_call: Hook = no_hook) -> None:
        self._records = records
        self._media = media
        self._on_call = on_call
        self._erasing = Erasing(records, media, on_call=on_call)
        self._turn = Lock()
        self._under_way: dict[str, asyncio.Future[bool]] = {}
        self._rest: dict[str, float] = {}
        self.news = asyncio.Event()
        """Set where there may be something to do."""
        self.news.set()

    async def asked(self, uid: str, wanted: Sequence[Wanted]) -> None:
        """The disks among these are about to be handed over. What was handed to the uid before is its own.

        Raises DriverError ``BeingWiped`` where one is another's, or was; ``DiskMissing``, ``DiskChanged``,
        ``DiskInUse``, ``FunctionsMissing``, ``DiskFull``, ``DiskFailed``.
        """
        await asyncio.to_thread(self._alone, self._asked, uid, wanted)

    async def handed(self, uid: str) -> None:
        """A guest may have them from here on. Raises DriverError."""
        await asyncio.to_thread(self._alone, self._handed, uid)

    async def ending(self, uid: str, wanted: Sequence[Wanted] = ()) -> None:
        """The uid's Claim has ended, and what it had is about to be given back: also ``wanted``, of which an earlier
        release kept nothing. Raises DriverError."""
        await asyncio.to_thread(self._alone, self._ending, uid, wanted)

    async def end(self, uid: str) -> None:
        """It is given back: what the uid had is owed. Raises DriverError."""
        await asyncio.to_thread(self._alone, self._end, uid)
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
        """A piece of work on each disk that is owed, until the first is done; whether there is more to do at once.

        Raises nothing: what is wrong with a disk stands in its record.
        """
        debts, loop = await asyncio.to_thread(self._records.all), asyncio.get_running_loop()
        for debt in debts:
            rests = debt.device in self._under_way or self._rest.get(debt.device, 0.0) > loop.time()
            if debt.phase in _OWED and not rests and len(self._under_way) < AT_ONCE:
                threads = ThreadPoolExecutor(1, "wipe")  # the step's own: it may keep it for hours
                self._under_way[debt.device] = loop.run_in_executor(threads, self._erasing.step, debt)
                threads.shutdown(wait=False)
        more = False
        if self._under_way:
            await asyncio.wait(self._under_way.values(), timeout=STEP_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            for device in [device for device, step in self._under_way.items() if step.done()]:
                busy = self._under_way.pop(device).result()
                self._rest[device] = 0.0 if busy else loop.time() + STEP_SECONDS
                more = more or busy or bool(self._under_way)
        if not more:  # who asked pauses
            self._rest.clear()
        return more

    def _alone(self, what: Callable[..., None], *words: object) -> None:
        """Who reads what is on record decides by it: one after the other."""
        if not self._turn.acquire(timeout=STEP_SECONDS):
            raise DriverError("DiskFailed", "the kernel does not answer for a disk that somebody asks for")
        try:
            what(*words)
        finally:
            self._turn.release()

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
            found = self._look(one, mine)
            if not any(debt.phase == "handed" for debt in mine):
                self._keep(
                    Debt(device=one.device, address=one.address, uid=uid, wwid=found.wwid, size_bytes=found.size_bytes)
                )

    def _look(self, one: Wanted, mine: Sequence[Debt]) -> Found:
        was = mine[0].was if mine else None
        try:
            found = self._media.look(one.address)
        except DriverError as error:
            # The host's driver has it no more, since this uid has it.
            if error.reason != "DiskMissing" or was is None:
                raise
            return was
        if mine[:1] and mine[0].phase == "handed":
            if was not in (None, found):
                raise DriverError("DiskChanged", f"at {one.address} is another disk than this claim had")
        elif found.wwid and one.device != disk_id(found.wwid, ""):
            # The claim is older than the host's last boot: this one was offered to nobody, or to somebody else.
            raise DriverError("DiskChanged", f"at {one.address} is another disk than {one.device}")
        return found

    def _handed(self, uid: str) -> None:
        for debt in self._records.all():
            if debt.uid == uid and debt.phase == "asked":
                self._keep(replace(debt, phase="handed"))

    def _ending(self, uid: str, wanted: Sequence[Wanted]) -> None:
        debts = self._records.all()
        known = {debt.device for debt in debts} | {debt.address for debt in debts}
        for one in wanted:
            if one.kind == "disk" and not known & {one.device, one.address}:
                self._keep(Debt(device=one.device, address=one.address, uid=uid, phase="handed"))

    def _end(self, uid: str) -> None:
        for debt in self._records.all():
            if debt.uid == uid and debt.phase == "handed":
                self._keep(replace(debt, phase="due"))
            elif debt.uid == uid and debt.phase == "asked":
                self._records.drop(debt.device)

    def _keep(self, debt: Debt) -> None:
        self._on_call("wipe.keep")
        self._records.keep(debt)
        self._on_call("wipe.keep.done")


def said_of(debt: Debt) -> str:
    """Of a disk that is owed, in a line."""
    if debt.phase == "failed":
        return f"not wiped: {debt.message}; on its host: bessemer disks --retry {debt.device}, or --release"
    if debt.phase == "due":
        return "being wiped: it waits" + (f", for {debt.message}" if debt.message else "")
    doing = "it is read back" if debt.phase == "proving" else debt.way
    tenths = debt.done_bytes * 10 // debt.size_bytes if debt.size_bytes else 0
    held = f" ({debt.message})" if debt.message else ""
    return f"being wiped: {doing}, {tenths}0 %{held}"
