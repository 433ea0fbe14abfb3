"""The command line against a real api over TLS, which runs in a thread of its own, as a server elsewhere does."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import io
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import orjson
import pytest
import structlog
import yaml
from typer.main import get_command

from bessemer.cli.app import build
from bessemer.cli.outcome import status_of
from bessemer.cli.verbs import Verbs
from bessemer.core.clock import Clock, FakeClock
from bessemer.core.ports import CONTROLLER, Writer
from bessemer.core.resource import Key
from tests.api.world import Served, World, served, world

T = TypeVar("T")
SRC = Path(__file__).parents[2] / "src"
PROJECT = "acme--lab"
PATIENCE_SECONDS = 60.0
START = 1_750_000_000
"""When the world's clock stands: 2025-06-15T15:06:40Z."""

_SHOWN = (
    (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "UID"),
    (re.compile(r"\b\d+d(\d+[hms])?\b"), "AGE"),
    (re.compile(r'(resourceVersion"?: ?)"?\'?\d+\'?"?'), r"\1N"),
    (re.compile(r"\b(bs[skj])_[\w.-]+"), r"\1_SECRET"),
    (re.compile(r"(?<=\S) {3,}"), "   "),
    (re.compile(r"(--server https://127.0.0.1):\d+"), r"\1:PORT"),
    (re.compile(r"(no kind is called '\w+'; there are: ).*"), r"\1KINDS"),
)
"""What differs from run to run: identities, ages, revisions, secrets, and how wide a column is because of them."""


@dataclass(frozen=True)
class Said:
    """What a command said, with what differs from run to run left out, and how it ended."""

    words: tuple[str, ...]
    code: int
    out: str
    err: str
    raw: str = ""
    """What it printed, with nothing left out."""

    @property
    def transcript(self) -> str:
        """As a person sees it: the command, what it printed, errors marked with ``!``, its status unless it is 0."""
        lines = [f"$ bessemer {shlex.join(self.words)}", *self.out.splitlines()]
        lines += [f"! {line}".rstrip() for line in self.err.splitlines()]
        return "\n".join([*lines, f"[{self.code}]"] if self.code else lines) + "\n"


class Cli:
    """``cli("get", "hosts")`` runs a command in this process; ``do`` runs a coroutine beside the server."""

    def __init__(self, site: Served, loop: asyncio.AbstractEventLoop) -> None:
        self.site = site
        self.kubeconfig = site.path("kubeconfig", _kubeconfig(site))
        self.called: list[tuple[str, Any]] = []
        self._loop = loop
        self._programs: dict[Path, Callable[..., Any]] = {}

    @property
    def world(self) -> World:
        return self.site.world

    def __call__(self, *words: str, stdin: str = "", kubeconfig: Path | None = None) -> Said:
        out, err, before = io.StringIO(), io.StringIO(), (sys.stdout, sys.stderr, sys.stdin)
        sys.stdout, sys.stderr, sys.stdin = out, err, io.StringIO(stdin)
        try:
            code = self._run(list(words), kubeconfig or self.kubeconfig)
        finally:
            sys.stdout, sys.stderr, sys.stdin = before
        return Said(words, code, shown(out.getvalue()), shown(err.getvalue()), out.getvalue())

    def _run(self, words: list[str], kubeconfig: Path) -> int:
        with warnings.catch_warnings():
            # In life the process ends here, and sockets that were still saying goodbye with it.
            warnings.simplefilter("ignore", ResourceWarning)
            code = status_of(lambda: self._program(kubeconfig)(args=words, prog_name="bessemer"))
            gc.collect()
        return code

    def _program(self, kubeconfig: Path) -> Callable[..., Any]:
        """What a process makes of all commands at its start, which takes a tenth of a second: here once."""
        if kubeconfig not in self._programs:
            self._programs[kubeconfig] = get_command(build(self._verbs(kubeconfig)))
        return self._programs[kubeconfig]

    @contextmanager
    def start(self, *words: str, stdin: int | None = subprocess.DEVNULL) -> Iterator[subprocess.Popen[bytes]]:
        """A command in a process of its own, as a shell starts it; what still runs at the end is interrupted. One from
        which nothing comes is killed in the end, so that whoever reads it finds out."""
        command = [sys.executable, "-m", "bessemer", "--kubeconfig", str(self.kubeconfig), *words]
        started = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": str(SRC)},
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        patience = threading.Timer(PATIENCE_SECONDS, started.kill)
        patience.start()
        with started:
            try:
                yield started
            finally:
                patience.cancel()
                _end(started)

    @contextmanager
    def beside(self, there: AbstractAsyncContextManager[T]) -> Iterator[T]:
        """Something that stands beside the server, in its loop, while this holds."""
        up: concurrent.futures.Future[T] = concurrent.futures.Future()
        stop = asyncio.Event()

        async def hold() -> None:
            async with there as made:
                up.set_result(made)
                await stop.wait()

        held = asyncio.run_coroutine_threadsafe(hold(), self._loop)
        held.add_done_callback(lambda ended: up.done() or up.set_exception(ended.exception() or AssertionError()))
        try:
            yield up.result(30)
        finally:
            self._loop.call_soon_threadsafe(stop.set)
            held.result(30)

    def do(self, work: Callable[[World], Coroutine[Any, Any, T]]) -> T:
        return asyncio.run_coroutine_threadsafe(work(self.world), self._loop).result(30)

    def status(self, key: Key, writer: Writer = CONTROLLER, **status: Any) -> None:
        """Write a status, as a controller or an agent does."""

        async def work(w: World) -> None:
            found = orjson.loads((await w.store.objects.get(key)).body)
            found["status"] = {**found.get("status", {}), **status}
            await w.store.objects.replace(found, writer, part="status")

        self.do(work)

    def _verbs(self, kubeconfig: Path) -> Verbs:
        def verb(name: str) -> Callable[[Any], int]:
            def called(options: Any) -> int:
                self.called.append((name, options))
                return 0

            return called

        names = ("up", "down", "server", "agent", "demo", "doctor")
        return Verbs(**{name: verb(name) for name in names}, kubeconfig=lambda _state: kubeconfig)


