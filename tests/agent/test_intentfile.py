"""Intent files: whole or not there, read for ever, set aside when they cannot be."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from bessemer.agent.intentfile import VERSION, Intent, IntentDirectory, decode, encode
from bessemer.core.errors import DriverError, Malformed
from tests.agent.standin import claim

DATA = Path(__file__).parent / "data"
INTENT = Intent(uid="uid-1", claim={k: v for k, v in claim().items() if k != "status"}, status={"phase": "Running"})


def test_what_is_written_is_read() -> None:
    assert decode(encode(INTENT)) == INTENT


@pytest.mark.parametrize("path", sorted(DATA.glob("*.intent")), ids=lambda path: path.stem)
def test_files_of_every_release_are_read(path: Path) -> None:
    """A file per version that ever was; none is ever changed or removed."""
    intent = decode(path.read_bytes())
    assert intent.uid == "0b7f2a52-6f55-4a8e-9a53-0c8d4cf7f0de"
    assert intent.key.name == "instance-vm-0"
    assert intent.claim["spec"]["intent"]["cpus"] == 2
    assert intent.status["pid"] == 4242
    assert intent.phase == "Running"
    assert not intent.released


def test_there_is_a_sample_of_this_version() -> None:
    assert any(path.read_bytes().split(b" ")[1] == b"%d" % VERSION for path in DATA.glob("*.intent"))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 4096,
        b"{}",
        encode(INTENT)[:-20],
        encode(INTENT).replace(b"Running", b"Stopped"),
        encode(INTENT).replace(b"intent 1 ", b"intent 999 "),
        b"bessemer-intent 1 " + hashlib.sha256(b"[]").hexdigest().encode() + b"\n[]\n",
    ],
    ids=["empty", "zeros", "other", "short", "changed", "newer", "no fields"],
)
async def test_what_cannot_be_read_is_set_aside(tmp_path: Path, data: bytes) -> None:
    files = IntentDirectory(tmp_path)
    await files.write(INTENT)
    other = Intent(uid="uid-2", claim={**INTENT.claim, "metadata": {**INTENT.claim["metadata"], "uid": "uid-2"}})
    await files.write(other)
    (tmp_path / "uid-1.intent").write_bytes(data)
    assert await files.load() == [other]
    assert (tmp_path / "uid-1.unreadable").read_bytes() == data
    assert await files.load() == [other]


async def test_a_file_that_speaks_of_another_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "uid-7.intent").write_bytes(encode(INTENT))
    assert await IntentDirectory(tmp_path).load() == []


async def test_half_written_files_are_swept_up(tmp_path: Path) -> None:
    (tmp_path / "uid-1.new").write_bytes(b"half")
    assert await IntentDirectory(tmp_path).load() == []
    assert os.listdir(tmp_path) == []


async def test_a_uid_that_is_a_path_is_refused(tmp_path: Path) -> None:
    evil = Intent(uid="../../etc/x", claim=INTENT.claim)
    with pytest.raises(Malformed):
        await IntentDirectory(tmp_path).write(evil)


@pytest.mark.parametrize(("number", "reason"), [(errno.ENOSPC, "DiskFull"), (errno.EIO, "DiskFailed")])
async def test_a_disk_that_refuses_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, reason: str
) -> None:
    files = IntentDirectory(tmp_path)
    await files.write(INTENT)

    def refuse(_handle: int) -> None:
        raise OSError(number, "refused")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(DriverError) as caught:
        await files.write(Intent(uid="uid-1", claim=INTENT.claim, status={"phase": "Stopped"}))
    assert caught.value.reason == reason
    monkeypatch.undo()
    assert await files.load() == [INTENT]
    assert os.listdir(tmp_path) == ["uid-1.intent"]
