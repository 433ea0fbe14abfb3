"""Between what is served and what is stored: whoever asks here speaks of objects as they are served.

Most are stored as they are served, and pass through untouched. A view's object is another kind's in other words. One
that is asked for in an older version is looked at from there; what is written was admitted as of the newest. A
Secret's data, and the one annotation that repeats it, stand in the table of sealed values: put there in the transaction
that writes the object, and put in again here, for whoever may read the object at all. Invariant: no answer pairs a
revision of a Secret with the data of another; see `shown` for what becomes of data that is gone by then. The secret of
an IdentityProvider that is pointed elsewhere is forgotten with that very write.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace as changed
from typing import Any, TypeVar

import orjson

from bessemer.api.access import Target
from bessemer.api.shown import Shown
from bessemer.api.state import Call
from bessemer.core.errors import Conflict, NotFound, Unavailable
from bessemer.core.ports import Stored
from bessemer.core.resource import Change
from bessemer.kinds.kubernetes.secret import SEALED

Body = dict[str, Any]
Item = TypeVar("Item", Stored, Change)

APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
"""The annotation in which kubectl keeps what was applied, data and all."""

_MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"
_ATTEMPTS = 8
_FIELD = "data/"


async def load(call: Call, target: Target, *, whole: bool = True) -> Stored:
    """One object; not ``whole`` where its body is not looked at. Raises NotFound."""
    for _ in range(_ATTEMPTS):
        stored = await call.state.ports.objects.get(target.key)
        if target.resource.plain or not whole:
            return stored
        found = await _opened(call, target.resource, item=stored)
        if found is not None:
            return found
    raise Unavailable("the object changes too often to be read now")


async def create(call: Call, body: Body, *, dry_run: bool) -> Stored:
    """Make it. Raises what `Objects.create` does."""
    resource, objects = call.about.resource, call.state.ports.objects
    kept, sealed = _inward(resource, body, now=None)
    stored = await objects.create(kept, call.writer, dry_run=dry_run, sealed=sealed)
    return _written(resource, stored, body=body)


async def replace(call: Call, body: Body, *, old: Body, dry_run: bool) -> Stored:
    """Let it take the place of ``old``, which is how it was loaded. Raises what `Objects.replace` does."""
    target, objects = call.about, call.state.ports.objects
    if target.resource.view is None and not target.resource.sealed:
        forgotten: Mapping[str, bytes] | None = {} if _repointed(body, old) else None
        return bare(target.resource, await objects.replace(body, call.writer, dry_run=dry_run, sealed=forgotten))
    now = await objects.get(target.key)
    revisions = {str(now.revision), old["metadata"]["resourceVersion"], body["metadata"].get("resourceVersion")}
    if len(revisions - {None}) > 1:
        raise Conflict(_MODIFIED)
    kept, sealed = _inward(target.resource, body, now=orjson.loads(now.body), old=old)
    kept["metadata"] = {**kept["metadata"], "resourceVersion": str(now.revision)}
    stored = await objects.replace(kept, call.writer, dry_run=dry_run, sealed=sealed)
    return _written(target.resource, stored, body=body)


def unwritten(stored: Stored, revision: str) -> Stored:
    """What a dry run would have stored, with the revision that stands ("" where none does): its own is nobody's."""
    body = orjson.loads(stored.body)
    body["metadata"]["resourceVersion"] = revision
    if not revision:
        del body["metadata"]["resourceVersion"]
    return changed(stored, body=orjson.dumps(body))


def bare(resource: Shown, item: Item) -> Item:
    """It as it is served, but for what is sealed."""
    if resource.plain:
        return item
    body = orjson.loads(item.body)
    body.pop(SEALED, None)
    return changed(item, body=orjson.dumps(resource.view.outward(body) if resource.view else resource.seen(body)))


