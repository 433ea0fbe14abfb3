"""diff, apply, delete: objects as files declare them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bessemer.cli.connection import ProjectOption, find_kind, key_of, require_within, run, split
from bessemer.cli.manifests import manifests, read_all
from bessemer.cli.output import DOCUMENTS, OutputOption, document, listed
from bessemer.core.errors import BessemerError, Invalid

if TYPE_CHECKING:
    from bessemer.cli.work.declare import Became, Report
    from bessemer.cli.work.sets import ObjectSet
    from bessemer.cli.work.waiting import Standing
    from bessemer.client import Client

FilesOption = Annotated[
    list[Path], typer.Option("--file", "-f", help="YAML or JSON file, folder of them, or - for standard input.")
]
SetOption = Annotated[str, typer.Option("--set", help="What these files declare together.", show_default=False)]
TenantOption = Annotated[str, typer.Option("--tenant", help="The set's scope: all of a tenant.", show_default=False)]
PruneOption = Annotated[bool, typer.Option("--prune", help="Delete what the set has and the files say no more.")]
ForceOption = Annotated[bool, typer.Option("--force-conflicts", help="Take what others set, too.")]
ManagerOption = Annotated[str, typer.Option("--field-manager", help="In whose name fields are set.")]

TrialOption = Annotated[str, typer.Option("--dry-run", help="server: ask it and change nothing.")]


def add(app: typer.Typer) -> None:
    """Put the commands into the tree."""
    for command in (diff, apply, delete):
        app.command(command.__name__)(command)


def apply(
    context: typer.Context,
    file: FilesOption,
    *,
    project: ProjectOption = "",
    dry_run: TrialOption = "none",
    members_of: SetOption = "",
    tenant: TenantOption = "",
    prune: PruneOption = False,
    force: ForceOption = False,
    manager: ManagerOption = "bessemer",
    wait: Annotated[bool, typer.Option("--wait", help="Return when all are ready.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait.")] = 600.0,
    output: OutputOption = "table",
) -> None:
    """Create objects, or bring them to what files say.

    Examples: `bessemer apply -f vm.yaml -n acme--lab` · `bessemer apply -f lab/ -n acme--lab --set lab --prune --wait`
    """
    from bessemer.cli.work.declare import Wish

    of = _set(members_of, project=project, tenant=tenant, prune=prune)
    wish = Wish(manager=manager, force=force, dry_run=_trial(dry_run), members_of=of, prune=prune)
    found = read_all(file)
    if of is None:  # a set says where it lies
        require_within(context, found, project=project)

    async def work(client: Client) -> None:
        from bessemer.cli.work import declare, waiting

        quiet = output in DOCUMENTS
        tell = _silent if quiet else lambda one: _tell(one, dry_run=wish.dry_run)
        items = declare.items_of(found, project=project, members_of=of)
        report = await declare.apply(client, items, wish=wish, tell=tell)
        standings: list[Standing] = []
        if wait and not wish.dry_run and not report.keys("refused", "not tried"):
            keys = report.keys("created", "configured", "unchanged")
            show = waiting.Show(quiet=quiet)
            going = report.keys("pruned")
            standings = await waiting.until_ready(client, keys, going=going, timeout=timeout, show=show)
        if quiet:
            typer.echo(document(_document(report, standings), output))
        report.require()
        waiting.require(standings, timeout=timeout)

    run(context, work)


def _set(name: str, *, project: str, tenant: str, prune: bool) -> ObjectSet | None:
    """Raises Invalid where it is not clear what might be pruned."""
    from bessemer.cli.work.sets import Bounds, ObjectSet

    if prune and not name:
        raise Invalid("--prune deletes what a set has and the files say no more: name the set with --set NAME")
    if tenant and not name:
        raise Invalid("--tenant is the scope of a set: name it with --set NAME")
    if tenant and project:
        raise Invalid("a set lies in a project (-n) or in a tenant (--tenant), not in both")
    return ObjectSet(name, Bounds(project, tenant)) if name else None


def _trial(said: str) -> bool:
    if said not in ("none", "server"):
        raise Invalid(f"no dry run is called {said!r}; write --dry-run=server")
    return said == "server"


def _silent(one: Became) -> None:
    """What became of it stands in the document at the end."""


def _tell(one: Became, *, dry_run: bool) -> None:
    note = " (dry run)" if dry_run else ""
    typer.echo(f"{one.key.kind.lower()}/{one.key.name} {one.word}{note}", err=one.word in ("refused", "not tried"))


def _document(report: Report, standings: list[Standing]) -> dict[str, object]:
    state = {one.key: one.document() for one in standings}
    return listed([{**state.get(one.key, {}), **one.document()} for one in report.done])


def diff(
    context: typer.Context,
    file: FilesOption,
    *,
    project: ProjectOption = "",
    members_of: SetOption = "",
    tenant: TenantOption = "",
    prune: PruneOption = False,
    manager: ManagerOption = "bessemer",
) -> None:
    """What applying files would change; nothing is written. Ends with 1 where something would, with 2 where it fails.

    Example: `bessemer diff -f lab/ -n acme--lab`
    """
    from bessemer.cli.work.declare import Wish

    async def work(client: Client) -> list[str]:
        from bessemer.cli.work import declare
        from bessemer.cli.work import diff as work

        of = _set(members_of, project=project, tenant=tenant, prune=prune)
        wish = Wish(manager=manager, members_of=of, prune=prune)
        return await work.differences(client, declare.items_of(found, project=project, members_of=of), wish=wish)

    try:
        found = read_all(file)
        if not members_of:
            require_within(context, found, project=project)
        lines = run(context, work)
    except BessemerError as error:
        from bessemer.cli.outcome import explain

        typer.echo("\n".join(explain(error)), err=True)
        raise typer.Exit(2) from error
    _print(lines)
    raise typer.Exit(1 if lines else 0)


def _print(lines: list[str]) -> None:
    from bessemer.cli.work.diff import coloured

    for line in lines:
        typer.echo(coloured(line) if sys.stdout.isatty() else line)


def delete(
    context: typer.Context,
    words: Annotated[list[str] | None, typer.Argument(metavar="[KIND NAME…]", show_default=False)] = None,
    *,
    file: Annotated[
        list[Path] | None, typer.Option("--file", "-f", help="What these files name.", show_default=False)
    ] = None,
    project: ProjectOption = "",
    dry_run: TrialOption = "none",
    wait_gone: Annotated[bool, typer.Option("--wait/--no-wait", help="Return when they are gone.")] = True,
    timeout: Annotated[float, typer.Option(help="Seconds to wait.")] = 120.0,
) -> None:
    """Delete objects by name, or all that files name; of files, what is gone already is no error.

    Examples: `bessemer delete instance vm -n acme--lab` · `bessemer delete -f lab/ -n acme--lab`
    """
    from bessemer.cli.work import remove

    keys = []
    if words:
        kind, names = split(words)
        keys += [key_of(kind, name, project=project) for name in names]
    for path in file or ():
        declared = manifests(path)
        require_within(context, declared, project=project)
        for body in (one.body for one in declared):
            metadata = body["metadata"]
            keys.append(key_of(find_kind(body["kind"]), metadata["name"], project=metadata.get("namespace") or project))
    if not keys:
        raise Invalid("say what to delete: KIND NAME, or -f FILE")
    seconds, trial = timeout if wait_gone else 0.0, _trial(dry_run)
    run(
        context,
        lambda client: remove.delete_all(client, keys, timeout=seconds, missing_is_fine=not words, dry_run=trial),
    )
