"""A crew reckons beside each other, and ends with whoever waits for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from bessemer.core.errors import DriverError, Invalid
from bessemer.drivers.process.crew import Told, reckon

ROOT = Path(__file__).parents[3]
PATIENCE_SECONDS = 60


def squared(task: int, told: Told) -> tuple[int, int]:
    for n in range(1000):
        told(n / 1000)
    return task * task, os.getpid()


def stumbling(task: int, told: Told) -> int:
    if task == 1:
        raise Invalid("one is too many")
    if task == 2:
        os._exit(7)
    if task > 2:
        signal.pause()
    return task


@pytest.mark.parametrize("hands", [1, 2])
def test_results_come_in_the_order_of_the_tasks(hands: int) -> None:
    told: list[float] = []
    results = reckon(squared, [5, 4, 3], hands=hands, told=told.append)
    assert [result for result, _ in results] == [25, 16, 9]
    assert (os.getpid() in {pid for _, pid in results}) == (hands == 1)
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1.0, abs=0.01)


def test_one_task_needs_no_process() -> None:
    assert reckon(squared, [3], hands=4) == [(9, os.getpid())]
    assert reckon(squared, [], hands=4) == []


def test_a_task_that_is_refused_ends_the_others() -> None:
    with pytest.raises(Invalid, match="one is too many"):
        reckon(stumbling, [3, 1, 4], hands=3)
    assert working(psutil.Process()) == []


def test_a_process_that_ends_without_a_result_is_no_silence() -> None:
    with pytest.raises(DriverError, match="ended with 7") as ended:
        reckon(stumbling, [2, 3], hands=2)
    assert ended.value.reason == "WorkerEnded"
    assert working(psutil.Process()) == []


def test_an_interruption_ends_them_all_without_a_word_of_theirs() -> None:
    lines = (
        "from bessemer.drivers.process.crew import reckon",
        "from tests.drivers.process.test_crew import stumbling",
        "if __name__ == '__main__':",
        "    try:",
        "        reckon(stumbling, [3, 4], hands=2)",
        "    except KeyboardInterrupt:",
        "        print('interrupted')",
    )
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    starter = subprocess.Popen(
        [sys.executable, "-c", "\n".join(lines)],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        found = psutil.Process(starter.pid)
        while len(workers := working(found)) < 2:
            assert starter.poll() is None
        # As a terminal does it: to all of them.
        os.killpg(starter.pid, signal.SIGINT)
        out, err = starter.communicate(timeout=PATIENCE_SECONDS)
    finally:
        starter.kill()
    assert (out, err) == (b"interrupted\n", b"")
    gone, alive = psutil.wait_procs(workers, timeout=PATIENCE_SECONDS)
    assert (len(gone), alive) == (2, [])


def working(starter: psutil.Process) -> list[psutil.Process]:
    """The workers that it has; what Python keeps beside them to clean up after them is none."""
    return [child for child in starter.children() if "spawn_main" in words(child)]


def words(process: psutil.Process) -> str:
    """Its command line; of one that has ended, as another test's may have, there is none."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""
