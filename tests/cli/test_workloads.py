"""Logs, consoles and talks, over real sockets and in a process of their own, as a person has them at a terminal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import termios
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from aiohttp import web

from bessemer.core.errors import DriverError
from bessemer.core.frames import Stream
from bessemer.core.ports import Scope
from tests.api.test_streams import dialled, running
from tests.cli.conftest import PROJECT, Cli, terminal

PLACE = ("-n", PROJECT)
SECONDS = 60


class Guest:
    """What answers at the host: ``accept`` is changed from test to test."""

    accept: Callable[[Stream], Awaitable[None]]

    async def __call__(self, stream: Stream) -> None:
        await self.accept(stream)


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """A world with instance vm on host h1."""
    with terminal(tmp_path_factory.mktemp("cli")) as made:
        yield made


@pytest.fixture(scope="module")
def guest(cli: Cli) -> Iterator[Guest]:
    made = Guest()
    pair = cli.do(lambda _: running(cli.site))
    with cli.beside(dialled(cli.site, pair, "h1", made)):
        yield made


async def echo(stream: Stream) -> None:
    """Says what is typed, in capitals; ends well at ``exit``, and for a reason at ``crash``."""
    await stream.write(b"login: ")
    async for typed in stream:
        if b"exit" in typed:
            return
        if b"crash" in typed:
            raise DriverError("GuestNotRunning", "the guest has ended")
        await stream.write(typed.upper())


async def busy(_: Stream) -> None:
    raise DriverError("ConsoleBusy", "somebody else is at the console")


async def speak(stream: Stream) -> None:
    assert stream.request["verb"] == "log"
    await stream.write(f"follow={stream.request['follow']}\n".encode())
    await stream.write(b"x" * 300_000)


# --- logs ---


@pytest.mark.parametrize(("flags", "follow"), [((), b"False"), (("-f",), b"True")])
def test_a_log_is_copied_as_it_is(cli: Cli, guest: Guest, flags: tuple[str, ...], follow: bytes) -> None:
    guest.accept = speak
    with cli.start("logs", "instance", "vm", *PLACE, *flags) as logs:
        out, err = logs.communicate(timeout=SECONDS)
    assert (logs.returncode, err) == (0, b"")
    assert out == b"follow=" + follow + b"\n" + b"x" * 300_000


def test_why_there_is_no_log_is_said(cli: Cli, guest: Guest) -> None:
    async def refuse(_: Stream) -> None:
        raise DriverError("Gone", "the log was removed")

    guest.accept = refuse
    with cli.start("logs", "instance/vm", *PLACE) as logs:
        out, err = logs.communicate(timeout=SECONDS)
    assert (logs.returncode, out) == (1, b"")
    assert b"error: the host cannot show the log: the log was removed" in err


# --- the console ---


def test_a_console_goes_both_ways_until_it_is_let_go_of(cli: Cli, guest: Guest) -> None:
    guest.accept = echo
    with cli.start("console", "vm", *PLACE, stdin=subprocess.PIPE) as console:
        _until(console, b"login: ")
        _type(console, b"uname\n")
        _until(console, b"UNAME\n")
        _type(console, b"\x1d")
        _, err = console.communicate(timeout=SECONDS)
    assert console.returncode == 0
    assert err.split(b"\n") == [b"Connected to vm. Ctrl-] lets go.", b"", b"Let go.", b""]


def test_a_guest_that_leaves_in_good_order_is_no_failure(cli: Cli, guest: Guest) -> None:
    guest.accept = echo
    with cli.start("console", "vm", *PLACE, stdin=subprocess.PIPE) as console:
        _until(console, b"login: ")
        _type(console, b"exit\n")
        assert console.wait(SECONDS) == 0


@pytest.mark.parametrize(
    ("accept", "typed", "reason"),
    [(busy, b"", b"somebody else is at the console"), (echo, b"crash\n", b"the guest has ended")],
)
def test_why_a_console_ended_is_said(
    cli: Cli, guest: Guest, accept: Callable[[Stream], Awaitable[None]], typed: bytes, reason: bytes
) -> None:
    guest.accept = accept
    with cli.start("console", "vm", *PLACE, stdin=subprocess.PIPE) as console:
        if typed:
            _until(console, b"login: ")
            _type(console, typed)
        assert console.wait(SECONDS) == 1
        assert console.stderr is not None
        err = console.stderr.read()
    assert b"\nerror: " + reason in err
    assert b"Let go" not in err


def test_at_a_terminal_every_key_is_the_guests_and_the_terminal_is_given_back(cli: Cli, guest: Guest) -> None:
    guest.accept = echo
    ours, theirs = os.openpty()
    try:
        before = termios.tcgetattr(theirs)
        with cli.start("console", "vm", *PLACE, stdin=theirs) as console:
            _until(console, b"login: ")
            os.write(ours, b"a\x03\x1a")
            _until(console, b"A\x03\x1a")
            os.write(ours, b"\x1d")
            assert console.wait(SECONDS) == 0
        assert termios.tcgetattr(theirs) == before
    finally:
        os.close(ours)
        os.close(theirs)


# --- talks ---


@dataclass
class Gateway:
    """A gateway that says what it is told to. ``strangers`` requests find a key that it has not heard of."""

    url: str = ""
    says: list[bytes] = field(default_factory=list)
    status: int = 200
    torn: bool = False
    strangers: int = 0
    asked: list[Any] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)

    async def models(self, request: web.Request) -> web.Response:
        self.strangers -= 1
        return web.Response(status=401 if self.strangers >= 0 else 200)

    async def complete(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(await request.json())
        self.keys.add(request.headers["Authorization"])
        if self.status != 200:
            return web.Response(status=self.status, body=b"".join(self.says))
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        for event in self.says:
            await answer.write(b"data: " + event + b"\n\n")
        if self.torn:
            assert request.transport is not None
            request.transport.abort()
        return answer


@asynccontextmanager
async def serving(gateway: Gateway) -> AsyncIterator[Gateway]:
    app = web.Application()
    app.router.add_get("/v1/models", gateway.models)
    app.router.add_post("/v1/chat/completions", gateway.complete)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    gateway.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield gateway
    finally:
        await runner.cleanup()


@pytest.fixture
def gateway(cli: Cli) -> Iterator[Gateway]:
    with cli.beside(serving(Gateway(says=[said("A "), said("furnace."), b"[DONE]"]))) as made:
        yield made


def said(words: str) -> bytes:
    return json.dumps({"choices": [{"delta": {"content": words}}]}).encode()


def keys(cli: Cli) -> list[Any]:
    page = cli.do(lambda w: w.store.objects.list(Scope(kind="ApiKey", namespace=PROJECT)))
    return [orjson.loads(stored.body) for stored in page.items]


def chat(cli: Cli, gateway: Gateway, *words: str, typed: bytes = b"") -> tuple[int, bytes, bytes]:
    """Its status, and what it printed."""
    with cli.start("chat", "smol", *words, *PLACE, "--gateway", gateway.url, stdin=subprocess.PIPE) as talk:
        out, err = talk.communicate(typed, timeout=SECONDS)
    return talk.returncode, out, err


def test_one_answer_to_a_message_by_a_key_of_its_own(cli: Cli, gateway: Gateway) -> None:
    gateway.strangers = 2
    assert chat(cli, gateway, "What is", "it?") == (0, b"A furnace.\n", b"")
    assert gateway.asked == [
        {"model": "smol", "messages": [{"role": "user", "content": "What is it?"}], "stream": True}
    ]
    assert gateway.strangers < 0, "it waited until its key was known"
    (bearer,) = gateway.keys
    assert bearer.startswith("Bearer bsk_")
    assert keys(cli) == [], "the key went with the talk"


def test_a_key_that_was_given_is_used_and_none_made(cli: Cli, gateway: Gateway) -> None:
    assert chat(cli, gateway, "hi", "--key", "bsk_mine")[0] == 0
    assert gateway.keys == {"Bearer bsk_mine"}


def test_a_talk_remembers_and_ends_at_an_empty_line(cli: Cli, gateway: Gateway) -> None:
    assert chat(cli, gateway, typed=b"one\ntwo\n\nthree\n") == (0, b"A furnace.\n" * 2, b"")
    assert [message["content"] for message in gateway.asked[-1]["messages"]] == ["one", "A furnace.", "two"]


def test_the_last_line_needs_no_end(cli: Cli, gateway: Gateway) -> None:
    assert chat(cli, gateway, typed=b"one") == (0, b"A furnace.\n", b"")


@pytest.mark.parametrize(
    ("changes", "out", "reason"),
    [
        ({"says": [said("Half"), b'{"error": {"message": "its replica failed"}}']}, b"Half\n", b"its replica failed"),
        ({"says": [said("Half")]}, b"Half\n", b"the answer broke off"),
        ({"says": [said("Half")], "torn": True}, b"Half\n", b"the answer broke off"),
        ({"says": [b"{"]}, b"", b"the gateway said what cannot be read"),
        ({"says": [b"[]"]}, b"", b"the gateway said what cannot be read"),
        ({"says": [b'{"error": {"message": "no such model"}}'], "status": 404}, b"", b"no such model"),
        ({"says": [b"<html>"], "status": 502}, b"", b"the gateway answered 502"),
        ({"url": "http://127.0.0.1:9/v1"}, b"", b"the gateway cannot be reached"),
    ],
)
def test_half_an_answer_is_a_failure(
    cli: Cli, gateway: Gateway, changes: dict[str, Any], out: bytes, reason: bytes
) -> None:
    for name, value in changes.items():
        setattr(gateway, name, value)
    code, shown, err = chat(cli, gateway, "hi")
    assert (code, shown) == (1, out)
    assert err.startswith(b"error: " + reason)
    assert b"Traceback" not in err
    assert keys(cli) == []


def test_an_interrupt_at_the_prompt_ends_it_at_once(cli: Cli, gateway: Gateway) -> None:
    ours, theirs = os.openpty()
    try:
        with cli.start("chat", "smol", *PLACE, "--gateway", gateway.url, stdin=theirs) as talk:
            _until(talk, b"> ")
            (key,) = keys(cli)
            assert key["metadata"]["name"] != f"chat-{talk.pid}"
            assert key["spec"]["endpoints"] == ["smol"]
            assert key["spec"]["expiresAt"].endswith("Z"), "it ends by itself where we cannot end it"
            talk.send_signal(signal.SIGINT)
            assert talk.wait(SECONDS) == 130
        assert keys(cli) == []
    finally:
        os.close(ours)
        os.close(theirs)


def _type(process: subprocess.Popen[bytes], words: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(words)
    process.stdin.flush()


def _until(process: subprocess.Popen[bytes], words: bytes) -> None:
    """Read what it shows, up to these words."""
    assert process.stdout is not None
    seen = b""
    while not seen.endswith(words):
        piece = os.read(process.stdout.fileno(), 1)
        assert piece, seen
        seen += piece
