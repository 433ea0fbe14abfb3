"""Objects over HTTP: get, create, replace, patch, delete, status. Stored bytes are served as they are.

Each write goes: who, may, shape, meaning, defaults, and then the port, which decides quota and precedence in its
transaction. A body may take its time, so who its author is and whether they may is asked again once it is here. A patch
is computed on what is stored and written under its revision; a lost race is tried again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import orjson
import yaml
from starlette.responses import Response

from bessemer.api import body as bodies
from bessemer.api import credentials, keeping, keyowners, managed, table
from bessemer.api.acceptance import sign
from bessemer.api.access import Target
from bessemer.api.admission import admit_status, check_references, identify, refuse_owner
from bessemer.api.deletion import delete_options, wish_of
from bessemer.api.errors import FutureRevision, Subject, UnknownFormat, invalid, no_namespace, not_found, success
from bessemer.api.foretold import foretold
from bessemer.api.granting import WAYS_IN, grant, require_administrator
from bessemer.api.media import Wanted, wanted
from bessemer.api.patches import STRATEGIC, Strategic, patched
from bessemer.api.query import WriteOptions, revision, write_options
from bessemer.api.shown import Shown
from bessemer.api.state import Call, answer
from bessemer.api.terms import require_terms
from bessemer.api.versions import admit
from bessemer.api.warnings import warning
from bessemer.core.clock import rfc3339
from bessemer.core.errors import Cause, Conflict, Forbidden, Malformed, NotFound, TooLarge
from bessemer.core.ports import Part, Stored
from bessemer.core.resource import Key, Verb
from bessemer.kinds.kubernetes import lease

PATCH_ATTEMPTS = 8
_ENDS: tuple[Verb, ...] = ("delete", "update", "patch")
"""Who may do one of these to an object may keep it from going."""
_PATCHES = f"{bodies.JSON_PATCH}, {bodies.MERGE_PATCH}, {bodies.APPLY_PATCH}"
Wish = Callable[[dict[str, Any]], dict[str, Any]]
"""What an object should be, in view of what it is."""

Record = Callable[[dict[str, Any] | None, dict[str, Any]], managed.Entries | None]
"""The entries of ``managedFields`` once an admitted body takes the old one's place; None leaves them as they are."""


async def get(call: Call) -> Response:
    """One object, as stored, or as a table, metadata alone, or YAML."""
    wants = wanted(call.request.headers.get("accept", ""))
    asked = revision(call.query.get("resourceVersion", ""))
    if asked and asked > (current := await call.state.standing.present()):
        raise FutureRevision(asked, current)
    return render(call, await load(call, call.about), wants=wants)


async def create(call: Call) -> Response:
    """A new object; 201."""
    wants = wanted(call.request.headers.get("accept", ""))
    options = write_options(call.query, "CreateOptions")
    said = await bodies.read_object(call.request, call.limits, twice=options.twice)
    await call.still()
    return await make(call, said, options=options, wants=wants, record=_updates(call, options))


async def make(call: Call, said: dict[str, Any], *, options: WriteOptions, wants: Wanted, record: Record) -> Response:
    """A new object out of what was said of it, which nobody has judged yet; 201."""
    about = call.about
    subject = identify(about.resource, said, namespace=about.namespace)
    target = call.target = Target(about.resource, about.namespace or _namespace(about, said), subject.name)
    # Whose it is may stand in the body alone, so it is decided here, and not only with the route.
    await call.state.access.require(call.who, "create", on=target)
    await require_project(call, target)
    admitted = admit(about.resource, said, old=None, validation=options.validation)
    await require_rights(call, target, body=admitted.body, old=None)
    admitted.body["metadata"]["managedFields"] = record(None, about.resource.seen(admitted.body))
    stored = await keeping.create(call, admitted.body, dry_run=options.dry_run)
    call.uid = stored.uid
    if options.dry_run:
        stored = await foretold(call, keeping.unwritten(stored, ""))
    else:
        await call.state.directory.reach(stored.key.kind, stored.revision)
    return render(call, stored, wants=wants, code=201, warnings=(*options.warnings, *admitted.warnings))


