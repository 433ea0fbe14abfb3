"""Signing in and out: by a password, by a provider outside, and for kubectl.

A sign-in by a provider is kept for this user and server (`logins`), and counts for every command from then on. A token
of a password is printed, and kept nowhere.
"""

from __future__ import annotations

import getpass
import sys
import webbrowser
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bessemer.cli.connection import Target, run, run_at, target
from bessemer.core.errors import BessemerError, Invalid, Malformed, Unauthenticated

if TYPE_CHECKING:
    from bessemer.cli.logins import Login, Logins
    from bessemer.client import Client, Offer

EXEC_INFO = "KUBERNETES_EXEC_INFO"
EXEC_VERSION = "client.authentication.k8s.io/v1"

ProviderOption = Annotated[str, typer.Option("--provider", help="By which provider; needed where there are several.")]


def add(app: typer.Typer) -> None:
    """Put the commands into the tree."""
    app.command("login")(login)
    app.command("logout")(logout)
    app.command("kubeconfig")(kubeconfig)
    app.command("kube-credential", hidden=True)(kube_credential)


def login(
    context: typer.Context,
    user: Annotated[
        str, typer.Argument(help="A local user; nobody where a provider vouches.", show_default=False)
    ] = "",
    *,
    provider: ProviderOption = "",
    device: Annotated[bool, typer.Option("--device", help="By a code that is typed on another device.")] = False,
    browser: Annotated[bool, typer.Option(help="Open a browser here; else only its address is printed.")] = True,
) -> None:
    """Sign in by a provider, or print the token of a local user. Examples: `bessemer login`,
    `export BESSEMER_TOKEN=$(bessemer login ada)`"""
    from bessemer.cli.logins import Logins

    if user and (provider or device):
        raise Invalid("a user has a password, a provider asks by itself: give one of the two")
    if user:
        password = getpass.getpass("Password: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
        typer.echo(run_at(_anew(context), lambda client: client.account.login(user, password)).token)
        return
    how = "device" if device else "browser" if browser else "address"
    server = _url(context)
    into = Logins.of(server, folder=target(context).logins)
    kept = run_at(_anew(context), lambda client: _signed_on(client, into, server=server, provider=provider, how=how))
    me = run(context, lambda client: client.account.whoami())
    typer.echo(f"signed in as {me.name} by {kept.provider}")


def logout(context: typer.Context) -> None:
    """Sign out everywhere. Example: `bessemer logout`"""
    from bessemer.cli.logins import Logins

    logins = Logins.of(_url(context), folder=target(context).logins)
    kept = logins.read() if not target(context).token else None
    if kept is None and not target(context).token:
        raise Invalid("nobody is signed in here: a certificate needs no sign-in, and has no sign-out")
    url = ""
    try:
        url = run(context, lambda client: client.account.logout())
        if kept is not None:
            run(context, lambda _client: _revoked(logins))
    except BessemerError as error:
        typer.echo(f"the other side did not hear of it: {error.message}", err=True)
    if kept is not None:
        logins.forget()
    typer.echo("signed out")
    if url:
        typer.echo(f"A browser that is signed in at the issuer goes on there; it is signed out at {url}", err=True)


def kubeconfig(
    context: typer.Context,
    *,
    oidc: Annotated[bool, typer.Option("--oidc", help="kubectl signs in by a provider, through this program.")] = False,
    provider: ProviderOption = "",
    command: Annotated[str, typer.Option(help="This program, as kubectl finds it.")] = "bessemer",
) -> None:
    """Print a kubeconfig for people. Example: `bessemer kubeconfig --oidc > ~/.kube/bessemer`"""
    import base64

    import yaml

    from bessemer.client import read_kubeconfig

    if not oidc:
        raise Invalid("say how one signs in with it: --oidc")
    server = read_kubeconfig(target(context).kubeconfig)
    offer = run_at(_anew(context), lambda client: _offer(client, provider))
    cluster: dict[str, Any] = {"server": server.url}
    if server.ca:
        cluster["certificate-authority-data"] = base64.b64encode(server.ca).decode()
    plugin = {
        "apiVersion": EXEC_VERSION,
        "command": command,
        "args": ["kube-credential", "--provider", offer.name],
        "interactiveMode": "IfAvailable",
        "provideClusterInfo": True,
        "installHint": "bessemer signs in for kubectl: pip install bessemer",
    }
    namespace = {"namespace": server.namespace} if server.namespace else {}
    made = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "bessemer", "cluster": cluster}],
        "users": [{"name": offer.name, "user": {"exec": plugin}}],
        "contexts": [{"name": "bessemer", "context": {"cluster": "bessemer", "user": offer.name, **namespace}}],
        "current-context": "bessemer",
    }
    typer.echo(yaml.safe_dump(made, sort_keys=False), nl=False)


