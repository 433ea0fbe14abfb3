"""PCI devices of this machine handed to guests by ``vfio-pci``, through sysfs.

``STATE/UID`` names what a uid has, and is written before anything is taken: so what a killed agent has begun is found,
finished or given back. A device is given to ``vfio-pci`` by its ``driver_override``, which is taken away again when it
is given back: the kernel then finds its own driver, whichever that is.

What the host uses is looked at when a device is taken as well: a report is older than that, and after a boot an address
may be another device's.

All of an IOMMU group goes together, for one of its devices may reach the memory of the others (Linux,
``Documentation/driver-api/vfio.rst``): whatever of it is not handed to the same uid must be a bridge, or have no
driver.
"""

from __future__ import annotations

import asyncio
import errno
import json
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, TypeVar

import structlog

from bessemer.core import durable
from bessemer.core.errors import DriverError
from bessemer.drivers.passthrough.cards import Cards
from bessemer.drivers.passthrough.protocol import Handed, Wanted
from bessemer.drivers.passthrough.sysfs import BRIDGE, VFIO, Pci

log = structlog.get_logger(__name__)

_SORTS = {"gpu": ("0x03", "0x12"), "nic": ("0x02", "0x0c06"), "disk": ("0x01",)}
"""Class codes of the PCI functions that are such a device."""

_KERNEL_SECONDS = 30.0
"""In which the kernel is to hand over what a guest has, or to take it back."""

_T = TypeVar("_T")
_Taken = Mapping[str, Sequence[str]]
"""Addresses by the device that they are of: its own, or its functions'."""


