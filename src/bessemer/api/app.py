"""The ASGI application: `routes.ROUTES` behind one endpoint that names the request, knows who asks, decides, and tells
errors as ``Status``. What it refuses to somebody known is audited. It starts and stops the directory's watches."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

import structlog
from starlette.applications import Starlette
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketClose, WebSocketDisconnect, WebSocketState

from bessemer.api.asked import Asked
from bessemer.api.context import ApiContext, Credentials, Identity
from bessemer.api.credentials import SECRETS
from bessemer.api.errors import WrongMethod, retry_after, row_of, status_of
from bessemer.api.impersonation import require_oneself
from bessemer.api.paths import Paths
from bessemer.api.query import refuse_dry_run
from bessemer.api.refusals import Refusal
from bessemer.api.requestlog import RequestLog
from bessemer.api.routes import READS, ROUTES, Rule, authorise, target_of
from bessemer.api.signin import BREAK_GLASS
from bessemer.api.state import Call, State, answer, build, identified
from bessemer.api.warnings import deprecation
from bessemer.core.errors import BessemerError, Forbidden, Malformed, NotFound, Unauthenticated
from bessemer.core.resource import Key

log = structlog.get_logger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_NO_ROUTE = "the server could not find the requested resource"
_NOT_PLAIN = "a path that ends with / or has a segment . or .. deletes nothing: say what is to go"
SOURCE_HEADER = "x-bessemer-source"
POLICY_VIOLATION = 1008
REASON_BYTES_MAX = 123
"""Of a WebSocket's end, as RFC 6455 has it."""


class Api:
    """The application. ``state`` is its parts; ``close`` ends what would otherwise go on for ever (watches, logs)."""

    def __init__(self, context: ApiContext) -> None:
        self.state = build(context)
        self._paths = _paths(self.state)
        self._answering = ServerErrorMiddleware(self._answer, handler=_failed)
        self._living = Starlette(lifespan=self._lifespan)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._living(scope, receive, send)
        else:
            await self._answering(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Not by Starlette's router: it tries one pattern after the other, and some thirty stand before the last."""
        if scope["type"] == "http" and scope["method"] == "DELETE" and not _plain(scope["path"]):
            await answer(status_of(Malformed(_NOT_PLAIN)), 400)(scope, receive, send)
            return
        path = scope["path"] = scope["path"].rstrip("/") or "/"
        found = self._paths[scope["type"]].find(path)
        if found is not None:
            endpoint, scope["path_params"] = found
            await endpoint(scope, receive, send)
        elif scope["type"] == "websocket":
            await WebSocketClose()(scope, receive, send)
        else:
            await answer(status_of(NotFound(_NO_ROUTE)), 404)(scope, receive, send)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Api]:
        """What the lifespan does, for those who call the application in process."""
        directory, standing = self.state.directory, self.state.standing
        since = await standing.present()
        people = (self.state.federation.run(), self.state.door.run())
        counted = (self.state.refusals.run(), self.state.metrics.follow())
        works = (directory.run(), standing.run(since), *people, *counted)
        tasks = [asyncio.ensure_future(work) for work in works]
        for task in tasks:
            task.add_done_callback(self._ended)
        try:
            await directory.ready()
            yield self
        finally:
            self.close()
            self.state.database.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self.state.others is not None:
                await self.state.others.close()
            await self.state.refusals.flush()

    def close(self) -> None:
        """Streams end; new requests are still answered."""
        self.state.closing.set()

    def _ended(self, task: asyncio.Future[None]) -> None:
        """What tells open streams that their reader may stand otherwise has ended by itself: so they end, too."""
        if not task.cancelled():
            log.error("what the api follows has ended: no stream stays open", exc_info=task.exception())
            self.close()

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        async with self.running():
            yield


def make_app(context: ApiContext) -> Api:
    """The application of one process."""
    return Api(context)


