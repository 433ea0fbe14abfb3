"""Bodies as dictionaries: how one is made, merged and written as the JSON that is served. Pure.

Invariants: identity (uid, name, namespace, creationTimestamp) is the store's; ``resourceVersion`` equals the revision
of the write that made the body; ``generation`` moves with the spec, and once when deletion begins. Rights are not
decided here: see `rules`.
"""

from __future__ import annotations

import re
import secrets
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from pydantic import ValidationError

from bessemer.core.clock import rfc3339
from bessemer.core.errors import Cause, Conflict, Invalid, Malformed, TooLarge
from bessemer.core.resource import Key, Metadata
from bessemer.store.kinds import StoreKind

Document = dict[str, Any]

BODY_BYTES_MAX = 3 << 20
ENDING_BYTES = 4 << 10
"""By which a body may pass that while it is being deleted: what says so was put into it by us."""

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"
_KEPT = ("annotations", "labels", "ownerReferences", "finalizers")
"""What a writer of the main part says anew each time: what is absent goes."""

_MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"
"""Word for word as Kubernetes says it: clients look for it."""

_NO_FINALIZER = "no new finalizers can be added if the object is being deleted, found new finalizers"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError


def encode(document: Mapping[str, Any], *, most: float = BODY_BYTES_MAX) -> bytes:
    """JSON. Raises Malformed for what is no JSON (or is nested too deep), TooLarge past so many bytes."""
    try:
        body = orjson.dumps(document, default=_plain)
    except orjson.JSONEncodeError as error:
        raise Malformed("the object cannot be written as JSON", internal=str(error)) from error
    if len(body) > most:
        raise TooLarge(f"the object has {len(body)} bytes; at most {BODY_BYTES_MAX} are kept")
    return body


def decode(body: bytes) -> Document:
    """The inverse of `encode`."""
    document: Document = orjson.loads(body)
    return document


def settled(body: Mapping[str, Any]) -> Document:
    """A copy of ``body`` that nobody else holds, with metadata that has the right shape. Raises Invalid, Malformed."""
    return shaped(decode(encode(body, most=BODY_BYTES_MAX + ENDING_BYTES)))


def shaped(document: Document) -> Document:
    """A document that nobody else holds, with metadata that has the right shape. Raises Invalid."""
    metadata = document.setdefault("metadata", {})
    try:
        Metadata.model_validate(metadata)
    except ValidationError as error:
        causes = [
            Cause(".".join(["metadata", *map(str, one["loc"])]), one["msg"]) for one in error.errors(include_url=False)
        ]
        raise Invalid("the metadata is not valid", causes) from error
    for field in ("spec", "status"):
        if not isinstance(document.get(field, {}), dict):
            raise Invalid(f"{field} is not an object", [Cause(field, "must be an object")])
    return document


def key_of(document: Document, kinds: Mapping[str, StoreKind]) -> Key:
    """Which object the body is about. Raises Invalid where kind, name or namespace cannot be."""
    kind, metadata = document.get("kind"), document["metadata"]
    facts = kinds.get(kind) if isinstance(kind, str) else None
    if facts is None:
        raise Invalid("there is no such kind", [Cause("kind", f"unknown: {str(kind)[:63]!r}")])
    if not metadata.get("name") and metadata.get("generateName"):
        metadata["name"] = metadata["generateName"] + "".join(secrets.choice(_SUFFIX) for _ in range(5))
    name, namespace = metadata.get("name") or "", metadata.get("namespace") or ""
    causes = []
    if not _NAME.fullmatch(name):
        causes.append(Cause("metadata.name", "must be lower-case letters, digits, - and ., at most 253"))
    if facts.namespaced and not _NAME.fullmatch(namespace):
        causes.append(Cause("metadata.namespace", "must name a project"))
    if not facts.namespaced and namespace:
        causes.append(Cause("metadata.namespace", f"a {kind} belongs to no project"))
    if causes:
        raise Invalid(f"the {kind} cannot have this name", causes)
    return Key(str(kind), namespace, name)


def fresh(document: Document, key: Key, *, facts: StoreKind, now: float) -> Document:
    """A new object's body out of what its writer said. It has no status yet."""
    said = document["metadata"]
    finalizers = list(dict.fromkeys([*said.get("finalizers", ()), *([facts.finalizer] if facts.finalizer else ())]))
    metadata: Document = {"name": key.name}
    if said.get("generateName"):
        metadata["generateName"] = said["generateName"]
    if key.namespace:
        metadata["namespace"] = key.namespace
    metadata |= {
        "uid": str(uuid.uuid4()),
        "resourceVersion": "",
        "generation": 1,
        "creationTimestamp": rfc3339(now),
    }
    metadata |= {field: said[field] for field in ("labels", "annotations", "ownerReferences") if said.get(field)}
    if finalizers:
        metadata["finalizers"] = finalizers
    if said.get("managedFields"):
        metadata["managedFields"] = said["managedFields"]
    head = {"apiVersion": document.get("apiVersion") or facts.api_version, "kind": key.kind, "metadata": metadata}
    return {**head, **_wanted(document, facts.parts)}


def _wanted(said: Document, parts: Sequence[str]) -> Document:
    """What a writer of the main part says; whoever has a spec always has one."""
    return {part: said.get(part, {}) for part in parts if part in said or part == "spec"}


