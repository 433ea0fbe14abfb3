"""A process that keeps a spool and its journal, is killed -9 at each of its writes in turn, and comes back.

``python -m tests.gateway.killed FOLDER``: each life is a process of its own, forked, which writes down what it is about
to do and what it has done. Kernel and disk live on. A line of JSON for each: where it was killed, what it had said,
what the api has in the end.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson

from bessemer.gateway.journal import Progress, Start, unpaid_of
from bessemer.gateway.record import Record
from bessemer.gateway.spool import Spool

HOWS = ("before", "half", "after")
SEGMENT_BYTES = 9_000
CALLS = ("pwrite", "posix_fallocate", "fsync", "fdatasync", "unlink", "write")

LIFE = (
    "start a;start b;note a 5;start c;drop c;end a 9;settle;start d;note b 3;aside d;again d/2;note b 6;note d/2 1;"
    "end d/2 2;start e;note e 1;settle;end b 8;start f;note f 4;start g;note g 2;end f 4;settle;end g 7"
)
"""`aside`: a replica was lost before it answered; `again`: another is asked. e is under way at the end."""


def start(name: str, replica: str = "r1") -> Start:
    """Of a request, so large that a segment has three."""
    return Start(1, name, "acme--lab", "words", "u", "k", "m" * 2_000, replica, 70, "rob", ["key tokens/day"])


def progress(tokens: int, *, at: int = 1) -> Progress:
    return Progress(at, 3, 1, tokens, 20, 10)


def record(name: str, tokens: int) -> Record:
    return Record(2, name, "acme--lab", "words", "u", "k", "m" * 2_000, 200, 3, 1, tokens, replica="r1")


class Api:
    """Stores each sequence once, in a file of lines that outlives who writes them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def settle(self, spool: Spool) -> None:
        """Everything that waits."""
        while (pending := spool.pending()) is not None:
            spool.sync()
            had = max((seq for uid, seq, *_ in self.stored() if uid == pending.spool_uid), default=0)
            assert pending.first_sequence <= had + 1, "a gap"
            lines = [
                orjson.dumps([pending.spool_uid, sequence, one.request_id, one.output_tokens, one.ended or ""]) + b"\n"
                for sequence, one in enumerate(pending.records, pending.first_sequence)
                if sequence > had
            ]
            os.write(self._fd, b"".join(lines))
            spool.settle(pending.spool_uid, pending.first_sequence + len(pending.records) - 1)

    def stored(self) -> list[list[Any]]:
        return [orjson.loads(line) for line in self._path.read_bytes().splitlines()]


def live(spool: Spool, api: Api, *, say: Callable[[str], None]) -> None:
    """A life: what is done is said before and, with ``ok``, after."""
    slots: dict[str, int] = {}
    for what in LIFE.split(";"):
        say(what)
        verb, name, number = (*what.split(), "", "")[:3]
        match verb:
            case "start":
                spool.reserve()
                slots[name] = spool.journal.start(start(name))
            case "aside":
                spool.reserve()
                spool.append(unpaid_of(start(name), at=1, status=499), slots.pop(name))
                spool.release()
            case "again":
                slots[name] = spool.journal.start(start(name, "r2"))
            case "note":
                spool.journal.note(slots[name], progress(int(number)))
            case "drop":
                spool.journal.drop(slots.pop(name))
                spool.release()
            case "end":
                spool.append(record(name, int(number)), slots.pop(name))
                spool.release()
            case "settle":
                api.settle(spool)
        say("ok")


def deadly(at: int, how: str) -> None:
    """Let the process die at its write number ``at``: before it, in its middle where it has one, or after it."""
    counted, pwrite = itertools.count(), os.pwrite

    def wrapped(call: Callable[..., Any]) -> Callable[..., Any]:
        def dies(*args: Any) -> Any:
            if next(counted) != at:
                return call(*args)
            if how == "half" and call is pwrite:
                call(args[0], args[1][: len(args[1]) // 2], *args[2:])
            elif how == "after":
                call(*args)
            return os.kill(os.getpid(), signal.SIGKILL)

        return dies

    for name in CALLS:
        setattr(os, name, wrapped(getattr(os, name)))


def lives(folder: Path) -> Iterator[dict[str, Any]]:
    """One for each write and way to die there, until a life has no write of that number."""
    for at, how in ((at, how) for at in itertools.count() for how in HOWS):
        place = folder / f"{at}-{how}"
        place.mkdir()
        if (child := os.fork()) == 0:
            say = _saying(place / "said")
            deadly(at, how)
            live(Spool(place / "spool", segment_bytes=SEGMENT_BYTES), Api(place / "api"), say=say)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        for _ in range(2):  # who comes back may come back again
            spool = Spool(place / "spool", segment_bytes=SEGMENT_BYTES)
            Api(place / "api").settle(spool)
            spool.close()
        said = (place / "said").read_text().split(";")[:-1] if (place / "said").exists() else []
        yield {"at": at, "how": how, "said": said, "stored": Api(place / "api").stored()}
        if status == 0:
            return


def _saying(path: Path) -> Callable[[str], None]:
    fd, write = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), os.write
    return lambda words: (write(fd, words.encode() + b";"), None)[1]


def unsynced(_fd: int) -> None:
    """A disk is not waited for: what a process has written survives it in the kernel."""


if __name__ == "__main__":
    os.fsync = os.fdatasync = unsynced
    for one in lives(Path(sys.argv[1])):  # the log goes there, too
        sys.stdout.write(orjson.dumps(one).decode() + "\n")
