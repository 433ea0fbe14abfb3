"""The log of a process is JSON, line by line, whatever is told in it."""

from __future__ import annotations

import json
import subprocess
import sys

TELL = r"""
import structlog
from pathlib import Path
from bessemer.main.process import set_up_logs
set_up_logs()
log = structlog.get_logger("test")
log.info("plain", name="é", path=Path("/x"))
log.info("odd", name="file\udcff", big=1 << 70)
try:
    raise ValueError("no \udcff")
except ValueError:
    log.exception("failed")
log.debug("not told")
"""


def test_each_line_is_json_whatever_is_told() -> None:
    said = subprocess.run([sys.executable, "-c", TELL], capture_output=True, check=True, timeout=60)
    plain, odd, failed = [json.loads(line) for line in said.stdout.splitlines()]
    assert (plain["event"], plain["level"], plain["name"], plain["path"]) == ("plain", "info", "é", "PosixPath('/x')")
    assert plain["timestamp"].endswith("Z")
    assert (odd["name"], odd["big"]) == ("file\udcff", 1 << 70)
    assert "ValueError: no" in failed["exception"]
    assert said.stderr == b""
