"""What a person types, read beside everything else that goes on, so that Ctrl-C is heard while it is awaited."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import termios
import tty
from collections.abc import AsyncGenerator, Iterator


@contextlib.contextmanager
def raw_terminal() -> Iterator[None]:
    """The terminal passes keys on unread while this holds; a pipe is left as it is."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    tty.setraw(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


async def keys() -> AsyncGenerator[bytes, None]:
    """Standard input in pieces, as they come, to its end. ``aclose`` it."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Queue[bytes] = asyncio.Queue()
    descriptor = sys.stdin.fileno()

    def read() -> None:
        try:
            piece = os.read(descriptor, 4096)
        except OSError:  # the terminal has hung up
            piece = b""
        if not piece:  # else an end would be read for ever
            loop.remove_reader(descriptor)
        ready.put_nowait(piece)

    try:
        loop.add_reader(descriptor, read)
    except PermissionError:  # a regular file is always ready
        if whole := sys.stdin.buffer.read():
            yield whole
        return
    try:
        while piece := await ready.get():
            yield piece
    finally:
        loop.remove_reader(descriptor)


async def lines(prompt: str) -> AsyncGenerator[str, None]:
    """Lines without their ends; a terminal is shown the prompt before each. ``aclose`` it."""
    rest, asked = b"", prompt if sys.stdin.isatty() else ""
    print(end=asked, flush=True)
    async with contextlib.aclosing(keys()) as pieces:
        async for piece in pieces:
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                yield line.decode(errors="replace")
                print(end=asked, flush=True)
    if rest:
        yield rest.decode(errors="replace")
    elif asked:
        print()
