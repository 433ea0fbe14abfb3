"""Run as the one program of a guest with an IOMMU: hands devices over on its kernel, and says what became of them; and
keeps threads apart there, by control groups of version 2.

Each line ``SAID …`` is a JSON object; `test_kernel` starts the guest and reads them.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bessemer.core.cpus import show_cpus
from bessemer.core.errors import DriverError
from bessemer.drivers.cgroup import Cgroups, Limits
from bessemer.drivers.inspect.sysfs import Machine, disk_id
from bessemer.drivers.passthrough.protocol import Wanted
from bessemer.drivers.passthrough.real import VfioPassthrough
from bessemer.drivers.passthrough.sysfs import Pci
from bessemer.drivers.qemu.kin import GuestHerd
from bessemer.drivers.threads.real import HostThreads
from bessemer.drivers.wipe.handing import CleanPassthrough
from bessemer.drivers.wipe.real import BlockMedia
from bessemer.drivers.wipe.records import FolderRecords
from bessemer.drivers.wipe.wipes import Wipes

STATE = Path("/run/passthrough")
WIPES, WIPED = Path("/run/wipes"), Path("/run/wiped")
NVME = "0x010802"
PATTERN = b"A wrote this and B may never read it.".ljust(4096, b"!")


def cards() -> list[str]:
    """The addresses of all NVMe controllers, in order."""
    found = sorted(Path("/sys/bus/pci/devices").iterdir())
    return [at.name for at in found if (at / "class").read_text().strip() == NVME]


async def tried(uid: str, *wanted: Wanted) -> dict[str, Any]:
    """What comes of it, by a driver object that knows of none before."""
    try:
        handed = await VfioPassthrough(STATE).hand(uid, wanted)
    except DriverError as error:
        return {"reason": error.reason, "message": error.message, "internal": error.internal}
    addresses = [str(one.properties["host"]) for one in handed]
    nodes = sorted({node for one in handed for node in one.nodes})
    return {
        "drivers": drivers(addresses),
        "nodes": [node.is_char_device() for node in nodes],
        "groups": len(nodes),
    }


def drivers(addresses: Sequence[str]) -> list[str]:
    return [Pci().driver(address) for address in addresses]


async def threads() -> dict[str, Any]:
    """Where a process of somebody else's and this one may run, while a thread is owned and afterwards."""
    groups = Cgroups("bessemer/x/guests")
    groups.create("owner", Limits(cpus="1"))
    groups.create("other", Limits())
    words = [*groups.enter("other"), "/bin/busybox", "sleep", "600"]
    process = await asyncio.create_subprocess_exec(*words)
    while process.pid not in groups.pids("other"):
        await asyncio.sleep(0.05)
    said: dict[str, Any] = {"available": groups.available, "groups": [str(at) for at in groups._mounts()]}
    for own in ({"owner": "1"}, {}):
        await HostThreads([GuestHerd(STATE / "none", cgroups=groups)], mine=(0, 1)).keep(own)
        both = (os.sched_getaffinity(process.pid), os.sched_getaffinity(0))
        said["owned" if own else "given back"] = [show_cpus(cpus) for cpus in both]
    for uid in ("owner", "other"):
        await groups.remove(uid)
    await process.wait()
    return said


async def wiped(address: str) -> dict[str, Any]:
    """An NVMe disk of this kernel goes from one guest to the next: what the first wrote, and what became of it."""
    media, records = BlockMedia(Machine().disks), FolderRecords(WIPES)
    wipes = Wipes(records, media)
    clean = CleanPassthrough(VfioPassthrough(WIPED), wipes)
    disk = Wanted(disk_id(media.look(address).wwid, ""), "disk", address)
    with media.open(address, None) as medium:
        ways = [way.name for way in medium.ways()]
        for offset in range(0, medium.size_bytes, 1 << 20):
            medium.write(offset, PATTERN)
        medium.flush()
    await clean.hand("a", (disk,))
    said: dict[str, Any] = {"ways": ways, "handed": drivers([address])}
    with refused(said, "while it is a's"):
        await clean.hand("b", (disk,))
    await clean.end("a", (disk,))
    with refused(said, "while it is wiped"):
        await clean.hand("b", (disk,))
    did: list[str] = []
    for _ in range(300):
        did += [debt.way for debt in records.all() if debt.phase == "erasing" and debt.way not in did]
        if not await wipes.step() and records.all():
            await asyncio.sleep(0.1)  # its driver is about to show it
    with media.open(address, None) as medium:
        said["left"] = sum(medium.read(at, 1 << 20).count(PATTERN) for at in range(0, medium.size_bytes, 1 << 20))
    said |= {"did": did, "records": [str(debt) for debt in records.all()], "unfit": dict(await wipes.unfit())}
    await clean.hand("b", (disk,))
    said["handed again"] = drivers([address])
    await clean.give_back("b")
    return said


@contextmanager
def refused(said: dict[str, Any], when: str) -> Iterator[None]:
    """Says how it was refused."""
    try:
        yield
    except DriverError as error:
        said[when] = error.reason


def whole(address: str) -> Wanted:
    return Wanted(f"disk-{address}", "disk", address)


async def main() -> None:
    alone, together, other, card = cards()
    said: dict[str, Any] = {"before": drivers(cards())}
    said["alone"] = await tried("a", whole(alone))
    said["again"] = await tried("a", whole(alone))
    said["of another"] = await tried("b", whole(alone))
    said["of a group"] = await tried("c", whole(together))
    said["a whole group"] = await tried("c", whole(together), whole(other))
    functions = Wanted("card", "disk", card, functions=2)
    said["functions"] = await tried("d", functions)
    said["more functions"] = await tried("e", functions)
    said["card"] = await tried("f", whole(card))
    said["made"] = len(Pci().functions(card))
    for uid in ("a", "b", "c", "d", "e", "f"):
        await VfioPassthrough(STATE).give_back(uid)
    said["threads"] = await threads()
    said["wiped"] = await wiped(alone)
    said["after"] = drivers(cards())
    said["left"] = [len(Pci().functions(card)), sorted(await VfioPassthrough(STATE).uids())]
    sys.stdout.write(f"SAID {json.dumps(said)}\n")


if __name__ == "__main__":
    asyncio.run(main())