def _paths(state: State) -> Mapping[str, Paths[_Endpoint]]:
    """Sort of connection → one endpoint per path, so that a method that is not there is told from a path that is
    not."""
    paths: dict[str, list[Rule]] = {}
    for rule in ROUTES:
        paths.setdefault(rule.path, []).append(rule)
    told = RequestLog(state.context.clock)
    ids = random.Random()  # names lines of a log, and guards nothing
    sorts: dict[str, list[tuple[str, _Endpoint]]] = {"http": [], "websocket": []}
    for path, rules in paths.items():
        endpoint = _Endpoint(state, rules, told=told, ids=ids)
        sorts["websocket" if rules[0].method == "WS" else "http"].append((path, endpoint))
    return {sort: Paths(endpoints) for sort, endpoints in sorts.items()}


class _Endpoint:
    """All methods of one path, as an ASGI application."""

    def __init__(self, state: State, rules: Sequence[Rule], *, told: RequestLog, ids: random.Random) -> None:
        self._state = state
        self._told = told
        self._ids = ids
        self._rules = {rule.method: rule for rule in rules}
        self._path = rules[0].path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        socket = scope["type"] == "websocket"
        connection = WebSocket(scope, receive, send) if socket else Asked(scope, receive, send)
        method = "WS" if socket else scope["method"]
        given = connection.headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else f"{self._ids.getrandbits(64):016x}"
        call = Call(
            state=self._state,
            connection=connection,
            request_id=request_id,
            credentials=_credentials(connection),
        )
        clock = self._state.context.clock
        began = clock.monotonic()
        watched = _Watched(send, call)
        try:
            call.known = self._state.askers.find(call.credentials)
            await self._state.flows.arrive(call.credentials, call.known)
            await self._run(call, method, receive=receive, send=watched)
        finally:
            if call.turn is not None:
                call.turn.leave()
            code, took = watched.code, clock.monotonic() - began
            self._state.metrics.answered(self._path, method, code=code, seconds=None if watched.streamed else took)
            self._told.answered(call, method, code=code, seconds=took)

    async def _run(self, call: Call, method: str, *, receive: Receive, send: _Watched) -> None:
        try:
            response = await self._decide(call, method)
        except BessemerError as error:
            await self._refuse(call, method, error=error)
            await _tell(call, error, receive=receive, send=send)
            return
        if response is not None:
            await response(call.connection.scope, receive, send)

    async def _decide(self, call: Call, method: str) -> Response | None:
        rule = self._rules.get("GET" if method == "HEAD" else method)
        of_path = rule or next(iter(self._rules.values()))
        if rule is None or rule.permission not in ("public", "vouched"):
            if call.credentials.authorization:
                self._state.bearers.admit(call.credentials.source, call.credentials.authorization)
            if call.known is not None and _names_a_place(call, of_path):
                await self._take_turn(call, call.known)  # and who asks by now is found out after that
            await self._identify(call, method)
        if not call.seated:
            call.target = target_of(call, of_path)
        if rule is None:
            raise WrongMethod("the server does not allow this method on the requested resource")
        if not call.seated:
            await self._take_turn(call, call.identity)
        require_oneself(call)
        await authorise(call, rule)
        if rule.method not in READS and not rule.dry_run:
            refuse_dry_run(call.query)
        if rule.method not in READS and rule.path.rpartition("/")[2] in SECRETS and not _joins(call):
            self._state.makings.take(f"{call.who.kind}:{call.who.name}")
        return await rule.handler(call)

    async def _take_turn(self, call: Call, who: Identity | None) -> None:
        tenant = call.target.tenant if call.target else ""
        call.turn = await self._state.flows.enter(who, tenant=tenant, shown=call.credentials)
        call.seated = True

    async def _identify(self, call: Call, method: str) -> None:
        """Raises Unauthenticated; what was shown and is worth nothing is told to the trail, as of a stranger."""
        shown, source = call.credentials.authorization, call.credentials.source
        try:
            call.identity = await identified(call)
        except Unauthenticated as error:
            self._state.askers.learn(call.credentials, None)
            if shown:
                self._state.bearers.worthless(source, shown)
            refused = Refusal(call.acting, method.lower(), _place(call), error.message)
            await self._state.refusals.stranger(refused)
            raise
        self._state.askers.learn(call.credentials, call.identity)
        if shown:
            self._state.bearers.good(source, shown)
        if call.who.credential == BREAK_GLASS:
            await self._state.door.broken(call.writer)

    async def _refuse(self, call: Call, method: str, *, error: BessemerError) -> None:
        """What is refused to somebody known is told to the trail; of strangers, what concerns a credential, where that
        is judged."""
        if error.internal:
            log.warning("refused", request_id=call.request_id, error=error.message, internal=error.internal)
        if call.identity is None or not isinstance(error, Forbidden | NotFound):
            return
        if isinstance(error, NotFound) and self._state.access.administers(call.identity):
            return  # an administrator may know everything: it is not there
        self._state.metrics.denied.inc()
        key = call.target.key if call.target else _place(call)
        await self._state.refusals.known(Refusal(call.writer, method.lower(), key, error.message))


