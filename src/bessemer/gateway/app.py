"""The gateway's routes: who asks, for which endpoint, and who answers that from there on."""

from __future__ import annotations

import ssl
from asyncio import Event, Future
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import orjson

from bessemer.core.clock import Clock
from bessemer.core.money import said_of
from bessemer.gateway import errors, naming, request, seeking, unsound
from bessemer.gateway.admission import Admission
from bessemer.gateway.asking import Asking, Entering
from bessemer.gateway.attaching import Attaching
from bessemer.gateway.books import Books
from bessemer.gateway.chains import Chain, context_of, models_of
from bessemer.gateway.entry import Entry
from bessemer.gateway.exchange import Exchange, Means, Patience
from bessemer.gateway.front import Front
from bessemer.gateway.logged import Logged
from bessemer.gateway.metrics import GatewayMetrics
from bessemer.gateway.outer import Outward
from bessemer.gateway.people import PERSONS, People, Person, Vouch, Vouching, refuse_early
from bessemer.gateway.reply import Call
from bessemer.gateway.request import ROUTES, Wanted
from bessemer.gateway.spool import Spool
from bessemer.gateway.tables import EndpointEntry, KeyEntry, Tables
from bessemer.gateway.tickets import Ticket
from bessemer.gateway.turns import Turns
from bessemer.gateway.unmeasured import unmeasured
from bessemer.gateway.upstream import Links
from bessemer.gateway.waking import Waking


class _Asked(NamedTuple):
    """A request whose body is here. ``late`` is when its client wants it no more."""

    call: Call
    wanted: Wanted
    key: KeyEntry
    endpoint: EndpointEntry
    adapter: str
    started: float
    late: float
    log: Entry | None


_HEALTH = ("/healthz", "/livez", "/readyz")
_MODELS = "/v1/models"


@dataclass(frozen=True, slots=True)
class CutOff:
    """``silent`` says for how many seconds nothing was heard of keys; after ``most`` of them none is taken any more."""

    silent: Callable[[], float] = float
    most: float = 3600.0


@dataclass(frozen=True, slots=True)
class GatewayFacts:
    """What the gateway is given. ``secret`` keys the replicas' secrets; ``tls`` opens doors on other machines,
    ``outward`` connections to services elsewhere, and to hosts of which something is fetched for a request."""

    tables: Tables
    spool: Spool
    clock: Clock
    metrics: GatewayMetrics
    secret: bytes
    tls: ssl.SSLContext | None = None
    patience: Patience = field(default_factory=Patience)
    admission: Admission = field(default_factory=Admission)
    cut_off: CutOff = field(default_factory=CutOff)
    vouch: Vouch | None = None
    outward: Outward | None = None


