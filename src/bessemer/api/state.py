"""One running api: its context and the parts built from it. Handlers get it with each `Call`."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from bessemer.api.access import Access, Target
from bessemer.api.asked import Json
from bessemer.api.askers import Askers
from bessemer.api.authn import LocalAuthenticator, Passwords, Sessions
from bessemer.api.bells import Bells
from bessemer.api.channels import Channels
from bessemer.api.context import ApiContext, Authenticator, Credentials, Identity, Limits, Ports
from bessemer.api.definitions import WithDefinitions
from bessemer.api.directory import Directory
from bessemer.api.discovery import Discovery
from bessemer.api.flow import Flows, Turn
from bessemer.api.following import Following
from bessemer.api.health import Database
from bessemer.api.limit import Bearers, Limiter, SignIns
from bessemer.api.metrics import Metrics
from bessemer.api.oidc import Federation
from bessemer.api.others import Others
from bessemer.api.refusals import Refusals
from bessemer.api.relay import Relay
from bessemer.api.shown import Resources
from bessemer.api.signin import OwnDoor
from bessemer.api.standing import Standing
from bessemer.core.errors import BessemerError, Malformed, Unauthenticated, Unavailable
from bessemer.core.ports import Asker, Scope, Stored, Writer
from bessemer.core.tasks import first_of
from bessemer.kinds.fleet.figures import FleetFigures
from bessemer.kinds.tenancy.rights import Rulebook

FILES_BYTES = 3 << 19
"""A MiB in base64, and what is said around it."""

OPENINGS_MAX, OPENINGS_EACH = 32, 4
"""Each may hold a snapshot of the store and a page of it; the others wait for their turn. One asker has a few, so that
whoever reads none of them keeps nobody else waiting."""

DELETIONS_MAX, DELETIONS_EACH = 4, 1
"""Parts of collections that are deleted at once, in all and of one tenant: the others stand in nobody's way."""

UNTOLD_SECONDS, UNTOLD_SECONDS_MAX = 1.0, 60.0
"""Until it is asked again who asks, where that could not be told; and for how long in all."""

BACKCHANNEL_BURST = 200
"""Sign-outs that an issuer tells of at once; from then on ten a second."""


class Places:
    """For what costs all much: ``most`` in all, of which one asker has ``each``."""

    def __init__(self, most: int, each: int) -> None:
        self._most_of_one = each
        self._all = asyncio.Semaphore(most)
        self._each: dict[str, asyncio.Semaphore] = {}
        self._askers: Counter[str] = Counter()

    @asynccontextmanager
    async def place(self, asker: str) -> AsyncIterator[None]:
        """One, once it is free."""
        mine = self._each.setdefault(asker, asyncio.Semaphore(self._most_of_one))
        self._askers[asker] += 1
        try:
            async with mine, self._all:
                yield
        finally:
            self._askers[asker] -= 1
            if not self._askers[asker]:
                del self._askers[asker], self._each[asker]

    def free(self) -> bool:
        """Whether nobody has one, or waits for one."""
        return not self._askers


@dataclass(kw_only=True)
class State:
    """Built by `build`; lives as long as the application."""

    context: ApiContext
    resources: Resources
    discovery: Discovery
    following: Following
    directory: Directory
    standing: Standing
    database: Database
    access: Access
    federation: Federation
    door: OwnDoor
    local: LocalAuthenticator
    authenticator: Authenticator
    passwords: Passwords
    sessions: Sessions
    sign_ins: SignIns
    bearers: Bearers
    reviewed: Bearers
    """Those that administrators ask about, by who asks."""

    makings: Limiter
    """Of secrets, by who makes them."""

    backchannel: Limiter
    refusals: Refusals
    relay: Relay
    others: Others | None
    metrics: Metrics
    flows: Flows
    askers: Askers
    channels: Channels
    bells: Bells
    fleet_figures: FleetFigures
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    openings: Places = field(default_factory=lambda: Places(OPENINGS_MAX, OPENINGS_EACH))
    """The watches that are told what there is at once."""

    deletions: Places = field(default_factory=lambda: Places(DELETIONS_MAX, DELETIONS_EACH))
    """The parts of collections that are deleted at once, by tenant."""

    @property
    def ports(self) -> Ports:
        return self.context.ports


