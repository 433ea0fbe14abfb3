"""Reading, watching and awaiting objects, for the commands of `cli.objects`."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import typer

from bessemer.cli import render
from bessemer.cli.output import DOCUMENTS, document, listed, shown
from bessemer.client import Client
from bessemer.core.errors import Expired, Invalid, NotFound
from bessemer.core.ports import Bookmark, Scope
from bessemer.core.resource import Change, Key, Kind
from bessemer.core.tasks import first_error

AnyKind = Kind[Any, Any]

SPARE = ("READY", "GUESTS", "CORES", "MEMORY", "WORKLOAD")
"""Columns that a table does without where the terminal is narrow: others say nearly as much. ``-o wide`` keeps them."""

UNOWNED = "default"
"""Where the events stand of what belongs to no project."""


def scope_of(kind: AnyKind, project: str, *, selector: str = "", names: Collection[str] = ()) -> Scope:
    """The objects of a kind, or some of them, of one project where it has projects. Raises Invalid for a selector of
    another form."""
    pairs = [part.partition("=") for part in selector.split(",") if part]
    if any(not separator for _, separator, _ in pairs):
        raise Invalid("write labels as key=value, joined by commas")
    labels = {key.strip(): value.lstrip("=").strip() for key, _, value in pairs}
    return Scope(
        kind=kind.name,
        namespace=(project or None) if kind.namespaced else None,
        name=next(iter(names))
        if len(names) == 1
        else None,  # one alone can be asked for; of more we keep what is meant
        names=frozenset(names) or None,
        labels=labels,
    )


async def read(client: Client, keys: Sequence[Key]) -> list[dict[str, Any]]:
    """The bodies of some objects. Raises NotFound."""
    return [orjson.loads((await client.get(key)).body) for key in keys]


async def list_all(client: Client, scope: Scope) -> list[dict[str, Any]]:
    """The bodies of all objects of a scope."""
    return [orjson.loads(stored.body) for stored in (await client.list(scope)).items]


async def list_known(client: Client, scope: Scope) -> list[dict[str, Any]]:
    """As `list_all`. Raises NotFound, with the nearest name that one sees, where the project itself is not there."""
    found = await list_all(client, scope)
    if found or scope.namespace in (None, UNOWNED):
        return found
    try:
        await client.get(Key("Project", "", scope.namespace))
    except NotFound as error:
        seen = [stored.key.name for stored in (await client.list(Scope(kind="Project"))).items]
        near = difflib.get_close_matches(scope.namespace, seen, 1)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise NotFound(f"there is no project {scope.namespace}{meant}") from error
    return found


def nothing(what: str, project: str | None) -> str:
    """What stands on stderr where there is nothing to show; standard output stays empty for whoever reads it."""
    return f"No {what} found in {project}." if project else f"No {what} found."


def show(kind: AnyKind, bodies: Sequence[dict[str, Any]], *, output: str, scope: Scope, managed: bool = False) -> None:
    """Print bodies as table, wide, json, yaml or name. A document is the object where one was named, else a List;
    ``managed`` with who set which field."""
    if output == "name":
        for body in bodies:
            typer.echo(_name(kind, body))
    elif output not in DOCUMENTS and not bodies:
        typer.echo(nothing(kind.plural, scope.namespace), err=True)
    else:
        told = [_document(body, managed=managed) for body in bodies]
        whole = told[0] if scope.name is not None else listed(told)
        rows = _Rows.of(kind, scope, output=output)
        typer.echo(shown(whole, output, text=lambda within: rows.table(bodies, within=within)))


@dataclass(frozen=True, slots=True)
class Asked:
    """Objects of a kind: some by ``keys``, or those of the scope."""

    kind: AnyKind
    keys: Sequence[Key]
    scope: Scope


async def read_several(client: Client, asked: Sequence[Asked]) -> list[list[dict[str, Any]]]:
    """The bodies of each. Raises NotFound."""
    return [await read(client, one.keys) if one.keys else await list_known(client, one.scope) for one in asked]


def show_several(
    asked: Sequence[Asked], found: Sequence[Sequence[dict[str, Any]]], *, output: str, managed: bool
) -> None:
    """Print bodies of several kinds, as kubectl does: a document is one List of all; a table is one for each kind of
    which there is something, with names that say the kind."""
    parts = [(one, bodies) for one, bodies in zip(asked, found, strict=True) if bodies]
    if output in DOCUMENTS:
        told = [_document(body, managed=managed) for _, bodies in parts for body in bodies]
        typer.echo(document(listed(told), output))
    elif not parts:
        place = next((one.scope.namespace for one in asked if one.scope.namespace), None)
        typer.echo(nothing(", ".join(one.kind.plural for one in asked), place), err=True)
    for number, (one, bodies) in enumerate(parts if output not in DOCUMENTS else ()):
        if output == "name":
            show(one.kind, bodies, output=output, scope=one.scope)
            continue
        named = [{**body, "metadata": {**body["metadata"], "name": _name(one.kind, body)}} for body in bodies]
        typer.echo("\n" * bool(number), nl=False)
        show(one.kind, named, output=output, scope=one.scope)


def _document(body: dict[str, Any], *, managed: bool) -> dict[str, Any]:
    """A body as people read it: who set which field is longer than all else."""
    return body if managed else without(body, "managedFields")


def without(body: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """A body without these fields of its metadata."""
    return {**body, "metadata": {name: value for name, value in body["metadata"].items() if name not in names}}


def _name(kind: AnyKind, body: Mapping[str, Any]) -> str:
    return f"{kind.singular}/{body['metadata']['name']}"


@dataclass(slots=True)
class _Rows:
    """Objects of a kind as rows. Where they come one by one, columns grow with what they hold and never shrink."""

    kind: AnyKind
    wide: bool
    namespace: bool
    widths: list[int]

    @classmethod
    def of(cls, kind: AnyKind, scope: Scope, *, output: str) -> _Rows:
        return cls(kind, output == "wide", kind.namespaced and scope.namespace is None, [])

    @property
    def _view(self) -> render.View:
        return render.View(wide=self.wide, namespace=self.namespace, now=time.time())

    def table(self, bodies: Sequence[Mapping[str, Any]], *, within: int) -> str:
        head, view = render.head(self.kind, self._view), self._view
        spare = [] if self.wide else [name for name in SPARE if name in head]
        rows = [render.row(self.kind, body, view=view) for body in bodies]
        return render.columns(head, rows, within=within, spare=spare)

    def head(self) -> str:
        head = render.head(self.kind, self._view)
        self.widths = render.widths([head])
        return render.columns(head, [])

    def next(self, body: Mapping[str, Any], *, gone: bool) -> str:
        cells = render.row(self.kind, body, view=self._view)
        self.widths = render.widths([[" " * width for width in self.widths], cells])
        return render.line(cells, self.widths) + (f"{render.GAP}(deleted)" if gone else "")


async def watch(
    client: Client, kind: AnyKind, *, keys: Sequence[Key], scope: Scope, output: str, managed: bool = False
) -> None:
    """Print each object and each change, for ever. Raises NotFound where one that is named is not there."""
    await read(client, keys)
    rows = _Rows.of(kind, scope, output=output)
    if output in ("table", "wide"):
        typer.echo(rows.head())

    def tell(change: Change) -> None:
        typer.echo(_told(rows, change, output=output, managed=managed))

    while True:
        with contextlib.suppress(Expired):  # then the list is printed anew
            await _follow(client, scope, tell=tell)


async def _follow(client: Client, scope: Scope, *, tell: Callable[[Change], None]) -> None:
    async with contextlib.aclosing(client.watch(scope)) as changes:
        async for change in changes:
            if not isinstance(change, Bookmark):
                tell(change)


def _told(rows: _Rows, change: Change, *, output: str, managed: bool) -> str:
    body = orjson.loads(change.body)
    if output == "name":
        return _name(rows.kind, body)
    if output in DOCUMENTS:
        return "---\n" * (output == "yaml") + document(_document(body, managed=managed), output)
    return rows.next(body, gone=change.type == "DELETED")


async def gone(client: Client, key: Key) -> None:
    """Return when it is not there."""
    while True:
        try:
            await client.get(key)
        except NotFound:
            return
        await asyncio.sleep(0.3)


async def wait(client: Client, kind: AnyKind, *, keys: Sequence[Key], until: str, timeout: float) -> None:
    """`wait_until` of all within seconds; each is told as it comes. Raises Invalid when they run out."""

    async def one(key: Key) -> None:
        await wait_until(client, key, until=until)
        typer.echo(f"{kind.singular}/{key.name} {until}")

    tasks = {asyncio.ensure_future(one(key)): key for key in keys}
    done, late = await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_EXCEPTION)
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    if error := first_error(done):
        raise error
    if late:
        key = next(key for task, key in tasks.items() if task in late)
        more = f", nor {len(late) - 1} more," if len(late) > 1 else ""
        place = f" -n {key.namespace}" if key.namespace else ""
        what = f"`bessemer why {key.kind.lower()} {key.name}{place}` says what it waits for"
        raise Invalid(f"{key} is not there{more} after {timeout:g} s; {what}")


async def wait_until(client: Client, key: Key, *, until: str) -> None:
    """Return when the object is as ``until`` says (condition=TYPE[=STATUS], phase=PHASE, delete). Raises Invalid."""
    what, _, value = until.partition("=")
    if what == "delete":
        await gone(client, key)
        return
    if what not in ("condition", "phase") or not value:
        raise Invalid("write --for condition=TYPE, phase=PHASE or delete")
    scope = Scope(kind=key.kind, namespace=key.namespace or None, name=key.name)
    async with contextlib.aclosing(client.watch(scope)) as changes:
        async for change in changes:
            if isinstance(change, Bookmark) or change.type == "DELETED":
                continue
            if _holds(orjson.loads(change.body).get("status", {}), what, value=value):
                return


def _holds(status: Mapping[str, Any], what: str, *, value: str) -> bool:
    if what == "phase":
        return bool(status.get("phase") == value)
    wanted, _, truth = value.partition("=")
    return any(
        c["type"].lower() == wanted.lower() and c["status"] == (truth or "True") for c in status.get("conditions", [])
    )
