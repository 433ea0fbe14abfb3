"""An engine that is somebody else's code: what it reaches, and what is made of its answers, on this machine."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bessemer.core.errors import DriverError
from bessemer.drivers.engine.doors import Doors, default_folder
from bessemer.drivers.engine.protocol import EngineMetrics
from bessemer.drivers.engine.sense import plausible
from bessemer.drivers.llamacpp import real
from bessemer.drivers.process import procfs
from bessemer.drivers.process.protocol import End, Isolation
from tests.drivers.engine.conftest import ALIAS, SECRET, RealHost, ready

STAND_IN = """
import http.server, json, os, socketserver, sys, threading
settings = json.load(sys.stdin)

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self, body, status=200):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def address_string(self):
        return "door"
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        {act}

class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    pass

Server(settings["door"], Handler).serve_forever()
"""

COUNTERS = """
    def do_GET(self):
        names = "prompt_tokens_total prompt_tokens_cached_total tokens_predicted_total"
        names += " requests_processing requests_deferred"
        self.answer("".join(f"llamacpp:{name} 1e300\\n" for name in names.split()).encode())
"""


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Put another program in the runner's place."""

    def pretend(act: str, *, program: str = STAND_IN) -> None:
        path = tmp_path / "runner.py"
        path.write_text(program.replace("{act}", act))
        monkeypatch.setattr(real.runner, "__file__", str(path))

    return pretend


def reply(*, model: str = ALIAS, text: str = "hello", counts: tuple[int, int, int] = (10, 2, 12)) -> str:
    usage = dict(zip(("prompt_tokens", "completion_tokens", "total_tokens"), counts, strict=True))
    body = {"model": model, "choices": [{"message": {"content": text}}], "usage": usage}
    return f"self.answer(json.dumps({body!r}).encode())"


@pytest.mark.real
async def test_a_stand_in_that_makes_sense_passes(real_host: RealHost, pretend: Callable[..., None]) -> None:
    pretend(reply())
    await real_host.engine.start(real_host.spec())
    assert (await ready(real_host)).text == "hello"


@pytest.mark.real
@pytest.mark.parametrize(
    ("act", "message"),
    [
        (reply(model="other"), "serves 'other'"),
        (reply(text="  "), "no text"),
        (reply(text="\ufffd\ufffd"), "no text"),
        (reply(counts=(0, 0, 0)), "add up"),
        (reply(counts=(10, 2, 99)), "add up"),
        (reply(counts=(10, 500, 510)), "add up"),
        ("self.answer(b'<html>')", "no JSON"),
        ("self.answer(b'[' * 100000)", "no JSON"),
        ("self.answer(b'[]')", "no chat completion"),
        ("self.answer(b'', 500)", "status 500"),
        ("self.answer(b'x' * (50 << 20))", "status 200"),
        ("self.close_connection = True", "broke off"),
        ("threading.Event().wait()", "no answer within"),
    ],
)
async def test_nonsense_is_told(real_host: RealHost, pretend: Callable[..., None], act: str, message: str) -> None:
    pretend(act)
    seconds = 1.0 if message == "no answer within" else 60.0
    real_host.engine = real_host.engines(probe_seconds=seconds)
    await real_host.engine.start(real_host.spec())
    with pytest.raises(DriverError, match=message) as refusal:
        await ready(real_host)
    assert refusal.value.reason == "ProbeFailed"


@pytest.mark.parametrize("count", ["1e300", "-1e300", "18446744073709551616"])
def test_counters_that_are_none_are_not_read(count: str) -> None:
    """What an engine counted is kept before it is ended: what could not be kept would have it live for ever."""
    said = EngineMetrics(1, 0, 0)
    assert plausible(said) == said
    wild = int(float(count))
    for name in ("prompt_tokens_total", "prompt_tokens_cached_total", "tokens_predicted_total", "running", "waiting"):
        with pytest.raises(ValueError, match="none"):
            plausible(replace(said, **{name: wild}))


@pytest.mark.real
async def test_counters_of_a_hostile_engine(real_host: RealHost, pretend: Callable[..., None]) -> None:
    pretend(reply(), program=STAND_IN.replace("\nclass Server", f"{COUNTERS}\nclass Server"))
    await real_host.engine.start(real_host.spec())
    await ready(real_host)
    with pytest.raises(DriverError, match="cannot be read"):
        await real_host.engine.metrics("a", SECRET)


