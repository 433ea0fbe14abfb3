"""The log of a process is JSON, line by line, whatever is told in it."""

from __future__ import annotations

import json
import subprocess
import sys

import structlog
from structlog.testing import capture_logs

from bessemer.api import requestlog
from bessemer.main.process import set_up_logs
from tests.logs import logs_kept

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


def test_a_process_that_a_test_began_in_ours_leaves_no_log_behind() -> None:
    """What tests capture of a log must not hang on which tests came before in the same process."""
    before = structlog.get_config()
    with logs_kept():
        set_up_logs()
        requestlog.log.info("told")
    assert structlog.get_config() == before
    with capture_logs() as logs:
        requestlog.log.debug("captured")
    assert [line["event"] for line in logs] == ["captured"]
