"""get, describe, apply, delete, events, why, wait: verbs that work on every kind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from bessemer.cli import render
from bessemer.cli.connection import ProjectOption, find_kind, key_of, run, split
from bessemer.cli.manifests import read_manifests
from bessemer.core.errors import Expired, Invalid, NotFound
from bessemer.core.ports import Bookmark, Scope, Writer
from bessemer.core.resource import Key, Kind

if TYPE_CHECKING:
    from bessemer.client import Client

OutputOption = Annotated[str, typer.Option("--output", "-o", help="table, wide, json, yaml or name.")]
AllOption = Annotated[bool, typer.Option("--all-projects", "-A", help="In all projects that you may see.")]
WordsArgument = Annotated[list[str], typer.Argument(metavar="KIND [NAME…] | KIND/NAME", show_default=False)]
_WRITER = Writer("user", "cli")


def add(app: typer.Typer) -> None:
    """Put the commands into the tree."""
    app.command("get")(get)
    app.command("describe")(describe)
    app.command("apply")(apply)
    app.command("delete")(delete)
    app.command("events")(events)
    app.command("why")(why)
    app.command("wait")(wait)


def get(
    context: typer.Context,
    words: WordsArgument,
    project: ProjectOption = "",
    everywhere: AllOption = False,
    output: OutputOption = "table",
    selector: Annotated[str, typer.Option("--selector", "-l", help="Labels, as key=value,key=value.")] = "",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on printing what changes.")] = False,
) -> None:
    """List objects, or show some by name.

    Examples: `bessemer get hosts` · `bessemer get instances -A -o wide` · `bessemer get instance vm -n acme--lab -o yaml`
    """
    kind, names = split(words)
    if output not in ("table", "wide", "json", "yaml", "name"):
        raise Invalid(f"no output is called {output!r}; write table, wide, json, yaml or name")
    scope = Scope(kind=kind.name, namespace=None if everywhere or not project else project, labels=_labels(selector))
    if watch:
        run(context, lambda client: _watch(client, kind, scope, output))
        return
    if names:
        keys = [key_of(kind, name, project) for name in names]
        bodies = run(context, lambda client: _read(client, keys))
    else:
        bodies = run(context, lambda client: _list(client, scope))
    _print(kind, bodies, output, namespace=kind.namespaced and (everywhere or not project))


def _labels(selector: str) -> Mapping[str, str]:
    pairs = [part.partition("=") for part in selector.split(",") if part]
    if any(not separator for _, separator, _ in pairs):
        raise Invalid("write labels as key=value, joined by commas")
    return {key.strip(): value.lstrip("=").strip() for key, _, value in pairs}


async def _read(client: Client, keys: Sequence[Key]) -> list[dict[str, Any]]:
    return [orjson.loads((await client.get(key)).body) for key in keys]


async def _list(client: Client, scope: Scope) -> list[dict[str, Any]]:
    page = await client.list(scope)
    return [orjson.loads(stored.body) for stored in page.items]


def _print(kind: Kind[Any, Any], bodies: Sequence[dict[str, Any]], output: str, *, namespace: bool) -> None:
    if output in ("json", "yaml"):
        whole: Any = bodies[0] if len(bodies) == 1 else {"apiVersion": "v1", "kind": "List", "items": list(bodies)}
        typer.echo(render.as_json(whole) if output == "json" else render.as_yaml(whole))
    elif output == "name":
        for body in bodies:
            typer.echo(f"{kind.singular}/{body['metadata']['name']}")
    elif not bodies:
        typer.echo(f"No {kind.plural} found.", err=True)
    else:
        wide, now = output == "wide", time.time()
        rows = [render.row(kind, body, wide=wide, namespace=namespace, now=now) for body in bodies]
        typer.echo(render.columns(render.head(kind, wide=wide, namespace=namespace), rows))


async def _watch(client: Client, kind: Kind[Any, Any], scope: Scope, output: str) -> None:
    wide, namespace = output == "wide", kind.namespaced and scope.namespace is None
    head = render.head(kind, wide=wide, namespace=namespace)
    typer.echo(render.columns(head, []))
    while True:
        try:
            async for change in client.watch(scope):
                if isinstance(change, Bookmark):
                    continue
                body = orjson.loads(change.body)
                cells = render.row(kind, body, wide=wide, namespace=namespace, now=time.time())
                gone = "   (deleted)" if change.type == "DELETED" else ""
                line = render.columns(head, [cells]).splitlines()[-1]
                typer.echo(line + gone)
        except Expired:
            continue


async def _events(client: Client, key: Key | None, project: str = "") -> list[dict[str, Any]]:
    namespace = (key.namespace or "default") if key else project or None
    found = await _list(client, Scope(kind="Event", namespace=namespace))
    if key is not None:
        found = [
            e
            for e in found
            if e["involvedObject"].get("kind") == key.kind and e["involvedObject"].get("name") == key.name
        ]
    return sorted(found, key=lambda e: str(e.get("lastTimestamp", "")))


def describe(context: typer.Context, words: WordsArgument, project: ProjectOption = "") -> None:
    """Show everything about objects: spec, status, conditions and events.

    Example: `bessemer describe instance vm -n acme--lab`
    """
    kind, names = split(words)

    async def work(client: Client) -> None:
        for name in names or [s.key.name for s in (await client.list(_scope(kind, project))).items]:
            key = key_of(kind, name, project)
            body = orjson.loads((await client.get(key)).body)
            typer.echo(render.described(body, await _events(client, key), time.time()))

    run(context, work)


def _scope(kind: Kind[Any, Any], project: str) -> Scope:
    return Scope(kind=kind.name, namespace=project or None if kind.namespaced else None)


def apply(
    context: typer.Context,
    file: Annotated[Path, typer.Option("--file", "-f", help="YAML file, folder of them, or - for standard input.")],
    project: ProjectOption = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Ask the server, change nothing.")] = False,
) -> None:
    """Create objects, or bring them to what a file says.

    Example: `bessemer apply -f vm.yaml -n acme--lab`
    """
    bodies = read_manifests(file)

    async def work(client: Client) -> None:
        for body in bodies:
            typer.echo(await _apply(client, body, project, dry_run=dry_run))

    run(context, work)


async def _apply(client: Client, body: dict[str, Any], project: str, *, dry_run: bool) -> str:
    kind = find_kind(str(body["kind"]))
    metadata = dict(body["metadata"])
    key = key_of(kind, str(metadata["name"]), str(metadata.get("namespace", project)))
    if key.namespace:
        metadata["namespace"] = key.namespace
    wanted = {**body, "metadata": metadata}
    note = " (dry run)" if dry_run else ""
    try:
        old = await client.get(key)
    except NotFound:
        await client.create(wanted, _WRITER, dry_run=dry_run)
        return f"{kind.singular}/{key.name} created{note}"
    kept = orjson.loads(old.body)["metadata"]
    for part in ("labels", "annotations"):
        merged = {**kept.get(part, {}), **metadata.get(part, {})}
        if merged:
            metadata[part] = merged
    metadata.update({k: kept[k] for k in ("finalizers", "ownerReferences", "resourceVersion") if k in kept})
    new = await client.replace(wanted, _WRITER, dry_run=dry_run)
    return f"{kind.singular}/{key.name} {'unchanged' if new.revision == old.revision else 'configured'}{note}"


def delete(
    context: typer.Context,
    words: Annotated[list[str] | None, typer.Argument(metavar="[KIND NAME…]", show_default=False)] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="What this file names.", show_default=False)] = None,
    project: ProjectOption = "",
    wait_gone: Annotated[bool, typer.Option("--wait/--no-wait", help="Return when they are gone.")] = True,
    timeout: Annotated[float, typer.Option(help="Seconds to wait.")] = 120.0,
) -> None:
    """Delete objects by name or by file.

    Examples: `bessemer delete instance vm -n acme--lab` · `bessemer delete -f vm.yaml`
    """
    keys = _keys_of(words or [], file, project)
    if not keys:
        raise Invalid("say what to delete: KIND NAME, or -f FILE")

    async def work(client: Client) -> None:
        for key in reversed(keys):
            await client.delete(key, _WRITER)
            typer.echo(f"{key.kind.lower()}/{key.name} deleted")
        if wait_gone:
            async with asyncio.timeout(timeout):
                await asyncio.gather(*(_gone(client, key) for key in keys))

    try:
        run(context, work)
    except TimeoutError as error:
        raise Invalid(f"not all is gone after {timeout:g} s; `bessemer why KIND NAME` says what it waits for") from error


def _keys_of(words: Sequence[str], file: Path | None, project: str) -> list[Key]:
    keys: list[Key] = []
    if words:
        kind, names = split(list(words))
        keys += [key_of(kind, name, project) for name in names]
    for body in read_manifests(file) if file else []:
        metadata = body["metadata"]
        keys.append(key_of(find_kind(body["kind"]), metadata["name"], metadata.get("namespace", project)))
    return keys


async def _gone(client: Client, key: Key) -> None:
    while True:
        try:
            await client.get(key)
        except NotFound:
            return
        await asyncio.sleep(0.3)


def events(
    context: typer.Context,
    words: Annotated[list[str] | None, typer.Argument(metavar="[KIND NAME]", show_default=False)] = None,
    project: ProjectOption = "",
) -> None:
    """What happened, oldest first: to one object, in a project, or everywhere that you may see.

    Examples: `bessemer events instance vm -n acme--lab` · `bessemer events -n acme--lab`
    """
    key = None
    if words:
        kind, names = split(words)
        key = key_of(kind, names[0] if names else "", project)
    found = run(context, lambda client: _events(client, key, project))
    typer.echo(render.event_table(found, time.time(), objects=key is None) if found else "No events found.")


def why(context: typer.Context, words: WordsArgument, project: ProjectOption = "") -> None:
    """What an object waits for, since when, and the cheapest change that would help.

    Example: `bessemer why instance vm -n acme--lab`
    """
    kind, names = split(words)
    if not names:
        raise Invalid("say which: `bessemer why KIND NAME`")
    key = key_of(kind, names[0], project)

    async def work(client: Client) -> None:
        body = orjson.loads((await client.get(key)).body)
        typer.echo("\n".join(_why(body, time.time())))
        if recent := (await _events(client, key))[-5:]:
            typer.echo("\nLately:\n" + render.event_table(recent, time.time()))

    run(context, work)


def _why(body: Mapping[str, Any], now: float) -> list[str]:
    status = body.get("status", {})
    since = render.age(status.get("phaseSince"), now)
    lines = [f"{body['kind']} {body['metadata']['name']} is {status.get('phase', 'Pending')} for {since}."]
    for condition in status.get("conditions", []):
        if condition["type"] == "Ready" and condition["status"] != "True":
            lines.append(f"It waits: {condition['reason']}: {condition['message']}")
        if condition["type"] == "Stuck" and condition["status"] == "True":
            lines.append(f"It is stuck: {condition['reason']}: {condition['message']}")
    lines += [f"  {reason['hosts']:>6} hosts: {reason['text']}" for reason in status.get("reasons", [])]
    if status.get("remedy"):
        lines.append(f"Cheapest change: {status['remedy']}")
    return lines if len(lines) > 1 else [*lines, "It waits for nothing."]


def wait(
    context: typer.Context,
    words: WordsArgument,
    until: Annotated[str, typer.Option("--for", help="condition=Ready, phase=Stopped or delete.")] = "condition=Ready",
    project: ProjectOption = "",
    timeout: Annotated[float, typer.Option(help="Seconds to wait.")] = 120.0,
) -> None:
    """Wait until an object is in a condition or phase, or gone.

    Example: `bessemer wait instance vm --for condition=Ready -n acme--lab`
    """
    kind, names = split(words)
    key = key_of(kind, names[0] if names else "", project)

    async def work(client: Client) -> None:
        async with asyncio.timeout(timeout):
            await wait_until(client, key, until)

    try:
        run(context, work)
    except TimeoutError as error:
        raise Invalid(f"{key} is not there after {timeout:g} s; `bessemer why {kind.singular} {key.name}`") from error
    typer.echo(f"{kind.singular}/{key.name} {until}")


async def wait_until(client: Client, key: Key, until: str) -> None:
    """Return when the object is as ``until`` says (condition=TYPE[=STATUS], phase=PHASE, delete). Raises Invalid."""
    what, _, value = until.partition("=")
    if what == "delete":
        await _gone(client, key)
        return
    if what not in ("condition", "phase") or not value:
        raise Invalid("write --for condition=TYPE, phase=PHASE or delete")
    async for change in client.watch(Scope(kind=key.kind, namespace=key.namespace or None, name=key.name)):
        if isinstance(change, Bookmark) or change.type == "DELETED":
            continue
        status = orjson.loads(change.body).get("status", {})
        if what == "phase" and status.get("phase") == value:
            return
        wanted, _, truth = value.partition("=")
        for condition in status.get("conditions", []) if what == "condition" else []:
            if condition["type"].lower() == wanted.lower() and condition["status"] == (truth or "True"):
                return