def build(context: ApiContext) -> State:
    """The parts of one api."""
    resources = Resources(context.kinds.values())
    objects = WithDefinitions(context.ports.objects, resources, since=context.clock.now())
    context = replace(context, ports=replace(context.ports, objects=objects))
    following = Following(objects, context.clock, unheard=context.unheard)
    directory = Directory(following, book=Rulebook(resources.kinds))
    federation = Federation(objects, context.clock, issuers=context.issuers, following=following)
    door = OwnDoor(objects, context.ports.audit, clock=context.clock, following=following)
    local = LocalAuthenticator(objects, context.clock, federation=federation, door=door)
    limits = context.limits
    metrics, access = Metrics(), Access(directory, objects)
    standing = Standing(objects, following)
    flows = Flows(context.clock, access.flow, shed=lambda lane: metrics.shed.labels(lane).inc())
    return State(
        context=context,
        resources=resources,
        discovery=Discovery(resources, context.version),
        following=following,
        directory=directory,
        standing=standing,
        database=Database(standing.present, context.clock),
        access=access,
        federation=federation,
        door=door,
        local=local,
        authenticator=context.authenticator or local,
        passwords=Passwords(context.ports.sealed),
        sessions=Sessions(objects, context.clock),
        sign_ins=SignIns(context.clock, burst=limits.login_burst, seconds=limits.login_seconds),
        bearers=Bearers(context.clock, burst=limits.bearer_burst, seconds=limits.bearer_seconds),
        reviewed=Bearers(context.clock, burst=limits.bearer_burst, seconds=limits.bearer_seconds),
        makings=Limiter(context.clock, burst=limits.secrets_burst, seconds=limits.secrets_seconds),
        backchannel=Limiter(context.clock, burst=BACKCHANNEL_BURST, seconds=0.1),
        refusals=Refusals(context.ports.audit, context.clock),
        relay=Relay(),
        others=Others(context.dial) if context.dial is not None else None,
        metrics=metrics,
        flows=flows,
        askers=Askers(context.clock),
        channels=Channels(objects, context.clock, flows=flows),
        bells=Bells(context.clock),
        fleet_figures=FleetFigures(context.fleet, objects, clock=context.clock),
    )


