"""Which server a command speaks to, as whom, and about which kind and project."""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from bessemer.core.errors import Cause, Invalid

if TYPE_CHECKING:
    from bessemer.cli.manifests import Manifest
    from bessemer.client import Client
    from bessemer.core.resource import Key, Kind

T = TypeVar("T")

StateOption = Annotated[
    Path | None,
    typer.Option("--state", envvar="BESSEMER_STATE", help="State directory (default ~/.bessemer).", show_default=False),
]
ProjectOption = Annotated[
    str,
    typer.Option("--project", "-n", envvar="BESSEMER_PROJECT", help="Project, as TENANT--PROJECT.", show_default=False),
]


@dataclass(frozen=True, slots=True)
class Target:
    """What the global options say."""

    kubeconfig: Path
    token: str
    state: Path | None = None
    """The directory of the installation, where that says which server."""
    logins: Path | None = None
    """Where sign-ins by a provider are kept, where that is not the usual place."""
    anew: bool = False
    """Whether a sign-in that is kept does not count, as for somebody who signs in."""

    def away(self, url: str) -> str:
        """What to say where nobody answers at ``url``."""
        if self.state is None:
            return f"{url} cannot be reached ({self.kubeconfig} names it); is it up?"
        return f"{url} cannot be reached; is it up? `bessemer up --state {shlex.quote(str(self.state))}` starts it"


def target(context: typer.Context) -> Target:
    """The target that the root command put into the context."""
    found = context.find_object(Target)
    if found is None:  # pragma: no cover - the root command always sets it
        raise Invalid("no server is chosen")
    return found


@asynccontextmanager
async def connected(chosen: Target) -> AsyncIterator[Client]:
    """A client of the chosen server. Raises Invalid where no server is known, or none answers."""
    from bessemer.client import Unreachable, from_kubeconfig

    if not chosen.kubeconfig.exists():
        raise Invalid(
            f"no server is known: {chosen.kubeconfig} does not exist; run `bessemer up`, or give --kubeconfig"
        )
    token = chosen.token or await _kept(chosen)
    client = from_kubeconfig(chosen.kubeconfig, token=token)
    try:
        yield client
    except Unreachable as error:
        raise Invalid(chosen.away(error.url)) from error
    finally:
        await client.close()


async def _kept(chosen: Target) -> str:
    """The bearer of whoever signed in to this server by a provider, or ""; it stands in for the kubeconfig's."""
    from bessemer.cli.logins import Logins
    from bessemer.client import read_kubeconfig

    logins = Logins.of(read_kubeconfig(chosen.kubeconfig).url, folder=chosen.logins)
    if chosen.anew or not logins.path.exists():
        return ""
    from bessemer.cli.signon import fresh

    return (await fresh(logins)).id_token


def run(context: typer.Context, work: Callable[[Client], Awaitable[T]]) -> T:
    """Run one async command against the chosen server."""
    return run_at(target(context), work)


def run_at(chosen: Target, work: Callable[[Client], Awaitable[T]]) -> T:
    """Run one async command against a server."""

    import asyncio

    async def go() -> T:
        async with connected(chosen) as client:
            return await work(client)

    return asyncio.run(go())


def find_kind(word: str) -> Kind[Any, Any]:
    """The kind by plural, singular, short name or Kind. Raises Invalid with what there is."""
    from bessemer.kinds import KINDS

    wanted = word.lower()
    for kind in KINDS:
        if wanted in (kind.plural, kind.singular, *kind.short_names):
            return kind
    raise Invalid(f"no kind is called {word!r}; there are: {', '.join(sorted(k.plural for k in KINDS))}")


def key_of(kind: Kind[Any, Any], name: str, *, project: str) -> Key:
    """The key of one object. Raises Invalid where the kind lives in a project and none is given."""
    from bessemer.core.resource import Key

    if kind.namespaced and not project:
        raise Invalid(f"{kind.plural} live in a project: give one with -n TENANT--PROJECT (`bessemer get projects`)")
    return Key(kind.name, project if kind.namespaced else "", name)


def require_within(context: typer.Context, found: Iterable[Manifest], *, project: str) -> None:
    """Raises Invalid where ``-n`` was said, and an object of a file is of another project: which of the two is meant
    nobody knows. A project from the environment is for objects that do not say theirs."""
    source = context.get_parameter_source("project")
    if not project or source is None or source.name != "COMMANDLINE":
        return
    causes = [
        Cause(one.at("metadata.namespace"), f"it is of {said}, and -n says {project}")
        for one in found
        if (said := one.body["metadata"].get("namespace") or project) != project and _in_projects(one.body["kind"])
    ]
    if causes:
        raise Invalid(f"what is of another project than {project} is meant by -n, or leave -n out", causes)


def _in_projects(kind: str) -> bool:
    """Whether objects of a kind are; nothing is said of one that there is not."""
    try:
        return find_kind(kind).namespaced
    except Invalid:
        return False


def split(words: list[str]) -> tuple[Kind[Any, Any], list[str]]:
    """``["vm/a"]``, ``["instance", "a", "b"]`` or ``["instances"]`` → kind and names."""
    first, slash, name = words[0].partition("/")
    kind = find_kind(first)
    return kind, [name, *words[1:]] if slash else words[1:]


def split_kinds(words: list[str]) -> tuple[list[Kind[Any, Any]], list[str]]:
    """``["jobs,instances", "a"]`` → kinds, each once, and names, which are meant of each."""
    if "," not in words[0]:
        kind, names = split(words)
        return [kind], names
    if "/" in words[0]:
        raise Invalid("of several kinds write `KIND,KIND NAME`, or leave the names out")
    found = {kind.name: kind for kind in map(find_kind, filter(None, words[0].split(",")))}
    if not found:
        raise Invalid("say which kinds: `KIND,KIND`")
    return list(found.values()), words[1:]


def keys_of(words: list[str], *, project: str, verb: str) -> tuple[Kind[Any, Any], list[Key]]:
    """Kind and keys of what a command is about. Raises Invalid where nothing is named."""
    kind, names = split(words)
    if not all(names) or not names:
        raise Invalid(f"say which: `bessemer {verb} KIND NAME`")
    return kind, [key_of(kind, name, project=project) for name in names]
