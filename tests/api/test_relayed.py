"""Which replica is asked for a stream of a host."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from bessemer.api.relay import Reader, Relay
from bessemer.api.relayed import open_stream
from bessemer.core.errors import Unavailable
from bessemer.core.frames import Mux

HERE, THERE = "https://a", "https://b"


class Asked:
    """What one replica of two is asked, and asks the other; the host's lease names ``holder``."""

    def __init__(self, holder: str, *, silent: bool = False, lost: bool = False) -> None:
        self.holder = holder
        self.silent = silent
        """The database."""
        self.lost = lost
        """The other replica."""
        self.there: list[str] = []
        self.relay = Relay()
        self.sent = 0

    async def held(self, name: str) -> list[Any]:
        if self.silent:
            raise Unavailable("the database is away")
        return [SimpleNamespace(name=name, note=self.holder)]

    async def open(self, replica: str, request: Any) -> None:
        if self.lost:
            raise Unavailable("it is not reached")
        self.there.append(replica)

    async def send(self, _: bytes) -> None:
        self.sent += 1

    async def stream(self) -> None:
        context = SimpleNamespace(replica=HERE)
        ports = SimpleNamespace(leases=self)
        state = SimpleNamespace(relay=self.relay, others=self, ports=ports, context=context)
        call: Any = SimpleNamespace(state=state)
        await open_stream(call, "h1", request={"verb": "log"}, reader=Reader("acme", "ada"))


@pytest.mark.parametrize("holder", [HERE, ""], ids=["itself", "nobody said"])
async def test_who_holds_the_socket_asks_nobody(holder: str) -> None:
    asked = Asked(holder)
    asked.relay.join("h1", Mux(asked.send, dialled=False))
    await asked.stream()
    assert (asked.sent, asked.there) == (1, [])


async def test_a_socket_that_its_host_has_left_is_not_asked() -> None:
    """Its wire was cut, so that nobody said here that it has ended; and the host dialled the other one."""
    asked = Asked(THERE)
    asked.relay.join("h1", Mux(asked.send, dialled=False))
    await asked.stream()
    assert (asked.sent, asked.there) == (0, [THERE])


@pytest.mark.parametrize("way", ["silent", "lost"])
async def test_the_socket_that_is_here_is_asked_where_nobody_says_better(way: str) -> None:
    asked = Asked(THERE, silent=way == "silent", lost=way == "lost")
    asked.relay.join("h1", Mux(asked.send, dialled=False))
    await asked.stream()
    assert (asked.sent, asked.there) == (1, [])


@pytest.mark.parametrize(("way", "words"), [("silent", "the database is away"), ("lost", "it is not reached")])
async def test_where_none_is_here_it_is_said_why_not(way: str, words: str) -> None:
    with pytest.raises(Unavailable, match=words):
        await Asked(THERE, silent=way == "silent", lost=way == "lost").stream()