async def replace(call: Call) -> Response:
    """The whole object, under its resourceVersion; of some of Kubernetes' own kinds also without."""
    wants = wanted(call.request.headers.get("accept", ""))
    options = write_options(call.query, "UpdateOptions")
    said = await bodies.read_object(call.request, call.limits, twice=options.twice)
    await call.still()
    target = call.about
    await call.state.access.require(call.who, "update", on=target)
    subject = identify(target.resource, said, namespace=target.namespace, name=target.name)
    pinned = bool(said["metadata"].get("resourceVersion"))
    if not pinned and not _unconditional(target.resource):
        cause = Cause("metadata.resourceVersion", "Invalid value: 0x0: must be specified for an update")
        raise invalid(dataclasses.replace(subject, kind=subject.plural), [cause])

    def wish(old: dict[str, Any]) -> dict[str, Any]:
        return {**said, "metadata": {"resourceVersion": old["metadata"]["resourceVersion"], **said["metadata"]}}

    return await _rewrite(call, wish, pinned=pinned, options=options, wants=wants)


async def patch(call: Call) -> Response:
    """Merge patch or JSON patch of metadata and spec. See `applying` for the third."""
    wants = wanted(call.request.headers.get("accept", ""))
    options = write_options(call.query, "PatchOptions")
    change = await _read_patch(call, options)
    await call.state.access.require(call.who, "patch", on=call.about)

    def wish(old: dict[str, Any]) -> dict[str, Any]:
        return _patched(call, change, old=old)

    return await _rewrite(call, wish, pinned=_pinned(change), options=options, wants=wants)


async def _rewrite(call: Call, wish: Wish, *, pinned: bool, options: WriteOptions, wants: Wanted) -> Response:
    """Write what is wished for in view of what there is; a lost race is tried again, unless the client ``pinned``."""
    record = _updates(call, options)
    for attempt in range(PATCH_ATTEMPTS):
        old = await present(call)
        try:
            return await write_main(call, wish(old), old=old, options=options, wants=wants, record=record)
        except Conflict:
            if pinned or attempt + 1 == PATCH_ATTEMPTS:
                raise
    raise Conflict("the object changes too often to be written now")


async def delete(call: Call) -> Response:
    """Delete, or begin to where finalizers stand: then the object is answered, else a Status."""
    wants = wanted(call.request.headers.get("accept", ""))
    target = call.about
    options = await delete_options(call)
    await call.still()
    await call.state.access.require(call.who, "delete", on=target)
    if target.resource.stored in WAYS_IN:
        require_administrator(call, target)
    wish = wish_of(options, call.query)
    now = await load(call, target, whole=False)
    uid, objects = wish.uid or now.uid, call.state.ports.objects
    left = await objects.delete(
        target.key, call.writer, uid=uid, revision=wish.revision, dry_run=wish.dry_run, policy=wish.policy
    )
    if not wish.dry_run:
        await call.state.directory.reach(target.resource.stored, left.revision)
    body = orjson.loads(left.body)
    if body["metadata"].get("finalizers") and body["metadata"].get("deletionTimestamp"):
        shown = keeping.unwritten(left, str(now.revision)) if wish.dry_run else left
        return render(call, keeping.bare(target.resource, shown), wants=wants)
    return answer(success(target.subject, now.uid))


# --- status -----------------------------------------------------------------------------------------------------------


async def replace_status(call: Call) -> Response:
    """The status alone: a Claim's by its agent, ``report`` of a Host by its agent."""
    options = write_options(call.query, "UpdateOptions")
    said = await bodies.read_object(call.request, call.state.context.limits, twice=options.twice)
    await call.still()
    target = call.about
    await call.state.access.require(call.who, "get", on=target)
    identify(target.resource, said, namespace=target.namespace, name=target.name)
    said["metadata"].pop("managedFields", None)
    return await write_status(call, said, options=options)


async def patch_status(call: Call) -> Response:
    """As `replace_status`, by a patch."""
    options = write_options(call.query, "PatchOptions")
    change = await _read_patch(call, options)
    await call.state.access.require(call.who, "get", on=call.about)
    for attempt in range(PATCH_ATTEMPTS):
        old = await present(call)
        try:
            said = _patched(call, change, old=old)
            said["metadata"].pop("managedFields", None)
            return await write_status(call, said, options=options)
        except Conflict:
            if _pinned(change) or attempt + 1 == PATCH_ATTEMPTS:
                raise
    raise Conflict("the object changes too often to be patched now")


