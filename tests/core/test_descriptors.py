"""Files that a process may have open: raised to what may be had, and some are no connection's."""

from __future__ import annotations

import subprocess
import sys

TOOK = """
import resource
from bessemer.core import descriptors
resource.setrlimit(resource.RLIMIT_NOFILE, (256, {hard}))
before = (descriptors.descriptors_max(), descriptors.kept(), descriptors.obtainable())
print(*before, descriptors.raise_limit(), descriptors.descriptors_max(), descriptors.kept())
"""


def said(hard: int) -> list[int]:
    done = subprocess.run([sys.executable, "-c", TOOK.format(hard=hard)], capture_output=True, check=True, timeout=60)
    return [int(word) for word in done.stdout.split()]


def test_as_many_are_taken_as_may_be_had() -> None:
    assert said(1_024) == [256, 32, 1_024, 1_024, 1_024, 128]


def test_where_there_are_no_more_it_goes_on_with_what_there_is() -> None:
    assert said(256) == [256, 32, 256, 256, 256, 32]
