"""What a write must pass once its author may write: shape (pydantic), meaning (the kind), references, defaults.

What is stored is the spec as the schema reads it, defaults filled in, so that every reader sees the same. Errors name
fields as clients write them (``spec.ports[0].name``). Nothing here knows who asks, or stores anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from bessemer.api.errors import Subject, invalid
from bessemer.api.names import CAUSES_MAX, field_path, generate, metadata_causes, opaque_text, plain, show
from bessemer.api.query import FieldValidation
from bessemer.api.shown import Shown
from bessemer.core.errors import Cause, Invalid, Malformed
from bessemer.core.resource import ApiModel, Metadata
from bessemer.kinds.kubernetes import secret

Body = dict[str, Any]
_HEAD = ("apiVersion", "kind", "metadata", "status")
_TEXT = ("metadata", "status", "data", "stringData")
"""What is not looked through for text that does not show what it is: what a file holds is anything."""
_KEPT = ("name", "generateName", "namespace", "uid", "resourceVersion", "labels", "annotations", "finalizers")
ERRORS_MAX = 1000
"""Of one body. Each costs a kilobyte before it is put into words, and a body has room for a few 100,000."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """A body to be stored; ``warnings`` are of fields that were left out."""

    body: Body
    warnings: tuple[str, ...] = ()


def identify(resource: Shown, body: Body, *, namespace: str, name: str = "") -> Subject:
    """Whether the body is about what the URL says; fills in what it leaves open. Raises Malformed, Invalid."""
    if resource.sealed:
        secret.fold(body)
    metadata = body.setdefault("metadata", {})
    said = metadata.get("name") if isinstance(metadata, dict) else ""
    subject = resource.subject(name or (said if isinstance(said, str) else ""))
    version, kind = body.setdefault("apiVersion", resource.api_version), body.setdefault("kind", resource.kind)
    if version != resource.api_version:
        raise Malformed(
            f"the API version in the data ({str(version)[:80]}) does not match the expected API version "
            f"({resource.api_version})"
        )
    if kind != resource.kind:
        about = replace(subject, kind=plain(kind, 63)) if isinstance(kind, str) and kind else subject
        raise invalid(about, [Cause("kind", f"Invalid value: {show(kind)}: must be {resource.kind}")])
    if not isinstance(metadata, dict):
        raise invalid(subject, [Cause("metadata", "Invalid value: must be an object")])
    prefix = metadata.get("generateName")
    if not name and not said and isinstance(prefix, str) and prefix:
        metadata["name"] = generate(prefix)
        subject = resource.subject(metadata["name"])
    if name and metadata.setdefault("name", name) != name:
        raise Malformed(f"the name of the object ({str(said)[:80]}) does not match the name on the URL ({name})")
    if namespace and (metadata.setdefault("namespace", namespace) or namespace) != namespace:
        raise Malformed("the namespace of the provided object does not match the namespace sent on the request")
    if not resource.namespaced and metadata.get("namespace"):
        raise invalid(
            subject, [Cause("metadata.namespace", "Forbidden: not allowed on this type", "FieldValueForbidden")]
        )
    return subject


def admit(resource: Shown, body: Body, *, old: Body | None, validation: FieldValidation) -> Admitted:
    """Shape and meaning of a create (``old`` None) or an update. Raises Invalid by field, Malformed for fields that
    the schema does not have."""
    subject = resource.subject(str(body["metadata"].get("name") or ""))
    causes = metadata_causes(body["metadata"], namespaced=resource.namespaced)
    warnings = () if causes else _owners_once(body["metadata"])
    shown = {k: v for k, v in body.items() if k not in _TEXT}
    causes += islice(opaque_text(shown, ""), CAUSES_MAX)
    if causes:
        raise invalid(subject, causes[:CAUSES_MAX])
    said = {**body, "status": {}} if "status" in resource.model.model_fields else {**body}
    model, dropped = _shaped(resource, said, subject=subject, validation=validation)
    before = None if old is None else resource.model.model_validate(_loaded(old, resource))
    problems = list(resource.validate(model, before))
    problems += _owner_problems(model.metadata, old)
    if problems:
        raise invalid(subject, problems[:CAUSES_MAX])
    metadata = {k: v for k, v in body["metadata"].items() if k in _KEPT and v is not None}
    if body["metadata"].get("ownerReferences"):
        metadata["ownerReferences"] = [o.dump() for o in model.metadata.owner_references]
    admitted = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata}
    return Admitted({**admitted, **_content(model)}, (*warnings, *(f'unknown field "{path}"' for path in dropped)))


def admit_status(resource: Shown, body: Body) -> Body:
    """The status of a body, read by the kind's schema. Raises Invalid by field."""
    subject = resource.subject(str(body["metadata"].get("name") or ""))
    said = body.get("status", {})
    causes = list(islice(opaque_text(said, "status"), CAUSES_MAX))
    if causes:
        raise invalid(subject, causes)
    annotation: Any = resource.model.model_fields["status"].annotation
    try:
        status: ApiModel = TypeAdapter(annotation).validate_python(said)
    except ValidationError as error:
        errors = _errors(error, subject=subject)
        raise invalid(subject, _causes(errors, {"status": said}, prefix=("status",))) from error
    return {**body, "status": status.dump()}


