"""Files of the kernel's, as far as they can be read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def text(path: Path) -> str:
    """A file's words, "" where it cannot be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def number(path: Path) -> int:
    """A file's number, 0 where there is none."""
    try:
        return int(text(path))
    except ValueError:
        return 0


def children(path: Path) -> list[Path]:
    """What lies in a folder, by name; nothing where there is none."""
    return sorted(path.iterdir()) if path.is_dir() else []


def numbered(path: Path, prefix: str) -> Iterator[Path]:
    """Of that what is called ``prefix`` and a number, by the number."""
    entries = [entry for entry in children(path) if entry.name.removeprefix(prefix).isdigit()]
    return iter(sorted(entries, key=lambda entry: int(entry.name.removeprefix(prefix))))
