"""up, down, agent, server, doctor, disks, demo: verbs that ``main`` builds and this module only names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bessemer.cli.output import OutputOption
from bessemer.cli.verbs import AgentOptions, DemoOptions, DisksOptions, DoctorOptions, ServerOptions, UpOptions, Verbs

LOCAL = ("up", "down", "demo", "doctor", "disks", "server", "agent")
"""The commands that take a state directory; one that stands before them (`bessemer --state DIR down`) holds, too."""

# It has no variable of its own: the one of the root command's option would then win over that option.
StateOption = Annotated[
    Path | None, typer.Option("--state", help="State directory (default ~/.bessemer).", show_default=False)
]
DemoStateOption = Annotated[
    Path | None,
    typer.Option(
        "--state", envvar="BESSEMER_STATE", help="State directory (default .state/demo, here).", show_default=False
    ),
]
FakeOption = Annotated[int | None, typer.Option(min=0, max=20_000, help="Fake GPU hosts beside this machine.")]
StoreOption = Annotated[
    str | None, typer.Option("--store", help="postgresql://USER@HOST/DB instead of a file.", show_default=False)
]
PortOption = Annotated[int | None, typer.Option(min=0, max=65535, help="0 chooses a free one.", show_default=False)]


def add(app: typer.Typer, verbs: Verbs) -> None:
    """Put the commands into the tree."""
    _local(app, verbs)
    _disks(app, verbs)
    _parts(app, verbs)


def _local(app: typer.Typer, verbs: Verbs) -> None:
    @app.command("up")
    def up(
        state: StateOption = None,
        fake_hosts: FakeOption = None,
        *,
        api_port: PortOption = None,
        portal_port: PortOption = None,
        gateway_port: PortOption = None,
        store: StoreOption = None,
        detach: Annotated[
            bool, typer.Option("--detach", "-d", help="Return when the parts answer; hosts and models may still come.")
        ] = False,
    ) -> None:
        """Start a factory on this machine: control plane, gateway and an agent, over one directory.

        Examples: `bessemer up` · `bessemer up --fake-hosts 200 --detach`
        """
        options = UpOptions(
            state=state,
            fake_hosts=fake_hosts,
            api_port=api_port,
            portal_port=portal_port,
            gateway_port=gateway_port,
            store=store,
            detach=detach,
        )
        raise typer.Exit(verbs.up(options))

    @app.command("down")
    def down(state: StateOption = None) -> None:
        """Stop everything that a state directory started: parts, guests and engines. Example: `bessemer down`"""
        raise typer.Exit(verbs.down(state))

    @app.command("demo")
    def demo(
        state: DemoStateOption = None,
        fake_hosts: Annotated[
            int, typer.Option(min=0, max=20_000, help="Fake GPU hosts to look at; never fewer than before.")
        ] = 200,
        *,
        stay: Annotated[
            bool | None, typer.Option("--stay/--no-stay", help="Stay up until Ctrl-C; by default with a terminal.")
        ] = None,
    ) -> None:
        """The whole road once: hosts, tenants, a guest, a model, tokens, an invoice. Example: `bessemer demo`"""
        raise typer.Exit(verbs.demo(DemoOptions(state=state, fake_hosts=fake_hosts, stay=stay)))

    @app.command("doctor")
    def doctor(
        state: StateOption = None,
        output: OutputOption = "table",
    ) -> None:
        """What this machine can do, and what to install. Example: `bessemer doctor`"""
        raise typer.Exit(verbs.doctor(DoctorOptions(state=state, output=output)))


def _disks(app: typer.Typer, verbs: Verbs) -> None:
    @app.command("disks")
    def disks(
        state: StateOption = None,
        *,
        retry: Annotated[str, typer.Option(help="Wipe this disk once more.", show_default=False)] = "",
        release: Annotated[
            str, typer.Option(help="Give this disk away AS IT IS: its next tenant may read it.", show_default=False)
        ] = "",
        output: OutputOption = "table",
    ) -> None:
        """Disks of this host that guests have, or that are being wiped after one. Example: `bessemer disks`"""
        raise typer.Exit(verbs.disks(DisksOptions(state=state, retry=retry, release=release, output=output)))


def _parts(app: typer.Typer, verbs: Verbs) -> None:
    @app.command("server")
    def server(
        state: StateOption = None,
        parts: Annotated[str, typer.Option(help="Any of api, controller, portal, gateway.")] = "api,controller,portal",
        *,
        store: StoreOption = None,
    ) -> None:
        """Run some parts in this process. Example: `bessemer server --parts gateway`"""
        chosen = tuple(part.strip() for part in parts.split(",") if part.strip())
        raise typer.Exit(verbs.server(ServerOptions(state=state, parts=chosen, store=store)))

    @app.command("agent")
    def agent(
        state: StateOption = None,
        fake: Annotated[bool, typer.Option("--fake", help="The agents of all fake hosts.", hidden=True)] = False,
        *,
        server: Annotated[str, typer.Option(help="URL of the api to join.", show_default=False)] = "",
        ca: Annotated[Path | None, typer.Option(help="Certificate of its authority.", show_default=False)] = None,
        name: Annotated[str, typer.Option(help="This host's name there.", show_default=False)] = "",
        token: Annotated[str, typer.Option(help="One-time join token.", show_default=False)] = "",
        door_host: Annotated[
            str, typer.Option(help="Where a gateway on another machine reaches this one.", show_default=False)
        ] = "",
    ) -> None:
        """Run the agent of this machine. Example: `bessemer agent --server https://api:7443 --ca ca.crt --token …`"""
        options = AgentOptions(
            state=state, fake=fake, server=server, ca=ca, name=name, token=token, door_host=door_host
        )
        raise typer.Exit(verbs.agent(options))
