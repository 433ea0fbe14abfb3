"""The ASGI application: who, which endpoint, which replica, and bytes on.

A request that fails before the replica's first byte is tried once more on another replica; one that is no stream and
took too long is not. After the first byte, what was sent is metered and the stream ends. Usage is written to the spool
before the answer's last byte is sent. A replica that did not answer as it should rests, and counts as well only when an
answer of it was whole.
"""

from __future__ import annotations

import asyncio
import ssl
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import orjson
import structlog

from bessemer.core.clock import Clock
from bessemer.core.errors import DriverError
from bessemer.core.hosts import door_name
from bessemer.core.tokens import replica_secret
from bessemer.core.values import UsageRecord
from bessemer.gateway import asgi, errors, request, upstream
from bessemer.gateway.admission import Admission, Ticket, shortened
from bessemer.gateway.asgi import Receive, Scope, Send
from bessemer.gateway.errors import Refused
from bessemer.gateway.meter import Counts, EventStream
from bessemer.gateway.metrics import GatewayMetrics
from bessemer.gateway.purse import Held, Need
from bessemer.gateway.spool import Spool
from bessemer.gateway.tables import EndpointEntry, KeyEntry, Replica, Tables

ROUTES: Mapping[str, bool] = {"/v1/chat/completions": True, "/v1/completions": True, "/v1/embeddings": False}
"""Route → whether it can stream."""

_REST_SECONDS = 2.0
_REST_DOUBLINGS_MAX = 5
_log = structlog.get_logger("gateway")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a replica may take until the first byte of an answer. One that is no stream has none before it is whole:
    it is given as long as OpenAI's clients wait."""

    streamed_seconds: float = 60.0
    whole_seconds: float = 600.0


@dataclass(frozen=True, slots=True)
class GatewayFacts:
    """What the gateway is given. ``secret`` keys the replicas' secrets; ``tls`` opens doors on other machines."""

    tables: Tables
    spool: Spool
    clock: Clock
    metrics: GatewayMetrics
    secret: bytes
    tls: ssl.SSLContext | None = None
    patience: Patience = Patience()
    admission: Admission = field(default_factory=Admission)


@dataclass(slots=True)
class _Work:
    """One request on its way. ``status`` 0 is one that no replica has answered; ``replica`` is who was asked last."""

    id: str
    route: str
    key: KeyEntry
    endpoint: EndpointEntry
    wanted: request.Wanted
    started: float
    counts: Counts = field(default_factory=Counts)
    ticket: Ticket = field(default_factory=lambda: Ticket(Held(""), Need(0, 0)))
    replica: Replica | None = None
    first_byte: float | None = None
    status: int = 0
    accounted: bool = False


