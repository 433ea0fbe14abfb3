"""What looks for the remains of a state directory: how it is called by itself, and whose networks it blames."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from subprocess import PIPE, Popen

import pytest

from tests.main import residue
from tests.main.residue import Residue


def test_without_a_directory_it_says_what_it_wants(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["residue"])
    assert residue.main() == 2
    assert capsys.readouterr().err == "usage: python -m tests.main.residue DIRECTORY\n"


_GONE = 0.3
"""Seconds after which the kernel has taken a namespace apart and its number is free."""


@contextmanager
def in_a_network(directory: Path) -> Iterator[str]:
    """A process of that working directory in a network namespace of its own, and the name of that."""
    words = ("unshare", "--map-root-user", "--net", "sh", "-c", "readlink /proc/self/ns/net; read word")
    with Popen(words, cwd=directory, stdin=PIPE, stdout=PIPE) as process:
        assert process.stdout is not None
        name = process.stdout.readline().decode().strip()
        assert name, "no network namespace could be made"
        yield name
        process.communicate()


@pytest.mark.real
def test_the_network_that_another_made_later_is_not_what_was_left(tmp_path: Path) -> None:
    (its := tmp_path / "its").mkdir()
    (others := tmp_path / "others").mkdir()
    with closing(Residue(its)) as seen:
        with in_a_network(its) as first:
            assert seen.networks() == {first}
            assert any(line.startswith(f"network {first} of process ") for line in seen.left())
        time.sleep(_GONE)
        with in_a_network(others):
            assert seen.networks() == frozenset()
            assert seen.left() == []
