"""A disk without room for a folder is said as drivers say it."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from bessemer.core.errors import DriverError
from bessemer.drivers.fetch.pip import PipImporter
from bessemer.drivers.fetch.real import HostContent
from bessemer.drivers.guest.packages import Packages
from bessemer.drivers.guest.real import DebianGuest
from bessemer.drivers.scratch import scratch


def test_a_folder_goes_with_all_that_is_in_it(tmp_path: Path) -> None:
    with scratch("a-", reason="No", within=tmp_path) as folder:
        (folder / "b").touch()
        assert folder.parent == tmp_path
    assert not folder.exists()


def test_another_trouble_has_the_callers_word(tmp_path: Path) -> None:
    with pytest.raises(DriverError) as caught, scratch("a-", reason="No", within=tmp_path / "none"):
        raise AssertionError("it was made")
    assert caught.value.reason == "No"


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


async def at_hand(*_: object) -> str:
    return "a package"


def an_import(tmp_path: Path) -> Coroutine[Any, Any, object]:
    return PipImporter(HostContent(tmp_path / "content")).wheel("a==1", "b")


def a_build(tmp_path: Path) -> Coroutine[Any, Any, object]:
    return DebianGuest().build(tmp_path / "image", cache=tmp_path / "cache", progress=lambda _what, _part: None)


@pytest.mark.parametrize("work", [an_import, a_build])
async def test_an_import_and_a_build_say_that_the_disk_is_full(
    work: Callable[[Path], Coroutine[Any, Any, object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Packages, "kernel", at_hand)
    monkeypatch.setattr(Packages, "download", at_hand)
    monkeypatch.setattr(tempfile, "mkdtemp", full)
    with pytest.raises(DriverError) as caught:
        await work(tmp_path)
    assert caught.value.reason == "DiskFull"


async def test_packages_without_room_for_their_folder_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(DriverError) as caught:
        await Packages(tmp_path / "cache").download("busybox-static")
    assert caught.value.reason == "DiskFull"