class Gateway:
    """The application. ``ready`` says whether the tables were filled once; until then it answers 503."""

    def __init__(self, facts: GatewayFacts, ready: asyncio.Event) -> None:
        self._facts = facts
        self._ready = ready
        facts.metrics.unsettled.set_function(lambda: facts.spool.waiting)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await asgi.lifespan(scope, receive, send=send)
            return
        request_id = uuid.uuid4().hex
        path, method = scope["path"], scope["method"]
        try:
            if path in ROUTES and method == "POST":
                await self._complete(request_id, scope, receive=receive, send=send)
            else:
                await self._other(request_id, scope, send=send)
        except Refused as refused:
            self._facts.metrics.requests.labels(path if path in ROUTES else "other", refused.status).inc()
            extra = [(b"retry-after", b"%d" % refused.retry_after_seconds)] if refused.retry_after_seconds else []
            await asgi.respond(send, refused.status, body=refused.body(), request_id=request_id, extra=extra)

    async def _other(self, request_id: str, scope: Scope, *, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        if method in ("GET", "HEAD") and path in ("/healthz", "/livez", "/readyz"):
            if path == "/readyz" and not self._ready.is_set():
                raise errors.starting()
            await asgi.respond(send, 200, body=b"ok\n", request_id=request_id, content_type=b"text/plain")
        elif method == "GET" and (path == "/v1/models" or path.startswith("/v1/models/")):
            key = self._who(scope)
            await asgi.respond(
                send, 200, body=self._models(key, path.removeprefix("/v1/models").strip("/")), request_id=request_id
            )
        else:
            raise errors.no_route(method, path)

    def _who(self, scope: Scope) -> KeyEntry:
        token = request.bearer(scope["headers"])
        if not self._ready.is_set():
            raise errors.starting()
        key = self._facts.tables.find_key(token)
        if key is None or not key.valid(self._facts.clock.now()):
            raise errors.wrong_key(token)
        if not key.reachable((scope.get("client") or ("",))[0]):
            raise errors.wrong_network()
        return key

    def _models(self, key: KeyEntry, name: str) -> bytes:
        entries = [
            {"id": e.name, "object": "model", "created": e.created, "owned_by": e.project}
            for (project, _), e in sorted(self._facts.tables.endpoints.items())
            if project == key.project and key.may_use(e.name)
        ]
        if not name:
            return orjson.dumps({"object": "list", "data": entries})
        found = next((e for e in entries if e["id"] == name), None)
        if found is None:
            raise errors.no_model(name)
        return orjson.dumps(found)

    async def _complete(self, request_id: str, scope: Scope, *, receive: Receive, send: Send) -> None:
        key = self._who(scope)
        raw = await asgi.read_body(scope, receive)
        wanted = request.read(raw, streams=ROUTES[scope["path"]])
        endpoint = self._facts.tables.endpoints.get((key.project, wanted.model))
        if endpoint is None or not key.may_use(endpoint.name):
            raise errors.no_model(wanted.model)
        try:
            self._facts.spool.reserve()
        except DriverError as error:
            why = error.internal or error.message
            _log.error("usage cannot be recorded", request_id=request_id, object_uid=endpoint.uid, error=why)
            raise errors.no_room_for_usage() from error
        try:
            work = _Work(request_id, scope["path"], key, endpoint, wanted, self._facts.clock.monotonic())
            entered = self._facts.admission.enter(key, wanted, endpoint=endpoint)
            work.ticket = entered if isinstance(entered, Ticket) else await entered
            try:
                if work.ticket.writes is not None:
                    work.wanted = replace(wanted, body=shortened(wanted.body, work.ticket.writes))
                with self._facts.metrics.busy.track_inprogress():
                    await self._serve(work, receive, send=send)
            finally:
                self._facts.admission.leave(work.ticket, work.counts)
        finally:
            self._facts.spool.release()

    async def _serve(self, work: _Work, receive: Receive, *, send: Send) -> None:
        """Answer, unless the client goes first: then the replica hears of that at once, too."""
        answering = asyncio.create_task(self._answer(work, send=send))
        gone = asyncio.create_task(asgi.disconnected(receive))
        try:
            await asyncio.wait({answering, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            answering.cancel()
            gone.cancel()
            await asyncio.gather(answering, gone, return_exceptions=True)
        if not answering.cancelled() and (error := answering.exception()) is not None:
            raise error

    async def _answer(self, work: _Work, *, send: Send) -> None:
        replica, answer = await self._ask(work)
        try:
            await self._relay(work, answer, send=send)
        finally:
            replica.busy -= 1
            answer.close()
            self._account(work)

    async def _ask(self, work: _Work) -> tuple[Replica, upstream.Answer]:
        """A replica that answers, counted as busy."""
        name = work.endpoint.name
        patience = self._facts.patience
        seconds = patience.streamed_seconds if work.wanted.stream else patience.whole_seconds
        tried: frozenset[str] = frozenset()
        failed: Refused | None = None
        for _ in range(2):
            replica = work.endpoint.choose(self._facts.clock.monotonic(), tried=tried)
            if replica is None:
                break
            work.replica = replica
            try:
                return replica, await _asked(self._facts, work, replica=replica, seconds=seconds)
            except upstream.Lost as error:
                silent = isinstance(error, upstream.Silent)
                failed = errors.replica_silent(name, seconds) if silent else errors.replica_failed(name)
                if silent and not work.wanted.stream:
                    # A long answer is no fault of the replica's, and the next one would take as long for it.
                    _log.warning("answer too long", request_id=work.id, object_uid=replica.claim_uid, error=str(error))
                    raise failed from error
                _unwell(self._facts, work, event="replica lost", error=error)
                self._facts.metrics.retries.inc()
                tried |= {replica.claim_uid}
        raise failed or errors.no_replica(name)

    async def _relay(self, work: _Work, answer: upstream.Answer, *, send: Send) -> None:
        streaming = answer.headers.get(b"content-type", b"").startswith(b"text/event-stream")
        if streaming:
            await self._relay_stream(work, answer, send=send)
        else:
            await self._relay_whole(work, answer, send=send)

    async def _relay_stream(self, work: _Work, answer: upstream.Answer, *, send: Send) -> None:
        events = EventStream(show_usage=work.wanted.show_usage, show_timings=work.wanted.show_timings)
        work.counts = events.counts
        work.status = answer.status
        await asgi.start(
            send,
            answer.status,
            request_id=work.id,
            content_type=b"text/event-stream; charset=utf-8",
            extra=[(b"cache-control", b"no-cache"), *self._facts.admission.headers(work.ticket)],
        )
        try:
            async for part in answer.parts():
                for event in events.feed(part):
                    work.first_byte = work.first_byte or self._facts.clock.monotonic()
                    await send({"type": "http.response.body", "body": event, "more_body": True})
        except upstream.Lost as error:
            # What was sent stands and is metered; an error event says that this is not the end which was asked for.
            _unwell(self._facts, work, event="stream cut", error=error)
            name, begun = work.endpoint.name, work.first_byte is not None
            words = errors.answer_cut(name) if begun else errors.replica_failed(name)
            await send({"type": "http.response.body", "body": b"data: " + words.body() + b"\n\n", "more_body": True})
        else:
            _well(work)
        self._account(work)
        await send({"type": "http.response.body", "body": b""})

    async def _relay_whole(self, work: _Work, answer: upstream.Answer, *, send: Send) -> None:
        try:
            body = await answer.whole()
            if _good(answer.status):
                body = _metered(work, body)
        except (upstream.Lost, ValueError, TypeError) as error:
            _unwell(self._facts, work, event="answer cannot be used", error=error)
            raise errors.replica_failed(work.endpoint.name) from error
        _well(work)
        work.status = answer.status
        work.first_byte = self._facts.clock.monotonic()
        self._account(work)
        extra = self._facts.admission.headers(work.ticket)
        await asgi.respond(send, answer.status, body=body, request_id=work.id, extra=extra)

    def _account(self, work: _Work) -> None:
        if work.accounted or not work.status:
            return
        work.accounted = True
        now = self._facts.clock.monotonic()
        work.counts = work.ticket.billed(work.counts)
        if _good(work.status):
            record = self._record(work, now)
            self._facts.spool.append(record)
            self._facts.admission.spend(work.ticket, record)
        metrics = self._facts.metrics
        metrics.requests.labels(work.route, work.status).inc()
        metrics.whole.observe(now - work.started)
        if work.first_byte is not None:
            metrics.first.observe(work.first_byte - work.started)
        metrics.tokens.labels("input").inc(work.counts.input_tokens)
        metrics.tokens.labels("output").inc(work.counts.output_tokens)

    def _record(self, work: _Work, now: float) -> UsageRecord:
        first = work.first_byte if work.first_byte is not None else now
        return UsageRecord(
            at=int(self._facts.clock.now()),
            request_id=work.id,
            project=work.endpoint.project,
            endpoint=work.endpoint.name,
            endpoint_uid=work.endpoint.uid,
            api_key=work.key.name,
            model=work.endpoint.model,
            status=work.status,
            input_tokens=work.counts.input_tokens,
            cached_input_tokens=work.counts.cached_input_tokens,
            output_tokens=work.counts.output_tokens,
            latency_ms=int((now - work.started) * 1000),
            first_token_ms=int((first - work.started) * 1000),
            held_micro=work.ticket.held.micro or None,
            owner=work.key.owner or None,
            held_bounds=work.ticket.names,
        )


async def _asked(facts: GatewayFacts, work: _Work, *, replica: Replica, seconds: float) -> upstream.Answer:
    """An answer that a client may be handed; from then on the replica is busy until somebody says otherwise. Raises
    Lost."""
    ask = upstream.Ask(
        work.route,
        work.wanted.body,
        replica_secret(facts.secret, replica.claim_uid),
        work.id,
        server_name=door_name(replica.host),
        folder=replica.folder,
        patience_seconds=seconds,
    )
    replica.busy += 1
    try:
        answer = await upstream.ask(replica.address, ask, tls=facts.tls)
        if answer.status in (401, 403) or not 200 <= answer.status < 600:
            # It does not know our secret, or speaks no HTTP that a client could be handed: not the client's fault.
            answer.close()
            raise upstream.Lost(f"it answered with status {answer.status}")
    except BaseException:
        replica.busy -= 1
        raise
    return answer


def _well(work: _Work) -> None:
    if work.replica is not None:
        work.replica.failures = 0


def _unwell(facts: GatewayFacts, work: _Work, *, event: str, error: Exception) -> None:
    """Let the replica rest, the longer the more often in a row."""
    replica = work.replica
    if replica is None:
        return
    _log.warning(event, request_id=work.id, object_uid=replica.claim_uid, error=str(error)[:200])
    rest = _REST_SECONDS * 2 ** min(replica.failures, _REST_DOUBLINGS_MAX)
    replica.failures += 1
    replica.not_before = facts.clock.monotonic() + rest


def _good(status: int) -> bool:
    """Whether a client takes it for an answer: then it is one that is paid for."""
    return 200 <= status < 300


def _metered(work: _Work, body: bytes) -> bytes:
    """Take the counts of a whole answer; the body as it goes on. Raises ValueError, TypeError for what is no answer."""
    parsed = orjson.loads(body)
    if not isinstance(parsed, dict):
        raise ValueError("the answer is no object")
    work.counts.take(parsed)
    if parsed.pop("timings", None) is not None and not work.wanted.show_timings:
        return orjson.dumps(parsed)
    return body
