"""An ordinary user who may read what we run: what tests put before a command, so that it is started without root.

The interpreter and the checkout may lie in a home that is closed to others. The user gets mounts of its own, in which
that home holds nothing but them, and is open. Who runs the tests as an ordinary user is one already.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
NOBODY = 65_534
NO_NAMESPACES = (
    *("unshare", "--user", "--map-current-user", "--keep-caps", "--", "sh", "-c"),
    'echo 0 >/proc/sys/user/max_user_namespaces && exec setpriv --inh-caps=-all --ambient-caps=-all -- "$@"',
    "sh",
)
"""Words before a command on a machine that gives ordinary users no namespaces."""


@dataclass(frozen=True)
class Ordinary:
    """``words`` come before a command; ``number`` is the user's."""

    number: int
    words: tuple[str, ...]

    def give(self, folder: Path) -> None:
        """Make the folder and all in it the user's own."""
        if self.number != os.geteuid():
            for place in (folder, *folder.rglob("*")):
                os.chown(place, self.number, self.number, follow_symlinks=False)


def ordinary(scratch: Path) -> Ordinary:
    """The user. ``scratch`` is an empty folder that it does not see."""
    if os.geteuid() != 0:
        return Ordinary(os.geteuid(), ())
    needed = list(dict.fromkeys((Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve(), ROOT)))
    drop = f'exec setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups --inh-caps=-all -- "$@"'
    script = "\n".join(["set -e", *_opened(needed, scratch), drop])
    return Ordinary(NOBODY, ("unshare", "--mount", "--propagation", "private", "--", "sh", "-c", script, "sh"))


def _opened(needed: list[Path], scratch: Path) -> Iterator[str]:
    """Lines of a shell that put what is needed into open folders where the closed ones are."""
    closed = {path: _closed(path) for path in needed}
    hidden = [path for path in needed if closed[path] is not None]
    for number, path in enumerate(hidden):
        hold = shlex.quote(str(scratch / str(number)))
        yield f"mkdir {hold}; mount --rbind {shlex.quote(str(path))} {hold}"
    for folder in sorted({str(closed[path]) for path in hidden}):
        yield f"mount -t tmpfs -o mode=755 none {shlex.quote(folder)}"
    for number, path in enumerate(hidden):
        hold, place = shlex.quote(str(scratch / str(number))), shlex.quote(str(path))
        yield f"mkdir -p {place}; mount --rbind {hold} {place}"


def _closed(path: Path) -> Path | None:
    """The outermost folder above it that others may not enter."""
    return next((folder for folder in reversed(path.parents) if not folder.stat().st_mode & 0o001), None)
