"""What workloads say of their turn: as whom they ask for a place, that they wait for one, and that they are stopped for
somebody.

Invariants: who waits says so in its own status, and nowhere else; who is stopped is told first, by a notice on its
Claim, and its own controller lets the Claim go when it is time. No word of it names another tenant.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from pydantic import Field

from bessemer.core.asking import Asker, ReasonView, Refusal
from bessemer.core.clock import epoch, rfc3339
from bessemer.core.errors import Conflict, NotFound, QuotaExceeded
from bessemer.core.notices import CONSOLIDATION, PREEMPTED, SPARED, Notice, mark_of
from bessemer.core.ports import CONTROLLER, Scope
from bessemer.core.quota import CLAIMS, MONEY, said, show_amount
from bessemer.core.resource import ApiModel, Fail, Outcome, Resource, Status, set_condition, tenant_of
from bessemer.core.values import Movable, nothing
from bessemer.kinds.context import Context
from bessemer.kinds.fleet.claim import Claim

PRIORITY_MAX = 1000

SETTLED_SECONDS = 20.0
"""Before its end from when on it is looked at whether a claim that was told need end."""

LOOK_SECONDS = 5.0
"""What was told to end looks so often whether it must."""

STOPPED = (PREEMPTED, CONSOLIDATION)
"""Conditions of a workload that is stopped for another, or moved, until it has a place again."""


class Turned(ApiModel):
    """Fields of the spec of whatever is placed."""

    # Left out where they say nothing: a release that does not know them reads the object as well.
    priority: int = Field(
        0,
        ge=-PRIORITY_MAX,
        le=PRIORITY_MAX,
        exclude_if=nothing,
        description="Who has more is placed first, and what is preemptible of less may be stopped for it.",
    )
    preemptible: bool = Field(
        False,
        exclude_if=nothing,
        description="Whether it may be stopped for a higher priority, or for others' fair shares.",
    )
    movable: bool = Field(
        False,
        exclude_if=nothing,
        description="Whether it may be stopped and started anew on another host, so that what is free lies together; "
        "counts for places that are taken from then on. What is preemptible may be moved, too.",
    )

    @property
    def moves(self) -> Movable:
        """How a claim that is taken for it may be moved."""
        return "Restart" if self.movable or self.preemptible else ""


class WaitingStatus(Status):
    """Fields of the status of whatever is placed."""

    waiting_since: str | None = Field(None, description="Since when it waits for a place; empty while it does not.")
    expected_start: str | None = Field(
        None, description="When it has a place at the latest; empty where nobody knows, or it waits for none."
    )
    reasons: list[ReasonView] = Field(default_factory=list, description="Why no host was taken.")
    remedy: str = Field("", description="The cheapest change that would help.")


class _Bounded(Protocol):
    @property
    def max_priority(self) -> int: ...


def asker_of(workload: Resource[Turned, WaitingStatus], *, terms: _Bounded, now: float) -> Asker:
    """As whom it asks for a place. Who waited already has waited since then, whatever was restarted meanwhile."""
    since = workload.status.waiting_since
    return Asker(
        uid=workload.uid,
        project=workload.metadata.namespace or "",
        priority=min(workload.spec.priority, terms.max_priority),
        since=int(epoch(since) if since else now),
        preemptible=workload.spec.preemptible,
    )


NOT_WAITING: Mapping[str, Any] = {"waiting_since": None, "expected_start": None, "reasons": [], "remedy": ""}
"""Of a status, where nothing is waited for that placement could give."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Why nothing further is taken now. ``again`` is when to look again."""

    reason: str
    message: str
    again: float = 10.0
    remedy: str = ""
    waiting: Mapping[str, Any] = field(default_factory=lambda: NOT_WAITING)
    """What the status says of a turn that is waited for."""


LOST_SECONDS = (0.2, 10.0)
"""Who lost a place to somebody faster looks again after so long at first, and at most."""

LOST_REMEDY = "Nothing need be done: it is decided anew by itself, and keeps its turn."

_LOST_SHARE = 4
"""Who loses again and again waits a part of what it has waited already: of replicas that disagree, as those of two
releases may, none keeps the others busy."""


def lost(status: WaitingStatus, *, now: float) -> tuple[Mapping[str, Any], float]:
    """What of a status stays where a place was lost to somebody faster: its turn; and the seconds to its next look."""
    since, (first, most) = status.waiting_since, LOST_SECONDS
    ready = status.condition("Ready")
    again = ready is not None and ready.reason == "Taken"
    waited = now - epoch(since) if since and again else 0.0
    return {**NOT_WAITING, "waiting_since": since or rfc3339(now)}, min(most, max(first, waited / _LOST_SHARE))


def refused(status: WaitingStatus, refusal: Refusal, *, now: float) -> Mapping[str, Any]:
    """What a status says of a refusal."""
    return {
        "reasons": [ReasonView(code=r.code, hosts=r.hosts, text=r.text) for r in refusal.reasons],
        "remedy": refusal.cheapest,
        "waiting_since": status.waiting_since or rfc3339(now),
        "expected_start": None if refusal.expected is None else rfc3339(refusal.expected),
    }


# --- making room ------------------------------------------------------------------------------------------------


