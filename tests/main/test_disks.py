"""What a person sees and decides of disks on their host."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bessemer.cli.verbs import DisksOptions
from bessemer.core.errors import Conflict, NotFound
from bessemer.drivers.wipe.records import Debt, FolderRecords
from bessemer.main.disks import disks
from bessemer.main.hostdrivers import disk_records
from bessemer.main.settings import Paths

FAILED = Debt(
    device="disk-1",
    address="0000:43:00.0",
    uid="a",
    phase="failed",
    size_bytes=100,
    way="discard",
    done_bytes=50,
    reason="WipeFailed",
    message="the disk cannot be written",
)


@pytest.fixture
def records(tmp_path: Path) -> FolderRecords:
    found = disk_records(Paths(tmp_path).agent)
    found.keep(FAILED)
    found.keep(Debt(device="disk-2", address="0000:44:00.0", uid="b", phase="handed"))
    return found


def test_it_says_whose_each_is_and_how_far(
    tmp_path: Path, records: FolderRecords, capsys: pytest.CaptureFixture[str]
) -> None:
    assert disks(DisksOptions(state=tmp_path)) == 1, "somebody has to look"
    said = capsys.readouterr().out
    assert "not wiped: the disk cannot be written" in said
    assert "claim b has it" in said
    records.keep(replace(FAILED, phase="erasing"))
    assert disks(DisksOptions(state=tmp_path, output="json")) == 0
    assert [one["said"] for one in json.loads(capsys.readouterr().out)] == [
        "being wiped: discard, 50 % (the disk cannot be written)",
        "claim b has it",
    ]
    assert disks(DisksOptions(state=tmp_path / "none")) == 0


def test_what_failed_is_tried_again_or_given_away_and_nothing_else(
    tmp_path: Path, records: FolderRecords, capsys: pytest.CaptureFixture[str]
) -> None:
    assert disks(DisksOptions(state=tmp_path, retry="disk-1")) == 0
    (first, _) = records.all()
    assert (first.phase, first.done_bytes, first.message) == ("due", 0, "")
    for option in ({"retry": "disk-1"}, {"release": "disk-1"}, {"release": "disk-2"}):
        with pytest.raises(Conflict):
            disks(DisksOptions(state=tmp_path, **option))
    with pytest.raises(NotFound):
        disks(DisksOptions(state=tmp_path, release="disk-3"))
    records.keep(FAILED)
    assert disks(DisksOptions(state=tmp_path, release="disk-1")) == 0
    assert [debt.device for debt in records.all()] == ["disk-2"]
    capsys.readouterr()


def test_a_record_that_cannot_be_read_is_only_given_away(tmp_path: Path, records: FolderRecords) -> None:
    next(file for file in (Paths(tmp_path).agent / "wipes").iterdir() if "disk-1" in file.name).write_text("{")
    with pytest.raises(Conflict, match="nobody knows which disk it is"):
        disks(DisksOptions(state=tmp_path, retry="disk-1"))
    disks(DisksOptions(state=tmp_path, release="disk-1"))
    assert [debt.device for debt in records.all()] == ["disk-2"]