def check(said: Mapping[str, Any], uid: str, *, revision: int, key: Key) -> None:
    """Preconditions in a body's metadata. Raises Conflict."""
    if said.get("uid") and said["uid"] != uid:
        raise Conflict(f"{key} is another object now: its uid is {uid}")
    if said.get("resourceVersion") and said["resourceVersion"] != str(revision):
        raise Conflict(_MODIFIED)


def merged_main(
    old: Document, said: Document, *, parts: Sequence[str] = ("spec",), keep_finalizer: str = ""
) -> Document:
    """``old`` with the metadata and the parts of ``said``. ``keep_finalizer`` stays where it stands.

    Raises Invalid where a finalizer would be added to what is being deleted.
    """
    metadata = dict(old["metadata"])
    for field in _KEPT:
        if said["metadata"].get(field):
            metadata[field] = said["metadata"][field]
        else:
            metadata.pop(field, None)
    _own(metadata, said)
    before = old["metadata"].get("finalizers", [])
    after = metadata.get("finalizers", [])
    if keep_finalizer in before and keep_finalizer not in after:
        metadata["finalizers"] = [*after, keep_finalizer]
    added = [name for name in after if name not in before]
    if deleting(old) and added:
        raise Invalid(
            "the object is being deleted",
            [Cause("metadata.finalizers", f"Forbidden: {_NO_FINALIZER} {_go(added)}", "FieldValueForbidden")],
        )
    wanted = _wanted(said, parts)
    if wanted != _wanted(old, parts):
        metadata["generation"] = old["metadata"]["generation"] + 1
    merged = {**old, "metadata": metadata, **wanted}
    return {part: value for part, value in merged.items() if part not in parts or part in wanted}


def _go(texts: Sequence[str]) -> str:
    """Texts as Go prints them: clients know these words."""
    return "[]string{" + ", ".join(f'"{text}"' for text in texts) + "}"


def merged_status(old: Document, said: Document, *, keep: Sequence[str] = ()) -> Document:
    """``old`` with the status of ``said``; the fields in ``keep`` stay as they are."""
    status = {field: value for field, value in said.get("status", {}).items() if field not in keep}
    status |= {field: old["status"][field] for field in keep if field in old.get("status", {})}
    return _with_status(old, status, said=said)


def merged_field(old: Document, said: Document, *, field: str) -> Document:
    """``old`` with one field of the status of ``said``."""
    status = dict(old.get("status", {}))
    if field in said.get("status", {}):
        status[field] = said["status"][field]
    return _with_status(old, status, said=said)


def _with_status(old: Document, status: Document, *, said: Document) -> Document:
    new = {**old, "status": status} if status != old.get("status", {}) else old
    if "managedFields" in said["metadata"]:
        new = {**new, "metadata": dict(new["metadata"])}
        _own(new["metadata"], said)
    return new


def _own(metadata: Document, said: Document) -> None:
    """Who set which field: what is said of it, where that is said. None is kept as nothing."""
    if said["metadata"].get("managedFields"):
        metadata["managedFields"] = said["metadata"]["managedFields"]
    elif "managedFields" in said["metadata"]:
        metadata.pop("managedFields", None)


def doomed(old: Document, *, now: float) -> Document:
    """``old`` with its deletion begun."""
    metadata = {
        **old["metadata"],
        "generation": old["metadata"]["generation"] + 1,
        "deletionTimestamp": rfc3339(now),
        "deletionGracePeriodSeconds": 0,
    }
    return {**old, "metadata": metadata}


def deleting(document: Document) -> bool:
    """Whether its deletion has begun."""
    return "deletionTimestamp" in document["metadata"]


def finalizers(document: Document) -> list[str]:
    """Who must let go first."""
    found: list[str] = document["metadata"].get("finalizers", [])
    return found


def labels_of(document: Document) -> str:
    """Labels as the text of their column: "" for none."""
    labels = document["metadata"].get("labels")
    return orjson.dumps(labels).decode() if labels else ""


def read_labels(text: str) -> dict[str, str]:
    """The inverse of `labels_of`."""
    return orjson.loads(text) if text else {}


def host_of(document: Document) -> str:
    """The host that a Claim names; "" for everything else."""
    return str(document["spec"].get("host", "")) if document["kind"] == "Claim" else ""


def owners_of(document: Document) -> list[str]:
    """The uids of those it goes with."""
    return [reference["uid"] for reference in document["metadata"].get("ownerReferences", ())]


def bonds_of(document: Document) -> dict[str, bool]:
    """Those, each with whether it waits for this one where it is deleted in the foreground. For an Event nobody does:
    it outlives what it is about."""
    references = document["metadata"].get("ownerReferences", ())
    return {one["uid"]: one.get("blockOwnerDeletion") is True and document["kind"] != "Event" for one in references}


def without_owner(document: Document, owner: str) -> Document:
    """``document`` as it is once it no longer goes with the owner of that uid."""
    left = [one for one in document["metadata"].get("ownerReferences", ()) if one["uid"] != owner]
    metadata = {field: value for field, value in document["metadata"].items() if field != "ownerReferences"}
    return {**document, "metadata": {**metadata, "ownerReferences": left} if left else metadata}


def with_finalizers(document: Document, names: Sequence[str]) -> Document:
    """``document`` with these alone."""
    metadata = {field: value for field, value in document["metadata"].items() if field != "finalizers"}
    return {**document, "metadata": {**metadata, "finalizers": [*names]} if names else metadata}
