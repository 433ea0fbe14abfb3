"""A disk from one guest to the next: what the first wrote is gone when the second has it, whatever crashes between."""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from bessemer.core.errors import DriverError
from bessemer.drivers import Hook, no_hook
from bessemer.drivers.passthrough.fake import FakePassthrough, FakePciWorld
from bessemer.drivers.passthrough.protocol import Wanted
from bessemer.drivers.wipe.erasing import PLACE_BYTES, PLACES, TRIES, places, witness
from bessemer.drivers.wipe.fake import DISCARD, ITSELF, OVERWRITE, FakeDisk, FakeMedia, FakeMediaWorld, FakeMedium
from bessemer.drivers.wipe.handing import CleanPassthrough
from bessemer.drivers.wipe.protocol import Found, Media
from bessemer.drivers.wipe.records import Debt, FolderRecords
from bessemer.drivers.wipe.wipes import Wipes
from tests.drivers.wipe.loops import ADDRESS, SIZE, loop, media, needs_root

DISK = Wanted("disk-eui.1", "disk", ADDRESS)
NIC = Wanted("nic-1", "nic", "0000:42:00.0")
PATTERN = b"A wrote this and B may never read it.".ljust(4096, b"!")


class Crash(BaseException):
    """The agent is killed."""


@dataclass
class Host:
    """One host's disks; each ``agent`` is a new one, which knows what is on the disk alone."""

    folder: Path
    media: Media
    pci: FakePciWorld

    def agent(self, on_call: Hook = no_hook) -> tuple[CleanPassthrough, Wipes]:
        wipes = Wipes(self.records, self.media, on_call=on_call)
        return CleanPassthrough(FakePassthrough(self.pci, on_call=on_call), wipes), wipes

    @property
    def records(self) -> FolderRecords:
        return FolderRecords(self.folder / "wipes")

    def write(self) -> None:
        """As a guest would: all over the disk."""
        with self.media.open(ADDRESS, None) as medium:
            for offset in range(0, medium.size_bytes, 1 << 20):
                medium.write(offset, PATTERN)
            medium.write(medium.size_bytes - len(PATTERN), PATTERN)
            medium.flush()

    def carries(self) -> bool:
        """Whether anything of it is left."""
        with self.media.open(ADDRESS, None) as medium:
            return any(PATTERN in medium.read(at, 4 << 20) for at in range(0, medium.size_bytes, 4 << 20))


