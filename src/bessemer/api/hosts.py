"""A host's agent at the api: how it joins and renews, its heartbeat, the socket it dials, the secrets it may fetch.

A join is vouched for by a one-time token (kept as a hash, sealed with the Host) or by the registered key's signature
over the request, which is also how a certificate is renewed, after it has run out too. Both end where the Host is
revoked. Registering a key is one write under the Host's revision: of two joins with one token, one succeeds.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import secrets
from collections.abc import AsyncIterator
from typing import Any

import orjson
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from bessemer.api import body as bodies
from bessemer.api.authn import AGENT_PREFIX, SYSTEM
from bessemer.api.ca import fingerprint, requested_key, signed_by
from bessemer.api.errors import not_found
from bessemer.api.refusals import Refusal
from bessemer.api.resources import load
from bessemer.api.state import Call, answer
from bessemer.core.clock import rfc3339
from bessemer.core.errors import Conflict, Forbidden, Invalid, Malformed, NotFound, Unauthenticated, Unavailable
from bessemer.core.frames import Mux, Stream
from bessemer.core.hosts import door_name
from bessemer.core.ports import Writer
from bessemer.core.resource import Key
from bessemer.core.tasks import first_of
from bessemer.core.tokens import replica_secret, token_digest
from bessemer.kinds.fleet.heartbeats import lease_of

TOKEN = "join"
JOIN, RENEW = "join", "renew"
"""Of a certificate, as the trail calls it."""

TOKEN_PREFIX = "bsj_"
COMMON_NAME_MAX = 64
REGISTER_ATTEMPTS = 8
REPLICA_SECRET = "replica"
GROUPS = ("system:agents",)
LEAVING_SECONDS = 5.0
"""For how long a host whose agent ended counts as heard: an agent that is only started anew is back by then."""

BEATS_TOGETHER = 60
"""Commits within a lease's length that heartbeats over sockets cost at most, however many hosts there are; a long
lease has more, for an agent waits for the answer, though not for long."""

BEATS_SECONDS_MAX = 1.0

_BAD_TOKEN = "the join token is not good, or not any more: ask an administrator for a new one"
_BAD_SIGNATURE = "the signature is not the registered key's"


async def token(call: Call) -> Response:
    """POST hosts/NAME/token: a one-time join token, in place of any before it."""
    host = await load(call, call.about)
    secret = TOKEN_PREFIX + secrets.token_urlsafe(32)
    expires = call.state.context.clock.now() + call.state.context.terms.join_token
    sealed = orjson.dumps({"digest": token_digest(secret), "expires": expires})
    await call.note(host)
    await call.state.ports.sealed.put(host.uid, TOKEN, sealed)
    shown = {"token": secret, "expiresAt": rfc3339(expires)}
    return answer(shown, 201, headers={"Cache-Control": "no-store"})


async def join(call: Call) -> Response:
    """POST hosts/NAME/join: a certificate for the key of the request."""
    tries, source, name = call.state.sign_ins, call.credentials.source, call.about.subject.name
    tries.may_prove(source, name)
    try:
        return await _join(call)
    except (Unauthenticated, Forbidden, Conflict) as error:
        tries.disproved(source, name)
        host = Key("Host", "", call.about.subject.name)
        await call.state.refusals.stranger(Refusal(call.acting, JOIN, host, error.message))
        raise


async def _join(call: Call) -> Response:
    context, ports = call.state.context, call.state.ports
    said = bodies.as_object(bodies.parse_json(await bodies.read(call.request, context.limits), context.limits.depth))
    csr, given, signature = (_text(said, field) for field in ("csr", "token", "signature"))
    if not given and not signature:
        raise Unauthenticated("a join needs a one-time token, or the registered key's signature")
    key = requested_key(csr)
    try:
        host = await load(call, call.about)
    except NotFound as error:  # a stranger does not learn which hosts there are
        raise Unauthenticated(_BAD_TOKEN if given else _BAD_SIGNATURE) from error
    body = orjson.loads(host.body)
    name = body["metadata"]["name"]
    if given:
        await _require_token(call, host.uid, given=given)
    else:
        _require_signature(body, csr, key=key, signature=signature)
    if body["spec"].get("revoked"):
        raise Forbidden(f"host {name} is revoked: an administrator must take that back first")
    user = AGENT_PREFIX + name
    if len(user) > COMMON_NAME_MAX:
        raise Invalid(f"the host's name is too long for a certificate: at most {COMMON_NAME_MAX - len(AGENT_PREFIX)}")
    if given:
        # Before the key is registered: whoever passed the check with this token has seen the Host without the new key.
        await ports.sealed.put(host.uid, TOKEN, b"{}")
        await _register(call, body, key=key)
    agent = Writer("agent", name, request_id=call.request_id, source=call.credentials.source)
    await ports.audit.note(agent, JOIN if given else RENEW, key=host.key, uid=host.uid)
    seconds = context.terms.agent_certificate
    # The name is for a host's doorways, which the gateway dials; its suffix keeps a host from being called as we are.
    certificate = context.ca.sign(key, user, groups=GROUPS, sans=[door_name(name)], seconds=seconds)
    return answer({"certificate": certificate.decode(), "ca": context.ca.certificate.decode()}, 201)


async def heartbeat(call: Call) -> Response:
    """POST hosts/NAME/heartbeat: renews the lease; changes no object. With ``leaving`` it is an agent's last word: the
    lease is cut to what a new start of it takes."""
    limits = call.state.context.limits
    said = bodies.as_object(bodies.parse_json(await bodies.read(call.request, limits) or b"{}", limits.depth))
    await call.still()
    seconds = LEAVING_SECONDS if said.get("leaving") is True else call.state.context.terms.lease
    await _hold(call, call.about.name, seconds=seconds)
    return answer({"leaseSeconds": seconds})


async def claim_secrets(call: Call) -> Response:
    """GET claims/NAME/secrets: what the claim's host needs and no list shows."""
    claim = await load(call, call.about)
    await call.note(claim)
    workload = orjson.loads(claim.body)["spec"]["workload"]["kind"]
    engine = workload in ("Endpoint", "Vetting")
    held = {REPLICA_SECRET: replica_secret(call.state.context.gateway_key, claim.uid)} if engine else {}
    return answer({"secrets": held}, headers={"Cache-Control": "no-store"})


