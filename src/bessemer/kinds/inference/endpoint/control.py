"""The Endpoint on the control side: as many Claims as replicas are wanted, and what they say, folded into one status.

What does not answer goes first, then the highest; where they come from is `placing`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from bessemer.core.resource import Done, Key, Outcome, Wait
from bessemer.kinds import turns, workload
from bessemer.kinds.context import Context
from bessemer.kinds.fleet.claim import Claim
from bessemer.kinds.inference import models
from bessemer.kinds.inference.endpoint import caching, elsewhere, logged, revisions, scaled
from bessemer.kinds.inference.endpoint.engines import (
    adapter_keys,
    keep_adapters,
)
from bessemer.kinds.inference.endpoint.placing import Seen, take
from bessemer.kinds.inference.endpoint.revisions import name_of, remembered, revision_of, template_of
from bessemer.kinds.inference.endpoint.shift import (
    Bounds,
    drain,
    is_drained,
    is_moved,
    numbers_of,
    relieve,
    room,
    shift,
    told,
)
from bessemer.kinds.inference.endpoint.spec import (
    Endpoint,
    EndpointStatus,
    ReplicaStatus,
    wanted_of,
)
from bessemer.kinds.turns import Hold
from bessemer.kinds.workload import HostView

DEADLINES: Mapping[str, float] = {
    "Pending": 600.0,
    "Starting": 600.0,
    "Degraded": 600.0,
    "Failed": 600.0,
    "Unknown": 300.0,
    "Terminating": 300.0,
}

REMEDIES: Mapping[str, str] = {
    "Pending": "Create or mend what the message names, or name others in the spec.",
    "Starting": "Look at the engine's log; a larger flavor helps against want of memory.",
    "Degraded": "See the replicas' messages; lower spec.replicas to do without those that are missing.",
    "Failed": "See the replicas' messages; update the agents of their hosts, or delete the endpoint.",
    "Unknown": "Bring the hosts' agents back, or fence the hosts to have the replicas placed anew.",
    "Terminating": "Bring the hosts' agents back, or fence the hosts to give their devices away.",
}


async def reconcile(ctx: Context, endpoint: Endpoint) -> Outcome:
    after = scaled.decided(ctx, endpoint)
    outcome = scaled.told(ctx, await _converge(ctx, after), before=endpoint, after=after)
    heard = ctx.scalers.logs.of(endpoint.uid, now=ctx.clock.monotonic())
    return logged.told(outcome, endpoint.spec.logging, heard=heard, now=ctx.clock.now())


async def _converge(ctx: Context, endpoint: Endpoint) -> Outcome:
    endpoint = _with_revision(endpoint, await workload.own_claims(ctx, endpoint), now=ctx.clock.now())
    seen = await _shed(ctx, endpoint)
    now = ctx.clock.now()
    if endpoint.spec.form != "replicas":
        outcome = await elsewhere.said(ctx, endpoint, leaving=len(seen.claims))
        return turns.told(_looked_at_again(outcome, seen, now=now), _stopped(seen.claims), now=now)
    name = name_of(template_of(endpoint))
    current = [claim for claim in seen.claims if revision_of(claim, endpoint) == name]
    await keep_adapters(ctx, endpoint, claims=current)
    missing, moved, trouble = seen.missing, seen.moved, ""
    parts = (Key("Flavor", "", endpoint.spec.flavor), *models.keys_of(endpoint.spec.model), *adapter_keys(endpoint))
    ctx.parts.note(endpoint.key, parts, waits=bool(missing))
    if missing or seen.coming:
        hold = await take(ctx, endpoint, seen=seen)
        if hold is not None and not missing:
            # All that are wanted are there: that one of them is not elsewhere yet keeps nobody.
            trouble, hold = hold.reason, None
        claims = await workload.own_claims(ctx, endpoint)
        seen = Seen(claims, await workload.host_views(ctx, claims), hold, moved)
    outcome = fold(endpoint, seen, note=await models.parted(ctx, endpoint, *parts), now=now)
    outcome = turns.told(_looked_at_again(outcome, seen, now=now), _stopped(seen.claims), now=now)
    return told(outcome, moved, trouble=trouble, now=now)


def _with_revision(endpoint: Endpoint, claims: Sequence[Claim], *, now: float) -> Endpoint:
    """As it is with the revision that is wanted now."""
    if endpoint.spec.form != "replicas":
        return endpoint
    known = remembered(endpoint, claims, now=now)
    said = {"revision": known[-1].revision if known else "", "revisions": known}
    status = endpoint.status.model_copy(update=said)
    return endpoint.model_copy(update={"status": status})


def _stopped(claims: Sequence[Claim]) -> Sequence[Claim]:
    """Those that are not about to end since others answer: of these nobody need be told."""
    return [claim for claim in claims if not is_drained(claim)]


def _looked_at_again(outcome: Outcome, seen: Seen, *, now: float) -> Outcome:
    """When the first that is drained is to end, at the latest."""
    ends = [notice.at - now for claim in seen.claims if is_drained(claim) and (notice := turns.notice_of(claim))]
    if not ends or (outcome.again is not None and outcome.again <= min(ends)):
        return outcome
    return replace(outcome, again=max(1.0, min(ends)))


async def finalize(ctx: Context, endpoint: Endpoint) -> Outcome:
    """Let every replica go."""
    claims = await workload.own_claims(ctx, endpoint)
    hosts = await workload.host_views(ctx, claims)
    waits = [w for w in [await workload.let_go(ctx, c, host=hosts[c.spec.host]) for c in claims] if w]
    if not waits:
        ctx.parts.forget(endpoint.key)
        return Done()
    message = waits[0] if len(waits) == 1 else f"{len(waits)} replicas are being cleared away; {waits[0]}"
    silent = any(not hosts[c.spec.host].reachable for c in claims)
    status = endpoint.status.model_copy(update={"phase": "Terminating", "message": message, "ready_replicas": 0})
    reason = "HostSilent" if silent else "Terminating"
    return Wait(reason=reason, message=message, status=status, again=10.0, remedy=REMEDIES["Terminating"])


async def _shed(ctx: Context, endpoint: Endpoint) -> Seen:
    """Let go of what is not wanted any more and of what its host has lost, and say who is missing."""
    claims = await turns.spared(ctx, await workload.own_claims(ctx, endpoint))
    hosts = await workload.host_views(ctx, claims)
    now, update, own = ctx.clock.now(), endpoint.spec.update, endpoint.spec.form == "replicas"
    bounds = Bounds(wanted_of(endpoint), update.max_surge, update.max_unavailable)

    def ends(claim: Claim) -> bool:
        lost = hosts[claim.spec.host].fenced or claim.deleting or claim.status.phase == "Gone"
        return lost or turns.due(claim, now=now)

    standing = [claim for claim in claims if not ends(claim)]
    moved = ctx.fleet.moving.replaced(endpoint.uid) | {claim.uid for claim in standing if is_moved(claim)}
    silent = {claim.uid for claim in standing if not hosts[claim.spec.host].reachable}
    name = name_of(template_of(endpoint))
    replaced = {claim.uid for claim in claims if own and revision_of(claim, endpoint) != name}
    parts = shift(standing, bounds=bounds, moved=moved, silent=silent, old=replaced)
    stay: frozenset[str] = frozenset()
    if bounds.wanted or not own:
        await relieve(ctx, parts.relieved)
        await drain(ctx, parts, seconds=update.drain_seconds)
        stay = parts.stay
    kept = []
    for claim in reversed(claims):
        if claim.uid in stay or await workload.let_go(ctx, claim, host=hosts[claim.spec.host]):
            kept.append(claim)
    # What is on its way out holds its number, and its place, until it is gone.
    leaving = [claim for claim in kept if ends(claim) and claim.uid not in replaced]
    others = None
    if any(claim.uid in replaced for claim in kept):
        # What a host that is silent still has takes no room of those that come elsewhere.
        staying = {claim.uid for claim in parts.staying}
        others = sum(hosts[c.spec.host].reachable or not ends(c) for c in kept if c.uid not in staying)
    blocked = sum(claim.spec.workload.replica < bounds.wanted for claim in leaving)
    lacking = room(parts, bounds=bounds, leaving=blocked, others=others)
    numbers = numbers_of({claim.spec.workload.replica for claim in kept}, count=lacking)
    coming = min(len(parts.moved), len(numbers))
    return Seen(kept[::-1], hosts, moved=parts.moved, coming=numbers[:coming], missing=numbers[coming:])


def fold(endpoint: Endpoint, seen: Seen, *, note: str = "", now: float = 0.0) -> Outcome:
    """The endpoint's status out of its replicas'. ``note`` is shown where all is well. Pure."""
    wanted, hold = wanted_of(endpoint), seen.hold
    replicas = [
        _replica(claim, seen.hosts[claim.spec.host], revision=revision_of(claim, endpoint)) for claim in seen.claims
    ]
    rollout = revisions.look(endpoint, replicas, hold=(hold.reason, hold.message) if hold else ("", ""))
    answering = min(wanted, sum(r.ready for r in replicas))
    several = bool(endpoint.status.revisions)
    update = {
        "replicas": replicas if several else [r.model_copy(update={"revision": ""}) for r in replicas],
        "ready_replicas": answering,
        "updated_replicas": rollout.updated if several else 0,
        "wanted_replicas": wanted,
        "fake": any(claim.spec.fake for claim in seen.claims),
        **(hold.waiting if hold else turns.NOT_WAITING),
        "remedy": hold.remedy if hold else "",
        "message": "",
    }
    status = endpoint.status.model_copy(update=update)
    leaving = max(0, len(replicas) - wanted)
    if answering < wanted:
        counted = [r for r in replicas if r.phase != "Stopping"] if rollout.old else replicas[:wanted]
        outcome: Outcome = _partial(status, counted, hold=hold)
    elif rollout.old and wanted:
        again = min(hold.again, 10.0) if hold and hold.again else 10.0
        outcome = replace(_whole(status, wanted, note=rollout.trouble[1] or str(rollout)), again=again)
    elif leaving:
        outcome = replace(_whole(status, wanted, note=_leaving(leaving, moved=len(seen.moved))), again=10.0)
    else:
        outcome = _whole(status, wanted, note=note)
    return revisions.told(outcome, rollout, now=now)


def _partial(status: EndpointStatus, counted: Sequence[ReplicaStatus], *, hold: Hold | None) -> Wait:
    """Some of those that are wanted do not answer."""
    wanted, answering = status.wanted_replicas, status.ready_replicas
    trouble = hold or _trouble(counted)
    said = trouble.message if trouble else "the engines load the model"
    phase = _phase(counted, answering, hold=hold)
    message = f"{answering} of {wanted} replicas answer: {said}"
    reason = trouble.reason if trouble and not answering else phase
    again = hold.again if hold else 30.0
    remedy = status.remedy or REMEDIES.get(phase, "")
    status = status.model_copy(update={"phase": phase, "message": message})
    return Wait(reason=reason, message=message, status=status, again=again, remedy=remedy)


def _leaving(count: int, *, moved: int) -> str:
    """What is said of ``count`` replicas more than are wanted, while ``moved`` stay until others answer."""
    going = count - moved
    words = []
    if moved:
        words.append(f"{moved} replicas go once others answer" if moved > 1 else "1 replica goes once another answers")
    if going > 0:
        words.append(f"{going} replicas are leaving" if going > 1 else "1 replica is leaving")
    return "; ".join(words)


def _whole(status: EndpointStatus, wanted: int, *, note: str) -> Done:
    if not wanted:
        stopped = status.model_copy(update={"phase": "Stopped", "message": note or scaled.asleep(status)})
        return Done(status=stopped, ready=False, reason="Stopped", message="no replica is wanted")
    ready = status.model_copy(update={"phase": "Ready", "message": note})
    return Done(status=ready, message=f"all of {wanted} replicas answer")


def _phase(replicas: Sequence[ReplicaStatus], answering: int, *, hold: Hold | None) -> str:
    """One word for what is not whole."""
    if not replicas:
        return "Pending"
    coming = all(r.ready or r.phase in ("Pending", "Preparing", "Starting") for r in replicas)
    if answering:
        return "Starting" if coming and hold is None else "Degraded"
    if all(r.phase == "Unknown" for r in replicas):
        return "Unknown"
    if all(r.phase == "Failed" for r in replicas):
        return "Failed"
    return "Starting"


def _replica(claim: Claim, host: HostView, *, revision: str) -> ReplicaStatus:
    said = claim.status
    phase, reason, message = str(said.phase), said.reason, said.message
    if not host.reachable:
        phase, reason, message = "Unknown", "HostSilent", host.message
    elif claim.deleting:
        phase, reason, message = "Stopping", reason or "Stopping", message or "it is being cleared away"
    return ReplicaStatus(
        replica=claim.spec.workload.replica,
        claim=claim.metadata.name,
        host=claim.spec.host,
        phase=phase,
        ready=phase == "Running",
        reason=reason,
        message=message,
        revision=revision,
        cache_share=caching.said(claim) if phase == "Running" else None,
    )


def _trouble(replicas: Sequence[ReplicaStatus]) -> Hold | None:
    """The first replica that says something, as the reason for all."""
    said = next((r for r in replicas if not r.ready and r.reason), None)
    return Hold(said.reason, f"replica {said.replica}: {said.message}") if said else None
