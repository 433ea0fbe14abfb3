"""`Client`: objects over a transport, as `core.ports.Objects` has them, so that kinds run outside the server unchanged.

The writer of a call is whoever the transport's credential says; the ``writer`` argument is for the port's sake.
A watch resumes by itself from its last revision after a lost connection, with backoff and jitter. Only `Expired`, and
refusals that waiting does not cure, reach its reader, who then lists again.
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Literal

import orjson

from bessemer.client.calls import Account, Agents, Audit, Fleet, Projects, SealedValues, Workloads
from bessemer.client.paths import Paths, api_version
from bessemer.client.status import error_of_status
from bessemer.client.transport import SILENCE_SECONDS_MAX, Ask, Transport
from bessemer.core.clock import Clock, SystemClock
from bessemer.core.errors import Malformed, TooMany, Unavailable
from bessemer.core.ports import Bookmark, Page, Part, Policy, Scope, Stored, Writer
from bessemer.core.resource import Change, Key

PatchType = Literal["merge", "json"]
APPLY_PATCH = "application/apply-patch+yaml"
_MEDIA = {"merge": "application/merge-patch+json", "json": "application/json-patch+json"}
_BACKOFF_SECONDS_MAX = 20.0


class Client:
    """Objects by key, and the rest of the api by area: ``account``, ``agents``, ``audit``, ``projects``, ``sealed``,
    ``workloads``."""

    def __init__(self, transport: Transport, *, plurals: Mapping[str, str] | None, clock: Clock | None = None) -> None:
        self.transport = transport
        self.paths = Paths(plurals)
        self.account = Account(transport, self.paths)
        self.agents = Agents(transport, self.paths)
        self.audit = Audit(transport, self.paths)
        self.projects = Projects(transport, self.paths)
        self.fleet = Fleet(transport, self.paths)
        self.sealed = SealedValues(transport, self.paths)
        self.workloads = Workloads(transport, self.paths)
        self._clock = clock or SystemClock()

    async def get(self, key: Key, *, version: str = "") -> Stored:
        """In the newest version, or in that of a body (its apiVersion). Raises NotFound."""
        return stored(await self.transport.request(Ask(method="GET", path=self.paths.of(key, version=version))))

    async def list(self, scope: Scope, *, limit: int = 0, after: str = "") -> Page:
        """In order of namespace and name; ``after`` is the ``next`` of the page before. Raises Expired."""
        query = _query(scope)
        if limit:
            query["limit"] = str(limit)
        if after:
            query["continue"] = after
        path = self.paths.collection(scope.kind, scope.namespace)
        answer = orjson.loads(await self.transport.request(Ask(method="GET", path=path, query=query)))
        meta = answer["metadata"]
        items = [item for item in map(_stored, answer["items"]) if _within(item, scope)]
        return Page(
            items, int(meta["resourceVersion"]), meta.get("continue") or "", meta.get("remainingItemCount") or 0
        )

    async def create(
        self,
        body: Mapping[str, Any],
        writer: Writer | None = None,
        *,
        dry_run: bool = False,
        sealed: Mapping[str, bytes] | None = None,
    ) -> Stored:
        """Raises AlreadyExists, Invalid, Forbidden, QuotaExceeded."""
        _require_open(sealed)
        key = _key(body)
        path = self.paths.collection(key.kind, key.namespace or None, version=_version(body))
        return await self._write("POST", path, body=body, dry_run=dry_run)

    async def replace(
        self,
        body: Mapping[str, Any],
        writer: Writer | None = None,
        *,
        part: Part = "main",
        dry_run: bool = False,
        sealed: Mapping[str, bytes] | None = None,
    ) -> Stored:
        """Replace one part. Without a ``metadata.resourceVersion``, whatever stands there now is replaced.
        Raises NotFound, Conflict, Invalid."""
        _require_open(sealed)
        key = _key(body)
        path = self.paths.of(key, "" if part == "main" else "status", version=_version(body))
        metadata = body.get("metadata", {})
        if part == "main" and not metadata.get("resourceVersion"):
            now = await self.get(key)
            body = {**body, "metadata": {**metadata, "resourceVersion": str(now.revision)}}
        return await self._write("PUT", path, body=body, dry_run=dry_run)

    async def patch(
        self,
        key: Key,
        patch: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        kind: PatchType = "merge",
        part: Part = "main",
        dry_run: bool = False,
    ) -> Stored:
        """Merge patch (a mapping) or JSON patch (a sequence of operations). Raises NotFound, Conflict, Invalid."""
        path = self.paths.of(key, "" if part == "main" else "status")
        return await self._write("PATCH", path, body=patch, dry_run=dry_run, media=_MEDIA[kind])

    async def apply(
        self, body: Mapping[str, Any], *, manager: str, force: bool = False, dry_run: bool = False
    ) -> Stored:
        """Server-side apply: what ``manager`` says of an object, in the version of the body; what is not there is made.
        Raises Conflict for another's fields unless ``force``, and what a create or a replacement raises."""
        query = {"fieldManager": manager, "fieldValidation": "Strict"}
        query |= {"force": "true"} if force else {}
        query |= {"dryRun": "All"} if dry_run else {}
        path, raw = self.paths.of(_key(body), version=_version(body)), orjson.dumps(body)
        ask = Ask(method="PATCH", path=path, query=query, body=raw, content_type=APPLY_PATCH)
        return stored(await self.transport.request(ask))

    async def delete(
        self,
        key: Key,
        writer: Writer | None = None,
        *,
        uid: str = "",
        revision: str = "",
        dry_run: bool = False,
        policy: Policy | None = "Background",
    ) -> Stored:
        """Delete, or ask for it where finalizers stand; the object as it was. Raises NotFound, Conflict."""
        last = await self.get(key)
        if last.key.name != key.name:
            raise Malformed(f"the server told of {last.key} where {key} was asked for: nothing is deleted")
        options: dict[str, Any] = {"propagationPolicy": policy} if policy else {}
        if uid or revision:
            said = {"uid": uid, "resourceVersion": revision}
            options["preconditions"] = {name: value for name, value in said.items() if value}
        if dry_run:
            options["dryRun"] = ["All"]
        path = self.paths.of(key)
        answer = await self.transport.request(Ask(method="DELETE", path=path, body=orjson.dumps(options)))
        return last if orjson.loads(answer).get("kind") == "Status" else stored(answer)

    async def watch(self, scope: Scope, *, since: int | None = None) -> AsyncGenerator[Change | Bookmark, None]:
        """Every change after ``since``, for ever; with None first an ADDED for each object and a Bookmark.
        Whoever stops reading closes it (``aclosing``), and with it the connection.
        Raises Expired, Unauthenticated, Forbidden, NotFound."""
        if since is None:
            after, since = "", 0
            while True:
                page = await self.list(scope, limit=500, after=after)
                since, after = page.revision, page.next
                for item in page.items:
                    yield Change(item.revision, "ADDED", item.key, item.uid, item.host, item.body)
                if not after:
                    break
            yield Bookmark(since)
        failures = 0
        while True:
            events = self._watch_once(scope, since)
            try:
                async for event in events:
                    failures = 0
                    since = max(since, event.revision)
                    yield event
            except (Unavailable, TooMany):
                failures += 1
            finally:
                await events.aclose()
            pause = min(_BACKOFF_SECONDS_MAX, 0.1 * 2 ** min(failures, 10))
            await self._clock.sleep(pause * random.uniform(0.5, 1.0))

    async def close(self) -> None:
        """Close the pooled connections."""
        await self.transport.close()

    async def _watch_once(self, scope: Scope, since: int) -> AsyncGenerator[Change | Bookmark, None]:
        query = {**_query(scope), "watch": "true", "allowWatchBookmarks": "true", "resourceVersion": str(since)}
        ask = Ask(method="GET", path=self.paths.collection(scope.kind, scope.namespace), query=query)
        stream = self.transport.stream(ask, silence=SILENCE_SECONDS_MAX)
        async with stream as parts, aclosing(lines(parts)) as whole:
            async for line in whole:
                event = _event(line)
                if isinstance(event, Bookmark) or _within(event, scope):
                    yield event

    async def _write(
        self, method: str, path: str, *, body: Any, dry_run: bool, media: str = "application/json"
    ) -> Stored:
        query = {"dryRun": "All"} if dry_run else {}
        ask = Ask(method=method, path=path, query=query, body=orjson.dumps(body), content_type=media)
        return stored(await self.transport.request(ask))


