"""Fixtures that every room's tests may ask for. What belongs to one room stands in that room's conftest."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import settings

from bessemer.core.clock import FakeClock
from tests.logs import logs_kept
from tests.long_table import LongTable
from tests.ports import held_port

# The same examples at each run, so that a failure is there again at the next; `make test-long` draws new ones. None has
# a time of its own: on a machine that stalls, any of them takes seconds now and then.
for _name in ("repeatable", "default"):
    settings.register_profile(_name, derandomize=_name == "repeatable", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


def pytest_configure(config: pytest.Config) -> None:
    # A shell starts what stands in the background deaf to SIGINT, and what a test starts would inherit that: tests of
    # an interrupt would then wait for a command that keeps, rightly, to what its shell said.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.option.markexpr == "long" and not config.option.collectonly:
        config.pluginmanager.register(LongTable(), "long table")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of several workers each takes the next module: long ones come first, so that none is waited for at the end."""
    if hasattr(config, "workerinput"):
        real = {item.path for item in items if item.get_closest_marker("real")}
        items.sort(key=lambda item: item.path not in real)


def pytest_collection_finish() -> None:
    """What has been imported and collected stays to the end: no collection of garbage need look at it again, which
    takes half a second each time, and the command line's tests ask for one after each command."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _logs() -> Iterator[None]:
    with logs_kept():
        yield


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands until the test advances it."""
    return FakeClock()


@pytest.fixture
def state_dir() -> Iterator[Path]:
    """An empty state directory, 0700, with a path short enough for the sockets in it (108 bytes at most)."""
    path = Path(tempfile.mkdtemp(prefix="bsm-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def free_port() -> Iterator[Callable[[], int]]:
    """A function that gives a TCP port of loopback which is the test's alone, another one at each call."""
    with ExitStack() as held:
        yield lambda: held.enter_context(held_port())