def _content(model: Any) -> Body:
    """What a body has beside head, metadata and status."""
    if "spec" in type(model).model_fields:
        return {"spec": model.spec.dump()}
    return {part: value for part, value in model.dump().items() if part not in _HEAD}


def _loaded(old: Body, resource: Shown) -> Body:
    known = {"metadata", *(field.alias or name for name, field in resource.model.model_fields.items())}
    return {part: value for part, value in old.items() if part in known}


def _shaped(resource: Shown, said: Body, *, subject: Subject, validation: FieldValidation) -> tuple[Any, list[str]]:
    """The model of a body, and the paths of unknown fields that were left out of it."""
    model = resource.model
    try:
        return model.model_validate(said), []
    except ValidationError as error:
        found = error
    errors = _errors(found, subject=subject)
    unknown = [e["loc"] for e in errors if e["type"] == "extra_forbidden"]
    if not unknown:
        raise invalid(subject, _causes(errors, said))
    paths = sorted(_path(said, loc) for loc in unknown)[:CAUSES_MAX]
    if validation == "Strict":
        raise Malformed("strict decoding error: " + ", ".join(f'unknown field "{path}"' for path in paths))
    for loc in unknown:
        _prune(said, loc)
    try:
        return model.model_validate(said), paths if validation == "Warn" else []
    except ValidationError as error:
        raise invalid(subject, _causes(_errors(error, subject=subject), said)) from error


def _prune(said: Body, loc: Sequence[int | str]) -> None:
    at: Any = said
    for part in loc[:-1]:
        inside = (isinstance(at, Mapping) and part in at) or (isinstance(at, list) and isinstance(part, int))
        at = at[part] if inside else at
    if isinstance(at, dict):
        at.pop(str(loc[-1]), None)


def _errors(error: ValidationError, *, subject: Subject) -> list[ErrorDetails]:
    """What is wrong. Raises Invalid where that is more than anybody can be told."""
    if error.error_count() > ERRORS_MAX:
        words = f"Too many: {error.error_count()}: fields that are unknown or wrong; at most {ERRORS_MAX} are looked at"
        raise invalid(subject, [Cause("", words, "FieldValueTooMany")])
    return error.errors(include_url=False)


def _causes(errors: Sequence[ErrorDetails], said: Body, *, prefix: tuple[str, ...] = ()) -> list[Cause]:
    return [_cause(one, said, loc=(*prefix, *one["loc"])) for one in errors[:CAUSES_MAX]]


def _cause(one: ErrorDetails, said: Body, *, loc: Sequence[int | str]) -> Cause:
    path = _path(said, loc)
    if one["type"] == "missing":
        return Cause(path, "Required value", "FieldValueRequired")
    words = one["msg"].removeprefix("Value error, ")
    if one["type"] in ("literal_error", "enum"):
        expected = one.get("ctx", {}).get("expected", "").replace("'", '"').replace(" or ", ", ")
        return Cause(
            path, f"Unsupported value: {show(one['input'])}: supported values: {expected}", "FieldValueNotSupported"
        )
    value = one["input"]
    shown = f'"{type(value).__name__}"' if isinstance(value, dict | list) else show(value)
    return Cause(path, f"Invalid value: {shown}: {words[:1].lower()}{words[1:]}")


