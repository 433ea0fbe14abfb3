"""Reading, watching, applying and deleting objects, for the commands of `cli.objects`."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import typer

from bessemer.cli import render
from bessemer.cli.connection import find_kind, key_of
from bessemer.client import Client
from bessemer.core.errors import Expired, Invalid, NotFound
from bessemer.core.ports import Bookmark, Scope
from bessemer.core.resource import Change, Key, Kind
from bessemer.kinds.workload import LABEL_KIND, LABEL_NAME

AnyKind = Kind[Any, Any]

_SPARE = ("READY", "GUESTS", "CORES", "MEMORY", "WORKLOAD")
"""Columns that a table does without where the terminal is narrow: others say nearly as much. ``-o wide`` keeps them."""


def scope_of(kind: AnyKind, project: str, *, selector: str = "") -> Scope:
    """The objects of a kind, of one project where it has projects. Raises Invalid for a selector of another form."""
    pairs = [part.partition("=") for part in selector.split(",") if part]
    if any(not separator for _, separator, _ in pairs):
        raise Invalid("write labels as key=value, joined by commas")
    labels = {key.strip(): value.lstrip("=").strip() for key, _, value in pairs}
    return Scope(kind=kind.name, namespace=(project or None) if kind.namespaced else None, labels=labels)


async def read(client: Client, keys: Sequence[Key]) -> list[dict[str, Any]]:
    """The bodies of some objects. Raises NotFound."""
    return [orjson.loads((await client.get(key)).body) for key in keys]


async def list_all(client: Client, scope: Scope) -> list[dict[str, Any]]:
    """The bodies of all objects of a scope."""
    return [orjson.loads(stored.body) for stored in (await client.list(scope)).items]


def nothing(what: str, project: str | None) -> str:
    """What stands on stderr where there is nothing to show; standard output stays empty for whoever reads it."""
    return f"No {what} found in {project}." if project else f"No {what} found."


def show(kind: AnyKind, bodies: Sequence[dict[str, Any]], *, output: str, scope: Scope) -> None:
    """Print bodies as table, wide, json, yaml or name."""
    if output in ("json", "yaml"):
        whole: Any = bodies[0] if len(bodies) == 1 else {"apiVersion": "v1", "kind": "List", "items": list(bodies)}
        typer.echo(render.as_json(whole) if output == "json" else render.as_yaml(whole))
    elif output == "name":
        for body in bodies:
            typer.echo(f"{kind.singular}/{body['metadata']['name']}")
    elif not bodies:
        typer.echo(nothing(kind.plural, scope.namespace), err=True)
    else:
        namespace = kind.namespaced and scope.namespace is None
        view = render.View(wide=output == "wide", namespace=namespace, now=time.time())
        rows = [render.row(kind, body, view=view) for body in bodies]
        head = render.head(kind, view)
        spare = [] if view.wide else [name for name in _SPARE if name in head]
        typer.echo(render.columns(head, rows, within=render.width(), spare=spare))


async def watch(client: Client, kind: AnyKind, *, scope: Scope, wide: bool) -> None:
    """Print a line for each object and each change, for ever. Columns grow with what they hold and never shrink."""
    namespace = kind.namespaced and scope.namespace is None
    head = render.head(kind, render.View(wide=wide, namespace=namespace, now=0))
    typer.echo(render.columns(head, []))
    widths = render.widths([head])
    while True:
        with contextlib.suppress(Expired):  # then the list is printed anew
            async for change in client.watch(scope):
                view = render.View(wide=wide, namespace=namespace, now=time.time())
                _tell(kind, change, view=view, widths=widths)


def _tell(kind: AnyKind, change: Change | Bookmark, *, view: render.View, widths: list[int]) -> None:
    if isinstance(change, Bookmark):
        return
    cells = render.row(kind, orjson.loads(change.body), view=view)
    widths[:] = render.widths([[" " * width for width in widths], cells])
    gone = f"{render.GAP}(deleted)" if change.type == "DELETED" else ""
    typer.echo(render.line(cells, widths) + gone)


async def events_of(client: Client, key: Key | None, *, project: str = "") -> list[dict[str, Any]]:
    """Events of one object, or of a project, oldest first."""
    namespace = (key.namespace or "default") if key else project or None
    found = await list_all(client, Scope(kind="Event", namespace=namespace))
    if key is not None:
        wanted = (key.kind, key.name)
        found = [e for e in found if (e["involvedObject"].get("kind"), e["involvedObject"].get("name")) == wanted]
    return sorted(found, key=lambda e: str(e.get("lastTimestamp", "")))


async def events(client: Client, key: Key | None, *, project: str) -> None:
    """Print the events as a table."""
    found = await events_of(client, key, project=project)
    if found:
        typer.echo(render.event_table(found, time.time(), objects=key is None, within=render.width()))
    else:
        typer.echo(nothing("events", str(key) if key else project), err=True)


async def describe(client: Client, kind: AnyKind, *, names: Sequence[str], project: str) -> None:
    """Print objects with their events; all of the project when none is named."""
    chosen = list(names) or [stored.key.name for stored in (await client.list(scope_of(kind, project))).items]
    for name in chosen:
        key = key_of(kind, name, project=project)
        body = orjson.loads((await client.get(key)).body)
        typer.echo(render.described(body, await events_of(client, key), now=time.time(), within=render.width()))


async def apply_all(client: Client, bodies: Sequence[dict[str, Any]], *, project: str, dry_run: bool) -> None:
    """Create or replace each, and print what became of it."""
    for body in bodies:
        typer.echo(await apply_one(client, body, project=project, dry_run=dry_run))


async def apply_one(client: Client, body: dict[str, Any], *, project: str, dry_run: bool = False) -> str:
    """Create the object, or make its spec what the body says; labels and annotations are merged."""
    kind = find_kind(str(body["kind"]))
    metadata = dict(body["metadata"])
    key = key_of(kind, str(metadata["name"]), project=str(metadata.get("namespace", project)))
    if key.namespace:
        metadata["namespace"] = key.namespace
    wanted = {**body, "metadata": metadata}
    note = " (dry run)" if dry_run else ""
    try:
        old = await client.get(key)
    except NotFound:
        await client.create(wanted, dry_run=dry_run)
        return f"{kind.singular}/{key.name} created{note}"
    kept = orjson.loads(old.body)["metadata"]
    for part in ("labels", "annotations"):
        merged = {**kept.get(part, {}), **metadata.get(part, {})}
        if merged:
            metadata[part] = merged
    metadata.update({k: kept[k] for k in ("finalizers", "ownerReferences", "resourceVersion") if k in kept})
    new = await client.replace(wanted, dry_run=dry_run)
    return f"{kind.singular}/{key.name} {'unchanged' if new.revision == old.revision else 'configured'}{note}"


async def delete_all(client: Client, keys: Sequence[Key], *, timeout: float) -> None:
    """Delete, last first, and wait until all are gone unless ``timeout`` is 0. Raises Invalid when it runs out."""
    for key in reversed(keys):
        await client.delete(key)
        typer.echo(f"{key.kind.lower()}/{key.name} deleted")
    if not timeout:
        return
    try:
        async with asyncio.timeout(timeout):
            await asyncio.gather(*(_gone(client, key) for key in keys))
    except TimeoutError as error:
        raise Invalid(
            f"not all is gone after {timeout:g} s; `bessemer why KIND NAME` says what it waits for"
        ) from error


async def _gone(client: Client, key: Key) -> None:
    while True:
        try:
            await client.get(key)
        except NotFound:
            return
        await asyncio.sleep(0.3)


async def why(client: Client, key: Key) -> str:
    """What an object waits for, and its last events."""
    body = orjson.loads((await client.get(key)).body)
    text = "\n".join([*reasons(body, time.time()), *placed(await _claims(client, key))])
    recent = (await events_of(client, key))[-5:]
    return f"{text}\n\nLately:\n{render.event_table(recent, time.time(), within=render.width())}" if recent else text


def reasons(body: Mapping[str, Any], now: float) -> list[str]:
    """Phase, what holds it up, the count per reason, the cheapest change."""
    status = body.get("status", {})
    since = render.age(status.get("phaseSince"), now)
    lines = [f"{body['kind']} {body['metadata']['name']} is {status.get('phase', 'Pending')} for {since}."]
    for condition in status.get("conditions", []):
        if condition["type"] == "Ready" and condition["status"] != "True":
            lines.append(f"It waits: {condition['reason']}: {condition['message']}")
        if condition["type"] == "Stuck" and condition["status"] == "True":
            lines.append(f"It is stuck: {condition['reason']}: {condition['message']}")
    lines += _counts(status)
    if status.get("remedy"):
        lines.append(f"Cheapest change: {status['remedy']}")
    return lines if len(lines) > 1 else [*lines, "It waits for nothing."]


async def _claims(client: Client, key: Key) -> list[dict[str, Any]]:
    """The claims of a workload, in the order in which they were made."""
    labels = {LABEL_KIND: key.kind, LABEL_NAME: key.name}
    found = await list_all(client, Scope(kind="Claim", namespace=key.namespace, labels=labels)) if key.namespace else []
    made = [(c["metadata"].get("creationTimestamp", ""), c["spec"]["workload"].get("replica", 0), c) for c in found]
    return [claim for _, _, claim in sorted(made, key=lambda item: item[:2])]


def placed(claims: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why these hosts: of the claim made last, how many had room, and why the others were set aside."""
    if not claims:
        return []
    hosts = [str(claim["spec"]["host"]) for claim in claims]
    shown = ", ".join(hosts[:4]) + (f" and {len(hosts) - 4} more" if len(hosts) > 4 else "")
    lines = [f"It is on {shown}."]
    why = claims[-1]["spec"].get("placement") or {}
    if why.get("fitting"):
        room = "the only host with room" if why["fitting"] == 1 else f"one of {why['fitting']} hosts with room"
        rest = " Not taken:" if why.get("reasons") else ""
        lines += [f"When it was chosen, {hosts[-1]} was {room}.{rest}", *_counts(why)]
    return lines


def _counts(said: Mapping[str, Any]) -> list[str]:
    return [f"  {r['hosts']:>6} host{'s'[: r['hosts'] != 1]}: {r['text']}" for r in said.get("reasons", [])]


async def wait(client: Client, key: Key, *, until: str, timeout: float) -> None:
    """`wait_until` within seconds. Raises Invalid when they run out."""
    try:
        async with asyncio.timeout(timeout):
            await wait_until(client, key, until=until)
    except TimeoutError as error:
        place = f" -n {key.namespace}" if key.namespace else ""
        what = f"`bessemer why {key.kind.lower()} {key.name}{place}` says what it waits for"
        raise Invalid(f"{key} is not there after {timeout:g} s; {what}") from error


async def wait_until(client: Client, key: Key, *, until: str) -> None:
    """Return when the object is as ``until`` says (condition=TYPE[=STATUS], phase=PHASE, delete). Raises Invalid."""
    what, _, value = until.partition("=")
    if what == "delete":
        await _gone(client, key)
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
