"""The tree of commands and the options that stand before them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bessemer import __version__
from bessemer.cli import (
    access,
    audit,
    consolidate,
    credentials,
    declare,
    endpoints,
    export,
    fleet,
    login,
    models,
    money,
    objects,
    plan,
    quota,
    roles,
    rollout,
    simulate,
    storekeys,
    system,
    usage,
    workloads,
)
from bessemer.cli.connection import StateOption, Target
from bessemer.cli.verbs import Verbs

_HELP = """Racks of accelerators as an AI factory that many tenants share.

Start one here with `bessemer up` (or see it all with `bessemer demo`), then `bessemer get hosts`."""


_SUBJECTS = (
    objects,
    declare,
    plan,
    rollout,
    endpoints,
    fleet,
    consolidate,
    workloads,
    models,
    money,
    usage,
    quota,
    access,
    roles,
    login,
    credentials,
    audit,
    export,
)


def build(verbs: Verbs) -> typer.Typer:
    """The app. Commands of one subject live in one module, each with an `add` that puts them into the tree."""
    app = typer.Typer(
        help=_HELP,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def root(
        context: typer.Context,
        state: StateOption = None,
        *,
        kubeconfig: Annotated[
            Path | None, typer.Option(help="File that names server and credential.", show_default=False)
        ] = None,
        token: Annotated[
            str,
            typer.Option(envvar="BESSEMER_TOKEN", help="Bearer token, in place of a certificate.", show_default=False),
        ] = "",
        logins: Annotated[
            Path | None,
            typer.Option(envvar="BESSEMER_LOGINS", help="Where sign-ins are kept.", hidden=True, show_default=False),
        ] = None,
        version: Annotated[
            bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
        ] = False,
    ) -> None:
        own = verbs.kubeconfig(state)
        context.obj = Target(kubeconfig or own, token, None if kubeconfig else own.parent, logins)
        if state is not None:
            context.default_map = {name: {"state": str(state)} for name in system.LOCAL} | storekeys.defaults(state)

    for module in _SUBJECTS:
        module.add(app)
    system.add(app, verbs)
    storekeys.add(app, verbs)
    simulate.add(app, verbs)
    return app


def _show_version(wanted: bool) -> None:
    # Eager, since no command need follow.
    if wanted:
        typer.echo(__version__)
        raise typer.Exit
