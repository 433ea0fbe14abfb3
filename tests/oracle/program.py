"""The second implementation as a program of its own: how tests ask it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).with_name("invoice.py")


def total(export: Path) -> str:
    """What it prints for exported rows, as ``EUR 0.043210``."""
    done = subprocess.run([sys.executable, "-I", str(PROGRAM), str(export)], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def shown(total_micro: int) -> str:
    """An invoice's total as the program prints its own."""
    return f"EUR {total_micro // 10**6}.{total_micro % 10**6:06d}"


def falsified(export: Path, kind: str, **fields: int) -> Path:
    """A copy beside it in which the first row of a kind says something else."""
    document = json.loads(export.read_text())
    next(row for row in document["rows"] if row["kind"] == kind).update(fields)
    copy = export.with_name(f"falsified-{export.name}")
    copy.write_text(json.dumps(document))
    return copy