@pytest.mark.real
async def test_one_that_leaves_at_once_is_told(real_host: RealHost, pretend: Callable[..., None]) -> None:
    pretend("", program="import sys; sys.exit('no such model')")
    await real_host.engine.start(real_host.spec())
    with pytest.raises(DriverError, match="exit status 1") as refusal:
        await ready(real_host)
    assert refusal.value.reason == "EngineExited"
    assert b"no such model" in b"".join([chunk async for chunk in real_host.engine.log("a")])


@pytest.mark.real
async def test_a_model_that_is_none_is_told(real_host: RealHost, tmp_path: Path) -> None:
    real_host.model = tmp_path / "model.gguf"
    real_host.model.write_bytes(b"GGUF" + os.urandom(100_000))
    await real_host.engine.start(real_host.spec())
    with pytest.raises(DriverError) as refusal:
        await ready(real_host)
    assert refusal.value.reason == "EngineExited"
    end = await real_host.engine.ended("a")
    assert end is not None
    assert end.reason is End.CRASHED


@pytest.mark.real
async def test_a_model_that_is_missing_is_told(real_host: RealHost) -> None:
    real_host.model = Path("/no/such/model")
    with pytest.raises(DriverError) as refusal:
        await real_host.engine.start(real_host.spec())
    assert refusal.value.reason == "ContentMissing"


def content_of(path: Path) -> bytes:
    """What the file holds; nothing for a socket, and for a process that has just gone."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.mark.real
async def test_its_secret_is_nowhere_to_be_read(real_host: RealHost) -> None:
    running = await real_host.engine.start(real_host.spec())
    await ready(real_host)
    kept = [Path(folder, name) for folder, _, files in os.walk(real_host.state) for name in files]
    shown = [Path(f"/proc/{pid}/{name}") for pid in procfs.pids() for name in ("cmdline", "environ")]
    assert len(kept) > 3
    assert [path for path in (*kept, *shown) if SECRET.encode() in content_of(path)] == []
    assert procfs.entry(running.pid) is not None


@pytest.mark.real
async def test_its_door_is_for_root_alone(real_host: RealHost) -> None:
    if await real_host.processes.isolation() is not Isolation.STRONG:
        pytest.skip("doors are sealed by root")
    running = await real_host.engine.start(real_host.spec())
    await ready(real_host)
    folder = Path(running.door).parent
    for level in (folder, folder.parent):
        assert (level.stat().st_mode & 0o777, level.stat().st_uid) == (0o700, 0)
    knock = f"import socket; socket.socket(socket.AF_UNIX).connect({running.door!r})"
    stranger = await asyncio.create_subprocess_exec(
        "/usr/bin/setpriv", "--reuid=65534", "--clear-groups", "/usr/bin/python3", "-c", knock,
        stderr=asyncio.subprocess.PIPE, cwd="/",
    )  # fmt: skip
    _, said = await stranger.communicate()
    assert b"PermissionError" in said


@pytest.mark.real
async def test_a_door_that_is_a_link_is_no_door(real_host: RealHost, pretend: Callable[..., None]) -> None:
    """An engine that points its door at another socket would have the gateway talk to it."""
    pretend(
        "",
        program="import json, os, signal, sys\nos.symlink('/run/x.sock', json.load(sys.stdin)['door']); signal.pause()",
    )
    await real_host.engine.start(real_host.spec())
    with pytest.raises(DriverError, match="something else than a socket") as refusal:
        await ready(real_host)
    assert refusal.value.reason == "ProbeFailed"


@pytest.mark.real
async def test_a_sealed_door_cannot_be_swapped(real_host: RealHost, pretend: Callable[..., None]) -> None:
    if await real_host.processes.isolation() is not Isolation.STRONG:
        pytest.skip("doors are sealed by root")
    pretend("try: os.unlink(settings['door'])\n        except OSError as error: self.answer(str(error).encode())\n")
    await real_host.engine.start(real_host.spec())
    with pytest.raises(DriverError) as refusal:
        await ready(real_host)
    assert "Permission denied" in refusal.value.internal
    assert stat.S_ISSOCK(os.stat(real_host.engine.door("a")).st_mode)


def test_a_folder_that_is_somebody_elses_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "doors").symlink_to(tmp_path / "real")
    with pytest.raises(DriverError) as refusal:
        Doors(tmp_path / "doors").clear("a")
    assert refusal.value.reason == "PortTaken"


def test_paths_are_short_enough_for_a_socket(tmp_path: Path) -> None:
    state = tmp_path / ("x" * 120)
    door = Doors(default_folder(state)).socket("0123456789" * 6)
    with socket.socket(socket.AF_UNIX) as probe, pytest.raises(OSError, match="No such file"):
        probe.connect(str(door))
    assert default_folder(state) != default_folder(tmp_path)