class VfioPassthrough:
    """Implements `passthrough.protocol.Passthrough`. ``state`` is this agent's own; ``used`` says which addresses the
    host needs itself."""

    def __init__(
        self,
        state: Path,
        *,
        pci: Pci | None = None,
        used: Callable[[], Set[str]] = frozenset,
        seconds: float = _KERNEL_SECONDS,
    ) -> None:
        self._state = state
        self._pci = pci or Pci()
        self._used = used
        self._seconds = seconds
        self._turn = asyncio.Lock()
        self._cards = Cards(state, self._pci, seconds=seconds)
        self._under_way: dict[str, asyncio.Task[Any]] = {}

    async def hand(self, uid: str, wanted: Sequence[Wanted]) -> tuple[Handed, ...]:
        async def all_of_it() -> tuple[Handed, ...]:
            await asyncio.to_thread(self._pci.require_vfio)
            async with self._cards.turn(one.address for one in wanted):
                await self._cards.make(wanted)
                async with self._turn:
                    handed = await asyncio.to_thread(self._take, uid, wanted)
            await asyncio.to_thread(self._bind, handed)
            return handed

        return await self._in_time(uid, all_of_it)

    async def give_back(self, uid: str) -> None:
        async def all_of_it() -> None:
            parents = await asyncio.to_thread(self._release, uid)
            async with self._cards.turn(parents):
                await self._cards.unmake(await asyncio.to_thread(self._idle, uid, parents))
                async with self._turn:
                    (self._state / uid).unlink(missing_ok=True)

        if uid in self._under_way or (self._state / uid).exists():
            await self._in_time(uid, all_of_it)

    async def uids(self) -> frozenset[str]:
        return frozenset(uid for uid, _ in self._records())

    async def _in_time(self, uid: str, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """One thing at a time for each uid. What the kernel does not answer goes on by itself, for it cannot be ended.

        Raises DriverError ``DeviceBusy``.
        """
        late = DriverError("DeviceBusy", f"the kernel has not let go of a device within {self._seconds:g} s")
        while (before := self._under_way.get(uid)) is not None and not before.done():
            await asyncio.wait((before,), timeout=self._seconds)
            if not before.done():
                raise late
        task: asyncio.Task[_T] = asyncio.create_task(work())
        self._under_way[uid] = task
        task.add_done_callback(lambda done: self._ended(uid, done))
        await asyncio.wait((task,), timeout=self._seconds)
        if not task.done():
            raise late
        return task.result()

    def _ended(self, uid: str, task: asyncio.Task[Any]) -> None:
        if self._under_way.get(uid) is task:
            del self._under_way[uid]
        if not task.cancelled():
            task.exception()  # whoever asked may have gone

    def _take(self, uid: str, wanted: Sequence[Wanted]) -> tuple[Handed, ...]:
        others = {
            address for has, taken in self._records() if has != uid for each in taken.values() for address in each
        }
        known = dict(self._records()).get(uid, {})
        taken: dict[str, list[str]] = {}
        for one in wanted:
            if self._pci.there(one.address) and not self._pci.sort(one.address).startswith(_SORTS.get(one.kind, "0x")):
                raise DriverError("DeviceMissing", f"at {one.address} is no {one.kind} {one.device} any more")
            # What was chosen before a crash is chosen again; functions are gone with the machine's last boot.
            before = known.get(one.device, ())
            still = before and all(map(self._pci.there, before))
            taken[one.device] = list(before) if still else self._chosen(one, others=others)
            self._keep(uid, {**known, **taken})
        addresses = [address for each in taken.values() for address in each]
        nodes = {address: self._pci.node(address) for address in addresses}
        used = self._used()
        for address in addresses:
            self._require_idle(address, used=used)
            self._require_alone(address, mine=set(addresses), others=others)
        return tuple(
            Handed(device, {"driver": VFIO, "host": address}, (nodes[address],))
            for device, each in taken.items()
            for address in each
        )

    def _bind(self, handed: Sequence[Handed]) -> None:
        for one in handed:
            self._pci.bind(str(one.properties["host"]))

    def _chosen(self, one: Wanted, *, others: set[str]) -> list[str]:
        """Which addresses are meant: the device's, or those of functions that nobody has."""
        if not self._pci.there(one.address):
            raise DriverError("DeviceMissing", f"{one.kind} {one.device} is not at {one.address or 'any PCI address'}")
        if not one.functions:
            if one.address in others or any(function in others for function in self._pci.functions(one.address)):
                raise DriverError("DeviceBusy", f"{one.kind} {one.device} is another guest's")
            return [one.address]
        if one.address in others:
            raise DriverError("DeviceBusy", f"{one.kind} {one.device} is another guest's")
        made = self._pci.functions(one.address)
        # What a driver of the host has was made by its administrator, and is no guest's.
        free = [function for function in made if function not in others and self._pci.driver(function) in ("", VFIO)]
        if len(free) < one.functions:
            raise DriverError("FunctionsMissing", f"{one.kind} {one.device} has {len(free)} functions left")
        return free[: one.functions]

    def _require_idle(self, address: str, *, used: Set[str]) -> None:
        """That the host does not use it; nor functions of it, which would go with it."""
        for one in (address, *self._pci.functions(address)):
            if one in used and self._pci.driver(one) != VFIO:
                raise DriverError("DeviceBusy", f"{one} is in use by the host ({self._pci.driver(one)})")

    def _require_alone(self, address: str, *, mine: set[str], others: set[str]) -> None:
        for other in sorted(set(self._pci.beside(address)) - mine):
            driver = self._pci.driver(other)
            if self._pci.sort(other).startswith(BRIDGE) or (not driver and other not in others):
                continue
            by = "another guest" if other in others else f"the host ({driver})"
            message = f"{address} cannot be had alone: {other} of its IOMMU group is in use by {by}"
            raise DriverError("GroupShared", message)

    def _release(self, uid: str) -> set[str]:
        """The cards of the functions that it had."""
        taken = dict(self._records()).get(uid, {})
        parents: set[str] = set()
        for address in (address for each in taken.values() for address in each):
            parent = self._pci.parent(address)
            self._pci.release(address, probe=parent is None)
            parents |= {parent} if parent is not None else set()
        return parents

    def _idle(self, uid: str, parents: Set[str]) -> set[str]:
        """Those whose last function is given back: each is one card again."""
        left = {address for has, each in self._records() if has != uid for all_ in each.values() for address in all_}
        return {
            parent
            for parent in parents
            if not any(function in left or self._pci.driver(function) for function in self._pci.functions(parent))
        }

    def _records(self) -> Iterator[tuple[str, _Taken]]:
        """A record that cannot be read says of its uid only that it may have something."""
        for file in sorted(self._state.iterdir()) if self._state.is_dir() else ():
            # What a killed agent had half written says nothing: nothing was taken by it.
            if not file.name.startswith(".") and file.suffix != durable.HALF:
                yield file.name, _read(file)

    def _keep(self, uid: str, taken: _Taken) -> None:
        """What is about to be taken; on the disk before it is."""
        try:
            if not self._state.is_dir():
                self._state.mkdir(mode=0o700, parents=True, exist_ok=True)
                durable.settle(self._state.parent)
            durable.put(self._state / uid, json.dumps(taken).encode())
        except OSError as error:
            reason = "DiskFull" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "PassthroughUnavailable"
            raise DriverError(reason, "which devices are taken cannot be kept", internal=str(error)) from error


def _read(record: Path) -> _Taken:
    try:
        taken = json.loads(record.read_text())
        if isinstance(taken, dict) and all(isinstance(each, list) for each in taken.values()):
            return taken
    except FileNotFoundError:
        return {}  # given back meanwhile
    except (OSError, ValueError) as error:
        log.error("a record of devices cannot be read", object_uid=record.name, error=str(error))
        return {}
    log.error("a record of devices cannot be read", object_uid=record.name, error="it names no devices")
    return {}