async def shown(call: Call, items: Sequence[Item], *, whole: bool = True) -> Sequence[Item]:
    """As they are served; not ``whole`` where columns and metadata are all that is looked at.

    Of data that is gone since, a list shows what is there now, or nothing. A change keeps the part ``sealed`` then, and
    its reader passes over it unless it says that the object has gone, which needs no data.
    """
    resource = call.about.resource
    if resource.plain or (resource.sealed and not whole):
        return items
    if not resource.sealed:
        return [bare(resource, item) for item in items]
    found = await asyncio.gather(*(_opened(call, resource, item=item) for item in items))
    again = [one or await _again(call, item) for item, one in zip(items, found, strict=True)]
    return [one for one in again if one is not None]


async def _again(call: Call, item: Item) -> Item | None:
    """What is shown of an item whose data is gone: a list's is looked at anew."""
    if isinstance(item, Change):
        return item
    try:
        found = await load(call, Target(call.about.resource, item.key.namespace, item.key.name))
    except NotFound:
        return None
    return found


async def _opened(call: Call, resource: Shown, *, item: Item) -> Item | None:
    """With what is sealed, or None where that is another version by now."""
    if not resource.sealed:
        return bare(resource, item)
    body = orjson.loads(item.body)
    mark = body.pop(SEALED, None)
    if mark is None or getattr(item, "type", "") == "DELETED":
        return changed(item, body=orjson.dumps(body))
    kept = await call.state.ports.sealed.get(item.uid, f"{_FIELD}{mark['version']}")
    if kept is None:
        return None
    return changed(item, body=orjson.dumps(_joined(body, orjson.loads(kept))))


def _inward(
    resource: Shown, body: Body, *, now: Body | None, old: Body | None = None
) -> tuple[Body, Mapping[str, bytes] | None]:
    """The body to be stored, and what is sealed with it: None leaves that as it is."""
    if resource.view is not None:
        return resource.view.inward(body, now), None
    if not resource.sealed:
        return body, None
    kept, hidden = _parted(body)
    mark = {"version": secrets.token_hex(8), "keys": len(hidden["data"])}
    if now is not None and old is not None and SEALED in now and _parted(old)[1] == hidden:
        return {**kept, SEALED: now[SEALED]}, None
    return {**kept, SEALED: mark}, {f"{_FIELD}{mark['version']}": orjson.dumps(hidden)}


def _written(resource: Shown, stored: Stored, *, body: Body) -> Stored:
    """What was stored, as it is served: its data was just said."""
    if not resource.sealed:
        return bare(resource, stored)
    kept = orjson.loads(stored.body)
    kept.pop(SEALED, None)
    return changed(stored, body=orjson.dumps(_joined(kept, _parted(body)[1])))


def _repointed(body: Body, old: Body) -> bool:
    """Whether an IdentityProvider would show its secret to another than it was given for."""
    return body["kind"] == "IdentityProvider" and _whom(body) != _whom(old)


def _whom(provider: Body) -> tuple[Any, ...]:
    parts = [provider["spec"].get(way) or {} for way in ("oidc", "ldap")]
    return tuple(part.get(field) or "" for part in parts for field in ("issuer", "url", "caBundle"))


def _parted(body: Body) -> tuple[Body, Body]:
    """A Secret without what is hidden, and that."""
    annotations = dict(body["metadata"].get("annotations") or {})
    hidden = {"data": body.get("data") or {}, "applied": annotations.pop(APPLIED, None)}
    kept = {name: value for name, value in body.items() if name != "data"}
    kept["metadata"] = {name: value for name, value in body["metadata"].items() if name != "annotations"}
    if annotations:
        kept["metadata"]["annotations"] = annotations
    return kept, hidden


def _joined(kept: Body, hidden: Body) -> Body:
    """The inverse of `_parted`."""
    body = {**kept, "data": hidden["data"]} if hidden["data"] else dict(kept)
    if hidden["applied"] is not None:
        annotations = {**kept["metadata"].get("annotations", {}), APPLIED: hidden["applied"]}
        body["metadata"] = {**kept["metadata"], "annotations": annotations}
    return body
