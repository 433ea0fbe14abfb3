"""Several processes on the gateway's port: they live, die and end together, and nothing that one left is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from bessemer.api import listen
from bessemer.core.clock import FakeClock
from bessemer.drivers.process.fake import FakeParts
from bessemer.drivers.process.parts import HostParts
from bessemer.gateway import Spool
from bessemer.main import gateways
from bessemer.main.down import stop_all
from bessemer.main.gateways import beside
from bessemer.main.part import main as part
from bessemer.main.parts import BESIDE, GATEWAY, ORDER, command, words
from bessemer.main.settings import METRICS_SOCKET, Paths, Settings, gateway_of, load, save
from tests.main.starting import is_up, start, until
from tests.ports import ANY

SECOND, THIRD = BESIDE[:2]


@pytest.fixture
def paths(state_dir: Path) -> Paths:
    return Paths(state_dir)


async def pids(parts: FakeParts | HostParts, paths: Paths, name: str) -> list[int]:
    return [one.pid for one in await parts.find(command(paths, name).marker)]


def test_each_is_found_by_what_it_was_started_with(capsys: pytest.CaptureFixture[str]) -> None:
    paths = Paths(Path("/var/lib/bessemer"))
    markers = {name: command(paths, name).marker for name in (*ORDER, *BESIDE)}
    lines = {name: " ".join(command(paths, name).argv) for name in markers}
    for name, marker in markers.items():
        assert [other for other, line in lines.items() if line.endswith(f" {marker}")] == [name]
    for number in ("1", "17", "x"):
        with pytest.raises(SystemExit, match="bessemer up"):
            part([*words(GATEWAY), "--number", number, "--state", "/none"])


async def test_the_others_are_kept_alive_and_end_with_the_first(tmp_path: Path, clock: FakeClock) -> None:
    paths, parts = Paths(tmp_path), FakeParts(clock)
    running = asyncio.create_task(beside(paths, Settings(gateways=3), parts=parts, clock=clock))
    await clock.advance(0)
    (second,), (third,) = [await pids(parts, paths, name) for name in (SECOND, THIRD)]
    (dead,) = await parts.find(command(paths, SECOND).marker)
    parts.die(dead)
    await clock.advance(0.5)
    assert await pids(parts, paths, SECOND) not in ([], [second])
    assert await pids(parts, paths, THIRD) == [third]
    assert not any([await pids(parts, paths, name) for name in (GATEWAY, *BESIDE[2:])])
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert not any([await pids(parts, paths, name) for name in BESIDE])


async def test_what_a_process_left_that_is_wanted_no_more_is_settled(tmp_path: Path, clock: FakeClock) -> None:
    paths, parts, settled = Paths(tmp_path), FakeParts(clock), list[int]()
    for number in (1, 2, 4):
        gateway_of(paths, number).mkdir()
    await parts.start(command(paths, BESIDE[2]))

    async def settle(number: int) -> None:
        assert not await pids(parts, paths, f"{GATEWAY}-{number}"), "nobody else has its spool open"
        settled.append(number)

    await beside(paths, Settings(gateways=1), parts=parts, clock=clock, settle=settle)
    assert settled == [2, 4]


class Quiet:
    """What a process left, beside an api that knows of nothing."""

    ready = True

    def __init__(self, *_: object, folder: Path, **__: object) -> None:
        self.spool = Spool(folder / "spool")
        self.admission = SimpleNamespace(shares=self, lending=self)
        self.settler = self

    async def run(self) -> None: ...

    async def left(self) -> list[str]:
        return []

    async def close(self) -> None:
        self.spool.close()


@pytest.mark.parametrize(
    ("name", "words", "stays"),
    [
        ("00000001.spool", b"BSPOOL1\n" + bytes(16) + b"no record at all", True),
        ("journal", b"nothing that begins as one", True),
        ("00000001.spool", b"BSPOOL1\n" + bytes(4096), False),
    ],
)
async def test_what_cannot_be_read_of_what_a_process_left_stays_for_people(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: bytes, stays: bool
) -> None:
    monkeypatch.setattr(gateways, "Accounts", Quiet)
    folder = gateway_of(Paths(tmp_path), 2)
    (folder / "spool").mkdir(parents=True)
    (folder / "spool" / name).write_bytes(words)
    await gateways.settle_left(2, paths=Paths(tmp_path), settings=Settings())
    found = [path.read_bytes() for path in folder.glob("spool/*") if path.name != "lock"]
    assert (words in found) is stays
    assert folder.exists() is stays


def test_a_port_is_shared_by_those_alone_who_share_it() -> None:
    with closing(listen("127.0.0.1", 0, shared=True)) as first:
        port = first.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            listen("127.0.0.1", port)
        with closing(listen("127.0.0.1", port, shared=True)) as second:
            for one in (first, second):
                one.setblocking(False)
            came = dict.fromkeys((first, second), 0)
            for _ in range(64):
                with socket.create_connection(("127.0.0.1", port)):
                    for one in came:
                        try:
                            one.accept()[0].close()
                        except BlockingIOError:
                            continue
                        came[one] += 1
            assert sum(came.values()) == 64
            assert all(came.values()), "the kernel deals them out"


async def _answers(paths: Paths, settings: Settings) -> bytes:
    """The first line of the answer to a new connection."""
    tls = ssl.create_default_context(cafile=str(paths.ca_certificate))
    reader, writer = await asyncio.open_connection("127.0.0.1", settings.gateway_port, ssl=tls)
    writer.write(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    line = await reader.readline()
    writer.close()
    return line


@pytest.mark.real
async def test_one_of_two_that_is_killed_comes_back_and_both_go_with_the_installation(paths: Paths) -> None:
    save(paths, ANY.model_copy(update={"gateways": 2}))
    process, parts = await start(paths), HostParts()
    try:
        await until(lambda: is_up(paths))
        settings = load(paths)
        sockets = [gateway_of(paths, number) / METRICS_SOCKET for number in (1, 2)]
        await until(lambda: all(one.exists() for one in sockets))
        (killed,) = await pids(parts, paths, SECOND)
        os.kill(killed, signal.SIGKILL)
        async with asyncio.timeout(60):
            while await pids(parts, paths, SECOND) in ([], [killed]):
                await asyncio.sleep(0.05)
            while b"200" not in await _answers(paths, settings):  # by the first, or by the second once it listens
                await asyncio.sleep(0.05)
        names = {(gateway_of(paths, number) / "uid").read_text() for number in (1, 2)}
        assert len(names) == 2, "for the api they are two"
    finally:
        process.send_signal(signal.SIGINT)
        await process.wait()
        left = [name for name in (GATEWAY, *BESIDE) if await pids(parts, paths, name)]
        await stop_all(paths)
    assert not left