async def write_status(
    call: Call, said: dict[str, Any], *, options: WriteOptions, record: Record | None = None
) -> Response:
    """The status of what was said, which nobody has judged yet. Agents write it thousands of times an hour, and nobody
    else: who set which field of it is kept only where one applies it."""
    wants, target = wanted(call.request.headers.get("accept", "")), call.about
    if not target.resource.has_status:
        raise not_found(target.subject)
    part: Part = "report" if call.who.kind == "agent" and target.resource.kind == "Host" else "status"
    admitted = admit_status(target.resource, said)
    entries = record(None, admitted) if record else None
    if entries is not None:
        admitted = {**admitted, "metadata": {**admitted["metadata"], "managedFields": entries}}
    stored = await call.state.ports.objects.replace(admitted, call.writer, part=part, dry_run=options.dry_run)
    call.uid = stored.uid
    return render(call, keeping.bare(target.resource, stored), wants=wants, warnings=tuple(options.warnings))


# --- shared -----------------------------------------------------------------------------------------------------------


async def load(call: Call, target: Target, *, whole: bool = True) -> Stored:
    """The object as stored. Raises NotFound in Kubernetes' words."""
    try:
        stored = await keeping.load(call, target, whole=whole)
    except NotFound as error:
        raise not_found(target.subject) from error
    call.uid = stored.uid
    return stored


async def present(call: Call) -> dict[str, Any]:
    """What the path names, as its version has it. Raises NotFound."""
    body: dict[str, Any] = orjson.loads((await load(call, call.about)).body)
    return body


def render(call: Call, stored: Stored, *, wants: Wanted, code: int = 200, warnings: tuple[str, ...] = ()) -> Response:
    """An object in the shape that was asked for."""
    resource = call.about.resource
    headers = {"Warning": told} if (told := warning(warnings)) else {}
    if wants.shape == "object" and not wants.yaml:
        return answer(stored.body, code, headers=headers)
    value = orjson.loads(stored.body)
    if wants.shape == "table":
        include = call.query.get("includeObject", "") or "Metadata"
        line = table.row(resource, value, include=include, now=call.state.context.clock.now())
        return answer(
            table.table(resource, [line], metadata={"resourceVersion": str(stored.revision)}), code, headers=headers
        )
    if wants.shape == "partial":
        return answer(table.partial(value), code, headers=headers)
    if wants.yaml:
        return Response(yaml.safe_dump(value), code, headers=headers, media_type="application/yaml")
    return answer(value, code, headers=headers)


async def write_main(
    call: Call, said: dict[str, Any], *, old: dict[str, Any], options: WriteOptions, wants: Wanted, record: Record
) -> Response:
    """The metadata and spec of what was said, which nobody has judged yet, in place of ``old``."""
    target = call.about
    admitted = admit(target.resource, said, old=old, validation=options.validation)
    await require_rights(call, target, body=admitted.body, old=target.resource.stored_form(old))
    if "managedFields" in said["metadata"]:
        admitted.body["metadata"]["managedFields"] = said["metadata"]["managedFields"]
    entries = record(old, target.resource.seen(admitted.body))
    if entries is None:
        admitted.body["metadata"].pop("managedFields", None)
    else:
        admitted.body["metadata"]["managedFields"] = entries
    stored = await keeping.replace(call, admitted.body, old=old, dry_run=options.dry_run)
    if options.dry_run:
        stored = keeping.unwritten(stored, old["metadata"]["resourceVersion"])
    else:
        await call.state.directory.reach(stored.key.kind, stored.revision)
    return render(call, stored, wants=wants, warnings=(*options.warnings, *admitted.warnings))


def _updates(call: Call, options: WriteOptions) -> Record:
    """How a create, a replacement or a patch moves who set which field."""
    name = managed.manager_name(options.manager, call.request.headers.get("user-agent", ""))
    resource, now = call.about.resource, rfc3339(call.state.context.clock.now())
    by, forms = managed.owner(name, "Update", version=resource.api_version), call.state.resources.forms(resource)
    return lambda old, new: managed.updated(resource.shape, old, new=new, by=by, now=now, forms=forms)


def _namespace(about: Target, said: dict[str, Any]) -> str:
    if not about.resource.namespaced:
        return ""
    namespace = said["metadata"].get("namespace") or ""
    if not isinstance(namespace, str) or not namespace:
        raise Malformed("an empty namespace may not be set during creation: name a project")
    return namespace


