"""``--wait`` at a terminal of its own: what somebody sees there, and not what was sent."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

from bessemer.core.resource import Key
from tests.cli.conftest import PROJECT, SRC, Cli
from tests.cli.test_declare import says, vm, write

COLUMNS, LINES = 60, 12
PATIENCE_SECONDS = 60.0
_WORDS = re.compile(r"\x1b\[(\d*)([A-Za-z])|(\r)|(\n)|([^\x1b\r\n]+)")


class Screen:
    """The lines of a terminal, as far as our tree moves about in it."""

    def __init__(self) -> None:
        self.lines = [""]
        self._row = self._column = 0

    def show(self, text: str) -> None:
        for number, letter, back, down, words in _WORDS.findall(text):
            if back:
                self._column = 0
            elif down:
                self._row += 1
                self.lines += [""] * (self._row + 1 - len(self.lines))
            elif words:
                line = self.lines[self._row].ljust(self._column)
                self.lines[self._row] = line[: self._column] + words + line[self._column + len(words) :]
                self._column += len(words)
            elif letter == "A":
                self._row -= int(number or 1)
                assert self._row >= 0, "above the first line"
            elif letter == "K":
                self.lines[self._row] = ""
            elif letter == "J":
                del self.lines[self._row + 1 :]
                self.lines[self._row] = self.lines[self._row][: self._column]
            else:
                assert letter == "m", "colours are all that is left"


class Watched:
    """A command at a pty."""

    def __init__(self, cli: Cli, *words: str) -> None:
        self.screen = Screen()
        self._end, there = pty.openpty()
        fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bessemer", "--kubeconfig", str(cli.kubeconfig), *words],
            env={**env, "PYTHONPATH": str(SRC), "TERM": "xterm"},
            stdin=there,
            stdout=there,
            stderr=there,
            start_new_session=True,
        )
        os.close(there)

    def until(self, holds: Callable[[list[str]], bool]) -> None:
        """Read on until the screen is as is wanted, or the command has ended."""
        end = time.monotonic() + PATIENCE_SECONDS
        while not holds(self.screen.lines):
            assert time.monotonic() < end, self.screen.lines
            if not select.select([self._end], [], [], 0.5)[0]:
                continue
            try:
                self.screen.show(os.read(self._end, 65536).decode())
            except OSError:  # nobody writes any more
                return

    def ended(self) -> int:
        """Its status."""
        self.until(lambda _: False)
        return self._process.wait(20)

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(20)
        os.close(self._end)


def test_the_tree_at_a_terminal_is_drawn_over_itself_and_stays_as_it_ended(cli: Cli, tmp_path: Path) -> None:
    write(tmp_path, a=vm("a"), b=vm("b"))
    there = Watched(cli, "apply", "-f", str(tmp_path), "-n", PROJECT, "--wait")
    try:
        waits = "… instance/a  nobody has looked at it yet"
        there.until(lambda lines: waits in lines and lines[-2:][0].startswith("0 of 2 ready"))
        assert [line for line in there.screen.lines if "instance/a" in line] == ["instance/a created", waits]
        cli.status(Key("Instance", PROJECT, "a"), **says("True", "Ready", phase="Running"))
        there.until(lambda lines: lines[-2:][0].startswith("1 of 2 ready"))
        cli.status(Key("Instance", PROJECT, "b"), **says("True", "Ready", phase="Running"))
        assert there.ended() == 0
    finally:
        there.close()
    lines = [line for line in there.screen.lines if line]
    assert lines[:-1] == [
        "instance/a created",
        "instance/b created",
        "✓ instance/a  Running",
        "✓ instance/b  Running",
    ]
    assert lines[-1].startswith("2 of 2 ready, ")
