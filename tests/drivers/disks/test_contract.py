"""One contract for the fake disks and the real ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from bessemer.core.units import GIB, MIB
from bessemer.drivers.disks.fake import FakeDisks
from bessemer.drivers.disks.protocol import SEED_LIMIT_BYTES, DiskPaths, Disks
from bessemer.drivers.disks.real import QcowDisks

UID = "0c1f0c5a-7b63-4c43-9d0e-6f3a2f1f7b51"
OTHER = "5d2c8f36-41a7-4b6e-8f30-5b8f3c1f0a77"


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.real)])
def disks(request: pytest.FixtureRequest, tmp_path: Path) -> Disks:
    return FakeDisks() if request.param == "fake" else QcowDisks(tmp_path / "disks")


async def test_a_disk_is_made_once_and_found_again(disks: Disks) -> None:
    assert await disks.paths(UID) == DiskPaths()
    path = await disks.create(UID, GIB)
    assert await disks.create(UID, GIB) == path
    assert await disks.paths(UID) == DiskPaths(root=path)
    assert await disks.uids() == {UID}


async def test_a_disk_grows_and_never_shrinks(disks: Disks) -> None:
    await disks.create(UID, GIB)
    await disks.create(UID, 2 * GIB)
    await disks.create(UID, MIB)
    assert (await disks.space()).promised_bytes == 2 * GIB


async def test_a_disk_is_sparse(disks: Disks) -> None:
    before = (await disks.space()).free_bytes
    await disks.create(UID, 100 * GIB)
    assert before - (await disks.space()).free_bytes < GIB


async def test_a_seed_is_written_and_replaced(disks: Disks) -> None:
    first = await disks.seed(UID, {"meta-data": "a: 1\n", "user-data": ""})
    second = await disks.seed(UID, {"meta-data": "a: 2\n"})
    assert first == second
    assert (await disks.paths(UID)).seed == second
    assert (await disks.paths(UID)).root is None


async def test_a_seed_has_a_bound(disks: Disks) -> None:
    with pytest.raises(ValueError, match="too large"):
        await disks.seed(UID, {"user-data": "x" * (SEED_LIMIT_BYTES + 1)})


async def test_removing_takes_all_of_one_uid_and_may_be_repeated(disks: Disks) -> None:
    await disks.create(UID, GIB)
    await disks.seed(UID, {"meta-data": ""})
    await disks.create(OTHER, GIB)
    await disks.remove(UID)
    await disks.remove(UID)
    assert await disks.uids() == {OTHER}
    assert await disks.paths(UID) == DiskPaths()
