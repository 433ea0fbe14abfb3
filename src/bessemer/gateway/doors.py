"""Which addresses of replicas are dialled. An agent says where its replica is, and may say anything.

A unix socket is dialled only for a host that shares this machine, and only below the folder where that host's doors
are: each step of the path is opened without following a link, and what was opened is what is dialled. Any other door is
TLS; it must show the certificate of the very host that the Claim lies on before a byte of a request is sent, so that
it does not matter which port an agent names. The gateway knows no other address of a host.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

FolderOf = Callable[[str], Path | None]
"""Host → the folder of its doors on this machine; None for a host elsewhere."""

_UNIX = "unix:"


def nowhere(_host: str) -> Path | None:
    """No host shares this machine."""
    return None


def is_socket(address: str) -> bool:
    """Whether the address is a unix socket's."""
    return address.startswith(_UNIX)


def refusal(address: str, folder: Path | None) -> str:
    """Why an address is not dialled, whatever is there; "" where it may be."""
    if is_socket(address):
        if folder is None:
            return "its host does not share this machine: only a TLS door is dialled there"
        return "" if _steps(address, folder) else f"it is not below {folder}, where its host's doors are"
    try:
        url = urlsplit(address)
        good = url.scheme == "https" and bool(url.hostname) and url.port is not None
    except ValueError:
        good = False
    return "" if good else "it is neither a unix socket nor https://HOST:PORT"


@contextmanager
def opened(address: str, folder: Path) -> Iterator[str]:
    """A path to dial the socket by, while the block lasts. Raises OSError, ValueError where there is no socket below
    the folder, or a link on the way."""
    held = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for step in _steps(address, folder) or ("",):
            inner = os.open(step, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=held)
            os.close(held)
            held = inner
        if not stat.S_ISSOCK(os.fstat(held).st_mode):
            raise OSError("what is there is no socket")
        yield f"/proc/self/fd/{held}"
    finally:
        os.close(held)


def _steps(address: str, folder: Path) -> tuple[str, ...]:
    """The names below the folder; () for a path that leads elsewhere."""
    path = PurePosixPath(address.removeprefix(_UNIX))
    steps = path.relative_to(folder).parts if path.is_relative_to(folder) else ()
    return () if ".." in steps else steps
