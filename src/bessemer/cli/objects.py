"""get, describe, apply, delete, events, why, wait: verbs that work on every kind."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bessemer.cli.connection import ProjectOption, find_kind, key_of, run, split
from bessemer.cli.manifests import read_manifests
from bessemer.core.errors import Invalid

OutputOption = Annotated[str, typer.Option("--output", "-o", help="table, wide, json, yaml or name.")]
AllOption = Annotated[bool, typer.Option("--all-projects", "-A", help="In all projects that you may see.")]
WordsArgument = Annotated[list[str], typer.Argument(metavar="KIND [NAME…] | KIND/NAME", show_default=False)]
TimeoutOption = Annotated[float, typer.Option(help="Seconds to wait.")]


def add(app: typer.Typer) -> None:
    """Put the commands into the tree."""
    for command in (get, describe, apply, delete, events, why, wait):
        app.command(command.__name__)(command)


def get(
    context: typer.Context,
    words: WordsArgument,
    *,
    project: ProjectOption = "",
    everywhere: AllOption = False,
    output: OutputOption = "table",
    selector: Annotated[str, typer.Option("--selector", "-l", help="Labels, as key=value,key=value.")] = "",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on printing what changes.")] = False,
) -> None:
    """List objects, or show some by name.

    Examples: `bessemer get hosts` · `bessemer get instances -A -o wide` · `bessemer get instance vm -n acme--lab`
    """
    from bessemer.cli.work import objects as work

    kind, names = split(words)
    if output not in ("table", "wide", "json", "yaml", "name"):
        raise Invalid(f"no output is called {output!r}; write table, wide, json, yaml or name")
    scope = work.scope_of(kind, "" if everywhere else project, selector=selector)
    if watch:
        run(context, lambda client: work.watch(client, kind, scope=scope, wide=output == "wide"))
        return
    keys = [key_of(kind, name, project=project) for name in names]
    bodies = run(context, lambda client: work.read(client, keys) if keys else work.list_all(client, scope))
    work.show(kind, bodies, output=output, scope=scope)


def describe(context: typer.Context, words: WordsArgument, *, project: ProjectOption = "") -> None:
    """Show everything about objects: spec, status, conditions and events.

    Example: `bessemer describe instance vm -n acme--lab`
    """
    from bessemer.cli.work import objects as work

    kind, names = split(words)
    run(context, lambda client: work.describe(client, kind, names=names, project=project))


def apply(
    context: typer.Context,
    file: Annotated[Path, typer.Option("--file", "-f", help="YAML file, folder of them, or - for standard input.")],
    *,
    project: ProjectOption = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Ask the server, change nothing.")] = False,
) -> None:
    """Create objects, or bring them to what a file says.

    Example: `bessemer apply -f vm.yaml -n acme--lab`
    """
    from bessemer.cli.work import objects as work

    bodies = read_manifests(file)
    run(context, lambda client: work.apply_all(client, bodies, project=project, dry_run=dry_run))


def delete(
    context: typer.Context,
    words: Annotated[list[str] | None, typer.Argument(metavar="[KIND NAME…]", show_default=False)] = None,
    *,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="What this file names.", show_default=False)] = None,
    project: ProjectOption = "",
    wait_gone: Annotated[bool, typer.Option("--wait/--no-wait", help="Return when they are gone.")] = True,
    timeout: TimeoutOption = 120.0,
) -> None:
    """Delete objects by name or by file.

    Examples: `bessemer delete instance vm -n acme--lab` · `bessemer delete -f vm.yaml`
    """
    from bessemer.cli.work import objects as work

    keys = []
    if words:
        kind, names = split(words)
        keys += [key_of(kind, name, project=project) for name in names]
    for body in read_manifests(file) if file else []:
        metadata = body["metadata"]
        keys.append(key_of(find_kind(body["kind"]), metadata["name"], project=metadata.get("namespace", project)))
    if not keys:
        raise Invalid("say what to delete: KIND NAME, or -f FILE")
    run(context, lambda client: work.delete_all(client, keys, timeout=timeout if wait_gone else 0))


def events(
    context: typer.Context,
    words: Annotated[list[str] | None, typer.Argument(metavar="[KIND NAME]", show_default=False)] = None,
    *,
    project: ProjectOption = "",
) -> None:
    """What happened, oldest first: to one object, in a project, or everywhere that you may see.

    Examples: `bessemer events instance vm -n acme--lab` · `bessemer events -n acme--lab`
    """
    from bessemer.cli.work import objects as work

    key = None
    if words:
        kind, names = split(words)
        key = key_of(kind, names[0] if names else "", project=project)
    run(context, lambda client: work.events(client, key, project=project))


def why(context: typer.Context, words: WordsArgument, *, project: ProjectOption = "") -> None:
    """What an object waits for, since when, and the cheapest change that would help.

    Example: `bessemer why instance vm -n acme--lab`
    """
    from bessemer.cli.work import objects as work

    kind, names = split(words)
    if not names:
        raise Invalid("say which: `bessemer why KIND NAME`")
    key = key_of(kind, names[0], project=project)
    typer.echo(run(context, lambda client: work.why(client, key)))


def wait(
    context: typer.Context,
    words: WordsArgument,
    *,
    until: Annotated[str, typer.Option("--for", help="condition=Ready, phase=Stopped or delete.")] = "condition=Ready",
    project: ProjectOption = "",
    timeout: TimeoutOption = 120.0,
) -> None:
    """Wait until an object is in a condition or phase, or gone.

    Example: `bessemer wait instance vm --for condition=Ready -n acme--lab`
    """
    from bessemer.cli.work import objects as work

    kind, names = split(words)
    key = key_of(kind, names[0] if names else "", project=project)
    run(context, lambda client: work.wait(client, key, until=until, timeout=timeout))
    typer.echo(f"{kind.singular}/{key.name} {until}")
