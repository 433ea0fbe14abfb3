"""What was brought into a folder of content for one owner, so that it can go with that owner.

    ROOT/HEX.own     HEX is of the owner's name; a line for each file that its fetches have begun or finished

A line stands there before the file does. Who comes later appends; so whatever a fetch has left when it was cut short,
refused, or its process ended, is found. Everything here blocks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

OWN = ".own"


def note(root: Path, owner: str, *, name: str) -> None:
    """The owner is about to have a file of that name there."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = _file(root, owner)
    if name not in _names(file):
        with file.open("a") as stream:
            stream.write(f"{name}\n")


def release(root: Path, owner: str, *, named: Collection[str]) -> tuple[str, ...]:
    """Remove all that was brought for the owner but what is among the ``named`` digests, and what another owner's
    fetches have brought, too, which no object may name yet; the digests that went."""
    file = _file(root, owner)
    gone, mine = [], _names(file)
    others = {name for other in root.glob(f"*{OWN}") if mine and other != file for name in _names(other)}
    for name in mine:
        path = root / name
        if f"sha256:{name}" in named or name in others or path.parent != root:
            continue
        there = path.is_file()
        path.unlink(missing_ok=True)
        if not path.suffix:
            path.with_suffix(".seen").unlink(missing_ok=True)
            gone += [f"sha256:{name}"] if there else []
    file.unlink(missing_ok=True)
    return tuple(gone)


def _file(root: Path, owner: str) -> Path:
    return root / f"{hashlib.sha256(owner.encode()).hexdigest()}{OWN}"


def _names(file: Path) -> list[str]:
    with suppress(FileNotFoundError):
        return [name for name in file.read_text().split("\n") if name]
    return []