class Gateway:
    """What answers the calls of a `front.Front`. ``ready`` says whether the tables were filled once; until then it
    answers 503."""

    def __init__(self, facts: GatewayFacts, ready: Event) -> None:
        self._tables = facts.tables
        self._clock = facts.clock
        self._metrics = facts.metrics
        self._ready = ready
        self._links = Links(facts.tls, facts.clock.monotonic(), outward=facts.outward)
        books = Books(facts.spool, facts.admission)
        self._attaching = Attaching(facts.outward)
        self._turns = Turns(facts.clock)
        self.waking = Waking(facts.clock, stands=self._stands)
        facts.tables.arrived, facts.tables.left = self.waking.arrived, self.waking.left
        self._means = Means(
            books, facts.clock, facts.metrics, facts.secret, self._links, facts.patience, self._turns, self.waking
        )
        facts.metrics.routing = facts.tables.tally
        self._cut_off = facts.cut_off
        self._people = People(facts.vouch, facts.clock, most=facts.cut_off.most)
        facts.metrics.silent = facts.cut_off.silent
        facts.metrics.unsettled = lambda: facts.spool.waiting

    def begin(self, call: Call) -> None:
        """Judge a head before its body is read. Raises Refused."""
        if call.path in ROUTES and call.method == b"POST":
            call.key = self._who(call)
            if isinstance(call.key, Future):
                refuse_early(call, call.key)
            return
        reads = call.method in (b"GET", b"HEAD")
        if not reads or not (call.path in _HEALTH or call.path == _MODELS or call.path.startswith(f"{_MODELS}/")):
            raise errors.no_route(call.method.decode("latin-1"), call.path)

    def serve(self, call: Call) -> None:
        """Answer it, now or later. Raises Refused."""
        if call.method == b"POST":
            if call.slow:  # who asks may not be who it was when the head came
                call.key = self._who(call)
            self._known(call, self._complete)
        elif call.path in _HEALTH:
            if call.path == "/readyz" and not self._ready.is_set():
                raise errors.starting()
            call.answer(200, b"ok\n", kind=b"text/plain")
        else:
            call.key = self._who(call)
            self._known(call, self._models)

    def refused(self, call: Call, status: int) -> None:
        """One was answered with an error."""
        self._metrics.requests[call.path if call.path in ROUTES else "other", status] += 1

    def watch(self, front: Front) -> None:
        """Tell how many clients it has."""
        self._metrics.clients = lambda: front.connections

    def sweep(self, now: float) -> None:
        """Let go of connections to replicas that nobody uses; look whose turn it is."""
        self._links.sweep(now)
        self._turns.sweep()

    def _known(self, call: Call, then: Callable[[Call], None]) -> None:
        """Once it is known who asks."""
        if isinstance(call.key, Future):
            Vouching(call, call.key, then=then)
        else:
            then(call)

    def _who(self, call: Call) -> KeyEntry | Person | Future[Person]:
        token = request.bearer(call.headers.get(b"authorization"))
        if not self._ready.is_set():
            raise errors.starting()
        if self._cut_off.silent() > self._cut_off.most:
            raise errors.cut_off()
        key = self._tables.find_key(token)
        if key is None and self._people.shown(token):
            return self._people.who(token, call)
        if key is None or not (key.expires_at is None or key.valid(self._clock.now())):
            raise errors.wrong_key(token)
        if key.networks and not key.reachable(call.peer):
            raise errors.wrong_network()
        return key

    def _stands(self, call: Call, key: KeyEntry) -> bool | Future[bool]:
        """Whether who asked may still ask by that key: it may be an hour since that was asked. Raises Refused."""
        if key.uid.startswith(PERSONS):
            return self._people.again(request.bearer(call.headers.get(b"authorization")), call, key=key)
        return self._tables.stands(key, self._clock.now())

    def _models(self, call: Call) -> None:
        endpoints, name = self._tables.endpoints, call.path.removeprefix(_MODELS).strip("/")
        if name:
            said: object = _model(name, naming.named(endpoints, call.key, model=name)[1])
        else:
            said = {"object": "list", "data": [_model(*one) for one in naming.listed(endpoints, call.key)]}
        call.answer(200, orjson.dumps(said))

    def _complete(self, call: Call) -> None:
        raw = call.body()
        wanted = request.read(raw, ROUTES[call.path])
        key, endpoint, adapter = naming.named(self._tables.endpoints, call.key, model=wanted.model)
        if endpoint.embeds and wanted.generates:
            raise errors.only_embeds(endpoint.name)
        unsound.check(wanted.fields or {}, generates=wanted.generates)
        if not call.id:
            call.name()
        started = self._clock.monotonic()
        log = endpoint.logging.entry(raw) if endpoint.logging is not None else None
        asked = _Asked(call, wanted, key, endpoint, adapter, started, seeking.until(call.headers, started), log)
        bringing = self._attaching.look(call, wanted, endpoint=endpoint)
        if bringing is None:
            self._enter(asked)
        else:
            bringing.begin(lambda: self._enter(asked), until=asked.late)

    def _enter(self, asked: _Asked) -> None:
        """Let it in; whatever it named is in its body. Raises Refused."""
        call, wanted, key, endpoint, adapter, started, late, log = asked
        wanted.unmeasured = unmeasured(wanted.fields or {})
        chain, context, models = None, endpoint.context_tokens, endpoint.answers
        if endpoint.split is not None or endpoint.fallbacks:
            chain = self._chain(call, wanted, endpoint=endpoint, adapter=adapter)
            context, models = context_of(self._tables.endpoints, endpoint), models_of(self._tables.endpoints, endpoint)
            found = chain.next(started)
            if found is None and chain.unfit:
                raise errors.only_embeds(endpoint.name)
            endpoint = found or endpoint
        if adapter:
            models = tuple(said_of(model, adapter=adapter) for model in models)
        ticket = self._means.books.enter(
            key, wanted, endpoint=endpoint, request_id=call.id, context_tokens=context, models=models
        )
        exchange = Exchange(self._means, call, key, endpoint, wanted, started, until=late, adapter=adapter, chain=chain)
        if log is not None:
            exchange = Logged.of(exchange, log)
        if isinstance(ticket, Ticket):
            Asking(exchange).begin(ticket)
        else:
            Entering(exchange, ticket)

    def _chain(self, call: Call, wanted: Wanted, *, endpoint: EndpointEntry, adapter: str) -> Chain:
        """Those who may answer for it."""
        session = seeking.session(wanted, call.headers, project=endpoint.project)
        endpoints, writes = self._tables.endpoints, wanted.generates
        return Chain(endpoints, endpoint, adapter=adapter, session=session, writes=writes)


def _model(name: str, of: EndpointEntry) -> dict[str, str | int]:
    """As OpenAI lists it."""
    return {"id": name, "object": "model", "created": of.created, "owned_by": of.project}
