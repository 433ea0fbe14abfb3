"""CustomResourceDefinitions of our kinds: documents in memory, read through the same port as what is stored.

What there is does not change while the process lives, so a watch of them tells nothing but what it begins with; its
revisions are the store's. A release that changes a schema is another process: whoever lists again reads it.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import orjson

from bessemer.api import schema
from bessemer.api.shown import Resources, Shown
from bessemer.core.clock import rfc3339
from bessemer.core.errors import NotFound
from bessemer.core.ports import NOBODY, Asker, Bookmark, Objects, Page, Part, Policy, Scope, Stored, Writer
from bessemer.core.resource import GROUP, Change, Key
from bessemer.kinds.kubernetes.definition import NAME

_NOWHERE = Scope(kind="Host", namespace="", name="")
"""Of which there is nothing: what is asked of it says the revision, and reads nothing."""

_SPACE = uuid.uuid5(uuid.NAMESPACE_DNS, f"definitions.{GROUP}")


class WithDefinitions:
    """Implements `ports.Objects`: what is stored, and the definitions beside it."""

    def __init__(self, objects: Objects, resources: Resources, *, since: float) -> None:
        self._objects = objects
        self._resources = resources
        self._since = rfc3339(since)
        self._made: dict[str, Stored] = {}

    async def get(self, key: Key) -> Stored:
        """Raises NotFound."""
        if key.kind != NAME:
            return await self._objects.get(key)
        found = self._definitions().get(key.name)
        if found is None:
            raise NotFound(f"{key} does not exist")
        return found

    async def list(self, scope: Scope, *, limit: int = 0, after: str = "", asker: Asker = NOBODY) -> Page:
        """All definitions at once: they are a few dozen."""
        if scope.kind != NAME:
            return await self._objects.list(scope, limit=limit, after=after, asker=asker)
        found = [
            stored
            for name, stored in sorted(self._definitions().items())
            if scope.name in (None, name) and (scope.names is None or name in scope.names)
        ]
        return Page([] if scope.labels else found, (await self._objects.list(_NOWHERE)).revision)

    async def watch(
        self,
        scope: Scope,
        *,
        since: int | None = None,
        level: bool = False,
        lagged: Callable[[], None] | None = None,
    ) -> AsyncIterator[Change | Bookmark]:
        """Of definitions nothing changes."""
        if scope.kind == NAME:
            await asyncio.Event().wait()
        async for event in self._objects.watch(scope, since=since, level=level, lagged=lagged):
            yield event

    async def create(
        self,
        body: Mapping[str, Any],
        writer: Writer,
        *,
        dry_run: bool = False,
        sealed: Mapping[str, bytes] | None = None,
    ) -> Stored:
        """As the store does."""
        return await self._objects.create(body, writer, dry_run=dry_run, sealed=sealed)

    async def replace(
        self,
        body: Mapping[str, Any],
        writer: Writer,
        *,
        part: Part = "main",
        dry_run: bool = False,
        sealed: Mapping[str, bytes] | None = None,
    ) -> Stored:
        """As the store does."""
        return await self._objects.replace(body, writer, part=part, dry_run=dry_run, sealed=sealed)

    async def delete(
        self,
        key: Key,
        writer: Writer,
        *,
        uid: str = "",
        revision: str = "",
        dry_run: bool = False,
        policy: Policy | None = None,
    ) -> Stored:
        """As the store does."""
        return await self._objects.delete(key, writer, uid=uid, revision=revision, dry_run=dry_run, policy=policy)

    def _definitions(self) -> Mapping[str, Stored]:
        if not self._made:
            plurals: dict[str, list[Shown]] = {}
            for shown in self._resources.all:
                if shown.group == GROUP:
                    plurals.setdefault(shown.plural, []).append(shown)
            self._made = {f"{plural}.{GROUP}": _stored(versions, self._since) for plural, versions in plurals.items()}
        return self._made


def _stored(versions: Sequence[Shown], since: str) -> Stored:
    body = definition(versions, since)
    metadata = body["metadata"]
    return Stored(Key(NAME, "", metadata["name"]), metadata["uid"], 1, 1, "", orjson.dumps(body))


def definition(versions: Sequence[Shown], since: str) -> dict[str, Any]:
    """The document of one kind, in all its versions, the one that is stored first."""
    first = versions[0]
    name = f"{first.plural}.{first.group}"
    names = {
        "plural": first.plural,
        "singular": first.singular,
        "kind": first.kind,
        "listKind": f"{first.kind}List",
        "shortNames": list(first.short_names),
        "categories": list(first.categories),
    }
    conditions = [
        {"type": kind, "status": "True", "lastTransitionTime": since, "reason": reason, "message": message}
        for kind, reason, message in (
            ("NamesAccepted", "NoConflicts", "no conflicts found"),
            ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        )
    ]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": NAME,
        "metadata": {
            "name": name,
            "uid": str(uuid.uuid5(_SPACE, name)),
            "resourceVersion": "1",
            "generation": 1,
            "creationTimestamp": since,
        },
        "spec": {
            "group": first.group,
            "names": names,
            "scope": "Namespaced" if first.namespaced else "Cluster",
            "versions": [_version(shown, stored=shown is first) for shown in versions],
        },
        "status": {"conditions": conditions, "acceptedNames": names, "storedVersions": [first.version]},
    }


def _version(shown: Shown, *, stored: bool) -> dict[str, Any]:
    whole = schema.of_resource(shown.model, shown.group, version=shown.version, kind=shown.kind)
    # As a CustomResourceDefinition has it: of the metadata no more than that it is an object.
    properties = {**whole["properties"], "metadata": {"type": "object"}}
    said = {name: value for name, value in whole.items() if name != "x-kubernetes-group-version-kind"}
    told = shown.older.deprecated if shown.older else ""
    return {
        "name": shown.version,
        "served": True,
        "storage": stored,
        "schema": {"openAPIV3Schema": {**said, "properties": properties}},
        "subresources": {"status": {}} if shown.has_status else {},
        **({"deprecated": True, "deprecationWarning": told} if told else {}),
    }
