"""The Endpoint that has no replicas of its own: what is said of it. Who answers is chosen by the gateway, which asks no
status for it.

What it had of replicas before it became one of these ends as told, in time for what they answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from bessemer.core.resource import Done, Key, Outcome, Wait
from bessemer.kinds import turns
from bessemer.kinds.context import Context
from bessemer.kinds.inference.endpoint.spec import Endpoint
from bessemer.kinds.workload import read

_REMEDY = "Create the endpoint that is missing, or see why those that are there do not answer."


def backend_keys(endpoint: Endpoint) -> tuple[Key, ...]:
    """The endpoints that answer for it."""
    project = endpoint.metadata.namespace or ""
    return tuple(Key("Endpoint", project, one.endpoint) for one in endpoint.spec.backends)


async def said(ctx: Context, endpoint: Endpoint, *, leaving: int) -> Outcome:
    """Its status, while so many replicas of before are ``leaving``."""
    left = f"; {leaving} replicas of before are leaving" if leaving else ""
    if endpoint.spec.external is not None:
        return _external(endpoint, left=left)
    return await _of_backends(ctx, endpoint, left=left)


def _external(endpoint: Endpoint, *, left: str) -> Done:
    """Nobody asks it but for an answer: whether it answers is seen by the gateways."""
    external = endpoint.spec.external
    assert external is not None
    message = f"gateways ask {urlsplit(external.url).netloc}{left}"
    return _done(endpoint, message, again=10.0 if left else None)


async def _of_backends(ctx: Context, endpoint: Endpoint, *, left: str) -> Outcome:
    ctx.parts.note(endpoint.key, backend_keys(endpoint), waits=True)
    project = endpoint.metadata.namespace or ""
    answering, missing, silent = 0, list[str](), list[str]()
    asked = [one.endpoint for one in endpoint.spec.backends if one.weight]
    for name in asked:
        other = await read(ctx, Endpoint, namespace=project, name=name)
        if other is None:
            missing.append(name)
        elif answers(other):
            answering += 1
        else:
            silent.append(name)
    trouble = _trouble(missing, silent)
    if not trouble:
        return _done(endpoint, left.removeprefix("; "), again=10.0 if left else None)
    message = f"{answering} of {len(asked)} backends answer: {trouble}{left}"
    phase = "Degraded" if answering else "Pending"
    reason = "BackendNotFound" if missing and not answering else phase
    status = endpoint.status.model_copy(update={**_NO_REPLICAS, "phase": phase, "message": message})
    return Wait(reason=reason, message=message, status=status, again=30.0, remedy=_REMEDY)


def answers(endpoint: Endpoint) -> bool:
    """Whether somebody does, as far as its status says."""
    ready = endpoint.status.condition("Ready")
    return endpoint.status.ready_replicas > 0 or (ready is not None and ready.status == "True")


_NO_REPLICAS = {
    **turns.NOT_WAITING,
    "replicas": [],
    "ready_replicas": 0,
    "wanted_replicas": 0,
    "remedy": "",
    "fake": False,
}


def _done(endpoint: Endpoint, message: str, *, again: float | None) -> Done:
    status = endpoint.status.model_copy(update={**_NO_REPLICAS, "phase": "Ready", "message": message})
    return Done(status=status, message=message or "all backends answer", again=again)


def _trouble(missing: Sequence[str], silent: Sequence[str]) -> str:
    words = []
    if missing:
        words.append(f"there is no Endpoint {', '.join(missing)}")
    if silent:
        words.append(f"{', '.join(silent)} {'do' if len(silent) > 1 else 'does'} not answer")
    return "; ".join(words)
