"""A PostgreSQL server of the tests' own: started once, by a user without rights, reached through a socket."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

NAME = "bessemer"


def programs() -> Path:
    """Where the server's programs are; distributions keep a folder per version."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    if not found and (path := shutil.which("initdb")):
        found = [Path(path)]
    assert found, "PostgreSQL is not installed: tools/system-packages test"
    return found[-1].parent


class Server:
    """``url`` is of a database that is there from the start; others are made from it by name."""

    def __init__(self, folder: Path, user: int | None) -> None:
        self._folder = folder
        self._user = user
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def folder(self) -> Path:
        """Where its socket lies."""
        return self._folder

    @property
    def pid(self) -> int:
        """Of the process that all others of it follow."""
        assert self._process is not None
        return self._process.pid

    def url(self, database: str = NAME) -> str:
        return f"postgresql://{NAME}@/{database}?host={self._folder}"

    def make(self) -> None:
        """The files of an empty server."""
        places = ["-D", f"{self._folder}/data", "-U", NAME, "--no-sync"]
        self._run(programs() / "initdb", *places, "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8")

    def start(self) -> None:
        """Start it and wait until it answers."""
        settings = {"listen_addresses": "", "unix_socket_directories": self._folder, "max_connections": 100}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                # It ends with whoever started it, however that ends.
                ["setpriv", "--pdeathsig", "INT", programs() / "postgres", "-D", self._folder / "data", *options],
                stdout=log,
                stderr=log,
                cwd=self._folder,
                user=self._user,
                start_new_session=True,
            )
        until = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self.url("postgres")).close()
                return
            except psycopg.OperationalError:
                assert time.monotonic() < until, (self._folder / "log").read_text()
                assert self._process.poll() is None, (self._folder / "log").read_text()
                time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT lets go of everybody at once and in order, SIGQUIT is a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(60)
            self._process = None

    def database(self, name: str) -> str:
        """The URL of a database of that name, which is made anew."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")  # type: ignore[arg-type]
            connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")  # type: ignore[arg-type]
        return self.url(name)

    def _run(self, *command: str | Path) -> None:
        done = subprocess.run(command, capture_output=True, cwd=self._folder, user=self._user, check=False)
        assert done.returncode == 0, done.stderr.decode()


@contextmanager
def running() -> Iterator[Server]:
    """A server with an empty database, gone with the block."""
    # Directly under /tmp: the path of a socket is short, and root's temporary folders are not for others.
    folder = Path(tempfile.mkdtemp(prefix="bessemer-pg-", dir="/tmp"))
    user = None
    if os.geteuid() == 0:  # it refuses to run as root
        user = pwd.getpwnam("nobody").pw_uid
        os.chown(folder, user, -1)
    server = Server(folder, user)
    try:
        server.make()
        server.start()
        server.database(NAME)
        yield server
    finally:
        server.stop(signal.SIGQUIT)  # nothing of it is needed any more
        shutil.rmtree(folder)


def empty(url: str) -> None:
    """Take every row out of a store's tables, as a new one has them."""
    with psycopg.connect(url, autocommit=True) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        names = {name for (name,) in tables} - {"alembic_version", "counters"}
        if names:
            emptied = "; ".join(f"DELETE FROM {name}" for name in sorted(names))
            connection.execute(
                "BEGIN; SET LOCAL session_replication_role = replica; UPDATE counters SET value = 0 "
                "WHERE name IN ('revision', 'floor', 'audit_base');"  # type: ignore[arg-type]
                f"{emptied}; SELECT setval('ledger_id_seq', 1, false); COMMIT"
            )
