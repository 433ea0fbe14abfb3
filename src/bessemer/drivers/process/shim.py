"""The small parent that each confined process has: it keeps the log bounded and writes down how the process ended.

    python -I -S shim.py MARKER FOLDER KEEP -- COMMAND...

It is run as a file of its own, imports nothing of ours, outlives the agent and ends with its child. ``KEEP`` are file
descriptors, joined by commas, that the command inherits. Output goes to ``FOLDER/log``, which becomes ``log.1`` when it
is half of what may be kept. A child that prints faster than the sustained rate is held back by its pipe, so that it can
burn neither the disk nor, through this process, a core that it was not given.

When the child is gone, so is what it left behind: bwrap's first process in the namespace would stay as long as any
orphan does, and is therefore ended here.
"""

from __future__ import annotations

import os
import re
import select
import signal
import sys
import time

LOG_BYTES_MAX = 4 << 20
BYTES_PER_SECOND = 1 << 20
CHUNK = 1 << 16


def main(argv: list[str]) -> int:
    """Run the command to its end; the exit status is the command's."""
    marker, folder, keep = argv[1], argv[2], [int(number) for number in argv[3].split(",") if number]
    command = argv[argv.index("--") + 1 :]
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _become(command, writer, keep=keep)
    os.close(writer)
    for number in (0, 1, 2, *keep):
        os.close(number)
    gone = os.pidfd_open(pid)
    log = _Log(os.path.join(folder, "log"))
    while gone not in select.select([reader, gone], [], [])[0] and log.copy(reader):
        pass
    select.select([gone], [], [])
    _end_namespace(os.path.join(folder, "status"), marker)
    while log.copy(reader):
        pass
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    code = 128 - code if code < 0 else code
    _record(os.path.join(folder, "exit"), str(code))
    return code


def _become(command: list[str], output: int, *, keep: list[int]) -> None:
    try:
        os.dup2(output, 1)
        os.dup2(output, 2)
        # What our parent let through by accident must not reach a tenant.
        low = 3
        for number in sorted(keep):
            os.closerange(low, number)
            os.set_inheritable(number, True)
            low = number + 1
        os.closerange(low, 1 << 16)
        os.execv(command[0], command)
    except OSError as error:
        os.write(2, f"cannot start: {error}\n".encode())
    os._exit(127)


class _Log:
    """The log, and how much may still be printed now."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._allowance, self._asked = float(LOG_BYTES_MAX), time.monotonic()
        self._open()

    def copy(self, reader: int) -> bool:
        """Copy a piece of the pipe; False once its last writer is gone."""
        chunk = os.read(reader, CHUNK)
        now = time.monotonic()
        earned = (now - self._asked) * BYTES_PER_SECOND
        self._allowance, self._asked = min(float(LOG_BYTES_MAX), self._allowance + earned) - len(chunk), now
        if self._allowance < 0:
            time.sleep(-self._allowance / BYTES_PER_SECOND)
        if self._size + len(chunk) > LOG_BYTES_MAX // 2:
            os.close(self._number)
            os.replace(self._path, self._path + ".1")
            self._open()
        try:
            self._size += os.write(self._number, chunk)
        except OSError:
            pass  # the disk is full: the process matters more than what it says
        return bool(chunk)

    def _open(self) -> None:
        self._number = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._size = os.fstat(self._number).st_size


def _end_namespace(status: str, marker: str) -> None:
    """Kill the first process of the namespace, and with it all the others; it may have ended by itself."""
    try:
        with open(status, encoding="ascii") as stream:
            found = re.search(r'"child-pid": ([0-9]+)', stream.read())
        if found is None:
            return
        with open(f"/proc/{found[1]}/cmdline", encoding="utf-8", errors="replace") as stream:
            ours = marker in stream.read().split("\0")
        if ours:
            os.kill(int(found[1]), signal.SIGKILL)
    except OSError:
        return


def _record(path: str, text: str) -> None:
    try:
        with open(path + ".tmp", "w", encoding="ascii") as stream:
            stream.write(text)
        os.replace(path + ".tmp", path)
    except OSError:
        pass  # no space for three digits: the end is then one that nobody saw


if __name__ == "__main__":
    sys.exit(main(sys.argv))
