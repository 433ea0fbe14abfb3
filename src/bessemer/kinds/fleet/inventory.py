"""`FleetFeed`: placement's arrays, kept current from the changes of Host and Claim, and of Tenant for whose hosts are.

main starts one in each process with a controller, or an api for dry runs. Invariants: it reads everything once and then
only changes, unless history ran out; a change costs what its one host costs; a Claim's status is never parsed, for what
a Claim holds is fixed when it is taken, but for when it ends. The arrays may lag behind the truth; the transaction
disposes.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial

import structlog

from bessemer.core.asking import Asker, Decision, Gang, GangDecision, Refusal, Request
from bessemer.core.clock import Clock, rfc3339
from bessemer.core.errors import Unavailable
from bessemer.core.ports import Objects
from bessemer.core.resource import Change
from bessemer.kinds.fleet import moved
from bessemer.kinds.fleet.audit import Audit
from bessemer.kinds.fleet.demand import Demand, Derive, in_thread
from bessemer.kinds.fleet.following import Following
from bessemer.kinds.fleet.lost import Lost
from bessemer.kinds.fleet.moving import Fork, Moving
from bessemer.kinds.fleet.offered import Offered
from bessemer.kinds.fleet.told import Told
from bessemer.placement import FleetArrays, Hold
from bessemer.placement.facts import Tenure
from bessemer.placement.fleet import forked, rename
from bessemer.placement.gangs import decide_gang
from bessemer.placement.moves.holdings import Holdings
from bessemer.placement.moves.plan import Plan
from bessemer.placement.moves.remedies import Remedies
from bessemer.placement.queue import Pending

ASSUMED_SECONDS = 10.0
CONTENDED_SECONDS = 2.0
"""For so long after a decision was lost to another process, hosts that cost hardly more are as good: at the cheapest
one all would meet again."""

CONTENDED_SLACK = 6.0
"""Steps of the policy. Throughout they would cost half a percent of a fleet; what is lost they make a third."""

_REFUSALS_MAX = 1_000
_KINDS = ("Tenant", "Host", "Claim", moved.KIND)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Source:
    """A kind that is followed: what its objects are known by, what to do with a change, with what a new list no
    longer has, and with what cannot be read (None: the same)."""

    kind: str
    name: Callable[[Change], str]
    apply: Callable[[Change], None]
    remove: Callable[[str], None]
    leave_out: Callable[[str], None] | None = None


@dataclass(slots=True)
class _Refusals:
    """Of one version of the arrays."""

    version: int = -1
    of: dict[Request | Gang, Refusal] = field(default_factory=dict)


class FleetFeed:
    """Implements ``kinds.context.Fleet``. ``order`` is another in each process that decides over the same fleet.
    ``arrays`` are for who looks on or plans, as ``own``, which decides over them: whoever changes them takes it back at
    once."""

    def __init__(self, objects: Objects, clock: Clock, *, derive: Derive = in_thread, order: str = "") -> None:
        self._clock = clock
        self._arrays = self.arrays = FleetArrays()
        self.demand = Demand(self._arrays, clock, derive=derive, order=order)
        self._told = Told(self._arrays, self.demand)
        self.moving = Moving(self._arrays, self._told.shut)
        self.own = self.demand.own
        remedies = Remedies(self._arrays, self.own.place, told=_asked_of_others, timed=rfc3339)
        self.own.remedy((remedies.moved, remedies.ended))
        self._assumed: OrderedDict[str, float] = OrderedDict()
        self.lost = Lost(self._arrays, self._told, clock=clock)
        self._following = Following(objects, clock)
        self._offered = Offered(self._following, self.demand.offers)
        self._unread = set(_KINDS)
        self.audit = Audit(self._told, objects, clock=clock)
        self._read = False
        self._alone = not order
        self._contended_until = 0.0
        self._refusals = (_Refusals(), _Refusals())

    async def run(self) -> None:
        """Follow the kinds, for ever."""
        told = self._told
        sources = (
            _Source("Tenant", lambda change: change.key.name, told.walls.changed, told.walls.gone),
            _Source("Host", lambda change: change.key.name, told.host_changed, told.host_gone),
            _Source("Claim", lambda change: change.uid, told.claim_changed, told.claim_gone),
            _Source(
                moved.KIND,
                lambda change: change.uid,
                partial(_course_changed, told=told, moving=self.moving),
                self.moving.gone,
                self.moving.left_out,
            ),
        )
        async with asyncio.TaskGroup() as group:
            for source in sources:
                listed = partial(self._listed, source)
                group.create_task(self._following.run(source.kind, take=partial(_take, source), listed=listed))
            group.create_task(self._offered.run())
            group.create_task(self.demand.run())
            group.create_task(self.audit.run())

    def ready(self) -> bool:
        """Whether each kind has been read once."""
        return self._read

    def decide(self, request: Request, asker: Asker | None = None) -> Decision | Refusal:
        """Where the request would go now. Raises Unavailable until the fleet has been read."""
        if not self.ready():
            raise Unavailable("The fleet is still being read.", retry_after_seconds=1)
        self.expire()
        refusals = self._refused()
        known = refusals.get(request)
        if known is not None:
            return known
        self.demand.own.concede(CONTENDED_SLACK if self._clock.monotonic() < self._contended_until else 0.0)
        answer = self.demand.own.decide(request)
        if isinstance(answer, Refusal):
            refusals[request] = answer
        return answer

    def forked(self, holdings: Holdings | None = None) -> Fork:
        """The fleet of this moment, for who plans moves. ``holdings`` are the fleet's, for who has them. Raises
        Unavailable until the fleet has been read."""
        if not self.ready():
            raise Unavailable("The fleet is still being read.", retry_after_seconds=1)
        self.expire()
        fork = forked(self._arrays)
        return Fork(fork, self.own.over(fork), holdings.forked(fork) if holdings else Holdings(fork))

    def others(self) -> bool:
        """Whether somebody waits for a place: whom one asks by oneself, asks for nobody else."""
        return False

    def wanted(self, asker: str, *, hosts: Collection[str], claims: Collection[str] = ()) -> bool:
        """Who waits is not known here: what was told stands."""
        return True

    def foresee(self, pending: Pending) -> None:
        """Whose turn it would be: nobody's, by itself."""

    def decide_gang(self, gang: Gang, asker: Asker | None = None) -> GangDecision | Refusal:
        """Where all of a gang would go now. Raises Unavailable until the fleet has been read."""
        if not self.ready():
            raise Unavailable("The fleet is still being read.", retry_after_seconds=1)
        self.expire()
        refusals = self._refused()
        known = refusals.get(gang)
        if known is not None:
            return known
        answer = decide_gang(self._arrays, gang, policy=self.demand.own.policy)
        if isinstance(answer, Refusal):
            refusals[gang] = answer
        return answer

    def assume(self, decision: Decision, claim_uid: str, *, tenure: Tenure | None = None, before: str = "") -> None:
        """Count a decision until its Claim is seen, but for `ASSUMED_SECONDS` at most.

        ``claim_uid`` may also be ``WORKLOAD_UID/REPLICA``, to hold the place before the Claim is taken. ``before`` is
        the name under which it was assumed until now.
        """
        if claim_uid in self._told.known["Claim"]:
            self._arrays.drop(before)
            return
        terms, hold = tenure or Tenure(), self._arrays.held.of(before)
        if hold is None or hold.tenure != terms or not hold.is_of(decision):
            hold = Hold.of(decision, tenure=terms)
        rename(self._arrays, before, uid=claim_uid, hold=hold)
        # What is assumed anew has its whole time anew, and is the last to be over.
        self.lost.end(claim_uid)
        self._assumed[claim_uid] = self._clock.monotonic() + ASSUMED_SECONDS
        self._assumed.move_to_end(claim_uid)

    def forget(self, claim_uid: str, *, lost: bool = False) -> None:
        """Take an assumption back: the Claim was not taken. What was ``lost`` to another process counts a while yet."""
        if claim_uid in self._told.known["Claim"]:
            return
        if self._alone or not lost or self._assumed.pop(claim_uid, None) is None:
            self._arrays.drop(claim_uid)
            return
        self._contended_until = self._clock.monotonic() + CONTENDED_SECONDS
        self.lost.add(claim_uid)

    def expire(self) -> None:
        """Count no more what was assumed for too long."""
        if self._arrays.held.thoughts:
            # What is taken back in thought would be there again after it.
            return
        now = self._clock.monotonic()
        while self._assumed and self._assumed[uid := next(iter(self._assumed))] <= now:
            del self._assumed[uid]
            if uid not in self._told.known["Claim"]:
                self._arrays.drop(uid)
        self.lost.expire()
        self.moving.settle()

    def _refused(self) -> dict[Request | Gang, Refusal]:
        """Who was refused as the arrays are. Many replicas ask the same, and a refusal is dear: it tries what would
        help. What is refused in thought is kept apart, so that thinking does away with nothing."""
        kept = self._refusals[bool(self._arrays.held.thoughts)]
        if kept.version != self._arrays.version or len(kept.of) > _REFUSALS_MAX:
            kept.of.clear()
            kept.version = self._arrays.version
        return kept.of

    def _listed(self, source: _Source, listed: set[str]) -> None:
        for gone in self._told.known[source.kind] - listed:
            source.remove(gone)
        self._told.known[source.kind].intersection_update(listed)
        self._unread.discard(source.kind)
        self._told.followed |= source.kind == "Claim"
        if not self._unread:
            self._read = True


def _course_changed(change: Change, *, told: Told, moving: Moving) -> None:
    known = told.known[moved.KIND]
    known.discard(change.uid) if change.type == "DELETED" else known.add(change.uid)
    moving.changed(change)


def _asked_of_others(plan: Plan) -> str:
    """Whoever is refused reads it: whose claims they are, and where, is not theirs to know."""
    few = f"{len(plan.moves)} claims go to other hosts" if len(plan.moves) > 1 else "one claim goes to another host"
    return f"ask an administrator of the platform for a Consolidation: it fits once {few}"


async def _take(source: _Source, change: Change) -> str:
    """Take one change. What cannot be read or counted is left out by itself: one host that lies stops no other."""
    known = source.name(change)
    try:
        source.apply(change)
    except (ValueError, OverflowError) as error:
        name = change.key.name
        log.error("left out of placement", kind=source.kind, name=name, object_uid=change.uid, error=str(error)[:500])
        (source.leave_out or source.remove)(known)
    return known
