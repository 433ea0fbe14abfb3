"""What the pages that programs write into docs/ share: the machine in words, and a table in Markdown."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

import psutil


def machine() -> str:
    """What figures depend on, and no name of a machine."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if "model name" in line), platform.processor())
    memory = psutil.virtual_memory().total / (1 << 30)
    versions = f"Python {platform.python_version()}, Linux {platform.release().split('-')[0]}"
    return f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, {versions}"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table; its first row is the head, and each column as wide as its longest cell."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
