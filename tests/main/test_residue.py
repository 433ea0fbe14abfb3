"""The program that looks for what a state directory left: how it is called by itself."""

from __future__ import annotations

import sys

import pytest

from tests.main import residue


def test_without_a_directory_it_says_what_it_wants(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["residue"])
    assert residue.main() == 2
    assert capsys.readouterr().err == "usage: python -m tests.main.residue DIRECTORY\n"
