"""What is left to be read of a socket that has an error is heard, too, also on the loop that the server runs on."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable

import pytest
import uvloop

from bessemer.store.hearing import Hearing

LOOPS: tuple[Callable[[], asyncio.AbstractEventLoop], ...] = (asyncio.new_event_loop, uvloop.new_event_loop)


@pytest.mark.parametrize("make", LOOPS, ids=["asyncio", "uvloop"])
def test_who_takes_a_part_of_what_was_said_before_a_reset_hears_of_the_rest(
    make: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    with asyncio.Runner(loop_factory=make) as runner:
        assert runner.run(_heard(b"abc")) == [b"a", b"b", b"c", "reset"]


async def _heard(said: bytes) -> list[bytes | str]:
    loop, heard = asyncio.get_running_loop(), list[bytes | str]()
    over = asyncio.Event()
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as ours:
        theirs, _ = server.accept()
        ours.setblocking(False)
        theirs.sendall(said)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # its end is a reset
        theirs.close()

        def take() -> None:
            try:
                heard.append(ours.recv(1))
            except ConnectionResetError:
                heard.append("reset")
            if heard[-1] in (b"", "reset"):
                over.set()

        hearing = Hearing(loop, ours.fileno(), call=take, writing=False)
        try:
            async with asyncio.timeout(60):
                await over.wait()
        finally:
            hearing.end()
    return heard
