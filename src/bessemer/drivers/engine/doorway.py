"""Doorways on this machine: a `relay` process beside each engine, whose command line is the only record of it."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import signal
import socket
import struct
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from bessemer.core.errors import DriverError
from bessemer.drivers.engine import relay
from bessemer.drivers.engine.doors import Doors
from bessemer.drivers.engine.protocol import Listen
from bessemer.drivers.engine.sense import engine_ended
from bessemer.drivers.process import procfs
from bessemer.drivers.process.protocol import Companions, Part, Processes, Running
from bessemer.drivers.process.users import USERS

_START_SECONDS = 10.0
_POLL_SECONDS = 0.02
_BACKLOG = 256
_SO_ATTACH_REUSEPORT_CBPF = 51
_BPF_RETURN = 0x06


class EngineProcesses(Processes, Companions, Protocol):
    """What doorways need of the processes of engines; `HostProcesses` is one."""


@dataclass(frozen=True, slots=True)
class _Relay:
    part: Part
    address: str
    fingerprint: str


class HostDoorway:
    """Doorways to the engines that `LlamaCpp` has in the same processes and behind the same doors."""

    def __init__(self, processes: EngineProcesses, doors: Path) -> None:
        self._processes = processes
        self._doors = Doors(doors)

    async def open(self, uid: str, listen: Listen) -> str:
        running = await self._processes.find(uid)
        if running is None:
            raise engine_ended(await self._processes.ended(uid))
        if not self._doors.seal(uid):
            raise DriverError("EngineStarting", "the engine has not opened its door yet")
        wanted = _fingerprint(listen)
        relays = await self._relays(uid)
        current = next((one for one in relays if one.fingerprint == wanted), None)
        if current is None:
            current = await self._start(running, listen, address=relays[-1].address if relays else "")
        for old in relays:
            if old.part != current.part:
                procfs.send(old.part.pid, signal.SIGTERM)
        return current.address

    async def find(self, uid: str) -> str | None:
        relays = await self._relays(uid)
        return relays[-1].address if relays else None

    async def close(self, uid: str) -> None:
        while relays := await self._relays(uid):
            for one in relays:
                procfs.send(one.part.pid, signal.SIGKILL)
            await asyncio.sleep(_POLL_SECONDS)

    async def _relays(self, uid: str) -> list[_Relay]:
        """Those that run, the newest last."""
        found = [(part, argv) for part, argv in await self._processes.companions(uid) if relay.__file__ in argv]
        words = [(part, argv[argv.index(relay.__file__) + 1 :]) for part, argv in found]
        return [_Relay(part, rest[0], rest[1]) for part, rest in words if len(rest) > 1]

    async def _start(self, running: Running, listen: Listen, *, address: str) -> _Relay:
        """Start a relay on a socket that is bound here, so that a port that is taken is known at once."""
        user = running.user + USERS if os.geteuid() == 0 else -1
        with ExitStack() as stack:
            listener = stack.enter_context(_listener(listen, address))
            door = os.open(self._doors.socket(running.uid), os.O_PATH | os.O_NOFOLLOW)
            stack.callback(os.close, door)
            if user >= 0:
                # Its folder is root's alone: whoever has no descriptor of it does not come this far.
                os.chmod(f"/proc/self/fd/{door}", 0o666)
            host, port = listener.getsockname()[:2]
            address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            files = (str(listen.certificate), str(listen.key), str(listen.authority))
            numbers = (listener.fileno(), door)
            words = (address, _fingerprint(listen), *map(str, (*numbers, user)), *files)
            argv = (sys.executable, "-I", "-S", "-B", relay.__file__, *words)
            part = await self._processes.accompany(running.uid, argv, keep=numbers)
            await self._serving(running.uid, part, user=user)
            _choose(listener, 1)
        return _Relay(part, address, _fingerprint(listen))

    async def _serving(self, uid: str, part: Part, *, user: int) -> None:
        """Wait until the relay has read its certificates and given up root. Raises DriverError ``ProcessFailed``."""
        for _ in range(int(_START_SECONDS / _POLL_SECONDS)):
            found = procfs.entry(part.pid)
            if found is None:
                break
            if user < 0 or found.user == user:
                return
            await asyncio.sleep(_POLL_SECONDS)
        procfs.send(part.pid, signal.SIGKILL)
        raise DriverError(
            "ProcessFailed", "the doorway cannot be opened", internal=f"uid {uid}, see its companions' log"
        )


def _listener(listen: Listen, address: str) -> socket.socket:
    """A listening socket; on the port of the doorway that it takes over from, unless another one is asked for."""
    port = listen.port or (int(address.rpartition(":")[2]) if address else 0)
    listener = socket.socket(socket.AF_INET6 if ":" in listen.host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((listen.host, port))
        listener.listen(_BACKLOG)
        _choose(listener, 0)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise DriverError("PortTaken", f"port {port} of {listen.host} is in use") from error
        raise DriverError("ProcessFailed", f"{listen.host} cannot be listened on", internal=str(error)) from error
    return listener


def _choose(listener: socket.socket, number: int) -> None:
    """Have the kernel give what knocks at the listener's port from now on to one of its listeners: 0 is the oldest.

    Else each gets some until the old one closes, which resets those that it has not accepted. A program of one line
    (BPF, socket(7) ``SO_ATTACH_REUSEPORT_CBPF``) names the listener; where there is none of that number, as when the
    old one has gone, the kernel chooses among those there are.
    """
    program = ctypes.create_string_buffer(struct.pack("HBBI", _BPF_RETURN, 0, 0, number))
    listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, struct.pack("HP", 1, ctypes.addressof(program)))


def _fingerprint(listen: Listen) -> str:
    """What a doorway is: its place, and the certificates that it shows and believes."""
    try:
        files = [path.read_bytes() for path in (listen.certificate, listen.authority)]
    except OSError as error:
        raise DriverError("ProcessFailed", "the doorway's certificates cannot be read", internal=str(error)) from error
    return sha256(b"\0".join((listen.host.encode(), str(listen.port).encode(), *files))).hexdigest()[:16]
