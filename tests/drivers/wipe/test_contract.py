"""One contract for disks that are wiped: on the fake, and on a block device of this machine's kernel."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from bessemer.core.errors import DriverError
from bessemer.drivers.inspect.sysfs import Disk
from bessemer.drivers.wipe.fake import FakeDisk, FakeMedia, FakeMediaWorld
from bessemer.drivers.wipe.protocol import Found, Media, Medium
from bessemer.drivers.wipe.real import BlockMedia
from tests.drivers.wipe.loops import ADDRESS, SIZE, loop, media, needs_root, shown

MINE = b"what a tenant wrote".ljust(4096, b".")


@pytest.fixture(params=["fake", pytest.param("real", marks=needs_root)])
def disks(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Media]:
    if request.param == "fake":
        yield FakeMedia(FakeMediaWorld(disks={ADDRESS: FakeDisk(size_bytes=SIZE, wwid="eui.1")}))
    else:
        with loop(tmp_path / "disk") as name:
            yield media(name)


def erased(medium: Medium, way: str) -> bool:
    """False where the disk cannot."""
    done, before = 0, -1
    while before < done < medium.size_bytes:
        before = done
        try:
            done = medium.erase(way, done)
        except DriverError as error:
            if error.reason == "WayRefused":
                return False
            raise
    assert done == medium.size_bytes
    return True


def test_what_is_written_is_there_until_it_is_erased_in_any_way(disks: Media) -> None:
    found, did = disks.look(ADDRESS), []
    assert found == Found("eui.1", SIZE)
    with disks.open(ADDRESS, found) as medium:
        assert (medium.size_bytes, medium.ways()[-1].name) == (SIZE, "overwriting with zeros")
        for way in medium.ways():
            for offset in (0, SIZE // 2 - 100, SIZE - len(MINE)):
                medium.write(offset, MINE)
            medium.flush()
            assert medium.read(SIZE - len(MINE), len(MINE)) == MINE
            assert MINE in medium.read(SIZE // 2 - 4096, 3 * 4096)
            if erased(medium, way.name):
                did.append(way)
                assert not any(medium.read(0, SIZE)), f"{way.name} leaves nothing"
    assert did[-1].zeros
    assert not did[-1].advice


def test_an_erasure_goes_on_from_where_it_was(disks: Media) -> None:
    with disks.open(ADDRESS, None) as medium:
        medium.write(0, MINE)
        medium.write(SIZE - len(MINE), MINE)
        medium.flush()
        assert medium.erase("overwriting with zeros", SIZE // 2) == SIZE
        assert medium.read(0, len(MINE)) == MINE
        assert not any(medium.read(SIZE // 2, SIZE // 2))
        assert medium.erase("overwriting with zeros", 0) == SIZE
        assert not any(medium.read(0, SIZE))


@pytest.mark.parametrize("was", [Found("eui.1", SIZE + 512), Found("eui.2", SIZE)])
def test_another_disk_is_not_opened(disks: Media, was: Found) -> None:
    with pytest.raises(DriverError) as caught, disks.open(ADDRESS, was):
        pass
    assert caught.value.reason == "DiskChanged"


# --- what the host's kernel says -------------------------------------------------------------------------------


def reason(there: Sequence[Disk], was: Found | None = None, *, address: str = ADDRESS) -> str:
    try:
        with BlockMedia(lambda: there).open(address, was):
            return ""
    except DriverError as error:
        return error.reason


@needs_root
def test_a_disk_that_anybody_has_is_not_opened(tmp_path: Path) -> None:
    with loop(tmp_path / "disk") as name:
        assert reason(shown(name)) == ""
        assert reason(shown(name, in_use=True)) == "DiskInUse"
        # The kernel holds what is mounted, swapped to, or part of a RAID, a volume group or a cache in this way.
        held = os.open(f"/dev/{name}", os.O_RDONLY | os.O_EXCL)
        try:
            assert reason(shown(name)) == "DiskInUse", "also where the inspection has not seen it"
            with pytest.raises(DriverError, match="in use"):
                media(name).look(ADDRESS)  # nor is it handed to a guest
        finally:
            os.close(held)
        subprocess.run(("mke2fs", "-q", f"/dev/{name}"), check=True)
        at = tmp_path / "mounted"
        at.mkdir()
        subprocess.run(("mount", f"/dev/{name}", str(at)), check=True)
        try:
            assert reason(shown(name)) == "DiskInUse"
            with pytest.raises(DriverError), media(name).open(ADDRESS, None):
                pass
        finally:
            subprocess.run(("umount", str(at)), check=True)
        assert reason(shown(name)) == ""


@needs_root
def test_a_disk_is_known_by_its_id_and_an_address_alone_by_what_is_there(tmp_path: Path) -> None:
    with loop(tmp_path / "disk") as name:
        (disk,) = shown(name)
        moved = Disk(name, "0000:44:00.0", disk.model, disk.wwid, disk.size_bytes)
        was = Found(disk.wwid, SIZE)
        assert reason([moved], was) == "", "a card that was put in moved it"
        assert reason([moved]) == "DiskMissing"
        assert reason([], was) == "DiskMissing"
        other = Disk("sdz", ADDRESS, disk.model, "eui.other", SIZE)
        assert reason([other], was) == "DiskChanged", "its tenant made it say another id, or it was taken out"
        second = Disk("nvme0n2", ADDRESS, disk.model, "eui.2", SIZE)
        assert reason([disk, second], was) == reason([disk, second]) == "DiskChanged", "its tenant made it two"
        assert reason([disk, moved], was) == "DiskChanged", "two say that they are it"


def test_a_disk_that_goes_while_all_are_listed_is_waited_for() -> None:
    def gone() -> Sequence[Disk]:
        raise FileNotFoundError("/sys/block/sda")

    for look in (lambda there: there.look(ADDRESS), lambda there: there.open(ADDRESS, None).__enter__()):
        with pytest.raises(DriverError) as caught:
            look(BlockMedia(gone))
        assert caught.value.reason == "DiskMissing"


def test_a_file_is_no_disk(tmp_path: Path) -> None:
    (tmp_path / "sda").write_bytes(bytes(4096))
    found = [Disk("sda", ADDRESS, "", "", 4096)]
    with (
        pytest.raises(DriverError, match="no block device"),
        BlockMedia(lambda: found, dev=tmp_path).open(ADDRESS, None),
    ):
        pass
