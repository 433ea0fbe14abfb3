"""A life of an installation: its secrets by what they are called, and all that it ever wrote, to be searched for them.

What is searched: the state directory, the database as it ran and as it was left (of PostgreSQL the server's log, which
tells every statement with its values here, and its files), what went to the terminal, and what was asked for over the
network. A secret is looked for in each form in which one writes bytes down.
"""

from __future__ import annotations

import base64
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import psycopg

from bessemer.client import Client, connect
from bessemer.main import identities
from bessemer.main.settings import Paths, load
from tests.store.server import Server

LEAST_BYTES = 12
"""A shorter secret would be found by chance."""


@dataclass
class Life:
    """``server`` is where the database is, where that is no file; ``outside`` a folder for what is no state."""

    paths: Paths
    outside: Path
    server: Server | None = None
    secrets: dict[str, bytes] = field(default_factory=dict)
    routes: set[str] = field(default_factory=set)
    """Through which of the api's routes they came or went."""
    told: dict[str, bytes] = field(default_factory=dict)
    """What was said and kept beside files."""
    began: float = field(default_factory=time.time)
    _all: dict[str, bytes] = field(default_factory=dict)

    def know(self, name: str, secret: str | bytes, *, by: str = "") -> str:
        """``by`` is a route's path, without group and project."""
        said = secret if isinstance(secret, bytes) else secret.encode()
        assert len(said) >= LEAST_BYTES, name
        assert name not in self.secrets, name
        self.secrets[name] = said
        self.routes |= {by} if by else set()
        return secret if isinstance(secret, str) else ""

    def url(self, part: str) -> str:
        return identities.urls(load(self.paths))[part]

    def client(self, token: str = "") -> Client:
        """The administrator's, or of whoever has that bearer."""
        cert = None if token else self.paths.certificate("admin")
        return connect(self.url("api"), ca=self.paths.ca_certificate, cert=cert, token=token)

    def hold(self, when: str) -> None:
        """Keep the database's file and its log as they are now: the next who opens and closes it takes the log away."""
        for file in self.paths.state.glob("store.db*"):
            self.told[f"{file.name} {when}"] = file.read_bytes()

    def collect(self) -> None:
        """Read all that was written, once: whoever looks for the keys afterwards writes, too."""
        self._all = dict(self._written())

    def _written(self) -> Iterator[tuple[str, bytes]]:
        yield from _files(self.paths.state)
        yield from _files(self.outside)
        if self.server is not None:
            with psycopg.connect(self.server.url("postgres"), autocommit=True) as connection:
                connection.execute("CHECKPOINT")
            for name, data in _files(self.server.folder, since=self.began):
                yield f"postgresql/{name}", data
        yield from self.told.items()

    @property
    def names(self) -> list[str]:
        return sorted(self._all)

    def dumps(self) -> list[str]:
        """What the kernel wrote of a process that crashed."""
        return [name for name, data in self._all.items() if data[:4] == b"\x7fELF" and b"CORE" in data[:4096]]

    def places(self, secret: bytes) -> set[str]:
        """Where it stands."""
        wanted = forms(secret)
        return {name for name, data in self._all.items() if any(form in data for form in wanted)}


def forms(secret: bytes) -> set[bytes]:
    """In which ways it may stand in something else, at whatever place of a longer text in base64."""
    found = {secret, secret.hex().encode(), secret.hex().upper().encode(), repr(secret)[2:-1].encode()}
    found |= {quote(secret, safe="").encode(), secret.decode("latin-1").encode("unicode_escape")}
    for before in range(3):
        padded = bytes(before) + secret
        first, last = (0, 2, 3)[before], len(padded) // 3 * 4
        found |= {encode(padded)[first:last] for encode in (base64.b64encode, base64.urlsafe_b64encode)}
    return found


def _files(folder: Path, *, since: float = 0.0) -> Iterator[tuple[str, bytes]]:
    """Those that were written since then."""
    for file in sorted(folder.rglob("*")):
        found = file.lstat()
        if stat.S_ISREG(found.st_mode) and found.st_mtime >= since:
            yield str(file.relative_to(folder)), file.read_bytes()
