"""Content on a real disk: cut short, full, replaced behind our back, asked for by many."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest

from bessemer.core.errors import DriverError
from bessemer.drivers.fetch import intake
from bessemer.drivers.fetch.real import HostContent
from tests.drivers.fetch.test_contract import digest_of, source

DATA = os.urandom(3_000_000)
DIGEST = digest_of(DATA)


@pytest.fixture
def content(tmp_path: Path) -> HostContent:
    return HostContent(tmp_path / "content")


async def test_the_file_is_read_only_and_its_folder_private(content: HostContent, tmp_path: Path) -> None:
    path = await content.ensure(DIGEST, [source(DATA)])
    assert path.read_bytes() == DATA
    assert path.stat().st_mode & 0o777 == 0o444
    assert (tmp_path / "content").stat().st_mode & 0o777 == 0o700
    assert sorted(file.suffix for file in path.parent.iterdir()) == ["", ".seen"]


async def test_a_fetch_cut_short_goes_on_where_it_was(content: HostContent) -> None:
    opened: list[int] = []
    with pytest.raises(DriverError) as refusal:
        await content.ensure(DIGEST, [source(DATA, opened=opened, cut_at=2_000_000)])
    assert refusal.value.reason == "FetchFailed"
    # A new cache object is a new process: what it knows is on the disk.
    again = HostContent(content._root)
    path = await again.ensure(DIGEST, [source(DATA, opened=opened, cut_at=2_500_000), source(DATA, opened=opened)])
    assert path.read_bytes() == DATA
    assert opened == [0, 2_000_000, 2_500_000]


async def test_a_spoilt_beginning_is_fetched_again_from_the_start(content: HostContent, tmp_path: Path) -> None:
    opened: list[int] = []
    with pytest.raises(DriverError):
        await content.ensure(DIGEST, [source(b"\0" * 3_000_000, cut_at=1_000_000)])
    path = await content.ensure(DIGEST, [source(DATA, opened=opened)])
    assert path.read_bytes() == DATA
    assert opened == [1_000_000, 0]


async def test_all_that_came_before_the_crash_is_enough(content: HostContent) -> None:
    with pytest.raises(DriverError):
        await content.ensure(DIGEST, [source(DATA, cut_at=2_999_999)])
    [part] = [file for file in content._root.iterdir() if file.suffix == ".part"]
    with part.open("ab") as stream:
        stream.write(DATA[-1:])
    path = await content.ensure(DIGEST, [])
    assert path.read_bytes() == DATA


async def test_many_who_ask_share_one_fetch(content: HostContent) -> None:
    opened: list[int] = []
    other = HostContent(content._root)  # as another process would
    paths = await asyncio.gather(
        *(cache.ensure(DIGEST, [source(DATA, opened=opened)]) for cache in (content, content, other))
    )
    assert len(set(paths)) == 1
    assert opened == [0]


def await_tick(path: Path) -> None:
    """Until what is changed has a later time than the file: a kernel may tell times that are some milliseconds apart
    only, and what is changed as soon as it was made would look as it was."""
    beside = path.with_name("tick")
    while not beside.exists() or beside.stat().st_ctime_ns <= path.stat().st_ctime_ns:
        beside.touch()
    beside.unlink()


async def test_a_boot_check_reads_nothing_twice(content: HostContent, monkeypatch: pytest.MonkeyPatch) -> None:
    path = await content.ensure(DIGEST, [source(DATA)])
    read: list[Path] = []
    real = HostContent.verify.__globals__["_hash_file"]
    monkeypatch.setitem(HostContent.verify.__globals__, "_hash_file", lambda p: (read.append(p), real(p))[1])
    await content.verify(DIGEST)
    assert read == []
    await_tick(path)
    os.utime(path)
    await content.verify(DIGEST)
    await content.verify(DIGEST)
    assert read == [path]


@pytest.mark.parametrize("trick", ["cut", "replaced", "same size and times", "link"])
async def test_what_was_changed_on_disk_is_found(content: HostContent, tmp_path: Path, trick: str) -> None:
    path = await content.ensure(DIGEST, [source(DATA)])
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    await_tick(path)
    path.chmod(0o644)
    if trick == "cut":
        os.truncate(path, 1_000)
    elif trick == "replaced":
        path.unlink()
        path.write_bytes(bytes(len(DATA)))
    elif trick == "same size and times":
        path.write_bytes(bytes(len(DATA)))
        os.utime(path, ns=times)
    else:
        (tmp_path / "elsewhere").write_bytes(DATA)
        path.unlink()
        path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DriverError) as refusal:
        await content.verify(DIGEST)
    assert refusal.value.reason == "DigestMismatch"
    assert await content.find(DIGEST) is None


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def grow(folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=8m", str(folder)], check=True)


@pytest.mark.real
async def test_a_full_disk_is_said_and_given_back(small_disk: Path) -> None:
    content = HostContent(small_disk)
    with pytest.raises(DriverError) as refusal:
        await content.ensure(DIGEST, [source(DATA)])
    assert refusal.value.reason == "DiskFull"
    assert os.listdir(small_disk) == []
    grow(small_disk)
    assert (await content.ensure(DIGEST, [source(DATA)])).read_bytes() == DATA


async def test_a_disk_that_fails_at_the_end_leaves_no_name(
    content: HostContent, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_number: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(intake.os, "fsync", full)
        with pytest.raises(DriverError, match="space"):
            await content.ensure(DIGEST, [source(DATA)])
    assert await content.find(DIGEST) is None
    assert await content.ensure(DIGEST, [source(DATA)])


async def test_a_cancelled_fetch_lets_go(content: HostContent) -> None:
    arrived, closed = asyncio.Event(), list[int]()

    async def slow(offset: int) -> AsyncGenerator[bytes, None]:
        try:
            yield DATA[offset : offset + 2_000_000]
            arrived.set()
            await asyncio.Event().wait()
        finally:
            closed.append(offset)

    task = asyncio.create_task(content.ensure(DIGEST, [slow]))
    await arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed == [0]
    opened: list[int] = []
    async with asyncio.timeout(30):
        await content.ensure(DIGEST, [source(DATA, opened=opened)])
    assert opened == [2_000_000]


async def test_parts_that_nobody_wants_are_swept(content: HostContent) -> None:
    with pytest.raises(DriverError):
        await content.ensure(DIGEST, [source(DATA, cut_at=2_000_000)])
    [part] = list(content._root.iterdir())
    await content.evict(0)
    assert part.exists()
    os.utime(part, (0, 0))
    await content.evict(0)
    assert not part.exists()


async def test_a_source_is_closed_where_the_disk_refuses(content: HostContent, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection is given back at once, not when somebody collects garbage."""
    closed: list[int] = []

    async def stream(offset: int) -> AsyncGenerator[bytes, None]:
        try:
            yield DATA[:1_500_000]
            yield DATA[1_500_000:]
        finally:
            closed.append(offset)

    def full(_self: intake.Intake, _data: bytes) -> None:
        raise DriverError("DiskFull", "no space is left for content")

    monkeypatch.setattr(intake.Intake, "write", full)
    with pytest.raises(DriverError, match="no space"):
        await content.ensure(DIGEST, [stream])
    assert closed == [0]


async def test_a_part_that_goes_while_it_is_swept_is_no_error(
    content: HostContent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes share the folder, and another may finish or sweep it between a look and the next."""
    gone = content._root / f"{'0' * 64}.part"
    monkeypatch.setitem(HostContent.evict.__globals__, "_listing", lambda _root: [gone])
    assert await content.evict(0) == ()