def _require_open(sealed: Mapping[str, bytes] | None) -> None:
    """Over HTTPS the server seals: what is secret stands in the body. Raises Malformed."""
    if sealed is not None:
        raise Malformed("sealed values are written where the store is")


def an_object(key: Key, spec: Mapping[str, Any]) -> dict[str, Any]:
    """A body as a YAML file would hold it, to be created."""
    metadata = {"name": key.name, **({"namespace": key.namespace} if key.namespace else {})}
    return {"apiVersion": api_version(key.kind), "kind": key.kind, "metadata": metadata, "spec": dict(spec)}


def stored(body: bytes) -> Stored:
    """An object's JSON as a `Stored`."""
    return _stored(orjson.loads(body), body)


def _stored(value: Mapping[str, Any], body: bytes | None = None) -> Stored:
    meta = value.get("metadata", {})
    return Stored(
        _key(value),
        meta.get("uid", ""),
        int(meta.get("resourceVersion") or 0),
        meta.get("generation", 0),
        _host(value),
        orjson.dumps(value) if body is None else body,
    )


def _key(value: Mapping[str, Any]) -> Key:
    meta = value.get("metadata", {})
    return Key(value.get("kind", ""), meta.get("namespace") or "", meta.get("name", ""))


def _version(body: Mapping[str, Any]) -> str:
    return str(body.get("apiVersion") or "")


