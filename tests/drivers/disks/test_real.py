"""What only the real disks can show: formats, crashes in the middle, and a disk that is full."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from pycdlib import PyCdlib

from bessemer.core.errors import DriverError
from bessemer.core.units import GIB, MIB
from bessemer.drivers.disks.real import QcowDisks

UID = "0c1f0c5a-7b63-4c43-9d0e-6f3a2f1f7b51"
pytestmark = pytest.mark.real


async def test_the_seed_is_what_cloud_init_looks_for(tmp_path: Path) -> None:
    path = await QcowDisks(tmp_path).seed(UID, {"meta-data": "instance-id: x\n", "user-data": "#cloud-config\n"})
    iso = PyCdlib()
    iso.open(str(path))
    try:
        out = io.BytesIO()
        iso.get_file_from_iso_fp(out, rr_path="/meta-data")
        label = iso.pvd.volume_identifier.decode().strip()
    finally:
        iso.close()
    assert (label, out.getvalue()) == ("cidata", b"instance-id: x\n")


async def test_the_root_disk_is_qcow2_and_private(tmp_path: Path) -> None:
    path = await QcowDisks(tmp_path).create(UID, GIB)
    assert path.read_bytes().startswith(b"QFI\xfb")
    assert path.stat().st_mode & 0o077 == 0
    assert path.stat().st_blocks * 512 < MIB


async def test_what_a_crash_left_half_made_is_not_seen(tmp_path: Path) -> None:
    disks = QcowDisks(tmp_path)
    (tmp_path / UID).mkdir()
    (tmp_path / UID / ".root.qcow2.new").write_bytes(b"half")
    assert (await disks.paths(UID)).root is None
    await disks.create(UID, GIB)
    assert [entry.name for entry in (tmp_path / UID).iterdir()] == ["root.qcow2"]


async def test_a_damaged_disk_is_said_to_be(tmp_path: Path) -> None:
    disks = QcowDisks(tmp_path)
    (await disks.create(UID, GIB)).write_bytes(b"\0" * 512)
    with pytest.raises(DriverError) as caught:
        await disks.create(UID, GIB)
    assert caught.value.reason == "DiskFailed"


@pytest.mark.parametrize("uid", ["../x", "", ".hidden", "a/b", "a" * 200])
async def test_a_uid_that_is_none_is_refused(tmp_path: Path, uid: str) -> None:
    with pytest.raises(ValueError, match="not a uid"):
        await QcowDisks(tmp_path).create(uid, GIB)


async def test_a_full_disk_refuses_and_recovers(small: Path) -> None:
    disks = QcowDisks(small / "disks")
    filler = small / "filler"
    filler.write_bytes(b"\0" * (3 * MIB + 900_000))
    for attempt in (disks.create(UID, GIB), disks.seed(UID, {"meta-data": "x"})):
        with pytest.raises(DriverError) as caught:
            await attempt
        assert caught.value.reason == "DiskFull"
    filler.unlink()
    assert await disks.create(UID, GIB)
    assert await disks.seed(UID, {"meta-data": "x"})