def fake(tmp_path: Path, disk: FakeDisk | None = None, *, step_bytes: int = SIZE // 3) -> Host:
    pci = FakePciWorld()
    world = FakeMediaWorld({ADDRESS: disk or FakeDisk(size_bytes=SIZE, wwid="eui.1")}, pci, step_bytes=step_bytes)
    return Host(tmp_path, FakeMedia(world), pci)


@pytest.fixture(params=["fake", pytest.param("real", marks=needs_root)])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    if request.param == "fake":
        yield fake(tmp_path)
    else:
        with loop(tmp_path / "disk") as name:
            yield Host(tmp_path, media(name), FakePciWorld())


async def refusal(host: Host, uid: str = "b") -> str:
    with pytest.raises(DriverError) as caught:
        await host.agent()[0].hand(uid, (DISK,))
    return caught.value.reason


async def wiped(host: Host, *, steps: int = 1000) -> None:
    _, wipes = host.agent()
    while steps and await wipes.step():
        steps -= 1
    assert steps, "it does not end"


async def test_what_a_wrote_b_does_not_read(host: Host) -> None:
    passthrough, wipes = host.agent()
    host.write()
    await passthrough.hand("a", (NIC, DISK))
    assert await wipes.unfit() == {}, "it is a Claim's, and nobody offers it"
    assert await refusal(host) == "BeingWiped"
    await host.agent()[0].give_back("a")
    await wiped(host)
    assert host.carries(), "an agent that is stopped wipes nothing of a Claim that stands"
    assert await refusal(host) == "BeingWiped"
    await host.agent()[0].hand("a", (NIC, DISK))
    await host.agent()[0].end("a", (NIC, DISK))
    assert await passthrough.uids() == frozenset()
    assert await wipes.unfit() == dict.fromkeys((DISK.device, ADDRESS), "being wiped: it waits")
    assert [await refusal(host, uid) for uid in "ab"] == ["BeingWiped"] * 2, "nor does it go back to A"
    await wiped(host)
    assert not host.carries()
    assert (await wipes.unfit(), list(host.records.all())) == ({}, [])
    assert await host.agent()[0].hand("b", (DISK,))


async def life(passthrough: CleanPassthrough, wipes: Wipes) -> None:
    await passthrough.hand("a", (DISK,))
    await passthrough.end("a", (DISK,))
    while await wipes.step():
        pass


def crashes(at: int) -> tuple[Hook, Callable[[], int]]:
    """Raises at the call with that number; and how many there were."""
    seen = 0

    def called(_name: str) -> None:
        nonlocal seen
        seen += 1
        if seen == at:
            raise Crash

    return called, lambda: seen


async def test_a_crash_at_any_call_lets_nothing_through(tmp_path: Path) -> None:
    count, total = crashes(0)
    await life(*fake(tmp_path / "none").agent(count))
    assert total() > 15
    for at in range(1, total() + 1):
        host = fake(tmp_path / str(at))
        host.write()
        hook, _ = crashes(at)
        with pytest.raises(Crash):
            await life(*host.agent(hook))
        ever = any(debt.phase != "asked" for debt in host.records.all())
        if ever:
            assert await refusal(host) == "BeingWiped"
        # Whatever the new agent finds of A goes: its Claim has ended meanwhile.
        had = bool(host.pci.handed) or ever
        await host.agent()[0].end("a")
        await wiped(host)
        assert list(host.records.all()) == [], at
        assert await host.agent()[0].hand("b", (DISK,)), at
        await host.agent()[0].give_back("b")
        assert not (had and ever and host.carries()), at


async def test_what_was_not_handed_over_is_not_wiped(tmp_path: Path) -> None:
    """The host has come to use it since it reported: it is the host's, whatever becomes of the Claim."""
    host = fake(tmp_path)
    host.write()
    host.pci.broken.add(DISK.device)
    assert await refusal(host, "a") == "DeviceBusy"
    await host.agent()[0].end("a", (DISK,))
    await host.agent()[0].end("never", (DISK,))
    await wiped(host)
    assert host.carries()
    assert list(host.records.all()) == []


async def test_a_claim_of_an_agent_that_kept_no_record_is_owed_as_well(tmp_path: Path) -> None:
    host = fake(tmp_path)
    host.write()
    host.pci.handed["a"] = (NIC, DISK)
    await host.agent()[0].end("a", (NIC, DISK))
    assert await refusal(host) == "BeingWiped"
    await wiped(host)
    assert not host.carries()


async def test_nor_is_another_disk_wiped_for_it(tmp_path: Path) -> None:
    """The host was started anew since, and its disks have other addresses."""
    disk = FakeDisk(size_bytes=SIZE, wwid="eui.1")
    host = fake(tmp_path, disk)
    host.write()
    host.pci.handed["a"] = (NIC, DISK)
    await host.agent()[0].end("a", (NIC, DISK))
    disk.wwid = "eui.hosts"
    await wiped(host)
    assert host.carries()
    assert "is another disk than disk-eui.1" in (await host.agent()[1].unfit())[ADDRESS]


async def test_what_is_not_wholly_given_back_is_not_wiped_again_and_again(tmp_path: Path) -> None:
    """The host has the disk, but a card of the same Claim hangs: it is ended once more every few seconds."""
    host, erased = fake(tmp_path), 0
    host.pci = FakePciWorld()  # the disk is seen whatever is handed over

    class Hangs(FakePassthrough):
        async def give_back(self, uid: str) -> None:
            if hangs:
                raise DriverError("DeviceBusy", "the kernel has not let go of a device")
            await super().give_back(uid)

    def counted(name: str) -> None:
        nonlocal erased
        erased += name == "wipe.proven"

    wipes, hangs = Wipes(host.records, host.media, on_call=counted), True
    passthrough = CleanPassthrough(Hangs(host.pci), wipes)
    await passthrough.hand("a", (NIC, DISK))
    for _ in range(3):
        with pytest.raises(DriverError):
            await passthrough.end("a", (NIC, DISK))
        while await wipes.step():
            pass
        assert await refusal(host) == "BeingWiped"
    hangs = False
    await passthrough.end("a", (NIC, DISK))
    while await wipes.step():
        pass
    assert (erased, list(host.records.all())) == (1, [])


async def test_a_crash_between_the_kernel_and_the_record_is_no_end(tmp_path: Path) -> None:
    host = fake(tmp_path)

    def dies(name: str) -> None:
        if name == "passthrough.hand.done":
            raise Crash

    with pytest.raises(Crash):
        await host.agent(dies)[0].hand("a", (DISK,))
    assert await host.agent()[0].hand("a", (DISK,)), "although the host's driver has it no more"
    assert [debt.phase for debt in host.records.all()] == ["handed"]


async def test_a_claim_gets_its_own_disk_back_and_no_other(tmp_path: Path) -> None:
    """The host was started anew, and a card that was put in has moved its disks by a bus."""
    disk = FakeDisk(size_bytes=SIZE, wwid="eui.1")
    host = fake(tmp_path, disk)
    await host.agent()[0].hand("a", (DISK,))
    await host.agent()[0].give_back("a")
    disk.wwid = "eui.2"
    assert await refusal(host, "a") == "DiskChanged"
    disk.wwid = "eui.1"
    assert await host.agent()[0].hand("a", (DISK,))


async def test_of_two_that_ask_at_once_one_has_it(tmp_path: Path) -> None:
    host, both = fake(tmp_path), threading.Barrier(2)
    assert isinstance(host.media, FakeMedia)

    class Slow(FakeMedia):
        def look(self, address: str) -> Found:
            with suppress(threading.BrokenBarrierError):
                both.wait(0.5)
            return super().look(address)

    wipes = Wipes(host.records, Slow(host.media.world))
    said = await asyncio.gather(*(wipes.asked(uid, (DISK,)) for uid in "ab"), return_exceptions=True)
    assert [str(one).startswith(f"disk {DISK.device} goes to nobody") for one in said if one is not None] == [True]


async def test_a_disk_that_moved_to_the_address_of_another_is_still_whose_it_was(tmp_path: Path) -> None:
    """A is stopped, so the host has its disk, and was started anew; B's Claim names the slot where it is by now."""
    host, moved = fake(tmp_path), "0000:44:00.0"
    assert isinstance(host.media, FakeMedia)
    await host.agent()[0].hand("a", (DISK,))
    await host.agent()[0].give_back("a")
    host.media.world.disks[moved] = host.media.world.disks.pop(ADDRESS)
    for device, reason in (("disk-eui.2", "DiskChanged"), (DISK.device, "BeingWiped")):
        with pytest.raises(DriverError) as caught:
            await host.agent()[0].hand("b", (Wanted(device, "disk", moved),))
        assert caught.value.reason == reason
    assert [debt.uid for debt in host.records.all()] == ["a"]


async def test_a_claim_does_not_get_another_disk_than_its_own(tmp_path: Path) -> None:
    """It has not had one yet, and the host was started anew: one that nobody was offered is where its own was."""
    host = fake(tmp_path, FakeDisk(size_bytes=SIZE, wwid="eui.hosts"))
    assert await refusal(host, "a") == "DiskChanged"
    assert (list(host.records.all()), host.pci.handed) == ([], {})


async def test_functions_of_a_disk_go_to_nobody(tmp_path: Path) -> None:
    with pytest.raises(DriverError, match="cannot be wiped by themselves"):
        await fake(tmp_path).agent()[0].hand("a", (Wanted("disk-1", "disk", ADDRESS, functions=1),))


# --- what proves it --------------------------------------------------------------------------------------------


async def owed(tmp_path: Path, disk: FakeDisk) -> Host:
    host = fake(tmp_path, disk)
    host.write()
    await host.agent()[0].hand("a", (DISK,))
    await host.agent()[0].end("a")
    return host


@pytest.mark.parametrize("lazy", [(ITSELF,), (ITSELF, DISCARD)])
async def test_a_disk_that_only_says_so_is_wiped_another_way(tmp_path: Path, lazy: tuple[object, ...]) -> None:
    names = frozenset(way.name for way in (ITSELF, DISCARD) if way in lazy)
    host = await owed(tmp_path, FakeDisk(size_bytes=SIZE, lazy=names))
    await wiped(host)
    assert not host.carries()
    assert list(host.records.all()) == []


async def test_a_disk_that_nothing_erases_is_kept_out_until_a_person_decides(tmp_path: Path) -> None:
    disk = FakeDisk(size_bytes=SIZE, lazy=frozenset(way.name for way in (ITSELF, DISCARD, OVERWRITE)))
    host = await owed(tmp_path, disk)
    await wiped(host)
    (said,) = set((await host.agent()[1].unfit()).values())
    assert said.startswith("not wiped: overwriting with zeros left what was at byte 0; on its host: bessemer disks")
    assert [await refusal(host) for _ in range(2)] == ["BeingWiped"] * 2
    await wiped(host)
    assert [debt.phase for debt in host.records.all()] == ["failed"], "nobody tries it again unasked"


async def test_one_byte_that_a_discard_passed_over_is_found(tmp_path: Path) -> None:
    """A discard is advice: where nothing better is there, all of the disk is read."""
    disk = FakeDisk(size_bytes=SIZE, ways=(DISCARD, OVERWRITE))
    host = await owed(tmp_path, disk)

    def spoils(name: str) -> None:
        if name == "wipe.erased" and not disk.blocks:
            disk.blocks[SIZE // 4096 // 2 + 3] = bytes(4095) + b"x"

    _, wipes = host.agent(spoils)
    ways = set()
    while await wipes.step():
        ways |= {debt.way for debt in host.records.all()}
        if OVERWRITE.name in ways:
            break
    assert ways == {DISCARD.name, OVERWRITE.name}
    await wiped(host)
    assert disk.blocks == {}


async def test_a_disk_in_use_is_looked_at_a_few_times_and_never_touched(tmp_path: Path) -> None:
    disk = FakeDisk(size_bytes=SIZE)
    host = await owed(tmp_path, disk)
    disk.in_use = True
    for _ in range(TRIES + 1):
        assert not await host.agent()[1].step()
        assert "is in use by the host" in (await host.agent()[1].unfit())[ADDRESS]
    assert [debt.phase for debt in host.records.all()] == ["failed"]
    disk.in_use = False
    await wiped(host)
    assert host.carries(), "whose it is now, a person decides"


async def test_a_disk_that_a_killed_agent_still_erases_is_waited_for(tmp_path: Path) -> None:
    """What it asked of the kernel it has until the kernel answers: a format may take an hour."""
    disk = FakeDisk(size_bytes=SIZE)
    host = await owed(tmp_path, disk)
    _, wipes = host.agent()
    while host.records.all()[0].phase != "erasing":
        await wipes.step()
    disk.in_use = True
    for _ in range(3 * TRIES):
        assert not await host.agent()[1].step()
    disk.in_use = False
    await wiped(host)
    assert not host.carries()


async def test_a_disk_of_another_size_is_not_touched(tmp_path: Path) -> None:
    disk = FakeDisk(size_bytes=SIZE)
    host = await owed(tmp_path, disk)
    disk.size_bytes //= 2
    await wiped(host)
    assert host.carries()
    assert "not as large as it was" in (await host.agent()[1].unfit())[ADDRESS]


async def test_a_disk_that_is_not_there_is_waited_for(tmp_path: Path) -> None:
    host = await owed(tmp_path, FakeDisk(size_bytes=SIZE))
    host.pci.handed["stuck"] = (DISK,)
    for _ in range(TRIES + 2):
        assert not await host.agent()[1].step()
    assert "shows no disk" in (await host.agent()[1].unfit())[ADDRESS]
    del host.pci.handed["stuck"]
    await wiped(host)
    assert not host.carries()


async def test_a_disk_is_not_erased_again_and_again_while_nothing_can_be_kept(tmp_path: Path) -> None:
    """The agent's file system is full: of its guests' disks, as it happens."""
    host, full = await owed(tmp_path, FakeDisk(size_bytes=SIZE)), False
    erased = 0

    class Full(FolderRecords):
        def keep(self, debt: Debt) -> None:
            if full:
                raise DriverError("DiskFull", "which disks are to be wiped cannot be kept")
            super().keep(debt)

    def counted(name: str) -> None:
        nonlocal erased
        erased += name == "wipe.erased"

    records = Full(tmp_path / "wipes")
    wipes = Wipes(records, host.media, on_call=counted)
    records.keep(replace(host.records.all()[0], phase="erasing", way=ITSELF.name, seed="s", size_bytes=SIZE))
    full = True
    for _ in range(5):
        await wipes.step()
    assert (erased, host.carries()) == (0, True)
    full = False
    while await wipes.step():
        pass
    assert not host.carries()


async def test_what_was_once_wrong_is_not_said_while_it_is_read_back(tmp_path: Path) -> None:
    disk = FakeDisk(size_bytes=256 << 20, ways=(DISCARD, OVERWRITE))
    host = await owed(tmp_path, disk)
    (debt,) = host.records.all()
    wrong = {"tries": TRIES, "reason": "DiskInUse", "message": "the disk is in use by the host"}
    disk.blocks = {}
    host.records.keep(replace(debt, phase="proving", way=DISCARD.name, seed="s", size_bytes=disk.size_bytes, **wrong))
    await host.agent()[1].step()
    (debt,) = host.records.all()
    assert (debt.done_bytes, debt.tries, debt.message) == (64 << 20, 0, "")


def neighbour(world: FakeMediaWorld, records: FolderRecords) -> None:
    """A second disk, which takes its time: a hundred steps."""
    world.step_bytes = SIZE // 100
    world.disks["0000:44:00.0"] = FakeDisk(size_bytes=SIZE)
    records.keep(Debt(device="disk-2", address="0000:44:00.0", uid="b", phase="due"))


async def test_a_disk_that_never_answers_keeps_no_other(tmp_path: Path) -> None:
    host, answers = await owed(tmp_path, FakeDisk(size_bytes=SIZE)), threading.Event()
    assert isinstance(host.media, FakeMedia)
    neighbour(host.media.world, host.records)

    class Hangs(FakeMedia):
        def open(self, address: str, was: Found | None) -> AbstractContextManager[FakeMedium]:
            assert address != ADDRESS or answers.wait(60)
            return super().open(address, was)

    wipes = Wipes(host.records, Hangs(host.media.world))
    try:
        async with asyncio.timeout(30):
            while len(host.records.all()) > 1:
                await wipes.step()
        assert [debt.phase for debt in host.records.all()] == ["due"]
    finally:
        answers.set()
    while await wipes.step():
        pass
    assert not host.carries()


async def test_a_disk_in_use_is_let_be_while_another_is_worked_on(tmp_path: Path) -> None:
    """Else all its looks were over before whoever scans it has let go."""
    disk = FakeDisk(size_bytes=SIZE)
    host = await owed(tmp_path, disk)
    assert isinstance(host.media, FakeMedia)
    neighbour(host.media.world, host.records)
    disk.in_use = True
    _, wipes = host.agent()
    async with asyncio.timeout(30):
        while await wipes.step():
            pass
    assert [(debt.device, debt.phase, debt.tries) for debt in host.records.all()] == [(DISK.device, "due", 1)]


async def test_a_damaged_record_keeps_its_disk_out(tmp_path: Path) -> None:
    host = await owed(tmp_path, FakeDisk(size_bytes=SIZE))
    (file,) = (tmp_path / "wipes").iterdir()
    file.write_text(file.read_text()[:40])
    await wiped(host)
    assert host.carries()
    with capture_logs() as logs:
        for _ in range(3):
            assert await refusal(host) == "BeingWiped"
        records = host.records
        for _ in range(3):
            records.all()
    assert len(logs) == 4, "each agent says it once"
    file.write_text(json.dumps({"device": "disk-2", "address": "", "uid": "a"}))
    assert await refusal(host) == "BeingWiped", "it speaks of another disk"


def test_places_are_all_over_the_disk_and_no_two_witnesses_alike() -> None:
    found = list(places("seed", 1 << 40))
    assert found == list(places("seed", 1 << 40)) != list(places("other", 1 << 40))
    assert (found[0], found[-1]) == (0, (1 << 40) - PLACE_BYTES)
    assert PLACES <= len(found) <= PLACES + 2
    assert max(after - before for before, after in itertools.pairwise(found)) <= 2 * (1 << 40) // PLACES
    words = {witness("seed", at) for at in found}
    assert len(words) == len(found)
    assert {len(word) for word in words} == {PLACE_BYTES}
    assert list(places("seed", 512)) == [0]


# --- killed for real -------------------------------------------------------------------------------------------


@needs_root
async def test_an_agent_killed_again_and_again_wipes_a_block_device_all_the_same(tmp_path: Path) -> None:
    """Each successor is killed with -9 as well, at its fifth call, and the next one goes on."""
    with loop(tmp_path / "disk") as name:
        host = await lent(tmp_path, name)
        kills = 0
        while killed_at(tmp_path, name, 5):
            kills += 1
            assert await refusal(host) == "BeingWiped", kills
        assert kills >= 2
        assert not host.carries()
        assert await host.agent()[0].hand("b", (DISK,))


@needs_root
@pytest.mark.long
async def test_an_agent_killed_at_any_call_while_it_wipes_a_block_device_has_a_successor(tmp_path: Path) -> None:
    at, reached = 1, True
    while reached:
        folder = tmp_path / str(at)
        folder.mkdir()
        with loop(folder / "disk") as name:
            host = await lent(folder, name)
            if reached := killed_at(folder, name, at):
                assert await refusal(host) == "BeingWiped", at
                await wiped(host)
            assert not host.carries(), at
            assert await host.agent()[0].hand("b", (DISK,)), at
        at += 1
    assert at > 6


async def lent(folder: Path, name: str) -> Host:
    """A block device that a guest has written on, and whose Claim has ended."""
    host = Host(folder, media(name), FakePciWorld())
    host.write()
    await host.agent()[0].hand("a", (DISK,))
    await host.agent()[0].end("a")
    return host


def killed_at(folder: Path, name: str, at: int) -> bool:
    """Whether it came so far; the kill is between two words of it, which it waits for."""
    argv = (sys.executable, "-m", "tests.drivers.wipe.wiper", str(folder), name)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        words = (word for word in process.stdout if word.startswith("wipe.") or word == "over\n")
        for said, word in enumerate(words, start=1):
            if word == "over\n":
                break
            if said == at:
                process.kill()
                return True
            process.stdin.write("\n")
            process.stdin.flush()
    assert process.returncode == 0
    return False


def test_a_record_is_read_as_it_was_kept(tmp_path: Path) -> None:
    records = FolderRecords(tmp_path)
    debt = Debt(device="disk-a/../b %", address=ADDRESS, uid="u", phase="erasing", size_bytes=5, way="w", done_bytes=3)
    records.keep(debt)
    assert list(records.all()) == [debt]
    assert [file.parent for file in tmp_path.iterdir()] == [tmp_path]
    records.drop(debt.device)
    records.drop(debt.device)
    assert list(records.all()) == []
