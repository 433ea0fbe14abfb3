"""A PostgreSQL server for a program: that of the tests, durable and with its defaults."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from tests.store.server import NAME, Server, running

__all__ = ["NAME", "Server", "running"]
