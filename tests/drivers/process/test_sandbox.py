"""The words that put a command behind walls."""

from __future__ import annotations

import subprocess

import pytest

from bessemer.core.descriptors import obtainable, of_children
from bessemer.drivers.process import sandbox
from bessemer.drivers.process.protocol import Confined

SHOW = "ulimit -Sn; ulimit -Hn"


@pytest.mark.parametrize("limited", [True, False])
def test_a_confined_process_may_have_the_ordinary_number_of_files_open(limited: bool) -> None:
    """However many its agent took for itself."""
    most = obtainable()
    raised = ["prlimit", f"--nofile={most}:{most}"]
    shell = ("sh", "-c", SHOW)
    confined = Confined("a", shell, cores_milli=1000, memory_bytes=256 << 20, pids_max=4096)
    words = sandbox.inside(confined, user=None, limited=limited)
    said = subprocess.run([*raised, *words], capture_output=True, check=True, timeout=60)
    assert said.stdout.split() == [b"%d" % of_children(), b"%d" % most]
    assert of_children() <= 1_024
