"""Rude users: interruptions at a bad moment, odd names, damaged files. Each is survived, or said in one line."""

from __future__ import annotations

import asyncio
import errno
import os
import pty
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bessemer.agent.listener import _bound
from bessemer.cli.outcome import refused
from bessemer.cli.verbs import DemoOptions, UpOptions
from bessemer.core.clock import FakeClock
from bessemer.core.errors import Conflict, DriverError, Invalid
from bessemer.drivers.process import procfs
from bessemer.main import identities
from bessemer.main.demo import demo
from bessemer.main.down import stop_all
from bessemer.main.parts import CONTROL
from bessemer.main.process import unless
from bessemer.main.settings import Paths, Settings, state_directory
from bessemer.main.supervisor import last_words
from bessemer.main.up import has_room, held, up
from bessemer.store import open_store
from tests.main.starting import is_up, running, start, until

# --- interruptions ----------------------------------------------------------------------------------------------


async def test_work_is_done_to_its_end_unless_stopped() -> None:
    stop = asyncio.Event()
    assert await unless(stop, asyncio.sleep(0))

    async def wait() -> None:
        stop.set()
        await asyncio.Event().wait()

    assert not await unless(stop, wait())


async def test_what_work_raises_goes_on_unless_it_was_stopped() -> None:
    stop = asyncio.Event()

    async def fail() -> None:
        raise DriverError("DemoFailed", "it fell over")

    with pytest.raises(DriverError, match="it fell over"):
        await unless(stop, fail())
    stop.set()
    assert not await unless(stop, fail())


@pytest.fixture
async def paths(state_dir: Path) -> AsyncIterator[Paths]:
    """A state directory whose name has a blank and more than ASCII; what runs over it is stopped in the end."""
    paths = Paths(state_dir / "a ü")
    yield paths
    await stop_all(paths)


@pytest.mark.real
async def test_ctrl_c_while_it_starts_leaves_nothing(paths: Paths) -> None:
    process = await start(paths)
    await until((paths.logs / "control.log").exists)
    process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(process.wait(), 60) == 0
    assert await running(paths) == []


@pytest.mark.real
async def test_a_closed_terminal_is_a_ctrl_c(paths: Paths) -> None:
    master, terminal = pty.openpty()
    process = await start(paths, terminal=terminal)
    os.close(terminal)
    loop = asyncio.get_running_loop()
    # Somebody reads it: it would be full before all is up on a busy machine, and whoever writes to it would wait.
    loop.add_reader(master, os.read, master, 1 << 16)
    try:
        await until(lambda: is_up(paths))
    finally:
        loop.remove_reader(master)
        os.close(master)
    assert await asyncio.wait_for(process.wait(), 60) == 0
    assert await running(paths) == []


@pytest.mark.real
async def test_down_finds_what_a_killed_supervisor_left_in_a_directory_that_is_gone(paths: Paths) -> None:
    process = await start(paths)
    await until(lambda: is_up(paths))
    process.kill()
    await process.wait()
    shutil.rmtree(paths.state, ignore_errors=True)
    left = await running(paths)
    assert CONTROL in left
    assert await stop_all(Paths(paths.state.parent / "a")) == [], "it is no directory of that name"
    assert len(await stop_all(paths)) == len(left)
    assert [pid for pid in procfs.pids() if str(paths.state) in " ".join(procfs.arguments(pid))] == []


# --- names ------------------------------------------------------------------------------------------------------


def test_a_state_directory_has_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    assert state_directory("link/../real/x") == state_directory("link/x") == tmp_path / "real" / "x"


def test_metrics_are_served_in_a_deep_directory(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["a directory of a long name"] * 6, "metrics.sock")
    with _bound(deep):
        assert deep.is_socket()


# --- damage -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("error: it is damaged: mend it\nmore\n", ": it is damaged: mend it; its log is "),
        ('{"error": "no space"}\n{"event": "cut sh', ": no space; its log is "),
        ('{"event": "api listens"}\n', "; its log is "),
        ("error: gone; its log is /x\n", ": gone; its log is /x"),
        (None, "; its log is "),
    ],
)
def test_the_last_words_of_a_part(tmp_path: Path, log: str | None, words: str) -> None:
    if log is not None:
        (tmp_path / "log").write_text(log)
    assert last_words(tmp_path / "log").startswith(words)


def test_half_an_authority_is_not_made_anew(paths: Paths) -> None:
    identities.prepare(paths, Settings())
    paths.ca_key.rename(paths.ca / "away")
    with pytest.raises(Invalid, match=r"ca\.crt alone.*bring it back"):
        identities.prepare(paths, Settings())
    paths.ca_key.write_bytes(b"")
    with pytest.raises(Invalid, match="cannot be read: bring it back"):
        identities.prepare(paths, Settings())


def test_a_lost_seal_is_not_made_anew_beside_what_it_sealed(paths: Paths) -> None:
    identities.prepare(paths, Settings())
    (paths.keys / identities.SEAL_KEY).unlink()
    identities.prepare(paths, Settings())
    (paths.keys / identities.SEAL_KEY).unlink()
    paths.store.touch()
    with pytest.raises(Invalid, match="open with it alone: bring it back"):
        identities.prepare(paths, Settings())


def test_a_damaged_key_of_ours_is_made_anew(paths: Paths) -> None:
    identities.prepare(paths, Settings())
    _, key = paths.certificate(identities.SERVER)
    good = key.read_bytes()
    key.write_bytes(good[:40])
    identities.prepare(paths, Settings())
    assert len(key.read_bytes()) == len(good)
    assert key.read_bytes() != good


def test_a_damaged_store_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_bytes(os.urandom(8192))
    with pytest.raises(Invalid, match=r"is damaged .*: bring it back from a copy"):
        open_store(tmp_path / "store.db", clock=FakeClock(), kinds={}, seal_key=bytes(32))


def test_a_disk_without_room_is_said_before_anything_starts(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    paths.state.mkdir()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 99, 1))
    with pytest.raises(DriverError, match=r"has 1 B left, and the demo needs 512 MiB: make room there"):
        has_room(paths, 512 << 20, what="the demo")
    with pytest.raises(DriverError, match=r"a new installation needs 64 MiB: make room there, or .* --state"):
        up(UpOptions(state=paths.state))
    assert not paths.settings.exists()


def test_a_second_demo_leaves_the_first_alone(paths: Paths) -> None:
    with held(paths), pytest.raises(Conflict, match=r"is up already; `bessemer down --state .*` stops it"):
        demo(DemoOptions(state=paths.state, fake_hosts=0, stay=False))


def test_a_demo_without_qemu_says_at_once_what_to_install(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert demo(DemoOptions(state=paths.state, fake_hosts=0, stay=False)) == 1
    assert "no qemu-system-x86_64 (apt-get install qemu-system-x86" in capsys.readouterr().out
    assert not paths.logs.exists()


def test_what_the_machine_refuses_is_a_line_with_the_file() -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "/srv/x")
    assert refused(full).startswith("/srv/x: No space left on device; make room there")
    assert refused(OSError("odd")) == "odd"
