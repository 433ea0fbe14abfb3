"""A file is as it was, or as it is meant to be."""

from __future__ import annotations

from pathlib import Path

import pytest

from bessemer.core import durable


def test_a_file_is_put_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    for data in (b"one", b"another"):
        durable.put(tmp_path / "a.json", data)
        assert (tmp_path / "a.json").read_bytes() == data
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_what_cannot_be_put_leaves_what_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    durable.put(tmp_path / "a.json", b"one")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bessemer.core.durable.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        durable.put(tmp_path / "a.json", b"another")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("a.json", b"one")]