def _path(said: Body, loc: Sequence[int | str]) -> str:
    """``("spec", "disk", "SizedDisk", "size")`` → ``spec.disk.size``: a location also names branches of unions."""
    parts: list[int | str] = []
    at: Any = said
    for index, part in enumerate(loc):
        last = index == len(loc) - 1
        if isinstance(part, int):
            parts.append(part)
            at = at[part] if isinstance(at, list) and part < len(at) else {}
        elif (isinstance(at, Mapping) and part in at) or last:
            parts.append(part)
            at = at.get(part, {}) if isinstance(at, Mapping) else {}
    return field_path(parts)


def toleration_causes(body: Body, old: Body | None, *, tenant: str, bearable: frozenset[str]) -> list[Cause]:
    """The tolerations that a write says anew and that are not the tenant's to have; ``*`` is whatever it may have."""
    if not (said := body.get("spec", {}).get("tolerations")):
        return []
    kept = {one["key"] for one in (old or {}).get("spec", {}).get("tolerations", ())} | bearable | {"*"}
    may = f"may tolerate {', '.join(sorted(bearable))}" if bearable else "may tolerate no taint"
    words = f"{tenant} {may}; an administrator lets it by spec.tolerations of its Tenant"
    return [
        Cause(f"spec.tolerations[{index}].key", f"Forbidden: {show(one['key'])}: {words}", "FieldValueForbidden")
        for index, one in enumerate(said)
        if one["key"] not in kept
    ]


def priority_causes(body: Body, old: Body | None, *, tenant: str, most: int) -> list[Cause]:
    """A priority that a write says anew and that is more than the tenant's to have."""
    said, before = (some.get("spec", {}).get("priority", 0) for some in (body, old or {}))
    if not isinstance(said, int) or said <= most or said == before:
        return []
    words = f"Forbidden: {said}: {tenant} may go up to {most}"
    return [Cause("spec.priority", words, "FieldValueForbidden")]


def _owners_once(metadata: Body) -> tuple[str, ...]:
    """Take out owners that stand there a second time, by uid, as Kubernetes does; what to warn of."""
    seen: set[str] = set()
    once, twice = [], []
    for owner in metadata.get("ownerReferences") or ():
        uid = owner.get("uid") if isinstance(owner, dict) else None
        if isinstance(uid, str) and uid in seen:
            twice.append(plain(uid, 80))
            continue
        if isinstance(uid, str):
            seen.add(uid)
        once.append(owner)
    if not twice:
        return ()
    metadata["ownerReferences"] = once
    return (f"metadata.ownerReferences contains duplicate entries; duplicate UID(s) observed: {', '.join(twice)}",)


def _owner_problems(metadata: Metadata, old: Body | None) -> list[Cause]:
    """Who has several controllers, or goes with itself."""
    field, owners = "metadata.ownerReferences", metadata.owner_references
    controllers = [f"{owner.kind}/{owner.name}" for owner in owners if owner.controller]
    causes = []
    if len(controllers) > 1:
        words = "Only one reference can have Controller set to true. Found"
        causes.append(Cause(field, f'Invalid value: {words} "true" in references for {show(", ".join(controllers))}'))
    mine = old["metadata"]["uid"] if old is not None else ""
    if mine and any(owner.uid == mine for owner in owners):
        causes.append(Cause(field, f"Invalid value: {show(mine)}: an object cannot own itself"))
    return causes


def check_references(body: Body, old: Body | None) -> list[dict[str, Any]]:
    """The owners that a write names anew, or which are to wait for the object from now on."""
    stood = (old or {}).get("metadata", {}).get("ownerReferences", ())
    before = {(o.get("uid"), blocks) for o in stood for blocks in {False, bool(o.get("blockOwnerDeletion"))}}
    owners = body["metadata"].get("ownerReferences", ())
    return [o for o in owners if (o["uid"], bool(o.get("blockOwnerDeletion"))) not in before]


def refuse_owner(subject: Subject, owner: Mapping[str, Any]) -> Invalid:
    """An owner that is not there, or is not the asker's to know."""
    words = f"Invalid value: {show(owner['name'])}: {owner['kind']} not found"
    return invalid(subject, [Cause("metadata.ownerReferences", words)])
