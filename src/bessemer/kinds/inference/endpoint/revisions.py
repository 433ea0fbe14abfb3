"""Revisions of an Endpoint: what of its spec replicas are made of, by a hash, and how far those of the new one are.

A claim says by a label of which revision it is, and what that was made of; one that says nothing is of before there
were revisions, and of that of now where it is like it. Nothing is remembered while there was one alone. A Model whose
content changes makes none: who joins replicas of a revision gets the content that they have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

import orjson

from bessemer.core.clock import rfc3339
from bessemer.core.resource import Outcome, set_condition
from bessemer.kinds.fleet.claim import Claim
from bessemer.kinds.inference.endpoint.spec import (
    Endpoint,
    EndpointIntent,
    EndpointStatus,
    ReplicaStatus,
    RevisionStatus,
    Template,
    takes_adapters,
    wanted_of,
)

LABEL = "bessemer.dev/revision"
"""Of a claim, whose value is the name of a revision."""

TEMPLATE = "bessemer.dev/template"
"""The annotation of a claim that says what it was made of."""

MODEL_OF = "bessemer.dev/model-of"
"""The label of a claim whose model is a project's: which project's. Prices go by it: a project's may have any name."""

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
        task=spec.task,
        restarted_at=spec.restarted_at,
    )


def name_of(template: Template) -> str:
    """The same for the same template, in every process and release."""
    said = orjson.dumps(template.dump(), option=orjson.OPT_SORT_KEYS)
    return sha256(said).hexdigest()[:_HASH_CHARACTERS]


def marks_of(endpoint: Endpoint, *, owner: str = "") -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Labels and annotations of a claim that is taken now, of a model of the project ``owner``, or the platform's."""
    template = template_of(endpoint)
    labels = {LABEL: name_of(template), **({MODEL_OF: owner} if owner else {})}
    return labels, {TEMPLATE: orjson.dumps(template.dump()).decode()}


def revision_of(claim: Claim, endpoint: Endpoint) -> str:
    """Of which revision the claim of this endpoint is; "" for one of before that is unlike that of now."""
    if said := claim.metadata.labels.get(LABEL):
        return said
    template, intent = template_of(endpoint), EndpointIntent.model_validate(claim.spec.intent or _NOTHING)
    same = (
        claim.spec.flavor == template.flavor
        and intent.slots == template.slots
        and intent.context_tokens == template.context_tokens
        and intent.arguments == template.engine.arguments
        and intent.task == template.task
        and template.engine.name in ("auto", intent.engine)
        and (takes_adapters(endpoint.spec) or [one.name for one in intent.adapters] == template.adapters)
        and not template.restarted_at
        and not any(one.template.model != template.model for one in endpoint.status.revisions)
    )
    return name_of(template) if same else ""


_NOTHING = {"model": "", "alias": "", "slots": 0, "contextTokens": 0, "coresMilli": 0, "memoryBytes": 0}


def remembered(endpoint: Endpoint, claims: Sequence[Claim], *, now: float) -> list[RevisionStatus]:
    """The revisions by when each came, with that of now at the end; none while there was one alone."""
    known, template = endpoint.status.revisions, template_of(endpoint)
    name = name_of(template)
    if known and known[-1].revision == name:
        return known
    standing = {revision_of(claim, endpoint): claim for claim in claims}
    told = {one.revision for one in known}
    for revision in sorted(standing.keys() - told - {name}):
        if (of := _said(standing[revision])) is not None:
            known = [*known, _revision(revision, known, template=of, now=now)]
    if not known:
        return []
    this = _revision(name, known, template=template, now=now)
    few = [one for one in known if one.number > this.number - KEPT or one.revision in standing]
    return [*(one for one in few if one.revision != name), this]


def _revision(name: str, known: Sequence[RevisionStatus], *, template: Template, now: float) -> RevisionStatus:
    number = known[-1].number + 1 if known else 1
    return RevisionStatus(revision=name, number=number, since=rfc3339(now), template=template)


def _said(claim: Claim) -> Template | None:
    """What a claim says that it was made of."""
    text = claim.metadata.annotations.get(TEMPLATE)
    return Template.model_validate(orjson.loads(text)) if text else None


def look(endpoint: Endpoint, replicas: Sequence[ReplicaStatus], *, hold: tuple[str, str]) -> Rollout:
    """How far it is. ``hold`` is why no further replica is taken now, as (reason, message). Pure."""
    name, wanted = name_of(template_of(endpoint)), wanted_of(endpoint)
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
