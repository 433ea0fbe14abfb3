"""Revisions of an Endpoint: what of its spec replicas are made of, by a hash, and how far those of the new one are.

A claim says by a label of which revision it is; one that says nothing is of the first that is remembered, for before
there were revisions a template could not change. A Model whose content changes makes none: who joins replicas of a
revision gets the content that they have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

import orjson

from bessemer.core.clock import rfc3339
from bessemer.core.resource import Outcome, set_condition
from bessemer.kinds.fleet.claim import Claim
from bessemer.kinds.inference.endpoint.spec import (
    Endpoint,
    EndpointStatus,
    ReplicaStatus,
    RevisionStatus,
    Template,
    takes_adapters,
    wanted_of,
)

LABEL = "bessemer.dev/revision"
"""Of a claim, whose value is the name of a revision."""

KEPT = 8
"""Revisions that are remembered, and all that replicas still are of."""

PROGRESSING = "Progressing"
"""Condition of an Endpoint whose replicas are of two revisions: False where it does not get on."""

_HASH_CHARACTERS = 10
_FAILING = frozenset(("HostSilent", "Failed"))


@dataclass(frozen=True, slots=True)
class Rollout:
    """How far it is: ``updated`` replicas of ``wanted`` answer and are of the new revision, ``old`` are of others.
    ``trouble`` is why it does not get on, as (reason, message), ("", "") while it does."""

    updated: int
    wanted: int
    old: int
    trouble: tuple[str, str] = ("", "")

    def __str__(self) -> str:
        return f"{self.updated} of {self.wanted} replicas are of the new revision, {self.old} of another"


def template_of(endpoint: Endpoint) -> Template:
    """What its replicas are to be made of."""
    spec = endpoint.spec
    return Template(
        model=spec.model,
        flavor=spec.flavor,
        slots=spec.slots,
        context_tokens=spec.context_tokens,
        engine=spec.engine,
        adapters=[] if takes_adapters(spec) else spec.adapters,
        restarted_at=spec.restarted_at,
    )


def name_of(template: Template) -> str:
    """The same for the same template, in every process and release."""
    said = orjson.dumps(template.dump(), option=orjson.OPT_SORT_KEYS)
    return sha256(said).hexdigest()[:_HASH_CHARACTERS]


def revision_of(claim: Claim, endpoint: Endpoint) -> str:
    """Of which revision the claim of this endpoint is."""
    if said := claim.metadata.labels.get(LABEL):
        return said
    known = endpoint.status.revisions
    return known[0].revision if known else name_of(template_of(endpoint))


def remembered(endpoint: Endpoint, claims: Sequence[Claim], *, now: float) -> list[RevisionStatus]:
    """The revisions, with that of now. One that is gone back to keeps its place, for the first is that of the claims
    that say nothing, and has another number."""
    known, template = endpoint.status.revisions, template_of(endpoint)
    name, newest = name_of(template), max((one.number for one in known), default=0)
    if any(one.revision == name and one.number == newest for one in known):
        return known
    this = RevisionStatus(revision=name, number=newest + 1, since=rfc3339(now), template=template)
    if any(one.revision == name for one in known):
        return [this if one.revision == name else one for one in known]
    standing = {revision_of(claim, endpoint) for claim in claims}
    few = [one for one in known if one.number > newest + 1 - KEPT or one.revision in standing]
    return [*few, this]


def look(endpoint: Endpoint, replicas: Sequence[ReplicaStatus], *, hold: tuple[str, str]) -> Rollout:
    """How far it is. ``hold`` is why no further replica is taken now, as (reason, message). Pure."""
    name, wanted = endpoint.status.revision or name_of(template_of(endpoint)), wanted_of(endpoint)
    new = [one for one in replicas if one.revision == name]
    updated, old = min(wanted, sum(one.ready for one in new)), len(replicas) - len(new)
    failing = next((one for one in new if not one.ready and (one.phase in _FAILING or one.reason in _FAILED)), None)
    trouble = ("", "")
    if old and failing is not None:
        words = f"replica {failing.replica} of the new revision does not answer: {failing.message or failing.reason}"
        trouble = ("NewReplicaFails", f"{words}; those of before go on, and applying what was before goes back")
    elif old and hold[0] in _NO_ROOM and endpoint.spec.update.max_unavailable == 0:
        words = "no replica may be missing, and there is no room for one more beside those that answer"
        trouble = ("NoRoom", f"{words}: {hold[1]}; make room, or set spec.update.maxUnavailable to 1")
    elif old and hold[0] and hold[0] != "Placing":
        trouble = (hold[0], hold[1])
    return Rollout(updated, wanted, old, trouble)


_FAILED = frozenset(
    ("EngineExited", "OutOfMemory", "ProbeFailed", "EngineMissing", "EngineSilent", "PortTaken", "HostSilent")
)
_NO_ROOM = frozenset(("Unschedulable", "QuotaExceeded", "Queued"))


def told(outcome: Outcome, rollout: Rollout, *, now: float) -> Outcome:
    """The outcome with the condition: from when there were replicas of two revisions."""
    status = outcome.status
    if not isinstance(status, EndpointStatus):
        return outcome
    before = status.condition(PROGRESSING)
    if not rollout.old and (before is None or before.reason == "Complete"):
        return outcome
    reason, message = rollout.trouble
    if rollout.old:
        said = (not reason, reason or "Updating", message or str(rollout))
    else:
        said = (True, "Complete", "all replicas are of the new revision")
    conditions = set_condition(
        status.conditions, PROGRESSING, said[0], reason=said[1], message=said[2], now=rfc3339(now)
    )
    return replace(outcome, status=status.model_copy(update={"conditions": conditions}))
