"""The demo of somebody who is not root, at a terminal: the weaker class, up and supervised until Ctrl-C, and nothing is
left."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import shutil
import signal
import sys
import termios
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import pytest

from bessemer.client import from_kubeconfig
from bessemer.core.resource import Key
from bessemer.drivers.process import procfs
from bessemer.main.settings import Paths, host_name, save, state_directory
from tests.drivers import micro_guest
from tests.drivers.engine.conftest import SMOLLM2, model_path
from tests.main.ordinary import NO_NAMESPACES, ROOT, Ordinary, ordinary
from tests.main.residue import Residue
from tests.ports import ANY, kept_ports

__all__ = ["model_path"]

pytestmark = pytest.mark.real
CTRL_C = b"\x03"


@dataclass
class Terminal:
    """A terminal and what was said on it so far."""

    master: int
    slave: int
    text: bytes = b""
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def read(self) -> None:
        self.text += os.read(self.master, 1 << 16)
        self.changed.set()

    async def until(self, words: bytes, *, process: Process) -> None:
        """Return once the words were said. Raises AssertionError where the process ends before."""
        async with asyncio.timeout(240):
            while words not in self.text:
                assert process.returncode is None, self.text.decode()
                self.changed.clear()
                waiting = {asyncio.ensure_future(self.changed.wait()), asyncio.ensure_future(process.wait())}
                _, left = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in left:
                    task.cancel()


@asynccontextmanager
async def terminal() -> AsyncIterator[Terminal]:
    made = Terminal(*pty.openpty())
    asyncio.get_running_loop().add_reader(made.master, made.read)
    try:
        yield made
    finally:
        asyncio.get_running_loop().remove_reader(made.master)
        os.close(made.master)
        os.close(made.slave)


@dataclass(frozen=True)
class Person:
    """Somebody without root, with a state directory of their own."""

    user: Ordinary
    paths: Paths

    async def run(self, *words: str, before: tuple[str, ...] = (), on: int | None = None) -> Process:
        """``bessemer WORDS --state STATE`` in a session of its own, on that terminal."""

        def own_terminal() -> None:
            if on is not None:
                fcntl.ioctl(on, termios.TIOCSCTTY, 0)

        argv = (*self.user.words, *before, sys.executable, "-m", "bessemer", *words, "--state", str(self.paths.state))
        home = {"HOME": str(self.paths.state), "PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
        return await asyncio.create_subprocess_exec(
            *argv,
            env={**os.environ, **home},
            cwd="/",
            stdin=DEVNULL if on is None else on,
            stdout=PIPE if on is None else on,
            stderr=STDOUT if on is None else on,
            start_new_session=True,
            preexec_fn=own_terminal,
        )


@pytest.fixture
async def person(state_dir: Path, tmp_path: Path) -> AsyncIterator[Person]:
    made = Person(ordinary(tmp_path), Paths(state_directory(state_dir)))
    with kept_ports(ANY) as settings:
        save(made.paths, settings)
        made.user.give(state_dir)
        try:
            yield made
        finally:
            await (await made.run("down")).communicate()


def bring(person: Person, model: Path) -> None:
    """What tests have downloaded already; what is brought is looked at as if it had come by itself."""
    shutil.copytree(micro_guest.package_cache() / "debs", person.paths.cache / "packages" / "debs")
    person.paths.content.mkdir()
    shutil.copy(model, person.paths.content / SMOLLM2.digest.removeprefix("sha256:"))
    person.user.give(person.paths.state)


@pytest.fixture
def residue(person: Person) -> Iterator[Residue]:
    with closing(Residue(person.paths.state)) as made:
        yield made


async def test_without_root_the_demo_stays_up_in_the_weaker_class_until_ctrl_c(
    person: Person, residue: Residue, model_path: Path
) -> None:
    bring(person, model_path)
    async with terminal() as seen:
        process = await person.run("demo", "--fake-hosts", "0", on=seen.slave)
        await seen.until(b"It stays up. Ctrl-C stops everything.", process=process)
        client = from_kubeconfig(person.paths.kubeconfig)
        report = orjson.loads((await client.get(Key("Host", "", host_name()))).body)["status"]["report"]
        await client.close()
        assert report["isolation"] == "weak"
        guests = residue.guests()
        assert residue.networks()
        assert len(guests) == 1
        assert f" {guests[0]} ".encode() in seen.text
        found = [entry for pid in residue.processes() if (entry := procfs.entry(pid)) is not None]
        assert {entry.user for entry in found} == {person.user.number}
        gateway = _gateway(residue)
        os.kill(gateway, signal.SIGKILL)
        async with asyncio.timeout(60):
            while _gateway(residue) in (0, gateway):
                await asyncio.sleep(0.05)
        os.write(seen.master, CTRL_C)
        assert await asyncio.wait_for(process.wait(), 60) == 0, seen.text.decode()
    assert b"difference 0" in seen.text
    assert residue.left() == []


def _gateway(residue: Residue) -> int:
    """The pid of the gateway; 0 where it does not run."""
    return next((pid for pid, words in residue.processes().items() if "--parts gateway" in words), 0)


async def test_where_namespaces_are_forbidden_the_demo_says_so_at_once(person: Person) -> None:
    process = await person.run("demo", "--fake-hosts", "0", before=NO_NAMESPACES)
    said, _ = await process.communicate()
    assert process.returncode == 1, said.decode()
    assert "this host gives no namespaces to confine with" in said.decode()
    assert "user.max_user_namespaces" in said.decode()
    assert b"Control plane" not in said, "nothing was started"
