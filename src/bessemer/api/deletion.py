"""What a deletion is asked for with: ``DeleteOptions`` in the body, or a part of them in the query."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bessemer.api import body as bodies
from bessemer.api.errors import Subject, invalid
from bessemer.api.names import plain, show
from bessemer.api.query import WriteOptions, dry_run, write_options
from bessemer.api.state import Call
from bessemer.core.errors import Cause, Invalid, Malformed
from bessemer.core.ports import Policy

POLICIES: tuple[Policy, ...] = ("Background", "Foreground", "Orphan")
_WORDS = ("propagationPolicy", "orphanDependents")


@dataclass(frozen=True, slots=True)
class Wish:
    """What is said of each object that goes. ``uid`` and ``revision`` are preconditions."""

    uid: str
    revision: str
    dry_run: bool
    policy: Policy | None


async def delete_options(call: Call) -> dict[str, Any]:
    """What the body says; {} where there is none. Raises Malformed, TooLarge, UnknownFormat."""
    limits = call.state.context.limits
    raw = await bodies.read(call.request, limits)
    if not raw:
        return {}
    media = call.request.headers.get("content-type", "")
    # A dryRun or precondition that the second of two takes back would delete, so that is refused whatever is asked for.
    options = await bodies.parse_object(raw, limits, content_type=media, twice=WriteOptions().twice)
    kind = options.get("kind") or "DeleteOptions"
    if kind != "DeleteOptions":
        raise Malformed(f"the body of a deletion is DeleteOptions, not {plain(str(kind), 80)}")
    if not isinstance(options.get("preconditions") or {}, dict):
        raise Malformed("preconditions must be an object")
    return options


def wish_of(options: Mapping[str, Any], query: Mapping[str, str]) -> Wish:
    """From the body, and what of it may stand in the query. Raises Invalid, Malformed."""
    said = options.get("preconditions") or {}
    dry = dry_run(options.get("dryRun"), "DeleteOptions") or write_options(query, "DeleteOptions").dry_run
    policy = _policy(options, query)
    return Wish(str(said.get("uid") or ""), str(said.get("resourceVersion") or ""), dry, policy)


def _policy(options: Mapping[str, Any], query: Mapping[str, str]) -> Policy | None:
    """What becomes of what an object owns, in either of two words for it. The body counts; what stands in the query
    may not be another. Raises Invalid, Malformed."""
    said, asked = _said(options), _said({name: query[name] for name in _WORDS if name in query})
    if said is not None and asked is not None and said != asked:
        raise Malformed(f"the body wishes for {said}, and the query for {asked}")
    return said or asked


def _said(options: Mapping[str, Any]) -> Policy | None:
    policy, orphan = options.get("propagationPolicy") or None, options.get("orphanDependents")
    if policy is not None and orphan is not None:
        raise _refused(f"Invalid value: {show(policy)}: orphanDependents and deletionPropagation cannot be both set")
    if orphan is not None:
        if str(orphan).lower() not in ("true", "false"):
            raise Malformed("orphanDependents must be true or false")
        return "Orphan" if str(orphan).lower() == "true" else "Background"
    if policy is not None and policy not in POLICIES:
        supported = ", ".join(f'"{one}"' for one in (*POLICIES, "nil"))
        raise _refused(f"Unsupported value: {show(policy)}: supported values: {supported}", "FieldValueNotSupported")
    return policy


def _refused(words: str, reason: str = "FieldValueInvalid") -> Invalid:
    cause = Cause("propagationPolicy", words, reason)
    return invalid(Subject("meta.k8s.io", kind="DeleteOptions"), [cause])