@dataclass(kw_only=True)
class Call:
    """One request on its way through. ``target`` is set where the path names a resource or an object."""

    state: State
    connection: HTTPConnection
    request_id: str
    credentials: Credentials
    known: Identity | None = None
    """Who asked last with what is shown: by their turn it waits."""
    identity: Identity | None = None
    """Who asks, once that is found out."""
    target: Target | None = None
    turn: Turn | None = None
    """Its turn, where it needs one; whoever answers the request leaves it."""
    seated: bool = False
    """Whether that was asked."""
    uid: str = ""
    """Of the object that was read or written, once it is known: for the log."""

    @property
    def who(self) -> Identity:
        """Who asks. Raises Unauthenticated where nobody is known."""
        if self.identity is None:
            raise Unauthenticated("sign in first: no certificate and no token were shown")
        return self.identity

    @property
    def request(self) -> Request:
        """The request of an HTTP route."""
        if not isinstance(self.connection, Request):
            raise Malformed("this route speaks HTTP")
        return self.connection

    @property
    def about(self) -> Target:
        """The target of a route that has one."""
        if self.target is None:
            raise Malformed("the path names no resource")
        return self.target

    @property
    def query(self) -> Mapping[str, str]:
        """Query parameters; of one given twice, the last."""
        return self.connection.query_params

    @property
    def writer(self) -> Writer:
        """How the ports name the author of this request's writes."""
        return self.who.writer(self.request_id, self.credentials.source)

    @property
    def acting(self) -> Writer:
        """The api as the author of what it writes for who asks, so that the trail says for whom."""
        name = f"api for {self.identity.name}" if self.identity else "api"
        return Writer("system", name, request_id=self.request_id, source=self.credentials.source)

    async def note(self, about: Stored) -> None:
        """Tell the trail who makes or reads a secret of what, or opens its bytes; the verb is the subresource."""
        verb = self.connection.scope["path"].rpartition("/")[2]
        await self.state.ports.audit.note(self.writer, verb, key=about.key, uid=about.uid)

    async def again(self) -> Identity | None:
        """Who asks, asked anew: None where that is nobody any more, or somebody else. Raises Unavailable where that
        cannot be told for now."""
        try:
            who = await identified(self)
        except Unavailable:
            raise
        except BessemerError:
            return None
        return who if who == self.identity else None

    async def still(self) -> None:
        """Raises Unauthenticated once who asks is nobody any more, or somebody else. To be called when a body has been
        read: it may take its time, and a credential that was withdrawn meanwhile writes nothing."""
        if await self.again() is None:
            raise Unauthenticated("sign in again")

    async def lapsed(self, holds: Callable[[Identity], bool]) -> None:
        """Return once who asks is nobody any more, or what ``holds`` does not, or that cannot be told for long."""
        while True:
            turns = self.turns()
            try:
                who = await again_in_time(self)
            except Unavailable:
                return
            if who is None or not holds(who):
                return
            await self.doubted(turns, seconds=self.state.context.limits.recheck_seconds)

    def turns(self) -> list[asyncio.Event]:
        """One of them is set once who asks may be somebody else, or may see something else. Take them before you look
        at how things are, and hand them to `doubted` after."""
        state = self.state
        turn = state.standing.turn(self.who)
        return [turn, state.directory.turn] if self.who.kind == "user" else [turn]

    async def doubted(self, turns: Sequence[asyncio.Event], *, seconds: float) -> None:
        """Return at the first of the turns; for people after ``seconds`` too, since a session ends by the clock alone.
        The thousands that agents keep open wait for their Host to change, and cost nothing until then."""
        if self.who.kind == "user":
            await first_of(self.state.context.clock.sleep(seconds), *(turn.wait() for turn in turns))
        else:
            await turns[0].wait()

    @property
    def limits(self) -> Limits:
        """Of this request: what holds files may be larger than everything else."""
        limits = self.state.context.limits
        wide = self.target is not None and self.target.resource.files
        return replace(limits, body_bytes=max(limits.body_bytes, FILES_BYTES)) if wide else limits

    def linger(self) -> None:
        """What follows takes long and asks little: the turn is over, the request is not."""
        if self.turn is not None:
            self.turn.linger()

    def parameter(self, name: str) -> str:
        """A part of the path."""
        return str(self.connection.path_params.get(name, ""))


async def identified(call: Call) -> Identity | None:
    """Who asks, by what they show. Raises Unauthenticated; Unavailable for a bearer, where this process may not know
    what was withdrawn. A certificate's rights are not among what is kept here."""
    if call.credentials.authorization:
        call.state.following.require()
    return await call.state.authenticator.authenticate(call.credentials)


def group(call: Call) -> str:
    """By what the streams of a request take turns: the tenant that it is about; of a person's that are about all, what
    their requests take turns by; agents' are one."""
    if call.about.tenant or call.who.kind != "user":
        return call.about.tenant
    return call.state.access.flow(call.who, "")


def asker(call: Call, scope: Scope) -> Asker:
    """Who has a list of a scope in pages: what is held for it counts for those with whom its asker takes turns. What
    was under the names of the scope's projects before they were there was somebody else's, perhaps."""
    who, access = call.who, call.state.access
    group = access.flow(who, call.about.tenant) if who.kind == "user" else who.kind
    return Asker(f"{who.kind}:{who.name}", group, access.begins(scope))


async def again_in_time(call: Call) -> Identity | None:
    """`Call.again` for what is open already: a store that cannot be read for a moment ends nothing. Raises Unavailable
    where it cannot for `UNTOLD_SECONDS_MAX`."""
    clock = call.state.context.clock
    until = clock.monotonic() + UNTOLD_SECONDS_MAX
    while True:
        try:
            return await call.again()
        except Unavailable:
            if clock.monotonic() >= until:
                raise
        await clock.sleep(UNTOLD_SECONDS)


def answer(value: Any, code: int = 200, *, headers: Mapping[str, str] | None = None) -> Response:
    """JSON. Bytes are taken to be JSON already."""
    body = value if isinstance(value, bytes) else orjson.dumps(value)
    return Json(body, code, headers=headers or {})
