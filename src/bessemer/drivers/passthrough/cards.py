"""Cards whose virtual functions are made and unmade: one thing at a time for each card, and no card keeps another.

The kernel takes ``sriov_numvfs`` in the driver of the card, which may not answer: what hangs there hangs for good. The
thread that wrote is spent; the card is refused from then on, with the reason, until the kernel has answered.

While functions of ours are there the host's drivers are to take none of them (``sriov_drivers_autoprobe``). What that
was before is written down before it is changed, and put back with the last function.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

from bessemer.core.errors import DriverError
from bessemer.drivers.passthrough.protocol import Wanted
from bessemer.drivers.passthrough.sysfs import VFIO, Pci, autoprobe, make, unmake

_RECORD = ".autoprobe-"


class Cards:
    """``state`` is where records of devices are; ours begin with a dot, and are none of those. Whoever waits for a card
    waits ``seconds``."""

    def __init__(self, state: Path, pci: Pci, *, seconds: float) -> None:
        self._state = state
        self._pci = pci
        self._seconds = seconds
        self._locks: dict[str, asyncio.Lock] = {}

    @asynccontextmanager
    async def turn(self, addresses: Iterable[str]) -> AsyncIterator[None]:
        """Nobody else changes these meanwhile. Raises DriverError ``DeviceBusy`` for one on which the kernel does not
        answer."""
        async with AsyncExitStack() as stack:
            for address in sorted(set(addresses)):
                stack.callback((await self._locked(address)).release)
            yield

    async def make(self, wanted: Sequence[Wanted]) -> None:
        """The functions of those of which some are wanted, in their turn. Raises DriverError ``FunctionsMissing``,
        ``DeviceBusy``."""
        for one in wanted:
            if one.functions:
                await asyncio.to_thread(self._make, one.address)

    async def unmake(self, addresses: Iterable[str]) -> None:
        """All functions of these, in their turn. Raises DriverError ``DeviceBusy``."""
        for address in sorted(addresses):
            await asyncio.to_thread(self._unmake, address)

    async def _locked(self, address: str) -> asyncio.Lock:
        lock = self._locks.setdefault(address, asyncio.Lock())
        try:
            async with asyncio.timeout(self._seconds):
                await lock.acquire()
        except TimeoutError as error:
            said = f"{address}: the kernel has not made or unmade its functions in {self._seconds:g} s"
            raise DriverError("DeviceBusy", said) from error
        return lock

    def _make(self, address: str) -> None:
        # Of a card that is gone, or a guest's as a whole, whoever takes it says so.
        if not self._pci.there(address) or self._pci.driver(address) == VFIO or self._pci.functions(address):
            return
        record, before = self._state / f"{_RECORD}{address}", autoprobe(self._pci, address)
        try:
            if before and not record.exists():
                self._state.mkdir(mode=0o700, parents=True, exist_ok=True)
                record.write_text(before)
        except OSError as error:
            said = "how a card was cannot be kept"
            raise DriverError("PassthroughUnavailable", said, internal=str(error)) from error
        make(self._pci, address)

    def _unmake(self, address: str) -> None:
        record, before = self._state / f"{_RECORD}{address}", ""
        with suppress(OSError):  # made by others, or nobody knows any more
            before = record.read_text().strip()
        unmake(self._pci, address, before=before)
        with suppress(OSError):
            record.unlink(missing_ok=True)
