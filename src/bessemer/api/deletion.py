"""What a deletion is asked for with: ``DeleteOptions`` in the body, or a part of them in the query."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bessemer.api import body as bodies
from bessemer.api.errors import Subject, invalid
from bessemer.api.names import plain, show
from bessemer.api.query import dry_run, write_options
from bessemer.api.state import Call
from bessemer.core.errors import Cause, Malformed

_POLICIES = ("Background", "Foreground")


@dataclass(frozen=True, slots=True)
class Wish:
    """What is said of each object that goes. ``uid`` and ``revision`` are preconditions."""

    uid: str
    revision: str
    dry_run: bool


async def delete_options(call: Call) -> dict[str, Any]:
    """What the body says; {} where there is none. Raises Malformed, TooLarge, UnknownFormat."""
    limits = call.state.context.limits
    raw = await bodies.read(call.request, limits)
    if not raw:
        return {}
    options = await bodies.parse_object(raw, limits, content_type=call.request.headers.get("content-type", ""))
    kind = options.get("kind") or "DeleteOptions"
    if kind != "DeleteOptions":
        raise Malformed(f"the body of a deletion is DeleteOptions, not {plain(str(kind), 80)}")
    if not isinstance(options.get("preconditions") or {}, dict):
        raise Malformed("preconditions must be an object")
    return options


def wish_of(options: Mapping[str, Any], query: Mapping[str, str]) -> Wish:
    """From the body, and what of it may stand in the query. Raises Invalid."""
    said = options.get("preconditions") or {}
    dry = dry_run(options.get("dryRun"), "DeleteOptions") or write_options(query, "DeleteOptions").dry_run
    return Wish(str(said.get("uid") or ""), str(said.get("resourceVersion") or ""), dry)


def require_policy(options: Mapping[str, Any], query: Mapping[str, str]) -> None:
    """What an object owned goes with it, at once where nothing holds it: in the foreground or not makes no difference
    that lasts. That it stays is not offered. Raises Invalid."""
    said = options.get("propagationPolicy") or query.get("propagationPolicy") or _POLICIES[0]
    if options.get("orphanDependents"):
        said = "Orphan"
    if said not in _POLICIES:
        supported = ", ".join(f'"{policy}"' for policy in (*_POLICIES, "nil"))
        words = f"Unsupported value: {show(said)}: supported values: {supported}"
        cause = Cause("propagationPolicy", words, "FieldValueNotSupported")
        raise invalid(Subject("meta.k8s.io", kind="DeleteOptions"), [cause])