def _host(value: Mapping[str, Any]) -> str:
    return str(value.get("spec", {}).get("host", "")) if value.get("kind") == "Claim" else ""


def _event(line: bytes) -> Change | Bookmark:
    event = orjson.loads(line)
    kind, value = event["type"], event["object"]
    if kind == "ERROR":
        raise error_of_status(int(value.get("code", 500)), value)
    revision = int(value["metadata"]["resourceVersion"])
    if kind == "BOOKMARK":
        return Bookmark(revision)
    item = _stored(value)
    return Change(revision, kind, item.key, item.uid, item.host, item.body)


def _query(scope: Scope) -> dict[str, str]:
    fields = []
    if scope.name is not None:
        fields.append(f"metadata.name={scope.name}")
    if scope.host is not None:
        fields.append(f"spec.host={scope.host}")
    query = {}
    if fields:
        query["fieldSelector"] = ",".join(fields)
    if scope.labels:
        query["labelSelector"] = ",".join(f"{k}={v}" for k, v in sorted(scope.labels.items()))
    return query


def _within(item: Stored | Change, scope: Scope) -> bool:
    if scope.namespaces is not None and item.key.namespace not in scope.namespaces:
        return False
    seen = scope.names if scope.places is None else scope.places.get(item.key.namespace, frozenset())
    if seen is not None and item.key.name not in seen:
        return False
    return scope.names is None or item.key.name in scope.names


async def lines(parts: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Whole lines of a stream of parts; what a broken stream left behind is dropped. Raises Malformed past 16 MiB."""
    rest = bytearray()
    async for part in parts:
        rest += part
        if b"\n" not in part:
            if len(rest) > 16 << 20:
                raise Malformed("the server sent a line without an end")
            continue
        *whole, tail = bytes(rest).split(b"\n")
        rest = bytearray(tail)
        for line in whole:
            if line:
                yield line