def _end(started: subprocess.Popen[bytes]) -> None:
    """Interrupt it, unless it has ended; one that does not hear of it fails its test and is killed."""
    if started.poll() is not None:
        return
    started.send_signal(signal.SIGINT)
    try:
        started.wait(20)
    except subprocess.TimeoutExpired:
        started.kill()
        raise


def shown(text: str) -> str:
    """The text without what differs from run to run."""
    for pattern, word in _SHOWN:
        text = pattern.sub(word, text)
    return "\n".join(line.rstrip() for line in text.splitlines())


@contextmanager
def terminal(directory: Path, clock: Clock | None = None, **terms: Any) -> Iterator[Cli]:
    """A served world, and the command line of its administrator. ``terms`` are those of `world`."""
    ready: list[Cli] = []
    up, stop = threading.Event(), asyncio.Event()

    async def live() -> None:
        async with world(clock or FakeClock(START), **terms) as w, served(w, directory) as site:
            ready.append(Cli(site, asyncio.get_running_loop()))
            up.set()
            await stop.wait()

    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    thread = threading.Thread(target=lambda: asyncio.run(live()))
    thread.start()
    assert up.wait(30)
    try:
        yield ready[0]
    finally:
        ready[0]._loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        structlog.reset_defaults()


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """A world with people in it, which the tests of a module share."""
    with terminal(tmp_path_factory.mktemp("cli")) as made:
        yield made


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Cli]:
    """A world as `bessemer up` leaves it: no tenant, no project."""
    with terminal(tmp_path, people=False) as made:
        yield made


def _kubeconfig(site: Served) -> bytes:
    files = {
        "certificate-authority": site.path("ca.crt", site.world.ca.certificate),
        "client-certificate": site.path("admin.crt", site.admin.certificate),
        "client-key": site.path("admin.key", site.admin.key),
    }
    cluster = {"server": site.url, "certificate-authority": str(files.pop("certificate-authority"))}
    config = {
        "clusters": [{"name": "b", "cluster": cluster}],
        "users": [{"name": "admin", "user": {name: str(path) for name, path in files.items()}}],
        "contexts": [{"name": "b", "context": {"cluster": "b", "user": "admin"}}],
        "current-context": "b",
    }
    return yaml.safe_dump(config).encode()
