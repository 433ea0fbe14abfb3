"""Logs and consoles of hosts whose socket another replica holds: asked of that one, and carried through here.

Which one it is stands in the host's lease, as that replica's address: a host that dialled another may have left a
socket here of which nobody said that it is dead. That one is asked nonetheless where the lease cannot be read, or the
replica that it names is not reached. Who may see what was decided by the replica that was asked; it vouches
for it with a certificate that only replicas have. The other opens what it holds itself and nothing else, so nobody is
sent in circles, and counts it for the reader as its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.websockets import WebSocket

from bessemer.api.hosts import messages
from bessemer.api.relay import Reader
from bessemer.api.state import Call
from bessemer.core.errors import Forbidden, Malformed, Unavailable
from bessemer.core.frames import Mux, Stream
from bessemer.core.tasks import first_of
from bessemer.kinds.fleet.heartbeats import lease_of

REPLICA = "system:replica"
"""Whom a replica's certificate names to the others."""


async def open_stream(call: Call, host: str, *, request: Mapping[str, Any], reader: Reader) -> Stream:
    """A stream to a host, whichever replica has its socket. Raises what `Relay.open` does."""
    state = call.state
    try:
        replica = "" if state.others is None else await _holder(call, host)
        if state.others is not None and replica:
            asked = {**request, "host": host, "tenant": reader.tenant, "user": reader.user}
            return await state.others.open(replica, asked)
    except Unavailable:
        if not state.relay.holds(host):
            raise
    return await state.relay.open(host, request, reader=reader)


async def _holder(call: Call, host: str) -> str:
    """The address of the replica that has the socket, or "" where that is nobody else."""
    name = lease_of(host)
    notes = [lease.note for lease in await call.state.ports.leases.held(name) if lease.name == name]
    return notes[0] if notes and notes[0] != call.state.context.replica else ""


async def serve(call: Call) -> None:
    """WebSocket /relay: another replica's, which asks for streams of hosts whose sockets are here."""
    socket = call.connection
    if not isinstance(socket, WebSocket):
        raise Malformed("this route is a WebSocket")
    if call.who.name != REPLICA or call.who.session:
        raise Forbidden("this is for replicas of the api alone")
    await socket.accept()
    call.linger()
    mux = Mux(socket.send_bytes, dialled=False, accept=lambda stream: _carry(call, stream))
    await first_of(mux.run(messages(socket)), call.state.closing.wait())


async def _carry(call: Call, outer: Stream) -> None:
    request = dict(outer.request)
    host, tenant, user = (request.pop(name, None) for name in ("host", "tenant", "user"))
    if not (isinstance(host, str) and isinstance(tenant, str) and isinstance(user, str)):
        raise Malformed("a stream is asked for with its host, and for whom")
    inner = await call.state.relay.open(host, request, reader=Reader(tenant, user))
    try:
        await first_of(_copy(inner, outer), _copy(outer, inner))
    finally:
        await inner.close()


async def _copy(source: Stream, sink: Stream) -> None:
    async for data in source:
        await sink.write(data)
