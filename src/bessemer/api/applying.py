"""Server-side apply over HTTP: PATCH with ``application/apply-patch+yaml``, of an object or of its status.

The body is a configuration in YAML or JSON; who applies it is said by ``fieldManager``; ``force=true`` takes what
others own. What is not there is made. A lost race is tried again on what is there then, unless the client named a
revision.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from bessemer.api import apply, managed, resources
from bessemer.api import body as bodies
from bessemer.api.admission import identify
from bessemer.api.errors import FieldConflict, Subject, Unfit
from bessemer.api.media import wanted
from bessemer.api.names import plain
from bessemer.api.query import WriteOptions, flag, write_options
from bessemer.api.state import Call
from bessemer.core.clock import rfc3339
from bessemer.core.errors import AlreadyExists, Cause, Conflict, Malformed, NotFound, TooLarge

Body = dict[str, Any]
_OPTIONS = Subject("meta.k8s.io", kind="PatchOptions")


@dataclass(frozen=True, slots=True)
class Wish:
    """What one request asks for."""

    config: Body
    options: WriteOptions
    force: bool


async def patch(call: Call) -> Response:
    """A patch of metadata and spec, in any of the three forms."""
    if not _applies(call):
        return await resources.patch(call)
    options = _options(call)
    wish = Wish(await _read(call, options), options, flag(call.query, "force"))
    wish.config.pop("status", None)
    await call.state.access.require(call.who, "patch", on=call.about)
    return await _tried(call, wish, write=_apply)


async def patch_status(call: Call) -> Response:
    """A patch of the status, in any of the three forms."""
    if not _applies(call):
        return await resources.patch_status(call)
    options = _options(call)
    config = await _read(call, options)
    of_status: Body = {part: config[part] for part in ("apiVersion", "kind", "status") if part in config}
    pinned = {name: said for name, said in (config.get("metadata") or {}).items() if name in ("uid", "resourceVersion")}
    of_status |= {"metadata": pinned} if pinned else {}
    await call.state.access.require(call.who, "get", on=call.about)
    return await _tried(call, Wish(of_status, options, flag(call.query, "force")), write=_apply_status)


async def _tried(call: Call, wish: Wish, *, write: Callable[[Call, Wish], Awaitable[Response]]) -> Response:
    metadata = wish.config.get("metadata", {})
    pinned = bool(metadata.get("resourceVersion") or metadata.get("uid"))
    for attempt in range(resources.PATCH_ATTEMPTS):
        try:
            return await write(call, wish)
        except FieldConflict:
            raise
        except (AlreadyExists, Conflict):
            if pinned or attempt + 1 == resources.PATCH_ATTEMPTS:
                raise
    raise Conflict("the object changes too often to be patched now")


async def _apply(call: Call, wish: Wish) -> Response:
    wants = wanted(call.request.headers.get("accept", ""))
    try:
        old = await resources.present(call)
    except NotFound:
        old = None
    one = _applying(call, wish, old=old)
    now, options = rfc3339(call.state.context.clock.now()), wish.options

    def record(_: Body | None, new: Body) -> managed.Entries | None:
        return apply.settled(one, new, now=now)

    if old is not None:
        return await resources.write_main(call, one.merged, old=old, options=options, wants=wants, record=record)
    metadata = one.merged["metadata"]
    if metadata.get("resourceVersion") or metadata.get("uid"):
        raise Conflict("the object is not there: neither a uid nor a resourceVersion can be its own")
    return await resources.make(call, one.merged, options=options, wants=wants, record=record)


async def _apply_status(call: Call, wish: Wish) -> Response:
    old = await resources.present(call)
    one = _applying(call, wish, old=old, subresource="status")
    now = rfc3339(call.state.context.clock.now())

    def record(_: Body | None, new: Body) -> managed.Entries | None:
        return apply.settled(one, {"metadata": new["metadata"], "status": new["status"]}, now=now)

    return await resources.write_status(call, one.merged, options=wish.options, record=record)


def _applying(call: Call, wish: Wish, *, old: Body | None, subresource: str = "") -> apply.Applying:
    """Raises FieldConflict."""
    resource = call.about.resource
    by = managed.owner(wish.options.manager, "Apply", version=resource.api_version, subresource=subresource)
    owners = managed.read(old["metadata"].get("managedFields")) if old else None
    forms = call.state.resources.forms(resource)
    one = apply.applying(resource.shape, old, config=wish.config, owners=owners or {}, by=by, forms=forms)
    conflict = None if wish.force else apply.conflict(one)
    if conflict is not None:
        raise conflict
    return one


def _applies(call: Call) -> bool:
    media = bodies.media_type(call.request.headers.get("content-type", ""))
    if media != bodies.APPLY_PATCH and "force" in call.query:
        words = "Forbidden: may not be specified for non-apply patch"
        raise Unfit(_OPTIONS, [Cause("force", words, "FieldValueForbidden")])
    return media == bodies.APPLY_PATCH


def _options(call: Call) -> WriteOptions:
    options = write_options(call.query, "PatchOptions")
    if not options.manager:
        words = "Required value: is required for apply patch"
        raise Unfit(_OPTIONS, [Cause("fieldManager", words, "FieldValueRequired")])
    return options


async def _read(call: Call, options: WriteOptions) -> Body:
    """The configuration, about what the path names, of somebody who is still who they were. Raises Malformed."""
    limits, target = call.limits, call.about
    raw = await bodies.read(call.request, limits)
    if raw.lstrip()[:1] == b"{":
        config = bodies.as_object(await bodies.parse_checked(raw, limits.depth, twice=options.twice))
    elif len(raw) > limits.yaml_bytes:
        raise TooLarge(f"a YAML body has at most {limits.yaml_bytes} bytes")
    else:
        read = await asyncio.to_thread(bodies.parse_yaml, raw, limits.depth, twice=options.twice)
        config = bodies.as_object(read)
    await call.still()
    metadata = config.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise Malformed("metadata must be an object")
    if metadata.get("managedFields") is not None:
        raise Malformed("metadata.managedFields must be nil")
    version, kind = config.get("apiVersion") or "", config.get("kind") or ""
    if version != target.resource.api_version:
        raise Malformed(
            f"Incorrect version specified in apply patch. Specified patch version: {plain(str(version))}, "
            f"expected: {target.resource.api_version}"
        )
    if kind != target.resource.kind:
        raise Malformed(
            f"Incorrect kind specified in apply patch. Specified patch kind: {plain(str(kind))}, "
            f"expected: {target.resource.kind}"
        )
    config["metadata"] = metadata
    identify(target.resource, config, namespace=target.namespace, name=target.name)
    return config