async def make_room(ctx: Context, refusal: Refusal, *, asker: Asker, claims: int = 1) -> None:
    """Tell the claims that are to go, for whoever would take so many in their place. Harmless when repeated; what it
    did not come to is proposed again. Raises QuotaExceeded, and tells nobody, where the place could not be taken."""
    stops = refusal.stops
    if stops is None:
        return
    going = []
    for host in stops.hosts:
        page = await ctx.objects.list(Scope(kind="Claim", host=host))
        going += [Claim.load(stored.body) for stored in page.items if stored.uid in stops.uids]
    over = await _over(ctx, asker, claims=claims, going=going)
    if over:
        ctx.fleet.forget(f"{asker.uid}/0")  # its turn with it: nothing is kept for who cannot have it
        raise QuotaExceeded(over)
    for claim in going:
        notice = Notice(stops.at, _why(claim, asker), asker=mark_of(asker.uid))
        try:
            await ctx.capacity.retire(claim.key, CONTROLLER, uid=claim.uid, notice=notice)
        except (NotFound, Conflict):
            continue  # it went by itself


async def _over(ctx: Context, asker: Asker, *, claims: int, going: Sequence[Claim]) -> str:
    """What is known by now to keep it from so many claims more, of what the queue does not count: claims and money. The
    rest, and the price of the first hour, is found in the transaction that takes."""
    for scope in (f"project/{asker.project}", f"tenant/{tenant_of(asker.project)}"):
        kind, _, name = scope.partition("/")
        of = (claim.spec.tenant if kind == "tenant" else claim.metadata.namespace for claim in going)
        fewer = sum(owner == name for owner in of)
        for use in await ctx.capacity.use(scope):
            if use.limit is None:
                continue
            more = claims - fewer if use.meter == CLAIMS else 0
            if use.meter == CLAIMS and use.used + more > use.limit:
                return (
                    f"{kind} {name}: {said(CLAIMS, claims)} asked, {max(0, use.limit - use.used)} of {use.limit} left"
                )
            if use.meter == MONEY and use.used + use.held >= use.limit:
                return f"{kind} {name}: nothing is left of {show_amount(MONEY, use.limit)} for this month"
    return ""


def _why(claim: Claim, asker: Asker) -> str:
    if claim.spec.priority < asker.priority:
        return f"Preempted by a request of priority {asker.priority}"
    return "Preempted by a request of somebody who has less than a fair share"


async def spared(ctx: Context, claims: Sequence[Claim], *, together: bool = False) -> list[Claim]:
    """The claims, of which those need not end after all for whom they were told is gone or has another place, and on
    whose end nobody else of higher standing counts: what was told is taken back, while its time has not come. Those
    that are ``together`` are needed as one."""
    now, all_ = ctx.clock.now(), frozenset((claim.spec.host, claim.uid) for claim in claims)
    needed: dict[tuple[str, frozenset[tuple[str, str]]], bool] = {}
    found = []
    for claim in claims:
        notice = notice_of(claim)
        # Not at once: who asked says that it waits only after it had others told.
        open_ = notice is not None and notice.asker and not claim.deleting and 0 < notice.at - now <= SETTLED_SECONDS
        if notice is None or not open_:
            found.append(claim)
            continue
        # Asked once for all, for it is dear and may change meanwhile: what is together stays so.
        one = (notice.asker, all_ if together else frozenset({(claim.spec.host, claim.uid)}))
        if one not in needed:
            hosts, uids = zip(*one[1], strict=True)
            needed[one] = ctx.fleet.wanted(notice.asker, hosts=frozenset(hosts), claims=frozenset(uids))
        if needed[one]:
            found.append(claim)
            continue
        with suppress(NotFound, Conflict):
            stored = await ctx.capacity.retire(claim.key, CONTROLLER, uid=claim.uid, notice=SPARED)
            found.append(Claim.load(stored.body))
    return found


# --- being stopped ----------------------------------------------------------------------------------------------


def notice_of(claim: Claim) -> Notice | None:
    """What the claim was told."""
    return Notice.read(claim.metadata.annotations)


def due(claim: Claim, *, now: float) -> bool:
    """Whether its time is over."""
    notice = notice_of(claim)
    return notice is not None and notice.at <= now


def told(outcome: Outcome, claims: Iterable[Claim], *, now: float) -> Outcome:
    """The outcome of a workload that holds ``claims``, with what they were told: as condition, as reason (and by that
    as event), and looked at again when it is time. A Fail keeps its own words."""
    some = sorted((n for n in map(notice_of, claims) if n is not None), key=lambda notice: notice.at)
    status = outcome.status
    if not isinstance(status, Status):
        return outcome
    if not some:
        return replace(outcome, status=_moved_on(status, now=now)) if any(claims) else outcome
    first = some[0]
    then = "" if first.reason == CONSOLIDATION else ", and waits for another place then"
    message = f"{first.why}; it is stopped at {rfc3339(first.at)}{then}"
    conditions = set_condition(
        status.conditions, first.reason, True, reason=first.reason, message=message, now=rfc3339(now)
    )
    status = status.model_copy(update={"conditions": conditions})
    if isinstance(outcome, Fail):
        return replace(outcome, status=status)
    again = max(0.0, min(outcome.again if outcome.again is not None else first.at - now, first.at - now))
    again = min(again, LOOK_SECONDS) if first.asker else again
    return replace(outcome, status=status, reason=first.reason, message=message, again=again or 1.0)


def _moved_on(status: Status, *, now: float) -> Status:
    """It holds what nobody wants of it."""
    for name in STOPPED:
        before = status.condition(name)
        if before is not None and before.status == "True":
            conditions = set_condition(status.conditions, name, False, reason="Placed", now=rfc3339(now))
            status = status.model_copy(update={"conditions": conditions})
    return status