class _Watched:
    """``send`` that adds to an answer the request's id and that its version is old, and remembers what was answered."""

    def __init__(self, send: Send, call: Call) -> None:
        self._send = send
        self._call = call
        self.code = 0
        self.streamed = False

    async def __call__(self, message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.http.response.start"):
            self.code = message["status"]
            told = (b"x-request-id", self._call.request_id.encode())
            old = deprecation(self._call.target.resource if self._call.target else None)
            message = {**message, "headers": [*message.get("headers", ()), told, *old]}
        elif message["type"] == "http.response.body" and message.get("more_body"):
            self.streamed = True
        elif message["type"] == "websocket.accept":
            self.code, self.streamed = 101, True
        await self._send(message)


def _names_a_place(call: Call, rule: Rule) -> bool:
    """Whether what the path names could be there; then it is the call's target."""
    try:
        call.target = target_of(call, rule)
    except NotFound:
        return False
    return True


def _joins(call: Call) -> bool:
    """Whether an administrator lets a host join: hosts come by the hundred."""
    about = call.target
    return about is not None and about.resource.stored == "Host" and call.state.access.administers(call.who)


def _plain(path: str) -> bool:
    """Whether it is as whoever wrote it meant it: of an object whose name is ``.``, clients and proxies make the path
    of its collection, with a slash at the end."""
    return not path.endswith("/") and not {".", ".."} & set(path.split("/"))


def _place(call: Call) -> Key:
    """Of a request that is about no object."""
    return Key("Route", "", call.connection.scope["path"])


def _credentials(connection: HTTPConnection) -> Credentials:
    peer = connection.scope.get("state", {}).get("peer")
    source = connection.client.host if connection.client else ""
    if peer is not None and peer.name == "system:portal":
        source = connection.headers.get(SOURCE_HEADER, source)[:64]  # the portal says for whom it asks
    return Credentials(peer, connection.headers.get("authorization", ""), source)


async def _tell(call: Call, error: BessemerError, *, receive: Receive, send: _Watched) -> None:
    subject = call.target.subject if call.target else None
    response = answer(status_of(error, subject), row_of(error).code, headers=_error_headers(error))
    connection = call.connection
    if not isinstance(connection, WebSocket):
        await response(connection.scope, receive, send)
    elif connection.application_state is WebSocketState.CONNECTING:
        await WebSocket(connection.scope, receive, send).send_denial_response(response)
    elif connection.application_state is WebSocketState.CONNECTED:
        reason = error.message.encode()[:REASON_BYTES_MAX].decode(errors="ignore")
        with suppress(WebSocketDisconnect):
            await connection.close(POLICY_VIOLATION, reason)


def _error_headers(error: BessemerError) -> Mapping[str, str]:
    headers: dict[str, str] = {}
    seconds = retry_after(error)
    if seconds is not None:
        headers["Retry-After"] = str(seconds)
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = 'Bearer realm="bessemer"'
    return headers


async def _failed(request: Request, error: Exception) -> Response:
    """A defect of ours: the client learns that, the log the rest."""
    return answer(status_of(BessemerError("an internal error: the server's log says more")), 500)
