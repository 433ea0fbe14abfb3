"""Who signed in to which server by a provider: a file per server, of this user alone (0600), written whole or not at
all. A lock beside it lets one process at a time spend the refresh token, which an issuer may take once."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from bessemer.core.errors import Invalid

SECONDS_BEFORE = 30.0
"""A token with less left than this is not shown any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """What is kept of a sign-in. ``expires`` is in epoch seconds; the rest says how the issuer is asked again."""

    server: str
    provider: str
    id_token: str
    refresh_token: str
    expires: float
    issuer: str
    client_id: str
    authorities: str = ""
    private: bool = False
    plain: bool = False

    def good(self, now: float) -> bool:
        """Whether its token can be shown."""
        return now < self.expires - SECONDS_BEFORE


@dataclass(frozen=True, slots=True)
class Logins:
    """The file of one server."""

    path: Path

    @classmethod
    def of(cls, server: str, *, folder: Path | None = None) -> Logins:
        """Where the sign-in to a server's URL is kept."""
        folder = folder or Path.home() / ".config" / "bessemer" / "logins"
        return cls(folder / f"{hashlib.sha256(server.rstrip('/').encode()).hexdigest()[:32]}.json")

    def read(self) -> Login | None:
        """None where nobody signed in. Raises Invalid for a file that others can read, or that is none of ours."""
        try:
            mode = self.path.stat().st_mode
            text = self.path.read_bytes()
        except FileNotFoundError:
            return None
        if mode & 0o077:
            raise Invalid(f"{self.path} can be read by others: remove it, and sign in again")
        try:
            return Login(**orjson.loads(text))
        except (ValueError, TypeError) as error:
            raise Invalid(f"{self.path} cannot be read: remove it, and sign in again") from error

    def write(self, login: Login) -> None:
        """Keep it."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = self.path.with_suffix(f".{os.getpid()}.new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            out.write(orjson.dumps(asdict(login)))
        new.replace(self.path)

    def forget(self) -> None:
        """Nobody is signed in any more."""
        self.path.unlink(missing_ok=True)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """One process at a time."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)