async def stream(call: Call) -> None:
    """WebSocket hosts/NAME/stream: the agent's outbound socket, over which logs and consoles are asked for and the
    agent's heart beats, until it ends or the host is revoked."""
    socket, host, relay = _socket(call), call.about.name, call.state.relay
    await socket.accept()
    call.linger()
    one = asyncio.Lock()

    async def accept(stream: Stream) -> None:
        if stream.request.get("verb") != "heartbeat":
            raise Malformed("a host opens its heartbeat, and nothing else")
        if one.locked():  # it would wait for its turn, and hold what is sent to it meanwhile
            raise Conflict("a host has one heartbeat, and it is open")
        async with one:
            await _beats(call, host, stream=stream)

    mux = Mux(socket.send_bytes, dialled=False, accept=accept)
    relay.join(host, mux)
    call.state.metrics.streams.inc()
    try:
        await _hold(call, host)
        await first_of(mux.run(messages(socket)), call.lapsed(lambda _: True))
    finally:
        relay.leave(host, mux)
        call.state.metrics.streams.dec()


async def _beats(call: Call, host: str, *, stream: Stream) -> None:
    """Answer each beat (any bytes) with the lease's length in seconds, as text, once it is renewed. Beats of many hosts
    are one commit: nobody waits for the answer but the agent's next beat."""
    lease = call.state.context.terms.lease
    patience = min(lease / BEATS_TOGETHER, BEATS_SECONDS_MAX)
    while await stream.read():
        await _hold(call, host, patience=patience)
        await stream.write(b"%d" % lease)


async def messages(socket: WebSocket) -> AsyncIterator[bytes]:
    """What comes over a socket, until its end."""
    while True:
        try:
            yield await socket.receive_bytes()
        except (WebSocketDisconnect, KeyError):  # KeyError: a text message, which nobody of ours sends
            return


async def _hold(call: Call, host: str, *, seconds: float = 0.0, patience: float = 0.0) -> None:
    """Renew the host's lease. Its holder is the host, so that any replica may renew it; the note says who relays."""
    note = call.state.context.replica if call.state.relay.holds(host) else ""
    seconds = seconds or call.state.context.terms.lease
    if await call.state.ports.leases.acquire(lease_of(host), host, seconds, note=note, patience=patience) is None:
        raise Unavailable("the host's lease is held by somebody else")


def _socket(call: Call) -> WebSocket:
    if not isinstance(call.connection, WebSocket):
        raise not_found(call.about.subject)
    return call.connection


async def _require_token(call: Call, uid: str, *, given: str) -> None:
    sealed = await call.state.ports.sealed.get(uid, TOKEN)
    kept = orjson.loads(sealed) if sealed else {}
    good = hmac.compare_digest(token_digest(given), kept.get("digest", ""))
    if not good or kept["expires"] <= call.state.context.clock.now():
        raise Unauthenticated(_BAD_TOKEN)


def _require_signature(body: dict[str, Any], csr: str, *, key: EllipticCurvePublicKey, signature: str) -> None:
    """A renewal is for the registered key, and signed by it."""
    registered = body.get("status", {}).get("keyFingerprint", "")
    try:
        raw = base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    known = hmac.compare_digest(fingerprint(key), registered)
    if not known or not signed_by(key, csr.encode(), signature=raw):
        raise Unauthenticated(_BAD_SIGNATURE)


async def _register(call: Call, body: dict[str, Any], *, key: EllipticCurvePublicKey) -> None:
    """Make ``key`` the host's, in place of the one in ``body``. Raises Conflict for all but one who try at once."""
    before = body.get("status", {}).get("keyFingerprint", "")
    change = {"keyFingerprint": fingerprint(key), "joinedAt": rfc3339(call.state.context.clock.now())}
    for _ in range(REGISTER_ATTEMPTS):
        if body.get("status", {}).get("keyFingerprint", "") != before:
            break
        try:
            await call.state.ports.objects.replace(
                {**body, "status": {**body.get("status", {}), **change}}, SYSTEM, part="status"
            )
            return
        except Conflict:  # the control side writes the same status
            body = orjson.loads((await load(call, call.about)).body)
    raise Conflict("another agent has joined as this host")


def _text(said: dict[str, Any], field: str) -> str:
    value = said.get(field, "")
    if not isinstance(value, str):
        raise Invalid(f"{field} must be text")
    return value