def kube_credential(
    context: typer.Context,
    *,
    provider: ProviderOption = "",
    info: Annotated[str, typer.Option(envvar=EXEC_INFO, hidden=True, help="What kubectl says.")] = "",
) -> None:
    """What kubectl runs: prints who signed in to the server that kubectl names. Example:
    `bessemer kube-credential --provider corp`"""
    import asyncio

    import orjson

    from bessemer.cli.logins import Logins
    from bessemer.core.clock import rfc3339

    spec = _exec_spec(info)
    logins = Logins.of(spec["cluster"]["server"], folder=target(context).logins)
    kept = asyncio.run(_credential(spec, logins, provider=provider))
    status = {"token": kept.id_token, "expirationTimestamp": rfc3339(kept.expires)}
    made = {"apiVersion": EXEC_VERSION, "kind": "ExecCredential", "status": status}
    typer.echo(orjson.dumps(made).decode())


# --- parts ------------------------------------------------------------------------------------------------------


def _anew(context: typer.Context) -> Target:
    """The same server, for somebody who has not signed in yet."""
    return replace(target(context), anew=True)


def _url(context: typer.Context) -> str:
    from bessemer.client import read_kubeconfig

    return read_kubeconfig(target(context).kubeconfig).url


async def _offer(client: Client, name: str) -> Offer:
    from bessemer.cli.signon import chosen

    return chosen(await client.account.providers(), name)


async def _signed_on(client: Client, into: Logins, *, server: str, provider: str, how: str) -> Login:
    """Sign in by a provider, and keep it. ``how`` is device, browser, or address: of a browser that somebody opens."""
    from bessemer.cli.signon import by_browser, by_device

    offer = await _offer(client, provider)

    def show(url: str) -> None:
        typer.echo(f"Open this to sign in: {url}", err=True)
        if how == "browser":
            webbrowser.open(url)

    if how == "device":
        kept = await by_device(offer, server=server, show=lambda text: typer.echo(text, err=True))
    else:
        kept = await by_browser(offer, server=server, show=show)
    into.write(kept)
    return kept


async def _revoked(logins: Logins) -> None:
    from bessemer.cli.signon import revoked

    kept = logins.read()
    if kept is not None:
        await revoked(kept)


def _exec_spec(info: str) -> dict[str, Any]:
    """What kubectl says: ``{"interactive", "cluster"}``. Raises Malformed where it is not kubectl that asks."""
    import orjson

    try:
        said = orjson.loads(info)
        spec = said["spec"]
        server = spec["cluster"]["server"]
    except (KeyError, TypeError, ValueError) as error:
        words = f"kubectl runs this, and says which server in {EXEC_INFO} (provideClusterInfo: true)"
        raise Malformed(words) from error
    if said.get("apiVersion") != EXEC_VERSION or not isinstance(server, str):
        raise Malformed(f"only {EXEC_VERSION} is spoken")
    return dict(spec)


async def _credential(spec: dict[str, Any], logins: Logins, *, provider: str) -> Login:
    """Whoever is signed in, or signs in now where somebody sits there."""
    from bessemer.cli.signon import fresh

    try:
        return await fresh(logins)
    except Unauthenticated:
        if not spec.get("interactive") or not sys.stdin.isatty():
            raise
    cluster = spec["cluster"]
    async with _of_cluster(cluster) as client:
        return await _signed_on(client, logins, server=cluster["server"], provider=provider, how="device")


@asynccontextmanager
async def _of_cluster(cluster: dict[str, Any]) -> AsyncIterator[Client]:
    """A client of the server that kubectl names."""
    import base64

    from bessemer.client import Client, HttpTransport, plurals, tls_context

    ca = cluster.get("certificate-authority-data")
    tls = tls_context(base64.b64decode(ca) if ca else None, None)
    client = Client(HttpTransport(cluster["server"], tls=tls, token=""), plurals=plurals())
    try:
        yield client
    finally:
        await client.close()
