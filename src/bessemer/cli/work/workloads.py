"""Logs and consoles, for the commands of `cli.workloads`."""

from __future__ import annotations

import asyncio
import contextlib
import sys

from bessemer.cli.work.keyboard import keys, raw_terminal
from bessemer.client import Client, Socket
from bessemer.core.resource import Key
from bessemer.core.tasks import first_error, until_first

_DETACH = b"\x1d"  # Ctrl-], as telnet and virsh have it


async def print_log(client: Client, key: Key, *, follow: bool, replica: int) -> None:
    """Copy a log to standard output."""
    async with client.workloads.log(key, follow=follow, replica=replica) as parts:
        async for part in parts:
            _out(part)


def _out(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


async def console(client: Client, key: Key) -> None:
    """Join this terminal (or pipe) to a serial console until Ctrl-] or the end of either. Raises Unavailable with the
    reason where the guest's side ended it for one."""
    async with client.workloads.console(key) as socket:
        print(f"Connected to {key.name}. Ctrl-] lets go.", file=sys.stderr)
        try:
            with raw_terminal():
                await _both_ways(socket)
        finally:
            print(file=sys.stderr)  # the guest's last line has no end
    print("Let go.", file=sys.stderr)


async def _both_ways(socket: Socket) -> None:
    """Until one side has ended; why the guest's did is what it raises."""
    tasks = [asyncio.ensure_future(work) for work in (_show(socket), _type(socket))]
    await until_first(tasks)
    if error := first_error(tasks):
        raise error


async def _type(socket: Socket) -> None:
    async with contextlib.aclosing(keys()) as typed:
        async for piece in typed:
            if _DETACH in piece:
                return
            await socket.send(piece)
    await asyncio.sleep(2)  # piped input has ended: leave the guest a moment to answer


async def _show(socket: Socket) -> None:
    async for data in socket:
        _out(data)
