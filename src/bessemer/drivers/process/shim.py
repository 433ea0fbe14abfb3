"""The small parent that each confined process has: it keeps the log bounded and writes down how the process ended.

    python -I -S shim.py MARKER FOLDER KEEP -- COMMAND...

It is run as a file of its own, imports nothing of ours, outlives the agent and ends with its child. ``KEEP`` are file
descriptors, joined by commas, that the command inherits. Output goes to ``FOLDER/log``, which becomes ``log.1`` when it
is half of what may be kept. A child that prints faster than the sustained rate is held back by its pipe, so that it can
burn neither the disk nor, through this process, a core that it was not given.
"""

from __future__ import annotations

import os
import sys
import time

LOG_BYTES_MAX = 4 << 20
BYTES_PER_SECOND = 1 << 20
CHUNK = 1 << 16


def main(argv: list[str]) -> int:
    """Run the command to its end; the exit status is the command's."""
    folder, keep = argv[2], [int(number) for number in argv[3].split(",") if number]
    command = argv[argv.index("--") + 1 :]
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _become(command, writer, keep=keep)
    os.close(writer)
    for number in (0, 1, 2, *keep):
        os.close(number)
    _pump(reader, os.path.join(folder, "log"))
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


def _pump(reader: int, path: str) -> None:
    """Copy the pipe to the log until its last writer is gone."""
    allowance, asked = float(LOG_BYTES_MAX), time.monotonic()
    log, size = _open(path)
    while chunk := os.read(reader, CHUNK):
        now = time.monotonic()
        allowance = min(float(LOG_BYTES_MAX), allowance + (now - asked) * BYTES_PER_SECOND) - len(chunk)
        asked = now
        if allowance < 0:
            time.sleep(-allowance / BYTES_PER_SECOND)
        if size + len(chunk) > LOG_BYTES_MAX // 2:
            os.close(log)
            os.replace(path, path + ".1")
            log, size = _open(path)
        try:
            size += os.write(log, chunk)
        except OSError:
            pass  # the disk is full: the process matters more than what it says


def _open(path: str) -> tuple[int, int]:
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    return log, os.fstat(log).st_size


def _record(path: str, text: str) -> None:
    try:
        with open(path + ".tmp", "w", encoding="ascii") as stream:
            stream.write(text)
        os.replace(path + ".tmp", path)
    except OSError:
        pass  # no space for three digits: the end is then one that nobody saw


if __name__ == "__main__":
    sys.exit(main(sys.argv))
