"""Lists: stored bytes joined and streamed in parts, so that a neighbour's request waits for a part and not for a list.

All items of a list are of one revision, also when it is continued: the token names the store's snapshot. A selector of
more than equal labels is applied here, so that a page may hold fewer than ``limit``, as Kubernetes allows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson
from starlette.responses import Response

from bessemer.api import credentials, keeping, table
from bessemer.api.access import Target
from bessemer.api.errors import FutureRevision
from bessemer.api.media import Wanted, wanted
from bessemer.api.packing import streamed
from bessemer.api.query import ListOptions, list_options
from bessemer.api.selectors import FieldTerm, LabelSelector, parse_fields, parse_labels
from bessemer.api.shown import page_of, part_of
from bessemer.api.state import Call, asker
from bessemer.api.watches import watch
from bessemer.core.errors import Expired
from bessemer.core.ports import Asker, Page, Scope, Stored
from bessemer.core.resource import Verb

PART = 64
"""Items between two chances for others to run."""

Write = Callable[[Stored], bytes]


@dataclass(frozen=True, slots=True)
class Selection:
    """What a list or a watch shows: the scope that the port filters by, and the rest, which is filtered here."""

    scope: Scope
    labels: LabelSelector
    fields: tuple[FieldTerm, ...]

    @property
    def plain(self) -> bool:
        """Whether the scope says it all."""
        return not self.labels.requirements and not self.fields

    def shows(self, body: Mapping[str, Any]) -> bool:
        """Whether an object in scope is selected."""
        return self.labels.matches(body["metadata"].get("labels") or {}) and all(f.holds(body) for f in self.fields)


def select(call: Call, options: ListOptions, *, verb: Verb = "list") -> Selection:
    """From who asks, what for, the path, and the selectors. Raises Malformed, Forbidden, NotFound."""
    target = call.about
    scope = call.state.access.scope(call.who, verb, on=target)
    scope = credentials.narrowed(call, call.who, scope=scope)
    labels = parse_labels(options.labels)
    equal = labels.equalities()
    # Labels that bound who asks stay; whoever asks for others is shown nothing.
    if equal and all(scope.labels.get(key, value) == value for key, value in equal.items()):
        scope, labels = replace(scope, labels={**scope.labels, **equal}), LabelSelector()
    rest = []
    for term in parse_fields(options.fields, target.resource.fields):
        narrowed = None if term.negated else _narrowed(scope, term, target=target)
        if narrowed is None:
            rest.append(term)
        else:
            scope = narrowed
    return Selection(scope, labels, tuple(rest))


def _narrowed(scope: Scope, term: FieldTerm, *, target: Target) -> Scope | None:
    """The scope with a field in it, where the port knows that field and it does not say something else already."""
    if term.path == "metadata.name" and scope.name in (None, term.value):
        return replace(scope, name=term.value)
    if term.path == "metadata.namespace" and target.resource.namespaced and scope.namespace in (None, term.value):
        return replace(scope, namespace=term.value)
    if term.path == "spec.host" and scope.host in (None, term.value):
        return replace(scope, host=term.value)
    return None


async def list_or_watch(call: Call) -> Response:
    """GET of a collection."""
    options = list_options(call.query)
    wants = wanted(call.request.headers.get("accept", ""))
    selection = select(call, options, verb="watch" if options.watch else "list")
    if options.watch:
        return watch(call, selection, options=options, wants=wants)
    limit = page_of(call.about.resource, options.limit)
    who = asker(call, selection.scope)
    page = await call.state.ports.objects.list(selection.scope, limit=limit, after=options.after, asker=who)
    if options.revision is not None and options.revision > page.revision:
        raise FutureRevision(options.revision, page.revision)
    if options.exact and options.revision != page.revision:
        raise Expired("The resourceVersion for the provided list is too old.")
    items = _parts(call, selection, options=options, page=page, who=who)
    parts = _stream(call, selection, options=options, wants=wants, page=page, items=items)
    return await streamed(call.request, parts, secret=call.about.resource.kind == "Secret")


async def _stream(
    call: Call,
    selection: Selection,
    *,
    options: ListOptions,
    wants: Wanted,
    page: Page,
    items: AsyncIterator[Sequence[Stored]],
) -> AsyncIterator[bytes]:
    meta: dict[str, Any] = {"resourceVersion": str(page.revision)}
    if page.next and options.limit:
        meta["continue"] = page.next
        if page.remaining and not (options.labels or options.fields):
            meta["remainingItemCount"] = page.remaining
    start, write = shape(call, options, wants=wants, meta=meta)
    whole = wants.shape == "object" or options.include == "Object"
    yield start
    first = True
    async for some in items:
        part = selected(selection, await keeping.shown(call, some, whole=whole))
        written = b",".join(write(item) for item in part)
        if written:
            yield written if first else b"," + written
            first = False
        await asyncio.sleep(0)
    yield b"]}"


async def _parts(
    call: Call, selection: Selection, *, options: ListOptions, page: Page, who: Asker
) -> AsyncIterator[Sequence[Stored]]:
    """The items of a page in parts. What is as large as files comes a few at a time: then a list of all goes on to the
    pages that follow, which are of the same revision, as it is written."""
    part = part_of(call.about.resource, PART)
    while True:
        for index in range(0, len(page.items), part):
            yield page.items[index : index + part]
        if options.limit or not page.next:
            return
        limit = page_of(call.about.resource, 0)
        page = await call.state.ports.objects.list(selection.scope, limit=limit, after=page.next, asker=who)


def selected(selection: Selection, items: Sequence[Stored]) -> Sequence[Stored]:
    """Those that it shows of what its scope has."""
    if selection.plain:
        return items
    return [item for item in items if selection.shows(orjson.loads(item.body))]


def shape(call: Call, options: ListOptions, *, wants: Wanted, meta: dict[str, Any]) -> tuple[bytes, Write]:
    """What a list begins with, and how one item is written; ``]}`` ends it."""
    resource = call.about.resource
    now = call.state.context.clock.now()
    if wants.shape == "table":
        start = table.table_start(resource, meta)
        return start, lambda item: table.row(resource, orjson.loads(item.body), include=options.include, now=now)
    if wants.shape == "partial":
        head = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": meta}
        return _open(head), lambda item: orjson.dumps(table.partial(orjson.loads(item.body)))
    head = {"apiVersion": resource.api_version, "kind": f"{resource.kind}List", "metadata": meta}
    return _open(head), lambda item: item.body


def _open(head: Mapping[str, Any]) -> bytes:
    return orjson.dumps(head)[:-1] + b',"items":['
