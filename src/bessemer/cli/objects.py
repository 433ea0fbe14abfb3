"""get, describe, events, why, wait: verbs that work on every kind; those of files are in `declare`."""

from __future__ import annotations

from typing import Annotated

import typer

from bessemer.cli.connection import ProjectOption, key_of, keys_of, run, split, split_kinds
from bessemer.cli.output import NamedOutputOption, OutputOption
from bessemer.core.errors import Invalid

AllOption = Annotated[bool, typer.Option("--all-projects", "-A", help="In all projects that you may see.")]
WordsArgument = Annotated[list[str], typer.Argument(metavar="KIND [NAME…] | KIND/NAME", show_default=False)]
TimeoutOption = Annotated[float, typer.Option(help="Seconds to wait.")]


def add(app: typer.Typer) -> None:
    """Put the commands into the tree."""
    for command in (get, describe, events, why, wait):
        app.command(command.__name__)(command)


def get(
    context: typer.Context,
    words: WordsArgument,
    *,
    project: ProjectOption = "",
    everywhere: AllOption = False,
    output: NamedOutputOption = "table",
    selector: Annotated[str, typer.Option("--selector", "-l", help="Labels, as key=value,key=value.")] = "",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on printing what changes.")] = False,
    managed: Annotated[bool, typer.Option("--show-managed-fields", help="As json or yaml, who set what too.")] = False,
) -> None:
    """List objects, or show some by name.

    Examples: `bessemer get hosts` · `bessemer get instances -A -o wide` · `bessemer get instance vm -n acme--lab` ·
    `bessemer get jobs,instances -n acme--lab`
    """
    from bessemer.cli.work import objects as work

    kinds, names = split_kinds(words)
    asked = [
        work.Asked(
            kind,
            [key_of(kind, name, project=project) for name in names],
            work.scope_of(kind, "" if everywhere else project, selector=selector, names=names),
        )
        for kind in kinds
    ]
    if len(asked) > 1:
        if watch:
            raise Invalid("of several kinds none is watched: watch one at a time")
        several = run(context, lambda client: work.read_several(client, asked))
        work.show_several(asked, several, output=output, managed=managed)
        return
    kind, keys, scope = asked[0].kind, asked[0].keys, asked[0].scope
    if watch:
        run(context, lambda client: work.watch(client, kind, keys=keys, scope=scope, output=output, managed=managed))
        return
    bodies = run(context, lambda client: work.read(client, keys) if keys else work.list_known(client, scope))
    work.show(kind, bodies, output=output, scope=scope, managed=managed)


def describe(context: typer.Context, words: WordsArgument, *, project: ProjectOption = "") -> None:
    """Show everything about objects to a person: spec, status, conditions and events. For programs: get, events.

    Example: `bessemer describe instance vm -n acme--lab`
    """
    from bessemer.cli.work import reasons

    kind, names = split(words)
    run(context, lambda client: reasons.describe(client, kind, names=names, project=project))


def events(
    context: typer.Context,
    words: Annotated[list[str] | None, typer.Argument(metavar="[KIND [NAME…]]", show_default=False)] = None,
    *,
    project: ProjectOption = "",
    output: OutputOption = "table",
) -> None:
    """What happened, oldest first: to some objects, to a kind, in a project, or everywhere that you may see.

    Examples: `bessemer events instance vm -n acme--lab` · `bessemer events -n acme--lab`
    """
    from bessemer.cli.work import reasons

    about = reasons.About(project=project)
    if words:
        kind, names = split(words)
        about = reasons.About(kind, [key_of(kind, name, project=project).name for name in names], project)
    run(context, lambda client: reasons.events(client, about, output=output))


def why(
    context: typer.Context, words: WordsArgument, *, project: ProjectOption = "", output: OutputOption = "table"
) -> None:
    """What an object waits for, since when, and the cheapest change that would help.

    Example: `bessemer why instance vm -n acme--lab`
    """
    from bessemer.cli.work import reasons

    if project and len(words) == 1 and "/" not in words[0]:
        words = run(context, lambda client: reasons.called(client, words[0], project=project)) or words
    kind, keys = keys_of(words, project=project, verb="why")
    run(context, lambda client: reasons.why(client, kind, keys=keys, output=output))


def wait(
    context: typer.Context,
    words: WordsArgument,
    *,
    until: Annotated[str, typer.Option("--for", help="condition=Ready, phase=Stopped or delete.")] = "condition=Ready",
    project: ProjectOption = "",
    timeout: TimeoutOption = 120.0,
) -> None:
    """Wait until objects are all in a condition or phase, or gone.

    Example: `bessemer wait instance vm --for condition=Ready -n acme--lab`
    """
    from bessemer.cli.work import objects as work

    kind, keys = keys_of(words, project=project, verb="wait")
    run(context, lambda client: work.wait(client, kind, keys=keys, until=until, timeout=timeout))
