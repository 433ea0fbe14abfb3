"""The words of backup, restore, store check and store copy reach whoever does it, as they were meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bessemer.cli.app import build
from bessemer.cli.verbs import BackupOptions, CheckOptions, CopyOptions, RestoreOptions, Verbs

URL = "postgresql://bessemer@/b"


def said(*words: str) -> tuple[Any, int]:
    """The options that a command line comes to, and its status."""
    heard: list[Any] = []

    def hear(options: Any) -> int:
        heard.append(options)
        return 3

    def never(_: Any) -> int:
        raise AssertionError

    verbs = Verbs(
        up=never,
        down=never,
        server=never,
        agent=never,
        demo=never,
        doctor=never,
        kubeconfig=lambda _: Path("none/kubeconfig"),
        check=hear,
        copy=hear,
        backup=hear,
        restore=hear,
    )
    done = CliRunner().invoke(build(verbs), list(words))
    return (heard or [done.output])[0], done.exit_code


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("backup f", BackupOptions(file=Path("f"))),
        (
            f"backup f --state s --store {URL} --key-file k --content",
            BackupOptions(file=Path("f"), state=Path("s"), store=URL, key_file=Path("k"), content=True),
        ),
        ("--state s backup f --verify", BackupOptions(file=Path("f"), state=Path("s"), verify=True)),
        ("restore f", RestoreOptions(file=Path("f"))),
        (
            f"--state s restore f --store {URL} --key-file k --force",
            RestoreOptions(file=Path("f"), state=Path("s"), store=URL, key_file=Path("k"), force=True),
        ),
        ("store check", CheckOptions()),
        (f"--state s store check --store {URL} -o json", CheckOptions(state=Path("s"), store=URL, output="json")),
        (f"store copy a.db {URL}", CopyOptions(source="a.db", target=URL)),
        (f"store copy {URL} b.db --state s", CopyOptions(source=URL, target="b.db", state=Path("s"))),
    ],
)
def test_words_are_read(words: str, wanted: object) -> None:
    assert said(*words.split()) == (wanted, 3)


@pytest.mark.parametrize("words", ["backup", "restore", "store copy a", "store check -o odd", "store check a"])
def test_misuse_is_refused(words: str) -> None:
    assert said(*words.split())[1] != 0
