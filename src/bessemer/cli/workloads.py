"""logs, console, chat, start, stop: what one does with a thing that runs."""

from __future__ import annotations

from typing import Annotated

import typer

from bessemer.cli.connection import ProjectOption, key_of, keys_of, run, split, target
from bessemer.core.errors import Invalid

NameArgument = Annotated[str, typer.Argument(show_default=False)]


def add(app: typer.Typer) -> None:
    """Put the commands into the tree."""
    for command in (logs, console, chat, start, stop):
        app.command(command.__name__)(command)


def logs(
    context: typer.Context,
    words: Annotated[list[str], typer.Argument(metavar="KIND NAME", show_default=False)],
    *,
    project: ProjectOption = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on printing.")] = False,
    replica: Annotated[
        int, typer.Option("--replica", "--rank", help="Which replica of an endpoint, which rank of a job.")
    ] = 0,
) -> None:
    """What an instance's serial port, an endpoint's engine or a job's member printed.

    Example: `bessemer logs instance vm -f -n acme--lab`
    """
    from bessemer.cli.work import workloads as work

    _, keys = keys_of(words, project=project, verb="logs")
    if len(keys) > 1:
        raise Invalid("a log is of one thing: `bessemer logs KIND NAME`")
    key = keys[0]
    run(context, lambda client: work.print_log(client, key, follow=follow, replica=replica))


def console(context: typer.Context, name: NameArgument, *, project: ProjectOption = "") -> None:
    """Type into an instance's serial console. Ctrl-] lets go of it.

    Example: `bessemer console vm -n acme--lab`
    """
    from bessemer.cli.work import workloads as work

    key = key_of(split([f"instance/{name}"])[0], name, project=project)
    run(context, lambda client: work.console(client, key))


def chat(
    context: typer.Context,
    endpoint: NameArgument,
    *,
    message: Annotated[list[str] | None, typer.Argument(help="Asked at once; none begins a talk.")] = None,
    project: ProjectOption = "",
    key: Annotated[
        str, typer.Option(envvar="BESSEMER_API_KEY", help="ApiKey token; one for now is made without it.")
    ] = "",
    gateway: Annotated[str, typer.Option(help="The gateway's address, if not beside the api.")] = "",
) -> None:
    """Talk to a model endpoint; the answer streams.

    Example: `bessemer chat smol "What is a furnace?" -n acme--lab`
    """
    from bessemer.cli.work import talk

    place = key_of(split([f"endpoint/{endpoint}"])[0], endpoint, project=project)
    asked = " ".join(message or [])
    chosen = target(context)
    run(context, lambda client: talk.chat(client, chosen, place=place, words=talk.Words(asked, key, gateway)))


def start(context: typer.Context, name: NameArgument, *, project: ProjectOption = "") -> None:
    """Start a stopped instance.

    Example: `bessemer start vm -n acme--lab`
    """
    _set_running(context, name, project=project, running=True)


def stop(context: typer.Context, name: NameArgument, *, project: ProjectOption = "") -> None:
    """Stop an instance; its disk and its place stay.

    Example: `bessemer stop vm -n acme--lab`
    """
    _set_running(context, name, project=project, running=False)


def _set_running(context: typer.Context, name: str, *, project: str, running: bool) -> None:
    key = key_of(split([f"instance/{name}"])[0], name, project=project)
    run(context, lambda client: client.patch(key, {"spec": {"running": running}}))
    typer.echo(f"instance/{name} {'starting' if running else 'stopping'}")