async def require_project(call: Call, target: Target) -> None:
    """A namespaced object needs its project, one that is not going away."""
    if not target.resource.namespaced:
        return
    try:
        project = (await call.state.ports.objects.get(Key("Project", "", target.namespace))).body
    except NotFound as error:
        raise no_namespace(target.namespace) from error
    # Nearly none goes away, and what does not say the word need not be parsed.
    if b'"deletionTimestamp"' in project and "deletionTimestamp" in orjson.loads(project)["metadata"]:
        raise Forbidden(f'unable to create new content in namespace "{target.namespace}": it is being terminated')


async def require_rights(call: Call, target: Target, *, body: dict[str, Any], old: dict[str, Any] | None) -> None:
    """What a body names anew must be its project's to name: taints that are borne, objects that it goes with."""
    if target.resource.namespaced:
        await require_terms(call, target, body=body, old=old)
    await _require_owners(call, target, body=body, old=old)
    await credentials.judge(call, target, body=body, old=old)
    await grant(call, target, body=body, old=old)
    keyowners.judge(call, target, body=body, old=old)
    sign(call, target, body=body, old=old)


async def _require_owners(call: Call, target: Target, *, body: dict[str, Any], old: dict[str, Any] | None) -> None:
    """Owners named anew must be there, be what they are said to be, and be the asker's to know."""
    for owner in check_references(body, old):
        shown = call.state.resources.of_kind(owner["kind"])
        if shown is None or owner["apiVersion"] not in [v.api_version for v in call.state.resources.versions(shown)]:
            raise refuse_owner(target.subject, owner)
        place = Target(shown, target.namespace if shown.namespaced else "", owner["name"])
        try:
            await call.state.access.require(call.who, "get", on=place)
            found = await call.state.ports.objects.get(place.key)
        except (NotFound, Forbidden) as error:
            raise refuse_owner(target.subject, owner) from error
        if found.uid != owner["uid"]:
            raise refuse_owner(target.subject, owner)
        if owner.get("blockOwnerDeletion") and not any(call.state.access.may(call.who, v, on=place) for v in _ENDS):
            words = f"cannot set blockOwnerDeletion: {owner['kind']} {owner['name']} is not yours to change or delete"
            raise Forbidden(f'{target.subject.plural} "{target.name}" is forbidden: {words}')


async def _read_patch(call: Call, options: WriteOptions) -> Any:
    """A merge patch (an object) or a JSON patch (a list), of somebody who is still who they were."""
    media = bodies.media_type(call.request.headers.get("content-type", ""))
    strategic = media == STRATEGIC and call.about.resource.native
    if media not in (bodies.MERGE_PATCH, bodies.JSON_PATCH) and not strategic:
        words = f"the body of the request was in an unknown format - accepted media types include: {_PATCHES}"
        raise UnknownFormat(f"{words}, {STRATEGIC}" if call.about.resource.native else words)
    limits = call.limits
    raw = await bodies.read(call.request, limits)
    change = await bodies.parse_checked(raw, limits.depth, twice=options.twice)
    await call.still()
    if media == bodies.JSON_PATCH and not isinstance(change, list):
        raise Malformed("json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    if media != bodies.JSON_PATCH and not isinstance(change, dict):
        words = "Invalid value: a merge patch is an object"
        raise invalid(Subject(), [Cause("patch", words)])
    return Strategic(change) if strategic else change


def _patched(call: Call, change: Any, *, old: dict[str, Any]) -> dict[str, Any]:
    limits = call.limits
    said = patched(call.about.resource.shape, old, change=change)
    if not isinstance(said, dict) or not isinstance(said.get("metadata", {}), dict):
        raise Malformed("the patch leaves no object")
    try:
        whole = orjson.dumps(said)
    except orjson.JSONEncodeError as error:
        raise Malformed("the patched object is nested too deep") from error
    if len(whole) > 2 * limits.body_bytes:
        raise TooLarge(f"the patched object has more than {2 * limits.body_bytes} bytes")
    bodies.check_depth(whole, limits.depth)
    target = call.about
    identify(target.resource, said, namespace=target.namespace, name=target.name)
    return said


def _unconditional(resource: Shown) -> bool:
    """Whether it may be replaced without saying which revision: as in Kubernetes, whose Leases may not."""
    return resource.native and resource.kind != lease.Lease.KIND


def _pinned(change: Any) -> bool:
    """Whether the client said which revision it means."""
    if isinstance(change, list):
        paths = (str(one.get("path", "")) for one in change if isinstance(one, dict))
        return any(path.startswith("/metadata/resourceVersion") for path in paths)
    metadata = change.get("metadata")
    return isinstance(metadata, dict) and bool(metadata.get("resourceVersion"))
